"""Where a run stands by its journal, for readers that do not hold its lock, while its job may be running at full speed.

`read_end` looks at the header, the hints and the last few records of the newest segment, so it costs the same after ten
checkpoints and after ten million; `read_whole` reads every record. Both work on copies. What is read may be used again meanwhile:
records verify with their segment's generation only, and `read_end` begins anew when the header is not the same afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from resumable._fastlog import hints, read_header, scan
from resumable.storage.folder import SLOTS, Folder
from resumable.storage.journal import HEADER, JournalRecord
from resumable.storage.platform import boot_id
from resumable.storage.records import CHECKPOINT, FAILURE, HAS_RESULT, META, RETURN, StateEntry, result_of, state_of

_ATTEMPTS = 50
# A kill leaves at most a generators' record and its checkpoint behind the hints; a job at full speed never comes to an end.
_BEHIND_HINTS = 8
_RESULT_COUNT = 1040

Header = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tail:
    """What a run's journal has beyond the log.

    `state` is checkpoint `seq`, None when only the log has it. `first_seq` is the checkpoint that its newest segment goes on
    from. `results` is how many the journal knows of, `failure` what ended the run's last life. `states` and `late`
    (results: index, flags, bytes) hold all that the journal has, ascending, when the whole of it was read.
    """

    meta: bytes
    first_seq: int
    seq: int
    state: StateEntry | None
    results: int
    failure: bytes | None
    ended: bool
    mode: int
    created: int
    states: list[StateEntry] = field(default_factory=list)
    late: list[tuple[int, int, bytes]] = field(default_factory=list)


class _NotNow(Exception):
    """What was read does not fit together: it changed meanwhile, or is damaged."""


def read_end(folder: Folder, name: bytes, number: int) -> Tail | None:
    """The end of a run's journal; None when this boot has none. Where the hints say nothing the whole is read."""
    for _ in range(_ATTEMPTS):
        before = _heads(folder, name, number)
        try:
            tail = _read_end(folder, number, before)
        except _NotNow:
            continue
        # One that was put to use meanwhile does no harm: what was read came from before that.
        after = _heads(folder, name, number)
        if all(after.get(slot) == header for slot, header in before.items()):
            return tail
    return read_whole(folder, name, number)


def _heads(folder: Folder, name: bytes, number: int) -> dict[int, Header]:
    """The headers of a run's segments on this boot, by slot."""
    found = {}
    for slot in range(SLOTS):
        image = folder.image(number, slot, HEADER)
        header = read_header(image) if image is not None else None
        if header is not None and header["name"] == name and header["boot"] == boot_id():
            found[slot] = header
    return found


def _read_end(folder: Folder, number: int, heads: dict[int, Header]) -> Tail | None:
    meta: bytes | None = None
    newest: Header = {}
    last: StateEntry | None = None
    seq = results = 0
    failure, ended = None, False
    for slot, header in sorted(heads.items(), key=lambda item: -int(item[1]["index"])):
        image = folder.image(number, slot)
        if image is None or read_header(image) != header:
            raise _NotNow
        first = _record(image, HEADER)
        if first is None or first[2] != META:
            continue        # just begun, or a kill came before its first record: the run ends in the one before
        records, count = _last_records(image)
        state = next((record for record in reversed(records) if record[2] == CHECKPOINT), None)
        if meta is None:
            meta, newest = first[4], header
            seq = state[1] if state else header["first_seq"]
            results = count
            failure = next((payload for _, _, kind, _, payload in reversed(records) if kind == FAILURE), None)
            ended = any(record[2] == RETURN for record in records)
        if state is not None and state[1] == seq:
            last = state_of(state[1], state[3], state[4])
        if state is not None or seq == 0:
            break
    if meta is None:
        return None
    return Tail(meta, newest["first_seq"], seq, last, results, failure, ended, newest["mode"], newest["created"])


def _last_records(image: bytes) -> tuple[list[JournalRecord], int]:
    """The last checkpoint, the last other record, and what stands behind both, ascending; and how many results there are."""
    named = [offset for offset in hints(image) if offset is not None]
    count = int.from_bytes(image[_RESULT_COUNT : _RESULT_COUNT + 8], "little")
    complement = int.from_bytes(image[_RESULT_COUNT + 8 : _RESULT_COUNT + 16], "little")
    if -1 in named or count ^ complement != (1 << 64) - 1:
        raise _NotNow
    if not named:
        records = scan(image)[0]        # written with pwrite
    else:
        records = []
        for offset in sorted(named):
            record = _record(image, offset)
            if record is None:
                raise _NotNow
            records.append(record)
        for _ in range(_BEHIND_HINTS):
            record = _record(image, records[-1][0] + _padded(image, records[-1][0]))
            if record is None:
                break
            records.append(record)
    counts = [result_of(flags, payload)[0] + 1 for _, _, kind, flags, payload in records
              if kind == CHECKPOINT and flags & HAS_RESULT]
    return records, max([count, *counts])


