"""Whose the files inside a state directory are: what others own or can write is not read, as it may hold a pickle of theirs."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from resumable.errors import UnsafeDirectoryError
from resumable.storage.platform import wrap_os_error


def check_folder(folder: Path) -> None:
    """See that a folder and the files in it are this user's and that nobody else can write them; a missing one is no matter.

    Raises UnsafeDirectoryError, StorageError.
    """
    check(folder)
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise wrap_os_error(error, folder, "cannot list a folder") from error
    for name in names:
        check(folder / name)


def check(path: Path) -> None:
    """See that a file is this user's and that nobody else can write it. Raises UnsafeDirectoryError."""
    user = os.geteuid()
    with suppress(FileNotFoundError):       # another process removes what is settled
        link, target = os.lstat(path), os.stat(path)
        mode = stat.S_IMODE(target.st_mode)
        if target.st_uid != user or link.st_uid not in (user, 0):
            owner = target.st_uid if target.st_uid != user else link.st_uid
            reason = f"it belongs to user {owner}, not to user {user} (chown it, if you trust what is in it)"
        elif mode & (stat.S_IWGRP | stat.S_IWOTH):
            owner = user
            reason = f"others can write it, mode {mode:04o} (chmod go-w {path}, if you trust what is in it)"
        else:
            return
        raise UnsafeDirectoryError(f"{path} is not safe to read: {reason}", path=str(path), owner=owner, mode=mode)
