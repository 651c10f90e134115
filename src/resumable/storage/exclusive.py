"""One process at a time in a folder, for as long as something takes that must not be met half done."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resumable.errors import StorageError
from resumable.storage.platform import wrap_os_error


@contextmanager
def exclusively(folder: Path) -> Iterator[None]:
    """Wait until nobody else is in here with this folder; for one that dies the kernel leaves. Raises StorageError."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise wrap_os_error(error, folder, "cannot open the directory") from error
    try:
        flock(fd, fcntl.LOCK_EX, folder)
        yield
        flock(fd, fcntl.LOCK_UN, folder)
    except BaseException:
        with suppress(StorageError):        # the error under way is the one that counts
            flock(fd, fcntl.LOCK_UN, folder)        # by name: a forked child may have the descriptor too
        raise
    finally:
        os.close(fd)


def flock(fd: int, how: int, path: Path) -> None:
    """Raises BlockingIOError, StorageError."""
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        raise
    except OSError as error:
        raise wrap_os_error(error, path, "cannot lock or unlock") from error
