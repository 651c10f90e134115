"""What a state directory tells of its runs. Everything here reads without locks, while other processes run the jobs."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, overload

from resumable._fastlog import read_header
from resumable.errors import DamagedLogError, RunNotFoundError, StateGoneError, UndecodableStateError
from resumable.runs.failure import Failure
from resumable.runs.identity import folder_name
from resumable.runs.opening import read_stored
from resumable.storage.folder import SLOTS, Folder
from resumable.storage.home import Home
from resumable.storage.journal import HEADER
from resumable.storage.lock import Owner
from resumable.storage.records import (
    ENDED,
    FAILED,
    FAILURE_FIELDS,
    FINISHED,
    META_FIELDS,
    RUNNING,
    SIDE,
    TIER_MASK,
    RunRecord,
    StateEntry,
    decode_kept,
    decode_results,
    decode_states,
    digest16,
    entry_of,
    key_run,
    result_key,
    run_key,
    state_key,
)
from resumable.storage.recovery import last_logged
from resumable.storage.side import reference_names
from resumable.storage.tail import last_failure, read_end, read_whole
from resumable.values.codec import LETTER, Codec, Encoded
from resumable.values.dead_letter import DeadLetter
from resumable.values.rebuild import stored

INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run. `status`: running, interrupted (stopped or killed: call it again), failed, finished, abandoned.

    `updated` is when the log last heard of the run: of a running one, at the latest every `sync_every` while it saves. `seq` is
    the last acknowledged checkpoint, `on_disk` the last that a power cut cannot take, `results` the number of results that were
    saved; of a map, also those in whose place its dead letters' items have others by now. `write_path` is "map", "pwrite" or
    "memory"; "log" when no journal is left. `pid` and `host` say who runs it.
    """

    name: str
    number: int
    job: str
    status: str
    seq: int
    on_disk: int
    results: int
    arguments: str
    version: int | None
    started: datetime
    updated: datetime | None
    resumed: int
    write_path: str
    pid: int | None
    host: str | None


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A checkpoint inside the retention window; `state` is decoded when it is asked for."""

    seq: int
    tier: int
    size: int
    _entry: StateEntry = field(repr=False)
    _source: View = field(repr=False, compare=False)

    @property
    def state(self) -> Any:
        """The value. Raises UndecodableStateError, ReconnectError, StateGoneError."""
        return self._source.decode_state(self._entry)


class View:
    """One run as the log and its journal show it at this moment. All states and results are read for `whole` alone."""

    def __init__(self, home: Home, folder: Folder, name: bytes, number: int, codec: Codec, *, whole: bool = False) -> None:
        self.home, self.folder, self.name, self.number, self._codec = home, folder, name, number, codec
        # The journal first: what it hands over meanwhile is then in the log. The other order could miss both.
        self.tail = (read_whole if whole else read_end)(folder, name, number)
        value = home.store.get(run_key(name, number))
        self.record = RunRecord.decode(value) if value is not None else None
        if self.record is not None and self.record.status in ENDED:
            self.tail = None

    @property
    def meta(self) -> dict[str, Any]:
        source = self.tail.meta if self.tail is not None else self.record.meta if self.record is not None else b""
        return dict(decode_kept(source, f"the description of run {self.number} in {self.home.where}", META_FIELDS))

    @property
    def exists(self) -> bool:
        return self.tail is not None or self.record is not None

    @property
    def seq(self) -> int:
        return max(self.tail.seq if self.tail else 0, self.record.seq if self.record else 0)

    def anew(self, *, whole: bool = False) -> View:
        """The same run at this moment; if `whole`, with every record that its journal has."""
        return View(self.home, self.folder, self.name, self.number, self._codec, whole=whole)

    def last_state(self) -> StateEntry | None:
        """The state of the last checkpoint, None when there is none. Raises DamagedLogError."""
        seq = self.seq
        if seq == 0:
            return None
        if self.tail is not None and self.tail.seq == seq and self.tail.state is not None:
            return self.tail.state
        entry = last_logged(self.home.store, self.name, self.number)
        if entry is None or entry.seq < seq:
            raise DamagedLogError(
                f"checkpoint {seq} of run {self.meta['name']!r} is neither in the log nor in its journal "
                f"(`python -m resumable check` shows what is intact)", run=self.meta["name"], reason="state missing",
            )
        return entry

    def states(self) -> list[StateEntry]:
        """Every state that is kept, ascending."""
        found: dict[int, StateEntry] = {}
        tail = self.anew(whole=True).tail        # before the log
        for _, value in self.home.store.scan(state_key(self.name, self.number)):
            found.update((entry.seq, entry) for entry in decode_states(value))
        if tail is not None:
            # What came to the log after the journal was read may lie far behind it.
            found = {seq: entry for seq, entry in found.items() if seq <= tail.seq}
            found.update((entry.seq, entry) for entry in tail.states)
        return [found[seq] for seq in sorted(found)]

    def decode_state(self, entry: StateEntry) -> Any:
        """The state of a checkpoint that may be removed meanwhile. Raises StateGoneError, UndecodableStateError, ..."""
        try:
            return self.decode(entry)
        except DamagedLogError as error:
            if not entry.flags & SIDE or set(reference_names(entry.payload)) <= set(self.folder.sides(self.number)):
                raise
            name = self.meta["name"]
            raise StateGoneError(
                f"checkpoint {entry.seq} of run {name!r} was large, and of those the last two are kept",
                run=name, seq=entry.seq, first=None, last=self.seq,
            ) from error

    def encoded(self, entry: StateEntry) -> Encoded:
        """A state or result as it was encoded. Raises DamagedLogError."""
        tier, data, buffers = read_stored(self.folder, entry)
        return Encoded(tier, bytes(data), tuple(buffers))

    def decode(self, entry: StateEntry) -> Any:
        """A state or result. Raises DamagedLogError, UndecodableStateError, ReconnectError."""
        try:
            return self._codec.decode(*read_stored(self.folder, entry), rebuild=stored)
        except UndecodableStateError as error:
            name = self.meta["name"]
            raise UndecodableStateError(f"run {name!r}: {error}", run=name, seq=entry.seq, reason=str(error)) from error

    def info(self) -> RunInfo:
        meta, record, tail = self.meta, self.record, self.tail
        status = record.status if record is not None else RUNNING
        owner = self.folder.owner() if status not in ENDED else None
        if tail is not None:
            status = FINISHED if tail.ended else FAILED if tail.failure is not None else RUNNING
        if owner is not None and status not in ENDED:
            status = RUNNING
        elif status == RUNNING:
            status = INTERRUPTED
        results = record.results if record else 0
        if tail is not None:
            results = max(results, tail.results)
        updated = max(tail.created if tail else 0, record.updated if record else 0)
        path = {1: "map", 2: "pwrite"}[tail.mode] if tail else "log"
        return RunInfo(
            name=meta["name"], number=self.number, job=meta["job"], status=status, seq=self.seq,
            on_disk=self._on_disk(meta, owner), results=results, arguments=meta["shown"], version=meta["versions"][-1][1],
            started=_time(meta["started"]), updated=_time(updated) if updated else None, resumed=meta["resumed"],
            write_path="memory" if tail and self.home.path is None else path,
            pid=owner.pid if owner else None, host=owner.host if owner else None,
        )

    def _on_disk(self, meta: dict[str, Any], owner: Owner | None) -> int:
        logged, tail = self.record.seq if self.record is not None else 0, self.tail
        if tail is None or meta["durability"] != "disk":
            return logged
        if tail.ended or tail.failure is not None:
            return max(logged, tail.seq)
        if tail.seq == tail.first_seq:
            return logged       # a life that has saved nothing: what it goes on from may still be on its way to the disk
        # The last one may be waiting for its sync, which its own process knows, or have been when a kill came.
        return max(logged, tail.seq if owner is not None and owner.pid == os.getpid() else tail.seq - 1)

    def failure(self) -> Failure | None:
        # The last one may be an earlier life's that the log does not have yet; the journal first, as above.
        payload = last_failure(self.folder, self.name, self.number) if self.tail is not None else None
        if payload is None:
            record = self.home.store.get(run_key(self.name, self.number))
            payload = RunRecord.decode(record).failure if record is not None else None
        if payload is None:
            return None
        kept = decode_kept(payload, f"the failure of run {self.meta['name']!r}", FAILURE_FIELDS)
        return Failure.thaw(kept, run=self.meta["name"], number=self.number, seq=self.seq)


class Results(Sequence[Any]):
    """A run's results, read and decoded as they are asked for; its length is what it was when this was made."""

    def __init__(self, view: View) -> None:
        self._view = view = view.anew(whole=True)
        store = view.home.store
        self._chunks = [entry_of(key) for key, _ in store.scan(result_key(view.name, view.number))]
        self._late = {index: (flags, data) for index, flags, data in (view.tail.late if view.tail else [])}
        logged = view.record.results if view.record else 0
        self._length = max([logged, *(index + 1 for index in self._late)])
        self._cached: tuple[int, list[tuple[int, bytes]]] = (-1, [])

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._result(i) for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"result {index} of {len(self)}")
        return self._result(at)

    def __iter__(self) -> Iterator[Any]:
        return (self._result(i) for i in range(len(self)))

    def _result(self, at: int) -> Any:
        return self._view.decode(StateEntry(at, *self.stored(at)))

    def __repr__(self) -> str:
        return f"<{len(self)} results of run {self._view.meta['name']!r}>"

    def stored(self, at: int) -> tuple[int, bytes]:
        """The flags and bytes of a result."""
        return self._late[at] if at in self._late else self._logged(at)

    def _logged(self, at: int) -> tuple[int, bytes]:
        first = self._chunks[bisect_right(self._chunks, at) - 1] if self._chunks and self._chunks[0] <= at else at
        if self._cached[0] != first:
            value = self._view.home.store.get(result_key(self._view.name, self._view.number, first))
            self._cached = first, decode_results(value, f"result {at} of run {self._view.meta['name']!r}") if value else []
        if at - first >= len(self._cached[1]):
            raise DamagedLogError(
                f"result {at} of run {self._view.meta['name']!r} is neither in the log nor in its journal "
                f"(`python -m resumable check` shows what is intact)", run=self._view.meta["name"], reason="result missing",
            )
        return self._cached[1][at - first]


