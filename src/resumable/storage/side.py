"""Side files: states too large for the journal, each in a checksummed file of its own.

A file is 32 bytes of header, the encoded state, its buffers one behind the other, and a table of them:

    header  magic `RSMSIDE1`, u64 length of all that follows, u32 length and u32 CRC-32C of the table, 8 zero bytes
    table   plain-encoded (length of the encoded state, its CRC-32C, [(length, CRC-32C, file, offset) of each buffer])

A buffer whose very bytes stand in the side file of the state before is not written again: the table says in which file
of the run it stands, and the last one that wrote it is named, never one in between. Whether they are the same is seen by
comparing them with the file, not by a digest and not by what a library says about changes; a changed buffer costs a look
at its ends. So a file is needed as long as any state's table names it (side_window.py). What one process writes refers
to files of that process alone: what an earlier one left may not have reached the disk.

The journal's record holds a reference, the plain-encoded tuple (file name, bytes of the state in all, CRC-32C of the
table, names of the other files). Buffers are written from where they are: there is no second copy in memory.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from resumable._fastlog import crc32c, decode_plain, encode_plain
from resumable.errors import DamagedLogError, SyncFailedError
from resumable.storage.platform import fsync_directory, pwrite_all, wrap_os_error

# States from here on go to side files.
THRESHOLD = 256 << 10
_HEADER = struct.Struct("<8sQII8x")
_MAGIC = b"RSMSIDE1"
_CHUNK = 8 << 20
_COMPARED = 1 << 20  # bytes that are read for one comparison
_END = 4096  # bytes at either end of a buffer that tell most changes
# The files that a state stands in may hold so many times its bytes; else it is written whole, so that they can go.
_MOST_FILES = 3

Probe = tuple[int, int, int]  # length and CRC-32C of either end


class Part(NamedTuple):
    """Where a buffer stands."""

    probe: Probe
    crc: int
    name: str
    offset: int


class Written(NamedTuple):
    """A state in side files: the reference to it, and where its buffers stand."""

    reference: bytes
    parts: tuple[Part, ...]


def side_name(number: int, what: int | str) -> str:
    """The file of a run's checkpoint (its seq), result ("result.<index>") or return value ("return")."""
    return f"{number}.side.{what}"


def write_side(
    path: Path, data: bytes, buffers: Sequence[memoryview], *, durable: bool, earlier: Sequence[Part] = ()
) -> Written:
    """Write a side file, but for buffers that stand among the `earlier` ones. With `durable` it is on disk then.

    Raises DiskFullError, ReadOnlyError, StorageError; then no file is left.
    """
    views = [buffer.cast("B") for buffer in buffers]
    temporary = path.with_name(path.name + ".new")
    finished = False
    try:
        probes = [(view.nbytes, crc32c(view[:_END]), crc32c(view[-_END:])) for view in views]
        found = _unchanged(path.parent, views, probes, earlier)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            written = _write(fd, path.name, data, views, probes, found)
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
    return written


def _write(
    fd: int, name: str, data: bytes, views: list[memoryview], probes: list[Probe], found: list[Part | None]
) -> Written:
    new = sum(view.nbytes for view, part in zip(views, found, strict=True) if part is None)
    at = _HEADER.size + len(data)
    os.posix_fallocate(fd, 0, at + new)
    os.lseek(fd, _HEADER.size, os.SEEK_SET)
    data_crc = _put(fd, memoryview(data))
    parts = []
    for view, probe, part in zip(views, probes, found, strict=True):
        if part is None:
            part = Part(probe, _put(fd, view), name, at)
            at += view.nbytes
        parts.append(part)
    rows = [(part.probe[0], part.crc, part.name, part.offset) for part in parts]
    table = bytes(encode_plain((len(data), data_crc, rows)))
    crc = _put(fd, memoryview(table))
    pwrite_all(fd, _HEADER.pack(_MAGIC, at - _HEADER.size + len(table), len(table), crc), 0)
    size = len(data) + sum(view.nbytes for view in views)
    others = sorted({part.name for part in parts} - {name})
    return Written(bytes(encode_plain((name, size, crc, others))), tuple(parts))


