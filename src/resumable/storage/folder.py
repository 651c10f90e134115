"""The folder of one run name: its lock, the journal segments and side files of its runs, on disk or in memory.

Names of files are `<number>.<slot>` for segments, `<number>.side.<seq>` for side files and `<number>.keys` for the keys of a
loop; whatever else is found in a folder is left alone, but for our own `.new` files that a kill left behind.
"""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from resumable._fastlog import Keys, Segment, encode_plain
from resumable.errors import DamagedLogError, StorageError
from resumable.storage.keys import SMALLEST as _SMALLEST_KEYS
from resumable.storage.keys import KeptKeys, keys_name, mend_keys, new_keys, open_keys, sync_keys
from resumable.storage.lock import Owner, RunLock, locked, peek, this_process
from resumable.storage.platform import can_map, create_file, fsync_directory, wrap_os_error
from resumable.storage.side import Part, Written, other_files, read_side, reference_names, sync_file, write_side

SLOTS = 3
BY_MAP, BY_PWRITE = 1, 2
_SMALLEST = 2 * 4096


class Lock(Protocol):
    """A held lock."""

    def release(self) -> None: ...
    def remove_and_release(self) -> None: ...


class Folder(Protocol):
    """Where the bytes of one run name stand until they are settled."""

    where: str

    def acquire(self, run: str) -> Lock:
        """Hold the folder. Raises RunLockedError."""

    def owner(self) -> Owner | None:
        """Who holds it now."""

    def numbers(self) -> list[int]:
        """Run numbers with journal segments here, ascending."""

    def new_segment(self, number: int, slot: int, capacity: int, fill: Callable[[Segment], None]) -> Segment:
        """A fresh segment in this slot, in place of what is there, once `fill` has made its head."""

    def segments(self, number: int) -> Iterator[tuple[int, Segment]]:
        """(slot, segment) of a run, mapped, headers not yet looked at."""

    def image(self, number: int, slot: int, size: int = -1) -> bytes | None:
        """A copy of a segment, or of its first `size` bytes, for readers that do not hold the lock; None when there is none."""

    def images(self, number: int) -> list[tuple[int, bytes]]:
        """(slot, copy) of all of a run's segments."""

    def set_aside(self, number: int, slot: int) -> None:
        """Keep a segment that is not whole where nothing reads it but its owner."""

    def write_side(
        self, name: str, data: bytes, buffers: Sequence[memoryview], *, durable: bool, earlier: Sequence[Part] = ()
    ) -> Written:
        """Keep a large state beside the journal, but for buffers that stand among the `earlier` ones. Raises StorageError."""

    def read_side(self, reference: bytes) -> tuple[bytearray, list[memoryview]]:
        """(encoded state, buffers) of a reference. Raises DamagedLogError when it is missing or not whole."""

    def sync_sides(self, names: Sequence[str]) -> None:
        """Put side files on disk; those that are gone meanwhile are no matter. Raises SyncFailedError."""

    def other_sides(self, name: str) -> set[str] | None:
        """The other side files that the state in this one needs; None if that cannot be told any more."""

    def remove_sides(self, names: Iterable[str]) -> None:
        """Remove side files."""

    def sides(self, number: int) -> list[str]:
        """The side files of a run."""

    def keys(self, number: int, salt: bytes, done: int, kept: KeptKeys | None = None) -> Keys:
        """A run's keys, a file of its own when none is `done`. Raises DamagedLogError, StorageError."""

    def sync_keys(self, number: int) -> None:
        """Put them on disk, if there are any. Raises SyncFailedError."""

    def mend_keys(self, number: int) -> None:
        """Take what is left of keys whose sync failed in an earlier life into a new file. Raises StorageError."""

    def discard(self, number: int, *, goes_on: bool = False) -> None:
        """Remove a run's segments and keys. One that goes on from the log keeps its keys, and no power cut brings its segments
        back. Raises StorageError."""

    def let_go(self, file: Segment | Keys) -> None:
        """The run does not use it any more."""


