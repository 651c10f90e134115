"""A copy of a damaged state directory that can go on: of each run what verifies, up to its last intact checkpoint.

The copy's log takes in what the journals and sync files hold, and no run has a journal there, so the log is the truth.
A checkpoint stands for itself: one behind a damaged place is as good as one before it, and only those in between are
lost. A lost result keeps its place in the list; reading it raises UndecodableStateError. The original is not touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from resumable import clock
from resumable._fastlog import encode_plain
from resumable.errors import RunLockedError, StorageError
from resumable.storage.disksync import read_abandoned
from resumable.storage.home import Home, open_home
from resumable.storage.journal import JournalRecord
from resumable.storage.platform import boot_id, fsync_directory, wrap_os_error
from resumable.storage.records import (
    ABANDONED,
    ENDED,
    FAILED,
    FINISHED,
    NOT_KEPT,
    RUNNING,
    SIDE,
    RunRecord,
    StateEntry,
    cleared_up_to,
    decode_results,
    decode_states,
    encode_results,
    encode_states,
    entry_of,
    key_run,
    result_key,
    run_key,
    state_key,
)
from resumable.storage.side import reference_names, sync_file
from resumable.storage.store import BATCH_BYTES, BATCH_ENTRIES
from resumable.tools.check import is_state_directory
from resumable.tools.entries import read_entries
from resumable.tools.keyed import copy_keys
from resumable.tools.ranges import Ranges
from resumable.tools.remains import Remains
from resumable.tools.segments import description, read_segments, run_folders

# Stands for a lost result: no value has an empty encoding.
_LOST = (0, b"")


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did: a line for each run and for each thing that was cut off."""

    path: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.lines, f"{self.path} can go on: put it in the place of the damaged directory"])


def repair(source: str | Path, target: str | Path) -> Repaired:
    """Copy what verifies in `source` into `target`, a directory that is empty or not there.

    Raises RunLockedError while a run of it is held, StorageError.
    """
    old, new = Path(source).absolute(), Path(target).absolute()
    if not is_state_directory(old):
        raise StorageError(f"{old} is no state directory (it has no log in it)", path=str(old))
    if new.exists() and (not new.is_dir() or any(new.iterdir())):
        raise StorageError(f"{new} is there and not empty (name a directory that is not there yet)", path=str(new))
    _refuse_live(old)
    # Under another name until it is whole, so that what a kill leaves of it is taken for nothing.
    work = new.with_name(f"{new.name}.{secrets.token_hex(4)}.new")
    try:
        home = open_home(work)
        try:
            lines = _Copy(old, home).make()
        finally:
            home.close()
        _refuse_live(old)
        os.rename(work, new)
        fsync_directory(new.parent)
    except OSError as error:
        raise wrap_os_error(error, new, "cannot write the copy") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Repaired(str(new), tuple(lines))


def _refuse_live(directory: Path) -> None:
    for folder in run_folders(directory):
        owner = folder.owner()
        if owner is not None:
            raise RunLockedError(
                f"run {owner.run!r} in {directory} is held by process {owner.pid} on {owner.host} (stop it first)",
                run=owner.run, pid=owner.pid, host=owner.host, since=owner.since,
            )