def _end_of(image: bytes) -> list[JournalRecord]:
    """At least the last records of a segment."""
    try:
        return _last_records(image)[0]
    except _NotNow:
        return scan(image)[0]


def last_failure(folder: Folder, name: bytes, number: int) -> bytes | None:
    """The newest failure in a run's journal, also one after which the run went on: each stands at the end of its segment."""
    for slot, header in sorted(_heads(folder, name, number).items(), key=lambda item: -int(item[1]["index"])):
        image = folder.image(number, slot)
        if image is None or read_header(image) != header:
            continue        # used again meanwhile: what was in it is in the log
        if failures := [payload for _, _, kind, _, payload in _end_of(image) if kind == FAILURE]:
            return failures[-1]
    return None


def _padded(image: bytes, offset: int) -> int:
    """The length of the record at `offset`, with its padding."""
    return (int.from_bytes(image[offset : offset + 4], "little") + 7) & ~7


def _record(image: bytes, offset: int) -> JournalRecord | None:
    """The verified record at `offset`, and no other."""
    found = scan(memoryview(image)[: offset + _padded(image, offset)], offset)[0]
    return found[0] if found else None


def unfinished(folder: Folder, number: int) -> bytes | None:
    """What the journal of a run that nobody holds says of it, whichever boot wrote it; None when that run is finished."""
    newest: tuple[int, bytes] | None = None
    for _, image in folder.images(number):
        header, first = read_header(image), _record(image, HEADER)
        if header is None or first is None or first[2] != META:
            continue
        if any(record[2] == RETURN for record in _end_of(image)):
            return None
        newest = max(newest or (-1, b""), (header["index"], first[4]))
    return newest[1] if newest is not None else None


def _segments(folder: Folder, name: bytes, number: int) -> list[tuple[Header, list[JournalRecord]]]:
    """Headers and records of a run's segments, ascending, as they were at one moment.

    The newest is read first: the others are full by then. In any other order the job could go on, meanwhile, from one that
    has been read into the next, and what it saved in between would be missing.
    """
    heads = _heads(folder, name, number)
    for _ in range(_ATTEMPTS):
        indexes = sorted({int(header["index"]) for header in heads.values()})
        if not indexes or indexes[-1] - indexes[0] == len(indexes) - 1:
            break       # else one may have been put to use just behind the reader; or an earlier life's is torn, and stays so
        heads = _heads(folder, name, number)
    segments: list[tuple[Header, list[JournalRecord]]] = []
    for slot, _ in sorted(heads.items(), key=lambda item: -int(item[1]["index"])):
        image = folder.image(number, slot)
        header = read_header(image) if image is not None else None
        if image is None or header is None or header["name"] != name or header["boot"] != boot_id():
            continue
        if segments and header["index"] > segments[-1][0]["index"]:
            continue        # used again: what was in it is in the log, which is read later, or out of the window
        records, _ = scan(image)
        if records and records[0][2] == META:
            segments.append((header, records))
    return segments[::-1]


def read_whole(folder: Folder, name: bytes, number: int) -> Tail | None:
    """All that a run's journal has; None when this boot has none. A segment used again while it was read is left out."""
    segments = _segments(folder, name, number)
    if not segments:
        return None
    states: dict[int, StateEntry] = {}
    late: dict[int, tuple[int, int, bytes]] = {}
    failure, ended = None, False
    for _, records in segments:
        # A failure counts until the run goes on, and going on begins a segment.
        failure = None
        for _, seq, kind, flags, payload in records:
            if kind == CHECKPOINT:
                states[seq] = state_of(seq, flags, payload)
                if flags & HAS_RESULT:
                    result = result_of(flags, payload)
                    late[result[0]] = result
            elif kind == FAILURE:
                failure = payload
            elif kind == RETURN:
                ended = True
    header, records = segments[-1]
    seq = max([header["first_seq"], *states])
    return Tail(
        records[0][4], header["first_seq"], seq, states.get(seq), max(late, default=-1) + 1, failure, ended, header["mode"],
        header["created"], [states[seq] for seq in sorted(states)], [late[index] for index in sorted(late)],
    )