class DiskFolder:
    """A folder on disk; it is made when it is first locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self._entered = False   # the disk has the folder's own entry
        self._entered_keys = False      # and that of the key file

    def acquire(self, run: str) -> RunLock:
        return RunLock.acquire(self.path / "lock", run)

    def owner(self) -> Owner | None:
        return peek(self.path / "lock")

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise wrap_os_error(error, self.path, "cannot list a run's folder") from error

    def numbers(self) -> list[int]:
        found = {int(name.split(".")[0]) for name in self._names() if _is_segment(name)}
        return sorted(found)

    def new_segment(self, number: int, slot: int, capacity: int, fill: Callable[[Segment], None]) -> Segment:
        name = f"{number}.{slot}"
        self._remove(name + ".new")
        segment: Segment | None = None
        made: Segment | None = None
        try:
            segment = self._take(create_file(self.path, name + ".new", capacity))
            fill(segment)
            os.rename(self.path / (name + ".new"), self.path / name)
            made = segment
        except OSError as error:
            with suppress(OSError):     # the error under way is the one that counts
                self._remove(name + ".new")
            if isinstance(error, StorageError):
                raise
            raise wrap_os_error(error, self.path / name, "cannot make a journal segment") from error
        finally:
            if segment is not None and made is None:
                segment.close()
        return made

    def _take(self, fd: int) -> Segment:
        """A segment of an open file; the descriptor is the segment's from here on, or closed."""
        kept = False
        try:
            mode = BY_MAP if can_map(fd) else BY_PWRITE
            segment = Segment(fd, os.fstat(fd).st_size, mode)
            kept = mode == BY_PWRITE
            return segment
        except StorageError:
            raise
        except OSError as error:
            raise wrap_os_error(error, self.path, "cannot map a journal segment") from error
        except ValueError as error:
            raise StorageError(f"{self.path}: {error}", path=str(self.path)) from error
        finally:
            if not kept:
                os.close(fd)

    def segments(self, number: int) -> Iterator[tuple[int, Segment]]:
        for slot in range(SLOTS):
            path = self.path / f"{number}.{slot}"
            try:
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise wrap_os_error(error, path, "cannot open a journal segment") from error
            self._check_size(fd, number, slot)
            yield slot, self._take(fd)

    def _check_size(self, fd: int, number: int, slot: int) -> None:
        """No segment was ever made with such a size. Raises DamagedLogError; then the descriptor is closed."""
        size = os.fstat(fd).st_size
        if size < _SMALLEST or size % 8:
            os.close(fd)
            reason = f"segment {number}.{slot} has {size} bytes"
            raise DamagedLogError(
                f"{self.where}: the journal of run {number} is damaged: {reason} (nothing was changed: `python -m resumable "
                f"check` shows what is there, `repair` writes a copy that can go on)",
                path=self.where, run=number, intact=0, reason=reason,
            )

    def image(self, number: int, slot: int, size: int = -1) -> bytes | None:
        try:
            with open(self.path / f"{number}.{slot}", "rb", buffering=0) as file:
                return file.read(size)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise wrap_os_error(error, self.path, "cannot read a journal segment") from error

    def images(self, number: int) -> list[tuple[int, bytes]]:
        return _images(self, number)

    def set_aside(self, number: int, slot: int) -> None:
        path = self.path / f"{number}.{slot}"
        try:
            os.replace(path, self.path / f"torn-{path.name}")
        except OSError as error:
            raise wrap_os_error(error, path, "cannot set a torn segment aside") from error

    def write_side(
        self, name: str, data: bytes, buffers: Sequence[memoryview], *, durable: bool, earlier: Sequence[Part] = ()
    ) -> Written:
        if durable:
            self._enter()
        return write_side(self.path / name, data, buffers, durable=durable, earlier=earlier)

    def read_side(self, reference: bytes) -> tuple[bytearray, list[memoryview]]:
        return read_side(self.path, reference)

    def sync_sides(self, names: Sequence[str]) -> None:
        for name in names:
            sync_file(self.path / name)
        if names:
            self._enter()
            fsync_directory(self.path)

    def _enter(self) -> None:
        """Journals are nothing to a power cut, but side files are: the disk is to have the way to them."""
        if not self._entered:
            fsync_directory(self.path.parent.parent)
            fsync_directory(self.path.parent)
            self._entered = True

    def other_sides(self, name: str) -> set[str] | None:
        return other_files(self.path / name)

    def remove_sides(self, names: Iterable[str]) -> None:
        for name in names:
            self._remove(name)

    def sides(self, number: int) -> list[str]:
        return [name for name in self._names() if name.startswith(f"{number}.side.")]

    def keys(self, number: int, salt: bytes, done: int, kept: KeptKeys | None = None) -> Keys:
        path = self.path / keys_name(number)
        self._entered_keys = False
        return open_keys(path, salt, done, kept) if done else new_keys(path, salt)

    def sync_keys(self, number: int) -> None:
        if sync_keys(self.path / keys_name(number)) and not self._entered_keys:
            self._enter()
            fsync_directory(self.path)
            self._entered_keys = True

    def mend_keys(self, number: int) -> None:
        mend_keys(self.path / keys_name(number))

    def discard(self, number: int, *, goes_on: bool = False) -> None:
        keys = None if goes_on else keys_name(number)
        for name in sorted(self._names(), reverse=True):    # the keys first: without segments nobody would look for them
            own = name.removesuffix(".new")
            if own == keys or (_is_segment(own) and own.split(".")[0] == str(number)):
                self._remove(name)
        if goes_on:
            fsync_directory(self.path)

    def _remove(self, name: str) -> None:
        try:
            os.unlink(self.path / name)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise wrap_os_error(error, self.path / name, "cannot remove a file of ours") from error

    def let_go(self, file: Segment | Keys) -> None:
        file.close()