def dead_letters(view: View, since: int) -> list[DeadLetter]:
    """The dead letters among a run's results from number `since` on."""
    results = Results(view)
    return [results[at] for at in range(since, len(results)) if results.stored(at)[0] & TIER_MASK == LETTER]


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


# ---- finding runs


def every_run(home: Home, codec: Codec) -> list[RunInfo]:
    """All runs, newest first."""
    keys = {key_run(key) for key, _ in home.store.scan(b"r")}
    folders: dict[bytes, Folder] = {}
    for _, folder in home.folders():
        for number in folder.numbers():
            name = _name_in(folder, number)
            if name is not None:
                keys.add((name, number))
                folders[name] = folder
    found = []
    for name, number in keys:
        view = View(home, folders.get(name) or home.folder(f"gone-{name.hex()[:24]}"), name, number, codec)
        if view.exists:
            found.append(view.info())
    return sorted(found, key=lambda info: info.started, reverse=True)


def _name_in(folder: Folder, number: int) -> bytes | None:
    for slot in range(SLOTS):
        image = folder.image(number, slot, HEADER)
        header = read_header(image) if image is not None else None
        if header is not None:
            return bytes(header["name"])
    return None


def has(home: Home, name: str, codec: Codec) -> bool:
    """Whether there is a run of exactly this name."""
    return _newest(home, name, None, codec) is not None


