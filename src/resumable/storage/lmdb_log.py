"""The LMDB log: the store that survives a power cut.

LMDB runs with its default flags, so a commit is on disk when it returns, and its file grows only by commits. It checks
nothing it reads, so every value carries a checksum of its own over key and value, and a census tells whether entries are
missing or older than they should be. An environment that met an error is not trusted any more: it is closed, opened anew,
and the operation is made once more.

LMDB forbids to use or close an environment in a forked child, so none ever gets there: it is closed before a fork and
opened again when it is next needed. The child may thus open the log for itself.

LMDB locks with POSIX locks: nothing in this process may open and close `lock.mdb` while the log is open. And nobody may wait
inside LMDB for another process that opens the log: one after the other opens it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb

from resumable._fastlog import crc32c, fork_count
from resumable.errors import DamagedLogError, ForkedError, NewerFormatError, StorageError
from resumable.storage.exclusive import exclusively
from resumable.storage.lmdb_census import Census, difference
from resumable.storage.lmdb_errors import explain
from resumable.storage.lmdb_file import lengthen
from resumable.storage.platform import StrPath, create_file, fsync_directory, wrap_os_error
from resumable.storage.store import BATCH_BYTES, BATCH_ENTRIES, FORMAT_KEY, check_keys, is_key

FORMAT = 1

_T = TypeVar("_T")
_Entry = tuple[bytes, bytes]

_CHECKSUM = struct.Struct("<I")
# Logs of up to so many entries are compared with their census whenever they are opened, in about a millisecond.
_FEW_ENTRIES = 500

# LMDB makes as many slots of 64 bytes as fit into a lock file that it finds.
_MAX_READERS = 510
_LOCK_FILE_SIZE = 1 << 15

_LOCK_FILE, _DATA_FILE = "lock.mdb", "data.mdb"
_FILES = (_LOCK_FILE, _DATA_FILE)  # in this order: who finds the data finds the lock
_LARGEST_MAP = 40  # bits: 1 TiB, which costs address space alone
_SMALLEST_MAP = 24

# Seconds after which whoever waits for the transactions of other threads looks by himself.
_LOOK_AGAIN = 0.1
# How long a fork waits for the transactions of other threads. A child made after that cannot open the log.
_FORK_PATIENCE = 10.0


class LmdbStore:
    """A `Store` in an LMDB environment, shared with other processes on this machine.

    LMDB allows one open environment for a directory in a process; the owner of this store sees to that.
    """

    def __init__(self, path: StrPath) -> None:
        """Open the log in this directory, or make it there; its parent must exist.

        Raises DamagedLogError, NewerFormatError, SharedPidError, DiskFullError, ReadOnlyError, StorageError.
        """
        self.path = Path(path)
        self._forks = fork_count()
        self._environment: lmdb.Environment | None = None
        self._users: set[int] = set()  # threads in a transaction
        self._closing = False
        self._closed = False
        self._made = False
        with _lock:
            _stores.add(self)
        self._attempt("cannot open the log", _check_readers)
        # From here on a missing log is an error, never a reason to begin an empty one.
        self._made = True

    def get(self, key: bytes) -> bytes | None:
        if not is_key(key):
            return None

        def read(environment: lmdb.Environment) -> bytes | None:
            with environment.begin() as transaction:
                stored = transaction.get(key)
            return None if stored is None else self._unseal(key, stored)

        return self._attempt("cannot read the log", read)

    def last(self, prefix: bytes) -> _Entry | None:
        def read(environment: lmdb.Environment) -> _Entry | None:
            with environment.begin() as transaction, transaction.cursor() as cursor:
                above = _successor(prefix)
                found = cursor.prev() if above and cursor.set_range(above) else cursor.last()
                if found and cursor.key() == FORMAT_KEY:
                    found = cursor.prev()
                if not found or not cursor.key().startswith(prefix):
                    return None
                return cursor.key(), self._unseal(cursor.key(), cursor.value())

        return self._attempt("cannot read the log", read)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[_Entry]:
        self._check_usable()
        return self._scan(prefix, max(prefix, start))

    def _scan(self, prefix: bytes, start: bytes) -> Iterator[_Entry]:
        while batch := self._attempt("cannot read the log", partial(self._batch, prefix, start)):
            yield from batch
            start = batch[-1][0] + b"\0"

    def _batch(self, prefix: bytes, start: bytes, environment: lmdb.Environment) -> list[_Entry]:
        batch: list[_Entry] = []
        size = 0
        with environment.begin() as transaction, transaction.cursor() as cursor:
            found = cursor.set_range(start) if start else cursor.first()
            while found and len(batch) < BATCH_ENTRIES and size < BATCH_BYTES and cursor.key().startswith(prefix):
                key = cursor.key()
                if key < start:
                    raise self._damaged(f"its keys are in no order at {key!r}", "order")
                start = key
                if key != FORMAT_KEY:
                    batch.append((key, self._unseal(key, cursor.value())))
                    size += len(batch[-1][1])
                found = cursor.next()
        return batch

    def commit(self, puts: Sequence[_Entry], deletes: Sequence[bytes]) -> None:
        check_keys(puts, deletes)
        sealed = [(key, _seal(key, value)) for key, value in puts]

        def write(environment: lmdb.Environment) -> None:
            with environment.begin(write=True, buffers=True) as transaction:
                census = self._census(transaction)._replace(transaction=transaction.id())
                for key in deletes:
                    if (stored := transaction.get(key)) is not None:
                        census = census.minus(key, stored)
                        transaction.delete(key)
                for key, value in sealed:
                    if (stored := transaction.get(key)) is not None:
                        census = census.minus(key, stored)
                    census = census.plus(key, value)
                    transaction.put(key, value)
                transaction.put(FORMAT_KEY, _seal(FORMAT_KEY, census.pack()))
                # Leaving the block would pass over a transaction that the closing of its environment took away.
                transaction.commit()

        self._attempt("cannot write the log", write, sum(len(value) for _, value in sealed))

    def size(self) -> int:
        self._check_usable()
        try:
            return (self.path / _DATA_FILE).stat().st_size
        except OSError as error:
            raise wrap_os_error(error, self.path, "cannot read the log's size") from error

    def close(self) -> None:
        """Close the environment when the transactions of other threads have ended. In a forked child: nothing."""
        self._closed = True
        if self._forks == fork_count():
            self._close_environment()
            with _lock:
                _stores.discard(self)

    # ---- the environment: opened when needed, closed after an error and before a fork

    def _attempt(self, what: str, operation: Callable[[lmdb.Environment], _T], room: int = 0) -> _T:
        """The operation's result; after an LMDB error it is made once more, in an environment opened anew."""
        try:
            with self._open_environment() as environment:
                return operation(environment)
        except lmdb.Error:
            self._close_environment()
        try:
            with self._open_environment() as environment:
                return operation(environment)
        except lmdb.Error as error:
            self._close_environment()
            raise explain(error, self.path, what, room) from error

    @contextmanager
    def _open_environment(self) -> Iterator[lmdb.Environment]:
        self._check_usable()
        me = threading.get_ident()
        try:
            with _lock:
                _turn.wait_for(lambda: not (self._closing or _forking))
                environment = self._environment
                if environment is None:
                    environment = self._environment = self._open()
                self._users.add(me)
            yield environment
        finally:
            self._users.discard(me)     # first, and without memory: whoever closes waits for this
            with _lock:
                _turn.notify_all()

    def _close_environment(self) -> None:
        with _lock:
            self._closing = True
            try:
                while self._busy():
                    _turn.wait(_LOOK_AGAIN)     # there may have been no memory for telling
                self._drop_environment()
            finally:
                self._closing = False
                _turn.notify_all()

    def _busy(self) -> bool:
        # This very thread is not waited for: either Ctrl-C kept it from leaving, or a signal handler came in between.
        return not self._users <= {threading.get_ident()}

    def _drop_environment(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _open(self) -> lmdb.Environment:
        self._check_usable()
        if not self._made:
            _prepare(self.path)
            # Of one that was there too: who made it may have been killed before this, or the disk may have refused.
            fsync_directory(self.path)
            fsync_directory(self.path.parent)
        # LMDB's first opener sets up the lock file. If that is killed, one that waits for it inside LMDB goes on with what
        # is half set up: it reads the commit before the last, and what it commits goes over the last.
        with exclusively(self.path):
            lengthen(self.path / _DATA_FILE, 1 << _LARGEST_MAP)
            environment = _open_largest(self.path)
        accepted = False
        try:
            self._check_census(environment)
            accepted = True
        finally:
            if not accepted:
                environment.close()
        return environment

    def _check_census(self, environment: lmdb.Environment) -> None:
        with environment.begin(buffers=True) as transaction:
            told = difference(self._census(transaction), transaction, _FEW_ENTRIES)
        if told is not None:
            raise self._damaged(f"{told}: did the disk lose a write?", "census")

    def _census(self, transaction: lmdb.Transaction) -> Census:
        """What the log says of itself. Raises DamagedLogError, NewerFormatError."""
        value = self._unseal(FORMAT_KEY, bytes(transaction.get(FORMAT_KEY, b"")))
        census = Census.unpack(value)
        if census is None or census.format != FORMAT:
            version = int.from_bytes(value[:4], "little")
            raise NewerFormatError(
                f"the log {self.path} has format {version}, this resumable reads {FORMAT} (install a newer one)",
                path=self.path,
                found=version,
                supported=FORMAT,
            )
        return census

    def _unseal(self, key: bytes, stored: bytes) -> bytes:
        value = stored[_CHECKSUM.size :]
        if stored[: _CHECKSUM.size] != _CHECKSUM.pack(crc32c(value, crc32c(key))):
            raise self._damaged(f"its entry {key!r} fails its checksum", "checksum", key=key)
        return value

    def _damaged(self, what: str, reason: str, **fields: object) -> DamagedLogError:
        return DamagedLogError(
            f"the log {self.path} is damaged: {what} (`python -m resumable repair` saves what is intact)",
            path=self.path,
            reason=reason,
            **fields,
        )

    def _check_usable(self) -> None:
        if self._forks != fork_count():
            raise ForkedError(f"the log {self.path} was opened by the parent process (open it anew in the child)")
        if self._closed:
            raise StorageError(f"the log {self.path} is closed (open it anew)", path=self.path)


def _seal(key: bytes, value: bytes) -> bytes:
    return _CHECKSUM.pack(crc32c(value, crc32c(key))) + value


def _successor(prefix: bytes) -> bytes:
    """The lowest key above all those that start with this prefix; empty if there is none."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b""


def _check_readers(environment: lmdb.Environment) -> None:
    # The slot of a reader that was killed would keep its snapshot's pages from ever being used again.
    environment.reader_check()


def _prepare(path: Path) -> None:
    """Make the directory and a log with nothing in it, unless they are there.

    The files are made whole elsewhere and linked in, because LMDB makes them in place. Cut short by a full disk or a
    kill, the data file would be taken for damaged ever after. The lock file is mapped and full of holes, and on a full
    disk a store into a hole kills the process (SIGBUS). A kill in here leaves a folder `new.*` that nobody reads.
    """
    try:
        path.mkdir(0o700, exist_ok=True)
        if all((path / name).exists() for name in _FILES):
            return
        work = path / f"new.{os.urandom(8).hex()}"
        work.mkdir(0o700)
        try:
            os.close(create_file(work, _LOCK_FILE, _LOCK_FILE_SIZE))
            with lmdb.open(str(work), map_size=1 << 20, mode=0o600) as environment:
                with environment.begin(write=True) as transaction:
                    transaction.put(FORMAT_KEY, _seal(FORMAT_KEY, Census(FORMAT, transaction.id()).pack()))
            for name in _FILES:
                with suppress(FileExistsError):
                    os.link(work / name, path / name)
        finally:
            for name in os.listdir(work):
                os.unlink(work / name)
            work.rmdir()
    except StorageError:
        raise
    except OSError as error:
        raise wrap_os_error(error, path, "cannot make the log") from error


def _open_largest(path: Path) -> lmdb.Environment:
    """Open with the largest map; where address space is limited, with half of what fits, as the job needs some too."""

    def open_with(bits: int) -> lmdb.Environment:
        # A spare transaction would keep a slot in the lock file, across a fork too.
        return lmdb.open(
            str(path), map_size=1 << bits, mode=0o600, max_readers=_MAX_READERS, max_spare_txns=0, create=False
        )

    for bits in range(_LARGEST_MAP, _SMALLEST_MAP, -1):
        try:
            environment = open_with(bits)
        except lmdb.MemoryError:
            continue
        if bits == _LARGEST_MAP:
            return environment
        environment.close()
        return open_with(bits - 1)
    return open_with(_SMALLEST_MAP)


# ---- fork

# Guards who uses which environment, in all stores, and is held across a fork: so nothing opens while forking.
# The lock itself for `with`: a Condition's end of the block is Python code, and without memory leaves it locked.
_lock = threading.RLock()
_turn = threading.Condition(_lock)
_stores: weakref.WeakSet[LmdbStore] = weakref.WeakSet()
_forking = False


def _before_fork() -> None:
    global _forking
    _turn.acquire()
    _forking = True
    _turn.wait_for(lambda: not any(store._busy() for store in _stores), _FORK_PATIENCE)
    for store in _stores:
        if not store._users:
            store._drop_environment()


def _after_fork_in_parent() -> None:
    global _forking
    _forking = False
    _turn.notify_all()
    _turn.release()


def _after_fork_in_child() -> None:
    global _forking, _lock, _turn
    for store in _stores:
        if store._environment is not None:
            # It came along: a transaction took too long, or a signal handler forked within one. py-lmdb closes what it
            # collects, in a child and at exit too, and by that frees slots of the parent: so this is never collected.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(store._environment))
    _stores.clear()
    _forking = False
    _lock = threading.RLock()
    _turn = threading.Condition(_lock)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
