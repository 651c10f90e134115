"""Opening a run: take its lock, settle what earlier lives left, and decide: go on, begin, or give back a value."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import Any

from resumable import clock
from resumable.errors import (
    ChangedArgumentsError,
    DamagedLogError,
    NoValueError,
    OtherArgumentsWarning,
    UndecodableStateError,
    VersionError,
)
from resumable.runs.identity import Identity, job8
from resumable.runs.log import logger
from resumable.runs.settings import Migrations, Request, Settings
from resumable.runs.warn import warn_user
from resumable.storage.folder import Folder
from resumable.storage.handoff import build
from resumable.storage.home import Home
from resumable.storage.journal import HEADER, JournalRecord, LiveSegment, Position
from resumable.storage.platform import boot_id
from resumable.storage.records import (
    ABANDONED,
    ENDED,
    FINISHED,
    META_FIELDS,
    NOT_KEPT,
    SIDE,
    TIER_MASK,
    RunRecord,
    StateEntry,
    cleared_up_to,
    decode_kept,
    run_key,
)
from resumable.storage.recovery import Left, last_logged, read_left, read_records, run_record, salvage
from resumable.storage.tail import unfinished
from resumable.values import outputs
from resumable.values.codec import Bytes, Codec
from resumable.version import VERSION


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished run's value, given back instead of running."""

    value: Any


@dataclass(slots=True)
class Start:
    """Where a run begins or goes on: all that a live run needs to know of the past.

    `entry` is the last state as stored, None when there is none. `record` is the log's view, with `handed` valid for
    the segments listed. `version_of_state` belongs to `entry`.
    """

    number: int
    meta: dict[str, Any]
    entry: StateEntry | None
    seq: int
    results: int
    segments: list[LiveSegment]
    next_index: int
    record: RunRecord
    rng: bytes | None
    resumed: bool
    version_of_state: int | None


def decide(home: Home, folder: Folder, identity: Identity, settings: Settings, request: Request) -> Start | Answer:
    """What a call of `run` means, under the run's lock.

    Raises ChangedArgumentsError, VersionError, NoValueError, DamagedLogError, NewerFormatError, StorageError.
    """
    record, left, untold = settle(home, folder, identity.name16)
    start = _unfinished(home, folder, identity, record, left)
    if start is not None and not request.fresh:
        kept = _goes_on(start, identity, request)
        if kept is not None:
            return kept
    if start is not None:
        abandon(home, folder, identity.name16, record, left)
    elif record is not None and not request.fresh and _was_meant(record, identity, request, untold):
        return Answer(value_of(folder, record, identity.name, settings.codec))
    if start is None and record is None and not identity.named:
        _warn_of_others(home, identity)
    # Above what was cleared too: what a power cut leaves of that is told by its number.
    cleared = cleared_up_to(home.store, identity.name16)
    number = max([cleared, record.number if record else 0, *folder.numbers(), start.number if start else 0]) + 1
    return _begin(identity, request, settings, number)


def _was_meant(record: RunRecord, identity: Identity, request: Request, untold: bool) -> bool:
    """Whether this call asks for a finished run's value: by `once`, in its batch, or as a kill kept it from its caller."""
    if record.status != FINISHED:
        return False
    meta = _described(record.meta, record.number, identity.name)
    if request.once or (request.batch is not None and meta["batch"] == request.batch):
        return not _is_given_up(meta, identity, request, "have its value", "have it all the same")
    kept = record.value is not None and not record.value[0] & NOT_KEPT
    return untold and kept and meta["args"] == identity.digest


def _is_given_up(meta: dict[str, Any], identity: Identity, request: Request, first: str, new: str) -> bool:
    """Whether other arguments mean another run: `on_change="restart"`. `first` and `new` say what either arguments are for.

    Raises ChangedArgumentsError.
    """
    recorded = meta["args"]
    if None in (recorded, identity.digest) or recorded == identity.digest or request.on_change == "continue":
        return False
    if request.on_change == "restart":
        return True
    raise ChangedArgumentsError(
        f"run {identity.name!r} was started with ({meta['shown']}) and is now called with ({identity.shown}): "
        f"give the first arguments to {first}, another name= for another run, on_change=\"continue\" to {new}, or "
        f"on_change=\"restart\" to begin anew",
        run=identity.name, recorded=meta["shown"], given=identity.shown,
    )


def _begin(identity: Identity, request: Request, settings: Settings, number: int) -> Start:
    meta = {
        "name": identity.name, "job": identity.job, "args": identity.digest, "shown": identity.shown,
        "versions": [(0, request.version)], "started": clock.time_ns(), "resumed": 0, "batch": request.batch,
        "python": sys.version.split()[0], "package": VERSION, "code": identity.code_digest,
        "host": os.uname().nodename, "rng": None, **(request.about or {}),
    }
    record = RunRecord(number, "", 0, 0, (0, 0), boot_id(), 0, b"")
    return Start(number, meta, None, 0, 0, [], 0, record, None, False, request.version)


