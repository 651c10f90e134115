"""Group-committed sync files: what `durability="disk"` acknowledges with one fdatasync for all jobs that wait.

An LMDB commit costs about three times an fdatasync, so under `durability="disk"` a record first goes to this process's sync file,
which is allocated and written once in full so that a sync writes data only. Whoever comes first writes and syncs for all that
came meanwhile. The log gets the same records later, as always; a file whose records are all in the log is begun anew.

After a power cut whoever opens the directory first puts what sync files of other boots hold into the log. A file:

    64-byte header: magic `RSMSYNC1`, u64 generation, 16-byte boot id, zeros up to 60, u32 CRC-32C of the first 60 bytes
    then entries, 8-byte aligned: u32 CRC-32C of generation and all that follows, u32 length of the body, body, zeros
    body: plain-encoded (name digest, run number, seq, kind, flags, payload)
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from resumable._fastlog import GroupSync, crc32c, decode_plain, encode_plain
from resumable.errors import StorageError, SyncFailedError
from resumable.storage.accept import accept, life_of
from resumable.storage.exclusive import exclusively, flock
from resumable.storage.journal import JournalRecord
from resumable.storage.platform import boot_id, create_file, fsync_directory, pwrite_all, wrap_os_error
from resumable.storage.records import (
    CHECKPOINT,
    ENDED,
    FAILURE,
    META,
    RETURN,
    RNG,
    RunRecord,
    is_gone,
    run_key,
)
from resumable.storage.store import Store
from resumable.storage.writer import closed

CAPACITY = 8 << 20
_HEADER = struct.Struct("<8sQ16s28xI")
_ENTRY = struct.Struct("<II")
_MAGIC = b"RSMSYNC1"
_NEW = ".new"
# Of records with one seq: generators stand before their checkpoint, and a life begins behind it.
_ORDER = {RNG: 0, CHECKPOINT: 1, META: 2, FAILURE: 3, RETURN: 4}


Run = tuple[bytes, int]


class _File:
    """A sync file in use, and how far each run got in it."""

    def __init__(self, path: Path, group: GroupSync) -> None:
        self.path = path
        self.group = group
        self.reached: dict[Run, int] = {}


class DiskSync:
    """The sync file of this process in one state directory. Thread-safe: `put` returns when the disk has the record."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._turn = threading.Lock()
        self._file: _File | None = None
        self._retired: list[_File] = []
        self._closed = False

    def put(self, name: bytes, number: int, seq: int, kind: int, flags: int, payload: bytes) -> None:
        """Return when the disk has this record.

        Raises SyncFailedError, DiskFullError (then that file is not used again), DriverClosedError.
        """
        body = encode_plain((name, number, seq, kind, flags, payload))
        file = self._file
        while True:
            if file is None:
                file = self._next(None, len(body))
            file.reached[name, number] = seq
            try:
                if file.group.put(body):
                    return
            except OSError as error:
                self._drop(file)
                raise SyncFailedError(
                    f"the disk refused to sync {file.path}: {os.strerror(error.errno or 0)} (nothing unsynced was acknowledged; "
                    f"check the disk, then rerun)",
                    path=str(file.path), errno=error.errno,
                ) from error
            file = self._next(file, len(body))

    def way(self) -> tuple[GroupSync, dict[Run, int]] | None:
        """For the compiled loop: what `put` puts into now, and where it notes how far each run got."""
        file = self._file
        return (file.group, file.reached) if file is not None else None

    def _next(self, full: _File | None, size: int) -> _File:
        """The file that takes the place of `full`, unless another thread has made it already."""
        with self._turn:
            if self._closed:
                raise closed()
            if self._file is not full and self._file is not None:
                return self._file
            if full is not None:
                self._retire(full)
            self._file = None
            self._sweep()
            self._file = self._begin(max(CAPACITY, 2 * (_HEADER.size + size + 64)))
            return self._file

    def _drop(self, file: _File) -> None:
        """What a failed sync left behind is not trusted again."""
        with self._turn:
            if self._file is file:
                self._retire(file)
                self._file = None

    def _begin(self, capacity: int) -> _File:
        path = self._folder / os.urandom(8).hex()
        generation = os.urandom(8)
        head = _HEADER.pack(_MAGIC, int.from_bytes(generation, "little"), boot_id(), 0)[:60]
        new, fd = path.with_name(path.name + _NEW), -1
        try:
            self._folder.mkdir(0o700, exist_ok=True)
            with exclusively(self._folder):
                fd = create_file(self._folder, new.name, capacity)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)      # says that its process is alive
            # Written in full once: a sync of written blocks need not touch the file system's own journal.
            for start in range(0, capacity, 1 << 20):
                pwrite_all(fd, bytes(min(1 << 20, capacity - start)), start)
            pwrite_all(fd, head + struct.pack("<I", crc32c(head)), 0)
            os.fsync(fd)
            os.rename(new, path)
            fsync_directory(self._folder)
            fsync_directory(self._folder.parent)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
                for name in (new, path):
                    with suppress(OSError):     # the error under way is the one that counts
                        os.unlink(name)
            if isinstance(error, StorageError):
                raise
            raise wrap_os_error(error, self._folder, "cannot make a sync file") from error
        return _File(path, GroupSync(fd, generation, _HEADER.size, capacity))

    def _sweep(self) -> None:
        """Remove retired files that the log has all of."""
        kept = []
        for file in self._retired:
            if self._logged(file.reached):
                _unlink(file.path)
            else:
                kept.append(file)
        self._retired = kept

    def _logged(self, reached: dict[Run, int]) -> bool:
        for (name, number), seq in list(reached.items()):    # who is about to be refused still adds to it
            value = self._store.get(run_key(name, number))
            if value is None and is_gone(self._store, name, number):
                continue
            if value is None or RunRecord.decode(value).seq < seq:
                return False
        return True

    def close(self) -> None:
        """After the writer has ended: remove what the log has, and give the descriptors back."""
        with self._turn:
            self._closed = True
            if self._file is not None:
                self._retire(self._file)
                self._file = None
            self._sweep()
            self._retired = []

    def _retire(self, file: _File) -> None:
        file.group.retire()     # else a thread that found it a moment ago could still put into what is about to be removed
        self._retired.append(file)

    def merge(self) -> None:
        """Put into the log what files of processes that are gone hold beyond it, and remove those files.

        On the boot that wrote them the journals are the truth, but a power cut may still come: such files stay until the log
        has all that is in them.
        """
        if _listed(self._folder):
            # Whoever comes second waits: when it goes on, no run of its own begins before the log has what there was.
            with exclusively(self._folder):
                self._merge(_listed(self._folder))

    def _merge(self, paths: list[Path]) -> None:
        left = [found for path in paths if (found := read_abandoned(path)) is not None]
        entries: dict[Run, dict[tuple[int, int], JournalRecord]] = {}
        for _, boot, records, _ in left:
            if boot != boot_id():
                for run, record in records:
                    _gather(entries.setdefault(run, {}), record)
        for run, records_of in entries.items():
            if self._store.get(run_key(*run)) is None and is_gone(self._store, *run):
                continue
            puts = _beyond(self._store, run, records_of)
            if puts:
                self._store.commit(puts, [])
        settled = [found for found in left if found.boot != boot_id()]
        for found in left:
            if found in settled or self._logged({run: record[1] for run, record in found.records}):
                _unlink(found.path, found.file)
        for path in paths:
            if path.name.endswith(_NEW):
                _remove_unfinished(path)
        if settled:
            fsync_directory(self._folder)       # a second power cut must not bring them back beside a later boot's


