"""The file of a run's keys: `<number>.keys`, one for each run of a loop with `key=`. Its format is in docs/internals.md.

The run's mark says how many keys count. Each is in the file before that mark is published, and on disk before the log has
it; what stands behind them is written over by the next life.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from resumable._fastlog import Keys, lost_key, lost_keys
from resumable.errors import DamagedLogError, StorageError, SyncFailedError
from resumable.storage.platform import can_map, create_file, grow_file, pwrite_all, wrap_os_error

HEADER = 64
ENTRY = 16
SMALLEST = 64 << 10
_BY_MAP, _BY_PWRITE = 1, 2
_PIECE = 1 << 20


class KeptKeys(NamedTuple):
    """Entries of a key file that somebody else has kept, too, from place `first` on.

    `lossy`: what is lost of those before is no damage, its items are done again.
    """

    first: int
    entries: bytes
    lossy: bool = False


def keys_name(number: int) -> str:
    """The name of a run's key file."""
    return f"{number}.keys"


def new_keys(path: Path, salt: bytes) -> Keys:
    """A file without keys, in place of what is there. Raises StorageError."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        keys = _taken(path, create_file(path.parent, path.name, SMALLEST), salt)
        keys.format()
        return keys
    except StorageError:
        raise
    except OSError as error:
        raise wrap_os_error(error, path, "cannot make the key file") from error


def open_keys(path: Path, salt: bytes, done: int, kept: KeptKeys | None = None) -> Keys:
    """The file with `done` keys of earlier lives, `kept` among them. Raises DamagedLogError, StorageError."""
    try:
        keys = _opened(path, salt, kept)
        if kept is not None:
            _put_back(path, keys, salt, done, kept)
        keys.load(done)
        return keys
    except FileNotFoundError:
        raise _damaged(path, done, "it is gone") from None
    except ValueError as error:
        raise _damaged(path, done, str(error)) from error
    except StorageError:
        raise
    except OSError as error:
        raise wrap_os_error(error, path, "cannot open the key file") from error


def _opened(path: Path, salt: bytes, kept: KeptKeys | None) -> Keys:
    spared = kept is not None and (kept.lossy or not kept.first)    # it need not be there
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        if not spared:
            raise
        return new_keys(path, salt)
    if os.fstat(fd).st_size < HEADER + ENTRY:
        os.close(fd)
        if not spared:
            raise ValueError("it is too short for a key")
        return new_keys(path, salt)
    return _taken(path, fd, salt)


def _put_back(path: Path, keys: Keys, salt: bytes, done: int, kept: KeptKeys) -> None:
    """Write what is kept to its places, and where a key before it is lost, that it is, if that is no damage."""
    if kept.lossy or not kept.first:
        keys.format()
    keys.put_back(kept.first, kept.entries)
    if kept.lossy:
        for place in lost_keys(path.read_bytes(), salt, done):
            keys.put_back(place, lost_key(salt, place))


def _damaged(path: Path, done: int, reason: str) -> DamagedLogError:
    return DamagedLogError(
        f"the key file {path} is damaged: {reason}; without it nobody can tell which {done} items are done (nothing was changed: "
        f"`python -m resumable repair` writes a copy in which the items of lost keys are done again)",
        path=str(path), run=int(path.name.partition(".")[0]), reason=f"key file: {reason}",
    )


def _taken(path: Path, fd: int, salt: bytes) -> Keys:
    """The keys in an open file; the descriptor is theirs from here on, or closed."""
    kept = False
    try:
        mode = _BY_MAP if can_map(fd) else _BY_PWRITE
        size = os.fstat(fd).st_size
        grow_file(fd, path, size)       # a copy may have holes, and a store into one would meet a full disk
        kept = True
        return Keys(fd, size, salt, lambda more: grow_file(fd, path, more), mode)
    finally:
        if not kept:
            os.close(fd)


def sync_keys(path: Path) -> bool:
    """Put the keys that are in the file on disk; False when there is none.

    After a sync that failed the kernel would say yes to pages that it has dropped: such a file is marked by its mode, 0400, for
    the rest of this life, and `mend_keys` in the next. Raises SyncFailedError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False        # none is done yet; if one is, whoever asks for it finds out
    except OSError as error:
        raise wrap_os_error(error, path, "cannot sync the key file") from error
    try:
        if not os.fstat(fd).st_mode & stat.S_IWUSR:
            raise OSError(errno.EIO, "an earlier sync of it failed")
        os.fdatasync(fd)
        return True
    except OSError as error:
        with suppress(OSError):     # the error under way is the one that counts
            os.fchmod(fd, stat.S_IRUSR)
        raise SyncFailedError(
            f"the disk refused to sync {path}: {error.strerror} (the keys in it cannot be trusted any more; check the disk and "
            f"rerun)", path=str(path), errno=error.errno,
        ) from error
    finally:
        os.close(fd)


def mend_keys(path: Path) -> None:
    """Take what is left of a file whose sync failed into a new one; what the kernel lost fails its checksum there.

    Raises StorageError.
    """
    copy = path.with_name(path.name + ".new")
    try:
        found = os.stat(path)
        if found.st_mode & stat.S_IWUSR:
            return
        with suppress(FileNotFoundError):
            os.unlink(copy)
        fd = create_file(path.parent, copy.name, found.st_size)
        try:
            with open(path, "rb", buffering=0) as source:
                at = 0
                while piece := source.read(_PIECE):
                    pwrite_all(fd, piece, at)
                    at += len(piece)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(copy, path)
    except FileNotFoundError:
        return
    except StorageError:
        raise
    except OSError as error:
        raise wrap_os_error(error, path, "cannot copy a key file whose sync failed") from error
