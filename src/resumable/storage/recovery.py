"""What a dead process left in a run's folder, and what it is worth.

On the boot that wrote it, the journal is the truth: the page cache outlived the process. What it acknowledged must be
there and verify, or the run is damaged and nothing is decided for the user. After another boot, segments may hold
anything: the log is the truth, and journal records count as far as they go on from it without a gap and verify.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from resumable._fastlog import decode_plain, read_header, scan
from resumable.errors import DamagedLogError, NewerFormatError
from resumable.storage.accept import accept
from resumable.storage.folder import SLOTS, Folder
from resumable.storage.handoff import Batch
from resumable.storage.journal import HEADER, JournalRecord, LiveSegment
from resumable.storage.platform import boot_id
from resumable.storage.records import (
    FAILED,
    FAILURE,
    FINISHED,
    HAS_RESULT,
    META,
    RETURN,
    RNG,
    RUNNING,
    SIDE,
    RunRecord,
    StateEntry,
    decode_states,
    result_key,
    result_of,
    run_key,
    state_key,
    state_of,
)
from resumable.storage.store import Store

FORMAT = 1
_WHOLE = 1 << 40


@dataclass(slots=True)
class Left:
    """An unfinished or just finished run, read from its journal on the boot that wrote it.

    `state` is None when nothing was saved yet. `ended` is (flags, payload) of a return value.
    """

    number: int
    meta: bytes
    state: StateEntry | None
    seq: int
    results: int
    next_index: int
    segments: list[LiveSegment]
    rng: bytes | None
    failure: bytes | None
    ended: tuple[int, bytes] | None

    @property
    def status(self) -> str:
        return FINISHED if self.ended is not None else FAILED if self.failure is not None else RUNNING


def last_logged(store: Store, name: bytes, number: int) -> StateEntry | None:
    """The newest state of a run in the log."""
    found = store.last(state_key(name, number))
    return None if found is None else list(decode_states(found[1]))[-1]


def run_record(store: Store, name: bytes, number: int | None = None) -> RunRecord | None:
    """What the log knows of a run, by default the newest of that name."""
    if number is not None:
        value = store.get(run_key(name, number))
    else:
        found = store.last(run_key(name))
        value = found[1] if found else None
    return None if value is None else RunRecord.decode(value)


def run_keys(store: Store, name: bytes, number: int) -> list[bytes]:
    """The keys of all that the log has of a run."""
    chunks = (key for prefix in (state_key, result_key) for key, _ in store.scan(prefix(name, number)))
    return [run_key(name, number), *chunks]


def read_left(folder: Folder, name: bytes, number: int, logged: RunRecord | None, store: Store) -> Left | None:
    """The journal of a run that this boot wrote; None when another boot did, or nothing was ever written.

    Raises DamagedLogError when what was acknowledged is not there, NewerFormatError.
    """
    if not _of_this_boot(folder, number, logged):
        return None
    found: list[LiveSegment] = []
    for slot, segment in folder.segments(number):
        header = _checked(folder, number, slot, segment.load(), name)
        if header["boot"] != boot_id() or header["capacity"] != segment.capacity:
            raise _damaged(folder, number, 0, f"segment {number}.{slot} is not as it was made")
        found.append(LiveSegment(segment, slot, HEADER, header["first_seq"]))
    found.sort(key=lambda live: live.index)
    if not found:
        return None
    next_index = found[-1].index + 1
    # A kill while a segment is made, or used again, leaves one without records: it tells nothing, and is used first.
    written: list[LiveSegment] = []
    empty: list[LiveSegment] = []
    for live in found:
        if live.segment.record_at(HEADER) is not None:
            written.append(live)
        else:
            _check_empty(folder, number, live)
            empty.append(live)
    if not written:
        return None
    left = _read_segments(folder, name, number, logged, store, written, next_index)
    left.segments += empty
    return left


def _of_this_boot(folder: Folder, number: int, logged: RunRecord | None) -> bool:
    """Whether this boot wrote the journal: one whole header or the log says so. After a power cut there may be no other.

    Raises NewerFormatError: another version's journal is not judged, whichever boot wrote it.
    """
    found = logged is not None and logged.boot == boot_id()
    for slot in range(SLOTS):
        image = folder.image(number, slot, HEADER)
        header = read_header(image) if image is not None else None
        if header is not None:
            _check_format(folder, slot, header)
            found |= header["boot"] == boot_id()
    return found


def _read_segments(
    folder: Folder,
    name: bytes,
    number: int,
    logged: RunRecord | None,
    store: Store,
    found: list[LiveSegment],
    next_index: int,
) -> Left:
    newest = found[-1]
    first = newest.segment.record_at(HEADER)
    assert first is not None, "empty segments were left out"
    state, event, results = _ends(folder, number, newest)
    for live, later in pairwise(found):
        # Not their indexes: a life that was killed before its first record leaves a gap there that means nothing.
        last, _, _ = _ends(folder, number, live)
        if (last[1] if last else live.last_seq) != later.last_seq:
            raise _damaged(folder, number, logged.seq if logged else 0, "one of its segments is missing")
        live.last_seq, live.due = later.last_seq, True
    seq = state[1] if state else newest.last_seq
    entry = None if state is None else state_of(state[1], state[3], state[4])
    if entry is None and seq > 0:
        entry = _state_before(folder, name, number, found, seq, store)
    newest.last_seq, newest.due = seq, True
    if logged is not None and logged.seq > seq:
        raise _damaged(folder, number, seq, f"the log has checkpoint {logged.seq}, the journal ends at {seq}")
    return Left(
        number=number,
        meta=first[4],
        state=entry,
        seq=seq,
        results=results,
        next_index=next_index,
        segments=found,
        rng=_generators(folder, number, newest, seq),
        failure=event[4] if event and event[2] == FAILURE else None,
        ended=(event[3], event[4]) if event and event[2] == RETURN else None,
    )


def _ends(folder: Folder, number: int, live: LiveSegment) -> tuple[JournalRecord | None, JournalRecord | None, int]:
    try:
        state, event, tail, results = live.segment.ends()
    except ValueError as error:
        raise _damaged(folder, number, live.last_seq, f"segment {number}.{live.slot}: {error}") from error
    live.end = tail
    return state, event, results


def read_records(folder: Folder, number: int, live: LiveSegment, start: int, seq: int) -> list[JournalRecord]:
    """What a segment holds from an offset on, without the states before checkpoint `seq`. Raises DamagedLogError."""
    try:
        records, _ = live.segment.records(start, live.end, seq, _WHOLE)
    except ValueError as error:
        raise _damaged(folder, number, live.last_seq, f"segment {number}.{live.slot}: {error}") from error
    return records


def _state_before(
    folder: Folder, name: bytes, number: int, found: list[LiveSegment], seq: int, store: Store
) -> StateEntry:
    """The last state when the newest segment has none yet."""
    for live in reversed(found[:-1]):
        state, _, _ = _ends(folder, number, live)
        if state is not None and state[1] == seq:
            return state_of(state[1], state[3], state[4])
    logged = last_logged(store, name, number)
    if logged is None or logged.seq != seq:
        raise _damaged(folder, number, logged.seq if logged else 0, f"checkpoint {seq} was acknowledged and is missing")
    return logged


def _generators(folder: Folder, number: int, live: LiveSegment, seq: int) -> bytes | None:
    """The newest RNG record of the segment that belongs to a checkpoint up to `seq`."""
    _, event, _, _ = live.segment.ends()
    if event is None or event[2] == META:
        return None
    records = read_records(folder, number, live, HEADER, 1 << 47)
    reached = [payload for _, of, kind, _, payload in records if kind == RNG and of <= seq]
    return reached[-1] if reached else None


def _checked(folder: Folder, number: int, slot: int, header: dict[str, Any] | None, name: bytes) -> dict[str, Any]:
    where = f"segment {number}.{slot}"
    if header is None:
        raise _damaged(folder, number, 0, f"{where} has no whole header")
    if header["name"] != name or header["number"] != number:
        raise _damaged(folder, number, 0, f"{where} belongs to another run")
    return header


def _check_format(folder: Folder, slot: int, header: dict[str, Any]) -> None:
    if header["version"] != FORMAT:
        raise NewerFormatError(
            f"{folder.where}: segment {header['number']}.{slot} has format {header['version']}, this version of resumable knows "
            f"{FORMAT} (upgrade it)", path=folder.where, found=header["version"], supported=FORMAT,
        )


def _check_empty(folder: Folder, number: int, live: LiveSegment) -> None:
    # Nothing was acknowledged in an empty segment, so a hint or a later record in it means that its head was lost.
    state, event, _ = _ends(folder, number, live)
    if state is not None or event is not None or live.end != HEADER:
        raise _damaged(folder, number, live.last_seq, f"segment {number}.{live.slot} lost its first record")


def _damaged(folder: Folder, number: int, intact: int, reason: str) -> DamagedLogError:
    return DamagedLogError(
        f"{folder.where}: the journal of run {number} is damaged: {reason}; intact up to checkpoint {intact} "
        f"(nothing was changed: `python -m resumable check` shows what is there, `repair` writes a copy that can go on)",
        path=folder.where,
        run=number,
        intact=intact,
        reason=reason,
    )


# ---- after another boot


def salvage(folder: Folder, name: bytes, number: int, logged: RunRecord | None) -> Batch | None:
    """Log entries for what another boot's journal holds beyond the log; None when there is nothing.

    What has no header that tells its run is set aside, but for files of zeros, which are what was never written.
    """
    segments = []
    for slot, image in folder.images(number):
        header = read_header(image)
        if header is not None and header["name"] == name and header["number"] == number and header["version"] == FORMAT:
            segments.append((header["index"], image))
        elif image.strip(b"\0"):
            folder.set_aside(number, slot)
    segments.sort()
    found: list[JournalRecord] = []
    for _, image in segments:
        records, _ = scan(image)
        if records and records[0][2] == META:
            found += records
    # Of keys the disk has those that the log's states tell of, and no others for certain.
    keyed = any(kind == META and "keys" in decode_plain(payload) for _, _, kind, _, payload in found)
    return accept(
        name, number, logged, found, lambda flags, payload: not keyed and _sides_intact(folder, flags, payload)
    )


def _sides_intact(folder: Folder, flags: int, payload: bytes) -> bool:
    entry = state_of(0, flags, payload)
    references = [entry.payload] if entry.flags & SIDE else []
    if flags & HAS_RESULT:
        _, result_flags, result = result_of(flags, payload)
        references += [result] if result_flags & SIDE else []
    return all(_intact(folder, reference) for reference in references)


def _intact(folder: Folder, reference: bytes) -> bool:
    try:
        folder.read_side(reference)
    except DamagedLogError:
        return False
    return True
