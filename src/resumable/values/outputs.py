"""Files that states describe as written, and that the disk may not have yet.

A state that is durable and says "60 lines are written" is of no use after a power cut that took ten of them: the file would
be shorter than its checkpoint. So before a state goes to the log, or to the disk, these files do. kill -9 needs none of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from resumable.errors import SyncFailedError

_unsynced: set[str] = set()
_entered: set[str] = set()  # whose directory entry the disk has


_cut: ContextVar[bool] = ContextVar("whether a written file may be cut to its checkpoint", default=True)


@contextmanager
def left_alone() -> Iterator[None]:
    """Inside, no file is cut: a finished run's value is given back, and what came after it is not that run's to undo."""
    token = _cut.set(False)
    try:
        yield
    finally:
        _cut.reset(token)


def may_cut() -> bool:
    """Whether what stands in a file behind its checkpoint came from the run that goes on, and is to go."""
    return _cut.get()


def written(path: str) -> None:
    """Note that a state describes this file, by its absolute path, as it has been written so far."""
    _unsynced.add(path)


def sync() -> None:
    """Return when the disk has all files noted so far, as they are now. Raises SyncFailedError."""
    while _unsynced:
        path = _unsynced.pop()
        try:
            _sync(path, os.fdatasync)
            if path not in _entered:
                _sync(os.path.dirname(path), os.fsync)
                _entered.add(path)
        except FileNotFoundError:
            pass  # removed since: resuming will say so
        except OSError as error:
            _unsynced.add(path)
            raise SyncFailedError(
                f"the disk refused to sync {path}, which a state describes: {error.strerror} (what was written to it cannot be "
                f"trusted any more; check the disk and rerun)", path=path, errno=error.errno,
            ) from error


def _sync(path: str, how: Callable[[int], None]) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        how(descriptor)
    finally:
        os.close(descriptor)
