"""Files that states describe as written, and that the disk may not have yet.

A state that is durable and says "60 lines are written" is of no use after a power cut that took ten of them: the file would
be shorter than its checkpoint. So before a state goes to the log, or to the disk, these files do. kill -9 needs none of it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

from resumable.errors import SyncFailedError

_unsynced: set[str] = set()
_entered: dict[str, tuple[int, int]] = {}  # whose directory entry the disk has, and for which file
# Files and directories whose sync failed: a later one would succeed, and mean nothing. They are held open, so that no others get
# their numbers.
_lost: dict[tuple[int, int], int] = {}
_turn = threading.Lock()


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


def noting(path: str) -> Callable[[], object]:
    """`written` of this path, for who writes often: calling it runs nothing of Python's."""
    return partial(_unsynced.add, path)


def sync() -> None:
    """Return when the disk has all files noted so far, as they are now. Raises SyncFailedError, and for that file for good."""
    with _turn:  # a file that another thread has in hand is not on disk yet
        while _unsynced:
            path = _unsynced.pop()
            try:
                _sync_file(path)
            except FileNotFoundError:
                pass  # removed since: resuming will say so
            except OSError as error:
                _unsynced.add(path)
                raise SyncFailedError(
                    f"the disk refused to sync {path}, which a state describes: {error.strerror} (what was written to it cannot "
                    f"be trusted any more; check the disk and rerun, in a new process)", path=path, errno=error.errno,
                ) from error
            except BaseException:  # Ctrl-C
                _unsynced.add(path)
                raise


def _sync_file(path: str) -> None:
    file = _sync(path, os.fdatasync)
    if _entered.get(path) != file:
        _sync(os.path.dirname(path), os.fsync)
        _entered[path] = file


def _sync(path: str, how: Callable[[int], None]) -> tuple[int, int]:
    """Device and inode of what was synced."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    file = found.st_dev, found.st_ino
    try:
        if file in _lost:
            raise OSError(errno.EIO, "an earlier sync of it failed")
        try:
            how(descriptor)
        except OSError:
            _lost[file] = descriptor
            raise
        return file
    finally:
        if _lost.get(file) != descriptor:
            os.close(descriptor)


def _after_fork_in_child() -> None:
    global _turn
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
