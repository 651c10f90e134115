"""The lock of a run: who may write its journal.

The kernel's flock decides, on a file that serves nothing else, so it is free the instant its holder dies. The record in
the file only says who holds it, for messages. POSIX (fcntl) locks are never used: any close of the file drops them.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from resumable import clock
from resumable.errors import RunLockedError, StorageError
from resumable.storage.platform import StrPath, boot_id, pwrite_all, wrap_os_error

# A starter that finds the lock taken looks again: `peek` holds it for some microseconds, and a new holder needs as
# many to write its record.
_LOOKS = 4
_LOOKS_FOR_RECORD = 100
_PAUSE = 0.002

_RECORD_LIMIT = 1 << 18     # a name of 10,000 characters may take twelve bytes for each


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock. `since` is in seconds since the epoch; `start`, in clock ticks since boot, tells apart two
    processes that had one pid after another; `namespace` is the pid namespace in which `pid` means something."""

    run: str
    pid: int
    host: str
    since: float
    start: int
    boot: str
    namespace: str

    def may_be_alive(self) -> bool:
        """False if this process is certainly gone; one of another container cannot be told from here."""
        if self.boot != boot_id().hex():
            return False
        return self.namespace != _pid_namespace() or self.start == _start_time(self.pid)


_UNKNOWN = Owner(run="", pid=0, host="", since=0.0, start=0, boot="", namespace="")


class RunLock:
    """Holds a run for this process, from `acquire` to `release`.

    Two threads of one process exclude each other as well. A forked child holds nothing: its copy is closed without
    unlocking, so the parent keeps the lock, and a child that outlives the parent does not.
    """

    _fd: int | None = None      # on the class too: Ctrl-C may come before `__init__`

    def __init__(self, path: Path, run: str) -> None:
        """For `acquire` alone: a lock not yet taken."""
        self.path = path
        self.run = run
        self._fd = None
        self._taken = False

    @classmethod
    def acquire(cls, path: StrPath, run: str) -> RunLock:
        """Take the lock of a run, at once or not at all; the folder of the lock file is made if it is missing.

        Raises RunLockedError naming the holder, and StorageError when the file cannot be made or written. Whatever it
        raises, Ctrl-C included, the lock is not held then.
        """
        lock = cls(Path(path), run)
        complete = False
        try:
            looks = 0
            while not lock._take():
                owner = _read_owner(lock.path)
                looks += 1
                if looks == 1 and owner is not None and owner.pid == os.getpid():
                    gc.collect()    # Ctrl-C may have kept a run from whoever asked for it; then only a cycle holds it
                if looks >= (_LOOKS if owner is not None and owner.may_be_alive() else _LOOKS_FOR_RECORD):
                    raise locked(run, owner)
                time.sleep(_PAUSE)
            complete = True
        except StorageError:
            raise
        except OSError as error:
            raise wrap_os_error(error, path, f"cannot lock the run {run!r}") from error
        finally:
            if not complete:
                lock.release()
        return lock

    def _take(self) -> bool:
        with _forks:
            _held.add(self)
            self._fd = _open_file(self.path)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before us may have removed the file between our open and our lock.
                self._taken = _is_at(self._fd, self.path)
            except BlockingIOError:
                pass
            if not self._taken:
                self.release()
                return False
        _write_owner(self._fd, self.run)
        return True

    def release(self) -> None:
        """Free the lock; once is enough. In a forked child this does nothing.

        Takes no memory, so that a run that ends because there is none lets go of it.
        """
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            # Closing would do, but for a copy that a fork may have taken along.
            self._unlock(fd)
        finally:
            os.close(fd)

    def _unlock(self, fd: int) -> None:
        # Not `suppress`, which takes memory.
        try:
            if self._taken:
                os.ftruncate(fd, 0)     # an empty record cannot be mistaken for the next holder's
        except OSError:
            pass
        try:  # noqa: SIM105
            fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError:
            pass

    def __del__(self) -> None:
        # Ctrl-C may come between the end of `acquire` and whoever called it.
        if self._fd is not None:
            self.release()

    def remove_and_release(self) -> None:
        """Free the lock and remove its file, and its folder if that leaves it empty.

        The file goes while it is locked, so whoever opened it before finds on locking it that it is not the run's lock
        any more. Raises StorageError; the lock is free all the same.
        """
        if self._fd is None:
            return
        try:
            os.unlink(self.path)
            os.rmdir(self.path.parent)
        except OSError as error:
            # Other files stay, and so does the folder of a starter that came in between.
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise wrap_os_error(error, self.path, f"cannot remove the lock of the run {self.run!r}") from error
        finally:
            self.release()


def peek(path: StrPath) -> Owner | None:
    """Who holds the lock at this moment, or None if it is free.

    The kernel is asked, through a shared lock held for some microseconds, because the record alone cannot be trusted:
    it outlives a killed holder. While the holder writes its record, the owner's fields are empty. Starters look more
    than once, so none of them fails because of it. Raises StorageError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise wrap_os_error(error, path, "cannot see who holds a run") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse_owner(os.pread(fd, _RECORD_LIMIT, 0)) or _UNKNOWN
    except OSError as error:
        raise wrap_os_error(error, path, "cannot see who holds a run") from error
    finally:
        os.close(fd)
    return None


def _open_file(path: Path) -> int:
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(path.parent, 0o700)


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def this_process(run: str) -> Owner:
    """What this process writes into a lock that it holds."""
    return Owner(
        run=run,
        pid=os.getpid(),
        host=os.uname().nodename,
        since=clock.time_ns() / 1e9,
        start=_start_time(os.getpid()),
        boot=boot_id().hex(),
        namespace=_pid_namespace(),
    )


def _write_owner(fd: int, run: str) -> None:
    os.ftruncate(fd, 0)
    pwrite_all(fd, json.dumps(asdict(this_process(run))).encode() + b"\n", 0)


def _read_owner(path: Path) -> Owner | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _parse_owner(os.pread(fd, _RECORD_LIMIT, 0))
    finally:
        os.close(fd)


def _parse_owner(record: bytes) -> Owner | None:
    """None for a record that is not there yet, or cut, or somebody else's."""
    try:
        return Owner(**json.loads(record))
    except (ValueError, TypeError):
        return None


def _start_time(pid: int) -> int:
    """The 22nd field of /proc/PID/stat; 0 if there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def locked(run: str, owner: Owner | None) -> RunLockedError:
    """The error for a lock that `owner` holds."""
    if owner is None:
        message = f"the run {run!r} is held by another process (wait for it, or stop it)"
        return RunLockedError(message, run=run, pid=None, host=None, since=None)
    since = datetime.fromtimestamp(owner.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if (owner.pid, owner.namespace) == (os.getpid(), _pid_namespace()):
        message = f"the run {run!r} is held by this very process, since {since} (it runs already; use another name)"
    else:
        message = (
            f"the run {run!r} is held by process {owner.pid} on {owner.host}, since {since} (wait for it, or stop it)"
        )
    return RunLockedError(message, run=run, pid=owner.pid, host=owner.host, since=owner.since)


# ---- fork

# Held while a lock file is opened and locked, so that no fork falls between that and `_held`. Reentrant,
# because a signal handler may fork.
_forks = threading.RLock()
_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lock in _held:
        if lock._fd is not None:
            os.close(lock._fd)
            lock._fd, lock._taken = None, False
    _held.clear()
    _forks.release()


os.register_at_fork(before=_forks.acquire, after_in_parent=_forks.release, after_in_child=_after_fork_in_child)
