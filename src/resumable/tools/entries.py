"""The log's entries as they stand, damaged ones included, read by a process of its own.

LMDB trusts the bytes of its file: where a page is damaged or missing, it may end the process that reads it. Also it
opens a log once in a process, and this one may have it open. So another process reads, one entry for each transaction,
and hands over each entry before it touches the next. Where it meets its end, a second one reads from the other side up
to that place.

    a frame: u8 intact, u16 key length, u64 value length, key, value
    the last one has no key; its value says why reading ended, empty for the end of the log
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import lmdb

from resumable._fastlog import crc32c
from resumable.errors import NewerFormatError, StorageError
from resumable.storage.exclusive import exclusively
from resumable.storage.lmdb_census import Census, difference
from resumable.storage.lmdb_log import FORMAT
from resumable.storage.store import FORMAT_KEY

_FRAME = struct.Struct("<?HQ")
_CHECKSUM = struct.Struct("<I")
_SPARE_MAP = 1 << 30
_FORWARD, _BACKWARD = "forward", "backward"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the log; without its value when that fails its checksum."""

    key: bytes
    value: bytes | None


def read_entries(log: Path, troubles: list[str]) -> Iterator[Entry]:
    """Every entry that can be reached, each once; ascending, and then, behind a damaged page, descending.

    What keeps some from being reached is appended to `troubles`. The log's own entry comes only if it is damaged.
    Raises NewerFormatError.
    """
    reached = b""
    seen_format = False
    found: list[str] = []
    for entry in _read(log, _FORWARD, found):
        reached = entry.key
        seen_format |= entry.key == FORMAT_KEY
        if entry.key != FORMAT_KEY or entry.value is None:
            yield entry
        else:
            _check_format(log, entry.value)
    if found:
        for entry in _read(log, _BACKWARD, []):
            if entry.key <= reached:
                break
            if entry.key != FORMAT_KEY:
                yield entry
    elif not seen_format:
        found.append("the entry that names its format is missing")
    troubles += found


def _check_format(log: Path, value: bytes) -> None:
    version = int.from_bytes(value[:4], "little")
    if version != FORMAT:
        raise NewerFormatError(
            f"the log {log} has format {version}, this resumable reads {FORMAT} (install a newer one)",
            path=str(log),
            found=version,
            supported=FORMAT,
        )


def _read(log: Path, direction: str, troubles: list[str]) -> Iterator[Entry]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-m", __name__, str(log), direction]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        reason: str | None = None
        for intact, key, value in _frames(process.stdout):
            if not key:
                reason = value.decode("utf-8", "replace")
                break
            yield Entry(key, value if intact else None)
    if reason is None:
        code = process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = f"a page of it is damaged: reading it ended with {how}"
    if reason:
        troubles.append(reason)


def _frames(stream: IO[bytes]) -> Iterator[tuple[bool, bytes, bytes]]:
    while len(head := stream.read(_FRAME.size)) == _FRAME.size:
        intact, key_size, value_size = _FRAME.unpack(head)
        key, value = stream.read(key_size), stream.read(value_size)
        if len(key) + len(value) == key_size + value_size:
            yield intact, key, value


# ---- in the process that reads


def _serve(log: Path, direction: str) -> None:
    out = sys.stdout.buffer
    reason = ""
    try:
        for key, stored in _walk(log, direction == _BACKWARD):
            value = stored[_CHECKSUM.size :]
            intact = stored[: _CHECKSUM.size] == _CHECKSUM.pack(crc32c(value, crc32c(key)))
            out.write(_FRAME.pack(intact, len(key), len(value)) + key + value)
            out.flush()
        reason = _compared(log) if direction == _FORWARD else ""
    except (lmdb.Error, StorageError) as error:
        reason = str(error)
    out.write(_FRAME.pack(True, 0, len(reason.encode())) + reason.encode())
    out.flush()


def _open(log: Path) -> lmdb.Environment:
    size = (log / "data.mdb").stat().st_size if (log / "data.mdb").exists() else 0
    # Without a lock file nobody can be writing, and LMDB would make one.
    locking = (log / "lock.mdb").exists()
    with exclusively(log):
        return lmdb.open(str(log), map_size=2 * size + _SPARE_MAP, readonly=True, create=False, lock=locking, max_spare_txns=0)


def _compared(log: Path) -> str:
    """How the entries differ from what was committed, all at one moment; empty if they do not."""
    with _open(log) as environment, environment.begin(buffers=True) as transaction:
        census = Census.unpack(bytes(transaction.get(FORMAT_KEY, b""))[_CHECKSUM.size :])
        if census is None or census.format != FORMAT:
            return ""       # told by whoever reads that entry
        return difference(census, transaction) or ""


def _walk(log: Path, backward: bool) -> Iterator[tuple[bytes, bytes]]:
    with _open(log) as environment:
        key = b""
        while True:
            with environment.begin() as transaction, transaction.cursor() as cursor:
                if not _seek(cursor, key, backward):
                    return
                earlier, key, stored = key, cursor.key(), cursor.value()
            if earlier and (key >= earlier if backward else key <= earlier):
                raise lmdb.CorruptedError("its keys are in no order")     # a damaged page may lead in a circle
            yield key, stored


def _seek(cursor: lmdb.Cursor, after: bytes, backward: bool) -> bool:
    if not backward:
        return bool(cursor.set_range(after + b"\0")) if after else bool(cursor.first())
    if after and cursor.set_range(after):
        return bool(cursor.prev())
    return bool(cursor.last())


if __name__ == "__main__":
    # Who has read enough closes the pipe.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _serve(Path(sys.argv[1]), sys.argv[2])