# ---- an unfinished run


def _unfinished(
    home: Home, folder: Folder, identity: Identity, record: RunRecord | None, left: Left | None
) -> Start | None:
    if left is not None:
        known = record if record is not None and record.number == left.number else None
        same_boot = known is not None and known.boot == boot_id()
        handed: Position = known.handed if known is not None and same_boot else (0, 0)
        base = replace(
            known or RunRecord(left.number, "", 0, 0, (0, 0), boot_id(), 0, left.meta), handed=handed,
        )
        meta = _described(left.meta, left.number, identity.name)
        return Start(
            left.number, meta, left.state, left.seq, left.results, left.segments, left.next_index, base,
            left.rng or meta["rng"], True, _version_at(meta, left.seq),
        )
    if record is None or record.status in ENDED:
        return None
    if record.boot == boot_id():
        raise DamagedLogError(
            f"{folder.where}: the journal of run {record.number} of {identity.name!r} is gone, though the machine was not "
            f"restarted; the log has checkpoint {record.seq}, which may not be the last (put the files back, or take what "
            f"the log has with `python -m resumable repair`, or begin anew with driver.clear)",
            path=folder.where, run=record.number, intact=record.seq, reason="journal missing",
        )
    meta = _described(record.meta, record.number, identity.name)
    entry = last_logged(home.store, identity.name16, record.number)
    return Start(
        record.number, meta, entry, record.seq, record.results, [], 0, replace(record, handed=(0, 0)),
        record.rng or meta["rng"], True,
        _version_at(meta, record.seq),
    )


def _described(meta: bytes, number: int, name: str) -> dict[str, Any]:
    return dict(decode_kept(meta, f"the description of run {number} of {name!r}", META_FIELDS))


def _not_handed(folder: Folder, left: Left, handed: Position, seq: int) -> list[JournalRecord]:
    """The records of a journal behind what the log has."""
    records = []
    for live in left.segments:
        if live.index >= handed[0]:
            start = max(HEADER, handed[1]) if live.index == handed[0] else HEADER
            records += read_records(folder, left.number, live, start, seq + 1)
    return records


def _goes_on(start: Start, identity: Identity, request: Request) -> Start | None:
    """The run, ready to go on; None when `on_change="restart"` gives it up."""
    if _is_given_up(start.meta, identity, request, "finish it", "go on with the new ones for good"):
        return None
    meta = dict(start.meta)
    meta["args"] = identity.digest or meta["args"]
    meta["shown"] = identity.shown
    meta["resumed"] += 1
    meta["batch"] = request.batch or meta["batch"]
    if meta["code"] != identity.code_digest:
        logger.info("the code of run %r is not what it was at checkpoint %d", identity.name, start.seq)
        meta["code"] = identity.code_digest
    # A version that was set and never had a checkpoint is void.
    meta["versions"] = [entry for entry in meta["versions"] if entry[0] < max(start.seq, 1)]
    if request.version != start.version_of_state:
        _check_migrations(identity.name, start, request)
        meta["versions"] = [*meta["versions"], (start.seq, request.version)]
    start.meta = meta
    return start


def _version_at(meta: dict[str, Any], seq: int) -> int | None:
    """The version of checkpoint `seq`: the last one that was set before it."""
    versions: list[tuple[int, int | None]] = meta["versions"]
    found = [version for since, version in versions if since < max(seq, 1)]
    return found[-1]


def _check_migrations(name: str, start: Start, request: Request) -> None:
    if start.entry is None:
        return
    old, new = start.version_of_state or 0, request.version
    missing = None if new is None else [v for v in range(old, new) if v not in (request.migrate or {})]
    if new is None or new < old or missing:
        what = "none is given" if new is None else f"version {new} is given"
        hint = f"migrate={{{missing[0]}: fn}}" if missing else f"version={start.version_of_state}"
        raise VersionError(
            f"the last checkpoint of run {name!r} has version {start.version_of_state}, and {what} "
            f"(give {hint}, where fn makes a state of the next version from one of its own; or fresh=True to begin anew)",
            run=name, recorded=start.version_of_state, given=new,
        )


def migrated(state: Any, start: Start, version: int | None, migrate: Migrations | None) -> Any:
    """The last state, brought to the version that the job asks for."""
    for old in range(start.version_of_state or 0, version or 0):
        if migrate is not None and old in migrate:
            state = migrate[old](state)
    return state