class _Copy:
    """One repair: fills the store and the folders of `home`."""

    def __init__(self, source: Path, home: Home) -> None:
        self._source = source
        self._home = home
        self._store = home.store
        self._found: dict[tuple[bytes, int], Remains] = {}
        self._folders = {folder.path.name.rpartition("-")[2]: folder for folder in run_folders(source)}
        self._lines: list[str] = []

    def make(self) -> list[str]:
        self._copy_log()
        self._read_sync_files()
        self._read_journals()
        for _, found in sorted(self._found.items()):
            self._settle(found)
        return self._lines

    def _run(self, name: bytes, number: int) -> Remains:
        found = self._found.get((name, number))
        if found is None:
            folder = self._folders.get(name.hex()[:24])
            found = self._found[name, number] = Remains(name, number, folder)
        return found

    # ---- gathering

    def _copy_log(self) -> None:
        troubles: list[str] = []
        puts: list[tuple[bytes, bytes]] = []
        lost = size = 0
        for entry in read_entries(self._source / "log", troubles):
            if entry.value is None:
                lost += 1
            else:
                puts.append((entry.key, entry.value))
                size += len(entry.value)
            if entry.key[:1] in (b"r", b"s", b"v"):
                self._run(*key_run(entry.key))
            if size > BATCH_BYTES or len(puts) > BATCH_ENTRIES:
                self._store.commit(puts, [])
                puts, size = [], 0
        self._store.commit(puts, [])
        if lost:
            self._lines.append(f"the log: {lost} entries that fail their checksum are left out")
        self._lines += [f"the log: {trouble}" for trouble in troubles]

    def _read_sync_files(self) -> None:
        folder = self._source / "sync"
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            left = read_abandoned(path)
            chains: dict[tuple[bytes, int], list[JournalRecord]] = {}
            for run, record in left[2] if left else []:
                if not self._was_cleared(*run):
                    chains.setdefault(run, []).append(record)
            for run, chain in chains.items():
                found = self._run(*run)
                found.take(chain)
                found.same_boot |= left is not None and left[1] == boot_id()

    def _read_journals(self) -> None:
        for folder in self._folders.values():
            for (digest, number), views in read_segments(folder).items():
                header = next((view.header for view in views if view.header is not None), None)
                known = (name for name, _ in self._found if name.hex()[:24] == digest)
                name = header["name"] if header is not None else next(known, None)
                if name is None:
                    self._lines.append(f"{folder.path.name}: no segment of run {number} has a whole header")
                    continue
                if self._was_cleared(name, number):
                    continue
                found = self._run(name, number)
                found.segments = views
                found.same_boot |= header is not None and header["boot"] == boot_id()
                for view in views:
                    for chain in view.chains:
                        found.take(chain)

    def _was_cleared(self, name: bytes, number: int) -> bool:
        return self._store.get(run_key(name, number)) is None and number <= cleared_up_to(self._store, name)

    # ---- settling

    def _settle(self, found: Remains) -> None:
        value = self._store.get(run_key(found.name, found.number))
        record = RunRecord.decode(value) if value is not None else None
        if record is None and found.meta is None:
            self._forget(found)
            return
        meta = description(record.meta if found.meta is None and record else found.meta or b"")
        label = f"run {meta['name']!r} {found.number}"
        self._lines += [f"{label}: segment {view.name}: {what}" for view in found.segments for what in view.damage]
        if record is None or record.status not in ENDED:
            record = self._merge(found, record, label, bytes(encode_plain({**meta, "rng": None})))
        else:
            self._put_states(found, record.seq)
        if record.value is not None and not found.is_whole(*record.value):
            record = replace(record, value=(NOT_KEPT, bytes(encode_plain("its side file was damaged"))))
            self._lines.append(f"{label}: its return value is lost")
        if record.status not in ENDED and (found.name, found.number + 1) in self._found:
            record = replace(record, status=ABANDONED)
        self._mend_results(found, record, label)
        self._copy_sides(found, record)
        if "keys" in meta and record.status not in ENDED:
            self._copy_keys(found, meta["keys"], label)
        self._store.commit([(run_key(found.name, found.number), replace(record, handed=(0, 0), boot=b"").encode())], [])

    def _forget(self, found: Remains) -> None:
        prefixes = state_key(found.name, found.number), result_key(found.name, found.number)
        self._store.commit([], [key for prefix in prefixes for key, _ in self._store.scan(prefix)])
        label = f"run {found.number} of <{found.name.hex()[:24]}>"
        self._lines.append(f"{label}: nothing says any more what it was; it is left out")

    def _merge(self, found: Remains, record: RunRecord | None, label: str, meta: bytes) -> RunRecord:
        """The run as it can go on; its states are in the log then."""
        before = record or RunRecord(found.number, RUNNING, 0, 0, (0, 0), b"", clock.time_ns(), meta)
        gone = not found.segments and before.boot == boot_id()
        if not found.same_boot:
            found.keep_from(before.seq)
        point = self._last_intact(found)
        known = max([before.seq, *found.states, *(view.last_seq for view in found.segments if found.same_boot)])
        self._put_states(found, point)
        results = found.results_at(before, point)
        if results is None:
            results = min(before.results, point)
            self._lines.append(f"{label}: up to {results} results are kept; those of repeated items come twice")
        ended = found.ended
        failure = found.failure or before.failure
        generators = found.generators.get(point, before.rng if point == before.seq else None)
        uses_generators = before.rng is not None or any(found.generators.values())
        if uses_generators and generators is None and ended is None:
            self._lines.append(f"{label}: the random generators' state at checkpoint {point} is lost")
        status = FINISHED if ended else FAILED if found.failure or before.status == FAILED else RUNNING
        self._lines.append(
            f"{label}: " + ("finished" if ended else f"goes on from checkpoint {point}" if point else "begins anew")
            + (f"; what came after it, to checkpoint {known} at least, is lost" if known > point and not ended else "")
            + ("; its journal is gone, so checkpoints after that may be lost" if gone else "")
        )
        return replace(
            before, status=status, seq=point, results=results, meta=meta, rng=generators, failure=failure,
            value=(ended[1], ended[2]) if ended else None, updated=clock.time_ns(),
        )

    def _last_intact(self, found: Remains) -> int:
        late = (found.states[seq] for seq in sorted(found.states, reverse=True))
        first = (
            next((entry.seq for entry in entries if found.is_whole(entry.flags, entry.payload)), 0)
            for entries in (late, self._logged(found))
        )
        return max(first)

    def _logged(self, found: Remains) -> Iterator[StateEntry]:
        """The states that the log has, the last one first."""
        for key in reversed([key for key, _ in self._store.scan(state_key(found.name, found.number))]):
            yield from reversed(list(decode_states(self._store.get(key) or b"")))

    def _put_states(self, found: Remains, point: int) -> None:
        """Make `point` the last state of the log, add those that only the journal has, and leave out what is not whole."""
        deletes: list[bytes] = []
        puts: list[tuple[bytes, bytes]] = []
        logged = Ranges()
        for key, value in self._store.scan(state_key(found.name, found.number)):
            entries = list(decode_states(value))
            kept = [entry for entry in entries if entry.seq <= point and found.is_whole(entry.flags, entry.payload)]
            for entry in kept:
                logged.add(entry.seq)
            if not kept:
                deletes.append(key)
            elif len(kept) < len(entries):
                puts.append((key, _chunk(kept)))
        late = [found.states[seq] for seq in sorted(found.states) if seq <= point and seq not in logged]
        late = [entry for entry in late if found.is_whole(entry.flags, entry.payload)]
        for first, last in _ranges(entry.seq for entry in late):
            chunk = [found.states[seq] for seq in range(first, last + 1)]
            puts.append((state_key(found.name, found.number, first), _chunk(chunk)))
        self._store.commit(puts, deletes)

    def _mend_results(self, found: Remains, record: RunRecord, label: str) -> None:
        """Make the log hold results 0 to `record.results` - 1, with marks in the places of those that are lost."""
        deletes: list[bytes] = []
        puts: list[tuple[bytes, bytes]] = []
        there = Ranges()
        lost = 0
        for key, value in self._store.scan(result_key(found.name, found.number)):
            first, entries = entry_of(key), decode_results(value)
            kept = [entry if found.is_whole(*entry) else _LOST for entry in entries[: max(record.results - first, 0)]]
            lost += kept.count(_LOST)
            for index in range(first, first + len(kept)):
                there.add(index)
            if not kept:
                deletes.append(key)
            elif kept != entries:
                puts.append((key, encode_results(kept)))
        late = {index: (flags, data) for index, flags, data in found.results.values() if found.is_whole(flags, data)}
        for first, last in _holes(there, record.results):
            results = [late.get(index, _LOST) for index in range(first, last + 1)]
            puts.append((result_key(found.name, found.number, first), encode_results(results)))
            lost += results.count(_LOST)
        self._store.commit(puts, deletes)
        if lost:
            self._lines.append(f"{label}: {lost} of {record.results} results are lost; reading one raises an error")

    # ---- side files

    def _copy_sides(self, found: Remains, record: RunRecord) -> None:
        if found.folder is None:
            return
        folder = Path(self._home.where) / "runs" / found.folder.path.name
        whole = [reference for reference in self._references(found, record) if found.is_whole(SIDE, reference)]
        names = {name for reference in whole for name in reference_names(reference)}
        if names:
            folder.mkdir(0o700, exist_ok=True)
            for name in sorted(names):
                shutil.copyfile(found.folder.path / name, folder / name)
                sync_file(folder / name)
            fsync_directory(folder)
            fsync_directory(folder.parent)

    def _references(self, found: Remains, record: RunRecord) -> Iterator[bytes]:
        if record.value is not None and record.value[0] & SIDE:
            yield record.value[1]
        for entry in self._logged(found):
            if entry.flags & SIDE:
                yield entry.payload
        for _, value in self._store.scan(result_key(found.name, found.number)):
            for flags, payload in decode_results(value):
                if flags & SIDE:
                    yield payload


    def _copy_keys(self, found: Remains, salt: bytes, label: str) -> None:
        last = next(self._logged(found), None)
        if found.folder is not None and last is not None:
            target = Path(self._home.where) / "runs" / found.folder.path.name
            self._lines += [f"{label}: {what}" for what in copy_keys(found.folder.path, target, found.number, salt, last)]


def _holes(there: Ranges, count: int) -> Iterator[tuple[int, int]]:
    """The ranges of 0 to count - 1 that are not there."""
    expected = 0
    for first, last in (*there.merged(), (count, count)):
        if first > expected:
            yield expected, first - 1
        expected = last + 1


def _ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    found = Ranges()
    for number in numbers:
        found.add(number)
    return found.merged()


def _chunk(states: list[StateEntry]) -> bytes:
    return encode_states([(entry.seq, entry.flags, entry.payload) for entry in states])