class MemoryFolder:
    """A folder of a `":memory:"` driver: lives and dies with its home."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._segments: dict[tuple[int, int], Segment] = {}
        self._sides: dict[str, tuple[bytes, list[bytes]]] = {}
        self._keys: dict[int, Keys] = {}
        self._turn = threading.Lock()
        self._lock: weakref.ref[_MemoryLock] | None = None      # weak: Ctrl-C may keep a lock from whoever asked for it

    def acquire(self, run: str) -> Lock:
        taken = _MemoryLock(this_process(run))
        if self.owner() is not None:
            gc.collect()    # as of a lock file's: only a cycle may still hold it
        with self._turn:
            owner = self.owner()
            if owner is not None:
                raise locked(run, owner)
            self._lock = weakref.ref(taken)
        return taken

    def owner(self) -> Owner | None:
        lock = self._lock() if self._lock is not None else None
        return None if lock is None else lock.owner

    def numbers(self) -> list[int]:
        return sorted({number for number, _ in self._segments})

    def new_segment(self, number: int, slot: int, capacity: int, fill: Callable[[Segment], None]) -> Segment:
        segment = Segment(-1, capacity)
        fill(segment)
        self._segments[number, slot] = segment
        return segment

    def segments(self, number: int) -> Iterator[tuple[int, Segment]]:
        for (of, slot), segment in sorted(self._segments.items()):
            if of == number:
                yield slot, segment

    def image(self, number: int, slot: int, size: int = -1) -> bytes | None:
        segment = self._segments.get((number, slot))
        return None if segment is None else segment.image()[: size if size >= 0 else None]

    def images(self, number: int) -> list[tuple[int, bytes]]:
        return _images(self, number)

    def set_aside(self, number: int, slot: int) -> None:
        """Memory has no power cuts."""

    def write_side(
        self, name: str, data: bytes, buffers: Sequence[memoryview], *, durable: bool, earlier: Sequence[Part] = ()
    ) -> Written:
        self._sides[name] = bytes(data), [bytes(buffer) for buffer in buffers]
        size = len(data) + sum(buffer.nbytes for buffer in buffers)
        return Written(bytes(encode_plain((name, size, 0, []))), ())

    def read_side(self, reference: bytes) -> tuple[bytearray, list[memoryview]]:
        data, buffers = self._sides[reference_names(reference)[0]]
        return bytearray(data), [memoryview(bytearray(buffer)) for buffer in buffers]

    def sync_sides(self, names: Sequence[str]) -> None:
        """Nothing to do."""

    def other_sides(self, name: str) -> set[str]:
        return set()

    def remove_sides(self, names: Iterable[str]) -> None:
        for name in names:
            self._sides.pop(name, None)

    def sides(self, number: int) -> list[str]:
        return [name for name in self._sides if name.startswith(f"{number}.side.")]

    def keys(self, number: int, salt: bytes, done: int, kept: KeptKeys | None = None) -> Keys:
        earlier = self._keys.get(number)
        if earlier is not None and done:
            if kept is not None:
                earlier.put_back(kept.first, kept.entries)
            earlier.load(done)
            return earlier
        keys = self._keys[number] = Keys(-1, _SMALLEST_KEYS, salt, lambda size: None)
        keys.format()
        return keys

    def sync_keys(self, number: int) -> None:
        """Nothing to do."""

    def mend_keys(self, number: int) -> None:
        """Nothing to do."""

    def discard(self, number: int, *, goes_on: bool = False) -> None:
        if not goes_on:
            self._keys.pop(number, None)
        for key in [key for key in self._segments if key[0] == number]:
            self._segments.pop(key).close()

    def let_go(self, file: Segment | Keys) -> None:
        """Kept: memory is all there is."""


class _MemoryLock:
    def __init__(self, owner: Owner) -> None:
        self.owner: Owner | None = owner

    def release(self) -> None:
        self.owner = None

    remove_and_release = release


def _images(folder: Folder, number: int) -> list[tuple[int, bytes]]:
    return [(slot, image) for slot in range(SLOTS) if (image := folder.image(number, slot)) is not None]


def _is_segment(name: str) -> bool:
    number, _, slot = name.partition(".")
    return number.isdecimal() and slot.isdecimal()