def _put(fd: int, bytes_: memoryview) -> int:
    """Append bytes; gives back their CRC."""
    crc = 0
    for start in range(0, bytes_.nbytes, _CHUNK):
        piece = bytes_[start : start + _CHUNK]
        crc = crc32c(piece, crc)
        while piece.nbytes:
            piece = piece[os.write(fd, piece) :]
    return crc


# ---- what stands there already


def _unchanged(
    folder: Path, views: list[memoryview], probes: list[Probe], earlier: Sequence[Part]
) -> list[Part | None]:
    """For each buffer the earlier one with the very same bytes, or None."""
    found: list[Part | None] = [None] * len(views)
    if not earlier:
        return found
    by_probe = {part.probe: part for part in earlier}
    with _Files(folder) as files:
        for i, (view, probe) in enumerate(zip(views, probes, strict=True)):
            part = earlier[i] if i < len(earlier) and earlier[i].probe == probe else by_probe.get(probe)
            if part is not None and _stands(files, part, view):
                found[i] = part
        needed = {part.name for part in found if part is not None}
        if sum(os.fstat(files.fd(name)).st_size for name in needed) > _MOST_FILES * sum(view.nbytes for view in views):
            return [None] * len(views)
    return found


def _stands(files: _Files, part: Part, view: memoryview) -> bool:
    """Whether the file has these bytes. What cannot be read, or is damaged meanwhile, is not used: it is written anew."""
    scratch = bytearray(min(_COMPARED, view.nbytes))
    try:
        fd = files.fd(part.name)
        for start in range(0, view.nbytes, _COMPARED):
            piece = view[start : start + _COMPARED]
            if piece.nbytes < len(scratch):
                scratch = scratch[: piece.nbytes]
            # A bytearray on the left compares by memcmp; a memoryview would go item by item.
            if os.preadv(fd, [scratch], part.offset + start) != piece.nbytes or scratch != piece:
                return False
    except OSError:
        return False
    return True