def find(home: Home, name: str, number: int | None, codec: Codec) -> View:
    """A run by name, the newest by default. Raises RunNotFoundError."""
    view = _newest(home, name, number, codec)
    if view is not None:
        return view
    which = f"run {number} of {name!r}" if number is not None else f"run {name!r}"
    raise RunNotFoundError(
        f"there is no {which} in {home.where} (driver.runs() lists those that are)", run=name, directory=home.where,
    )


def _newest(home: Home, name: str, number: int | None, codec: Codec) -> View | None:
    """The newest run of a name, or the one of this number."""
    name16 = digest16(name)
    folder = home.folder(folder_name(name))
    numbers = {*folder.numbers(), *(key_run(key)[1] for key, _ in home.store.scan(run_key(name16)))}
    for each in sorted(numbers, reverse=True):
        if number is None or number == each:
            view = View(home, folder, name16, each, codec)
            if view.exists:     # not so where a kill came, or another process is, before a run's first record
                return view
    return None


def names_of_job(home: Home, job: str, codec: Codec) -> list[str]:
    """The names of all runs of a job, the one that was begun last first."""
    found = dict.fromkeys(info.name for info in every_run(home, codec) if info.job == job)
    return list(found)


def state_at(view: View, at: int | None) -> Any:
    """The state of checkpoint `at`, by default the last. Raises StateGoneError."""
    if at is None:
        return _last_state(view)
    name, entries = view.meta["name"], view.states()
    if not entries:
        raise _no_state(name, at)
    for entry in entries:
        if entry.seq == at:
            return view.decode_state(entry)
    first, last = entries[0].seq, entries[-1].seq
    raise StateGoneError(
        f"checkpoint {at} of run {name!r} is not kept: checkpoints {first} to {last} are (Driver(keep_states=...))",
        run=name, seq=at, first=first, last=last,
    )


def _last_state(view: View) -> Any:
    while True:
        entry = view.last_state()
        if entry is None:
            raise _no_state(view.meta["name"])
        try:
            return view.decode(entry)
        except DamagedLogError:
            now = view.anew()
            if not now.exists or now.seq == entry.seq:
                raise
            view = now      # the run went on meanwhile, and has removed that large state


def _no_state(name: str, at: int = 0) -> StateGoneError:
    return StateGoneError(f"run {name!r} has no checkpoint yet", run=name, seq=at, first=0, last=0)


def history(view: View) -> list[StateRecord]:
    """The checkpoints that can be read, ascending: of large states the last few alone."""
    entries = view.states()
    sides = set(view.folder.sides(view.number))     # after the log: what it lists may be gone by now
    return [
        StateRecord(entry.seq, entry.flags & TIER_MASK, len(entry.payload), entry, view)
        for entry in entries if not entry.flags & SIDE or set(reference_names(entry.payload)) <= sides
    ]
