"""Side files: states too large for the journal, each in a checksummed file of its own.

The journal's record holds a reference, the plain-encoded tuple (file name, data length, buffer lengths, CRC-32C). The file is
32 bytes of header (magic `RSMSIDE1`, u64 total length, u32 CRC, 12 zero bytes), the encoded state, then its
buffers, one behind the other. Buffers are written from where they are: there is no second copy in memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from resumable._fastlog import crc32c, decode_plain, encode_plain
from resumable.errors import DamagedLogError, SyncFailedError
from resumable.storage.platform import fsync_directory, wrap_os_error

# States from here on go to side files.
THRESHOLD = 256 << 10
_HEADER = struct.Struct("<8sQI12x")
_MAGIC = b"RSMSIDE1"
_CHUNK = 8 << 20


def side_name(number: int, what: int | str) -> str:
    """The file of a run's checkpoint (its seq), result ("result.<index>") or return value ("return")."""
    return f"{number}.side.{what}"


def write_side(path: Path, data: bytes, buffers: Sequence[memoryview], *, durable: bool) -> bytes:
    """Write a side file and return the reference to it. With `durable` it is on disk when this returns.

    Raises DiskFullError, ReadOnlyError, StorageError; then no file is left.
    """
    parts = [memoryview(data), *(buffer.cast("B") for buffer in buffers)]
    total = sum(part.nbytes for part in parts)
    temporary = path.with_name(path.name + ".new")
    finished = False
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _HEADER.size + total)
            os.lseek(fd, _HEADER.size, os.SEEK_SET)
            crc = 0
            for part in parts:
                for start in range(0, part.nbytes, _CHUNK):
                    piece = part[start : start + _CHUNK]
                    crc = crc32c(piece, crc)
                    while piece.nbytes:
                        piece = piece[os.write(fd, piece) :]
            os.pwrite(fd, _HEADER.pack(_MAGIC, total, crc), 0)
            if durable:
                os.fdatasync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        finished = True
        if durable:
            fsync_directory(path.parent)
    except OSError as error:
        raise wrap_os_error(error, path, "cannot write the side file of a large state") from error
    finally:
        if not finished:
            with suppress(OSError):     # the error under way is the one that counts
                temporary.unlink()
    return bytes(encode_plain((path.name, len(data), [buffer.nbytes for buffer in buffers], crc)))


def read_side(folder: Path, reference: bytes) -> tuple[bytearray, list[memoryview]]:
    """(encoded state, buffers) of a side file. Raises DamagedLogError when it is missing or not what was written."""
    name, size, lengths, crc = decode_plain(reference)
    path = folder / name
    total = size + sum(lengths)
    try:
        with path.open("rb", buffering=0) as file:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size or _HEADER.unpack(header) != (_MAGIC, total, crc):
                raise _damaged(path, "its header is not the one that was written")
            parts = [bytearray(length) for length in (size, *lengths)]
            found = 0
            for part in parts:
                view, got = memoryview(part), 0
                while got < len(part):
                    count = file.readinto(view[got : got + _CHUNK]) or 0
                    if count == 0:
                        raise _damaged(path, f"it ends {len(part) - got} bytes early")
                    found = crc32c(view[got : got + count], found)
                    got += count
    except DamagedLogError:     # an OSError too
        raise
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    except OSError as error:
        raise wrap_os_error(error, path, "cannot read the side file of a large state") from error
    if found != crc:
        raise _damaged(path, "its bytes fail their checksum")
    return parts[0], [memoryview(part) for part in parts[1:]]


def sync_file(path: Path) -> None:
    """Put a finished file on disk. A file whose sync failed is not trusted again: SyncFailedError ends its use."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # replaced by a newer state before its turn came
    except OSError as error:
        raise wrap_os_error(error, path, "cannot sync the side file of a large state") from error
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise SyncFailedError(
            f"the disk refused to sync {path}: {error.strerror} (its bytes cannot be trusted any more; check the disk and rerun)",
            path=str(path),
            errno=error.errno,
        ) from error
    finally:
        os.close(fd)


def reference_name(reference: bytes) -> str:
    """The file that a reference names."""
    return str(decode_plain(reference)[0])


def _damaged(path: Path, reason: str) -> DamagedLogError:
    return DamagedLogError(
        f"the side file {path} is damaged: {reason} (put it back, or let `python -m resumable repair` write a copy that goes on "
        f"from the last intact checkpoint; `check` shows what is intact)",
        path=str(path),
        reason=reason,
    )