class _Files:
    """The side files of a folder, opened as they are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, int] = {}

    def fd(self, name: str) -> int:
        if not _is_inside(name):
            raise _NotWhole(f"{name!r} is out of the run's folder")
        if name not in self._open:
            self._open[name] = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._open[name]

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open.values():
            os.close(fd)


# ---- reading


def read_side(folder: Path, reference: bytes) -> tuple[bytearray, list[memoryview]]:
    """(encoded state, buffers) of a reference. Raises DamagedLogError when a file is missing or not what was written."""
    place = name = reference_names(reference)[0]
    _, _, crc, _ = decode_plain(reference)
    try:
        with _Files(folder) as files:
            size, data_crc, rows = _table(files, name, crc)
            data = _part(files, name, _HEADER.size, size, data_crc)
            buffers = []
            for length, part_crc, place, offset in rows:
                buffers.append(memoryview(_part(files, place, offset, length, part_crc)))
    except FileNotFoundError:
        what = "it is missing"
    except _NotWhole as error:
        what = str(error)
    except OSError as error:
        raise wrap_os_error(error, folder / place, "cannot read the side file of a large state") from error
    else:
        return data, buffers
    raise _damaged(folder / name, what if place == name else f"a part of it stands in {place}: {what}")


class _NotWhole(Exception):
    """A file is not what was written; the text says why."""


def _table(files: _Files, name: str, expected: int | None = None) -> Any:
    """The table of a file, which is the one with the CRC that is expected, if any."""
    header = _part(files, name, 0, _HEADER.size)
    magic, total, length, crc = _HEADER.unpack(header)
    if magic != _MAGIC or not 0 < length <= total or (expected is not None and crc != expected):
        raise _NotWhole("its header is not the one that was written")
    return decode_plain(_part(files, name, _HEADER.size + total - length, length, crc))


def _part(files: _Files, name: str, offset: int, size: int, crc: int | None = None) -> bytearray:
    fd = files.fd(name)
    if offset + size > os.fstat(fd).st_size:       # before so much memory is asked for
        raise _NotWhole(f"it ends {offset + size - os.fstat(fd).st_size} bytes early")
    part = bytearray(size)
    view, got, found = memoryview(part), 0, 0
    while got < size:
        count = os.preadv(fd, [view[got : got + _CHUNK]], offset + got)
        if count == 0:
            raise _NotWhole(f"it ends {size - got} bytes early")
        found = crc32c(view[got : got + count], found)
        got += count
    if crc is not None and found != crc:
        raise _NotWhole("its bytes fail their checksum")
    return part


def other_files(path: Path) -> set[str] | None:
    """The other files that the state in this one needs; None if that cannot be told any more."""
    try:
        with _Files(path.parent) as files:
            _, _, rows = _table(files, path.name)
    except (OSError, _NotWhole):
        return None
    return {name for _, _, name, _ in rows} - {path.name}


def sync_file(path: Path) -> None:
    """Put a finished file on disk.

    A file whose sync failed is never synced again, by no process: the kernel would say yes, and the disk would not have it.
    Such a file cannot be written by its owner, mode 0400; it is copied, if it is still whole, and the copy takes its place.

    Raises SyncFailedError, DamagedLogError when it is not whole, StorageError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # replaced by a newer state before its turn came
    except OSError as error:
        raise wrap_os_error(error, path, "cannot sync the side file of a large state") from error
    try:
        if os.fstat(fd).st_mode & stat.S_IWUSR:
            os.fdatasync(fd)
        else:
            _replace_by_copy(fd, path)
    except DamagedLogError:
        raise
    except OSError as error:
        with suppress(OSError):     # the error under way is the one that counts
            os.fchmod(fd, stat.S_IRUSR)
        raise SyncFailedError(
            f"the disk refused to sync {path}: {error.strerror} (its bytes cannot be trusted any more; check the disk and rerun)",
            path=str(path),
            errno=error.errno,
        ) from error
    finally:
        os.close(fd)


def _replace_by_copy(fd: int, path: Path) -> None:
    copy = path.with_name(path.name + ".new")
    finished = False
    try:
        out = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            at = 0
            while piece := os.pread(fd, _CHUNK, at):
                _put(out, memoryview(piece))
                at += len(piece)
            _check_whole(copy, path.name)
            os.fdatasync(out)
        finally:
            os.close(out)
        os.rename(copy, path)
        finished = True
    finally:
        if not finished:
            with suppress(OSError):     # the error under way is the one that counts
                copy.unlink()


def _check_whole(path: Path, name: str) -> None:
    """What stands in the file, which is a copy of `name`, verifies. Raises DamagedLogError."""
    try:
        with _Files(path.parent) as files:
            size, data_crc, rows = _table(files, path.name)
            _part(files, path.name, _HEADER.size, size, data_crc)
            for length, crc, place, offset in rows:
                if place == name:
                    _part(files, path.name, offset, length, crc)
    except _NotWhole as error:
        raise _damaged(path.with_name(name), f"the disk refused to sync it, and then {error}") from error


def reference_names(reference: bytes) -> list[str]:
    """The files that a reference needs, its own first. Raises DamagedLogError for one that leads out of the run's folder."""
    name, _, _, others = decode_plain(reference)
    names = [name, *others]
    for each in names:
        if not _is_inside(each):
            raise _damaged(Path(name), f"a part of it would stand in {each!r}, out of the run's folder")
    return names


def _is_inside(name: str) -> bool:
    return name == os.path.basename(name) and name not in ("", ".", "..")


def reference_size(reference: bytes) -> int:
    """How many bytes the state has."""
    return int(decode_plain(reference)[1])


def _damaged(path: Path, reason: str) -> DamagedLogError:
    return DamagedLogError(
        f"the side file {path} is damaged: {reason} (put it back, or let `python -m resumable repair` write a copy that goes on "
        f"from the last intact checkpoint; `check` shows what is intact)",
        path=str(path),
        reason=reason,
    )