def _gather(records: dict[tuple[int, int], JournalRecord], record: JournalRecord) -> None:
    """Add a record in the order of the run; of two descriptions at the same checkpoint the one of the later life counts."""
    key = record[1], _ORDER[record[2]]
    known = records.get(key)
    if known is None or record[2] != META or life_of(record[4]) >= life_of(known[4]):
        records[key] = record


def _beyond(store: Store, run: Run, records: dict[tuple[int, int], JournalRecord]) -> list[tuple[bytes, bytes]]:
    """Log entries for records that go on, without a gap, from where the log ends."""
    value = store.get(run_key(*run))
    logged = None if value is None else RunRecord.decode(value)
    if logged is not None and (logged.status in ENDED or logged.boot == boot_id()):
        return []       # over, or gone on with since: then its own journal is the truth
    batch = accept(*run, logged, [records[key] for key in sorted(records)])
    return [] if batch is None else batch.puts


class Abandoned(NamedTuple):
    """A sync file whose process is gone; `file` tells it from another of that name."""

    path: Path
    boot: bytes
    records: list[tuple[Run, JournalRecord]]
    file: tuple[int, int]


def read_abandoned(path: Path) -> Abandoned | None:
    """What a file holds whose process is gone; None while that lives or has not finished making it."""
    if path.name.endswith(_NEW):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise wrap_os_error(error, path, "cannot read a sync file") from error
    try:
        with open(fd, "rb", buffering=0) as opened:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            found = os.fstat(fd)
            data = opened.readall()
    except BlockingIOError:
        return None
    except OSError as error:
        raise wrap_os_error(error, path, "cannot read a sync file") from error
    file = found.st_dev, found.st_ino
    if len(data) < _HEADER.size:
        return Abandoned(path, b"", [], file)
    magic, generation, boot, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC or crc != crc32c(data[:60]):
        return Abandoned(path, b"", [], file)       # torn by a power cut before anything in it was acknowledged
    return Abandoned(path, boot, list(_entries(data, generation.to_bytes(8, "little"))), file)


def _entries(data: bytes, generation: bytes) -> Iterator[tuple[Run, JournalRecord]]:
    at = _HEADER.size
    while at + _ENTRY.size <= len(data):
        crc, size = _ENTRY.unpack_from(data, at)
        body = data[at + _ENTRY.size : at + _ENTRY.size + size]
        if size == 0 or len(body) < size or crc != _entry_crc(generation, body):
            return
        name, number, seq, kind, flags, payload = decode_plain(body)
        yield (name, number), (0, seq, kind, flags, payload)
        at += _padded(_ENTRY.size + size)


def _entry_crc(generation: bytes, body: bytes) -> int:
    return crc32c(body, crc32c(len(body).to_bytes(4, "little"), crc32c(generation)))


def _padded(size: int) -> int:
    return (size + 7) & ~7


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise wrap_os_error(error, folder, "cannot list the sync files") from error


def _unlink(path: Path, file: tuple[int, int] | None = None) -> None:
    """Remove a sync file, and if `file` is given, no other of that name."""
    try:
        if file is not None:
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) != file:
                return
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise wrap_os_error(error, path, "cannot remove a sync file") from error


def _remove_unfinished(path: Path) -> None:
    """Remove a file that was never finished, unless its process lives; the caller keeps others from beginning one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return      # finished meanwhile
    except OSError as error:
        raise wrap_os_error(error, path, "cannot read a sync file") from error
    try:
        flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
        _unlink(path)
    except BlockingIOError:
        return
    finally:
        os.close(fd)