# ---- what earlier lives left


def settle(home: Home, folder: Folder, name: bytes) -> tuple[RunRecord | None, Left | None, bool]:
    """Bring the log up to date with the journals in the folder, under its lock.

    Gives back the log's newest run of that name; the unfinished run whose journal is the truth, if there is one; and
    whether the newest run finished in a process that ended before it could tidy up, so that nobody may have its value.
    """
    unfinished: Left | None = None
    numbers = folder.numbers()
    cleared = cleared_up_to(home.store, name) if numbers else 0
    for number in numbers:
        logged = run_record(home.store, name, number)
        if number <= cleared or (logged is not None and logged.status in ENDED):
            folder.discard(number)      # a kill came between the commit and the removal
            continue
        left = read_left(folder, name, number, logged, home.store)
        if left is None:
            batch = salvage(folder, name, number, logged)
            if batch is not None:
                home.writer.commit(batch.puts)
            folder.discard(number, goes_on=True)    # else the next power cut could bring it back, beside a later boot's
        elif left.ended is not None or number != numbers[-1]:
            hand_over(home, folder, name, left, logged, FINISHED if left.ended is not None else ABANDONED)
        else:
            unfinished = left
    newest = run_record(home.store, name)
    untold = newest is not None and newest.status == FINISHED and newest.number in numbers
    return newest, unfinished, untold


def hand_over(home: Home, folder: Folder, name: bytes, left: Left, logged: RunRecord | None, status: str) -> None:
    """Put the rest of a run that is over into the log, then remove its journal."""
    base = replace(logged or RunRecord(left.number, status, 0, 0, (0, 0), boot_id(), 0, b""), meta=left.meta)
    handed = base.handed if base.boot == boot_id() else (0, 0)
    batch = build(name, base, _not_handed(folder, left, handed, base.seq), (0, 0))
    folder.sync_sides(batch.sides)
    record = replace(batch.record, status=status, boot=b"")
    home.writer.commit([*batch.puts, (run_key(name, left.number), record.encode())])
    for live in left.segments:
        folder.let_go(live.segment)
    folder.discard(left.number)


def abandon(home: Home, folder: Folder, name: bytes, record: RunRecord | None, left: Left | None) -> None:
    """Another run takes this one's place; it stays readable."""
    if left is not None:
        logged = record if record is not None and record.number == left.number else None
        hand_over(home, folder, name, left, logged, ABANDONED)
    elif record is not None:
        home.writer.commit([(run_key(name, record.number), replace(record, status=ABANDONED).encode())])
        folder.discard(record.number)


def value_of(folder: Folder, record: RunRecord, name: str, codec: Codec) -> Any:
    """A finished run's return value. Raises NoValueError, UndecodableStateError, DamagedLogError."""
    if record.value is None:
        raise NoValueError(f"run {record.number} of {name!r} has no return value in the log", run=name, reason="missing")
    flags, payload = record.value
    if flags & NOT_KEPT:
        reason = decode_kept(payload, f"why the value of run {name!r} was not kept")
        raise NoValueError(
            f"run {name!r} is finished, but its return value could not be saved: {reason} "
            f"(return something that can be, or run it anew with fresh=True)", run=name, reason=reason,
        )
    try:
        with outputs.left_alone():
            return codec.decode(*read_stored(folder, StateEntry(0, flags, payload)))
    except UndecodableStateError as error:
        raise UndecodableStateError(
            f"the return value of run {name!r}: {error}", run=name, seq=record.seq, reason=str(error)
        ) from error


def read_stored(folder: Folder, entry: StateEntry) -> tuple[int, Bytes, list[memoryview]]:
    """A state or value as the codec made it: tier, data, buffers. Raises DamagedLogError."""
    tier = entry.flags & TIER_MASK
    return (tier, *folder.read_side(entry.payload)) if entry.flags & SIDE else (tier, entry.payload, [])


def _warn_of_others(home: Home, identity: Identity) -> None:
    """A new run, while another of the same job waits to be finished, is most often a changed argument by mistake."""
    for name, folder in home.folders(job8(identity.job) + "-"):
        if name == identity.folder or folder.owner() is not None:
            continue
        for number in folder.numbers():
            described = unfinished(folder, number)
            meta = _described(described, number, name) if described is not None else None
            if meta is not None and meta["job"] == identity.job and meta["args"] != identity.digest:
                warn_user(
                    f"a new run of {identity.job} begins with ({identity.shown}), while run {meta['name']!r} with "
                    f"({meta['shown']}) is unfinished: call it with those arguments to finish it, or forget it with "
                    f"driver.clear({meta['name']!r}); with name= a run goes on whatever its arguments are",
                    OtherArgumentsWarning,
                )
                return
