"""The writes that a disk was given, in order, with its flushes; and disks as they may be when the power goes between two of them.

What was written before a flush is there; of what came later any sectors may be, and a sector is whole or not there at all.
The log is qemu's `blklogwrites`. Events of the guest stand in it as writes to a place behind the file system.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from power_jobs import EVENT, NAMES
from power_machine import FILES, Event

SECTOR = 512
_MAGIC = 0x6A736677736872
_ENTRY = struct.Struct("<QQQQ")  # first sector, number of sectors, flags, bytes of data that are no sectors
_FLUSH, _DISCARD = 1, 4
# ext4's superblock, which stands in the first block, and its journal's, which begins like this.
_FIRST_BLOCK, _JOURNAL_SUPERBLOCK = 4096, bytes.fromhex("c03b399800000004")


@dataclass(frozen=True)
class Write:
    """Bytes that were written; `flush`: what stands before it is on the disk for good."""

    offset: int
    data: bytes
    flush: bool

    @property
    def whole(self) -> bool:
        """Whether ext4 itself trusts the disk not to tear this: two sectors under one checksum, of which it has no other copy."""
        return self.offset < _FIRST_BLOCK or self.data.startswith(_JOURNAL_SUPERBLOCK)

    @property
    def event(self) -> Event | None:
        """What the guest told with it."""
        if self.offset != FILES or not self.data:
            return None
        what, kind, life, value, when = EVENT.unpack_from(self.data)
        return what, NAMES[kind], life, value, when / 1e6


def read_log(path: Path) -> Iterator[Write]:
    """The writes of a log, up to the last whole one."""
    with open(path, "rb") as log:
        magic, _, _, size = struct.unpack("<QQQI", log.read(28))
        if (magic, size) != (_MAGIC, SECTOR):
            raise ValueError(f"{path} is no log of writes: magic {magic:x}, sectors of {size}")
        log.seek(SECTOR)
        while len(head := log.read(SECTOR)) == SECTOR:
            first, count, flags, _ = _ENTRY.unpack_from(head)
            if not count and not flags:
                return
            data = b"" if flags & _DISCARD else log.read(count * SECTOR)
            yield Write(first * SECTOR, data, bool(flags & _FLUSH))


def spans(writes: list[Write]) -> list[tuple[int, int]]:
    """For each flush: where it stands, and where the next one does."""
    flushes = [at for at, write in enumerate(writes) if write.flush]
    return list(zip(flushes, [*flushes[1:], len(writes)], strict=True))


def apply(disk: Path, writes: list[Write]) -> None:
    """Write all of these."""
    with open(disk, "r+b") as file:
        for write in writes:
            file.seek(write.offset)
            file.write(write.data)


def apply_some(disk: Path, writes: list[Write], chance: random.Random) -> None:
    """Write some of these: whole, not at all, or a few of their sectors."""
    with open(disk, "r+b") as file:
        kept = chance.random()
        for write in writes:
            torn = chance.random() < 0.3 and not write.whole
            whole = chance.random() < kept
            for at in range(0, len(write.data), SECTOR):
                if chance.random() < 0.5 if torn else whole:
                    file.seek(write.offset + at)
                    file.write(write.data[at : at + SECTOR])
