"""One state directory as this process uses it: its store, its writer thread and its run folders, shared by all Drivers on it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from resumable._fastlog import fork_count
from resumable.errors import DamagedLogError, StorageError
from resumable.storage.disksync import DiskSync
from resumable.storage.folder import DiskFolder, Folder, MemoryFolder
from resumable.storage.lmdb_log import LmdbStore
from resumable.storage.memory import MemoryStore
from resumable.storage.owned import check, check_folder
from resumable.storage.platform import prepare_directory, wrap_os_error
from resumable.storage.store import Store
from resumable.storage.writer import Writer

MEMORY = ":memory:"


class Place:
    """A directory that is held open: as long as it is, no other one gets its number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        found = os.fstat(self._fd)
        self.key = (fork_count(), found.st_dev, found.st_ino)

    def check(self) -> None:
        """Raises StorageError unless the path still leads to this directory."""
        try:
            found = os.stat(self.path)
            here = (found.st_dev, found.st_ino) == self.key[1:]
        except (FileNotFoundError, NotADirectoryError):
            here = False
        except OSError as error:
            raise wrap_os_error(error, self.path, "cannot look at the state directory") from error
        if not here:
            raise StorageError(
                f"the state directory {self.path} was moved, removed or replaced while it was open (close the drivers on it, and "
                f"make another where it is now)", path=str(self.path),
            )

    def close(self) -> None:
        """Let go of it; closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Home:
    """Opened once in a process for each directory; `close` counts down."""

    def __init__(self, where: str, store: Store, place: Place | None) -> None:
        self.where = where
        self.place = place
        self.path = path = None if place is None else place.path
        self.store = store
        self.writer = Writer(store)
        self.sync = DiskSync(path / "sync", store) if path is not None else None
        self._users = 1
        self._folders: dict[str, MemoryFolder] = {}

    def folder(self, name: str) -> Folder:
        """The folder of a run name, `<job8>-<name24>`.

        Raises UnsafeDirectoryError if anything in it may be another user's, StorageError if the directory is not here any more.
        """
        if self.place is not None:
            self.place.check()
            check_folder(self.place.path / "runs" / name)
            return DiskFolder(self.place.path / "runs" / name)
        with _turn:
            return self._folders.setdefault(name, MemoryFolder(f"{MEMORY}/{name}"))

    def folders(self, prefix: str = "") -> Iterator[tuple[str, Folder]]:
        """Every run folder that is there, by name."""
        if self.place is None:
            names = sorted(self._folders)
        else:
            self.place.check()
            try:
                names = sorted(os.listdir(self.place.path / "runs"))
            except OSError as error:
                raise wrap_os_error(error, self.place.path / "runs", "cannot list the runs") from error
        for name in names:
            if name.startswith(prefix):
                yield name, self.folder(name)

    def close(self) -> None:
        """One user less; the last one closes writer and store."""
        with _turn:
            self._users -= 1
            if self._users:
                return
            if self.place is not None:
                _open.pop(self.place.key, None)
        self._shut()

    def _shut(self) -> None:
        try:
            self.writer.close()
            if self.sync is not None:
                self.sync.close()
            self.store.close()
        finally:
            if self.place is not None:
                self.place.close()


# Guards the table of open homes. In a forked child the parent's homes are out of reach: their keys hold the fork count.
_turn = threading.RLock()
_open: dict[tuple[int, int, int], Home] = {}


def open_home(path: Path | None) -> Home:
    """The home of a directory, made if need be; None for one in memory, which is nobody else's.

    Raises UnsafeDirectoryError, NetworkFileSystemError, ReadOnlyError, DiskFullError, DamagedLogError, StorageError.
    """
    if path is None:
        return Home(MEMORY, MemoryStore(), None)
    prepare_directory(path)
    with _turn, ExitStack() as undo:
        try:
            place = Place(path)
            undo.callback(place.close)
            home = _open.get(place.key)
            if home is None:
                _refuse_lost_log(path)
                for name in ("log", "sync"):
                    check_folder(path / name)
                check(path / "runs")
            (path / "runs").mkdir(0o700, exist_ok=True)
        except StorageError:
            raise
        except OSError as error:
            raise wrap_os_error(error, path, "cannot use the state directory") from error
        if home is not None:
            assert home.place is not None
            home.place.check()
            home._users += 1
            return home
        home = Home(str(path), LmdbStore(path / "log"), place)
        if home.sync is not None:
            home.sync.merge()
        undo.pop_all()
        _open[place.key] = home
        return home


def _refuse_lost_log(path: Path) -> None:
    """An empty log must not take the place of one that is gone. Raises DamagedLogError."""
    # The runs first: another process that has made one has made the log before.
    found = [f"{name}/{entry}" for name in ("runs", "sync") for entry in _entries(path / name)]
    if found and not (path / "log" / "data.mdb").exists():
        raise DamagedLogError(
            f"the log {path / 'log'} is gone, and the files of {len(found)} runs are there, {path / found[0]} for one (put the "
            f"directory log back, or make a copy that can go on with `python -m resumable repair {path} NEW_DIR`, or "
            f"remove {path} to begin anew)", path=str(path), reason="log missing",
        )


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _after_fork_in_child() -> None:
    global _turn
    _turn = threading.RLock()


@atexit.register
def _close_all() -> None:
    """At interpreter exit, what is published goes to the log, and the environment is closed as LMDB wants it."""
    for key, home in list(_open.items()):
        if key[0] == fork_count():
            _open.pop(key)
            home._shut()


os.register_at_fork(after_in_child=_after_fork_in_child)
