"""What an LMDB error means: LMDB gives a text, and not always the right one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import lmdb

from resumable.errors import DamagedLogError, DiskFullError, SharedPidError, StorageError
from resumable.storage.platform import wrap_os_error

# LMDB words a full disk as EIO; less room than this counts as none.
_HARDLY_ANY_ROOM = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT)

_DAMAGED = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)


def explain(error: lmdb.Error, path: Path, what: str, room: int) -> StorageError:
    """The error of this package for an LMDB error met while doing `what`, which needed `room` bytes on the disk."""
    code = _errno_of(error)
    if isinstance(error, _DAMAGED):
        return DamagedLogError(
            f"the log {path} is damaged: {error} (`python -m resumable repair` saves what is intact)",
            path=path,
            reason=str(error),
        )
    if code == errno.EAGAIN:
        return SharedPidError(
            f"{what}: {path} is open in another container whose process has the pid {os.getpid()} too "
            f"(give each container a directory of its own, or let them share one pid namespace)",
            path=path,
        )
    if isinstance(error, lmdb.MapFullError):
        return DiskFullError(
            f"{what}: {path} fills the address space it was given (raise the limit, ulimit -v, or clear old runs)",
            path=path,
            errno=errno.ENOSPC,
        )
    if code == errno.EIO and _is_full(path, room):
        code = errno.ENOSPC
    if code in (*_FULL, errno.EROFS, errno.EACCES, errno.EPERM):
        return wrap_os_error(OSError(code, os.strerror(code)), path, what)
    return StorageError(f"{what}: {path}: {error}", path=path, errno=code)


def _errno_of(error: lmdb.Error) -> int | None:
    """The errno behind an LMDB error, which carries its text alone."""
    return next((code for code in errno.errorcode if str(error).endswith(f": {os.strerror(code)}")), None)


def _is_full(path: Path, room: int) -> bool:
    """Whether so many bytes more find no room: found out with a file that has no name, as ext4 keeps some for itself of
    what statvfs calls free."""
    try:
        fd = os.open(path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return error.errno in _FULL or _hardly_any_room(path, room)
    try:
        os.posix_fallocate(fd, 0, room + _HARDLY_ANY_ROOM)
    except OSError as error:
        return error.errno in _FULL or _hardly_any_room(path, room)
    finally:
        os.close(fd)
    return False


def _hardly_any_room(path: Path, room: int) -> bool:
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    return blocks * found.f_frsize < room + _HARDLY_ANY_ROOM
