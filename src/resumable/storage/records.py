"""What the log holds of a run, and under which keys.

Keys sort by run: a letter, the 16-byte digest of the run's name, the run number (u32, big-endian) and, for chunks, the
number of the first entry (u64, big-endian). All values are plain-encoded.

    r name number         RunRecord: what is known of the run; written with every hand-off
    s name number seq     a chunk of states: [(seq, flags, state), ...]
    v name number index   a chunk of results: ([result, ...], flags), a byte of flags for each
    b name                a batch: see runs/batch.py
    c name                the highest run number that was ever cleared: whatever journals or sync files hold of runs up to
                          there, for instance after a power cut, is not taken for a run
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

from resumable._fastlog import decode_plain, encode_plain
from resumable.errors import DamagedLogError
from resumable.storage.store import Store

# Record kinds and flags of the journal; docs/internals.md.
META, CHECKPOINT, RNG, FAILURE, RETURN = 1, 2, 3, 4, 5
TIER_MASK = 3
SIDE, HAS_RESULT, RESULT_SIDE, NOT_KEPT = 4, 8, 64, 128
RESULT_TIER_SHIFT = 4

RUNNING, FAILED, FINISHED, ABANDONED = "running", "failed", "finished", "abandoned"
ENDED = (FINISHED, ABANDONED)

META_FIELDS = frozenset(("name", "job", "args", "shown", "versions", "started", "resumed", "batch", "code", "rng"))
FAILURE_FIELDS = frozenset(("type", "message", "traceback", "locals", "time"))

# The types of a RunRecord's fields.
_MAYBE = bytes | None
_RECORD = (int, str, int, int, tuple, bytes, int, bytes, tuple | None, _MAYBE, _MAYBE)

_RUN = struct.Struct(">I")
_ENTRY = struct.Struct(">Q")
_RESULT_HEAD = struct.Struct("<QI")


def decode_kept(data: bytes, what: str, fields: frozenset[str] = frozenset()) -> Any:
    """What the library itself wrote plain-encoded, `what` for the message; a dict, if it has `fields`.

    Raises DamagedLogError, whoever wrote the bytes: their checksums may well be right.
    """
    try:
        found = decode_plain(data)
        if fields and not (isinstance(found, dict) and fields <= found.keys()):
            raise ValueError(f"it lacks some of {', '.join(sorted(fields))}")
        return found
    except (ValueError, TypeError) as error:
        raise DamagedLogError(
            f"{what} is not what was written: {error} (`python -m resumable check` shows what is intact)", reason=str(error)
        ) from error


def digest16(text: str) -> bytes:
    """The 16 bytes that stand for a run's or a batch's name in keys and file headers."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def run_key(name: bytes, number: int | None = None) -> bytes:
    """The key of a run's record; without a number, the prefix of all runs of that name."""
    return b"r" + name + (b"" if number is None else _RUN.pack(number))


def state_key(name: bytes, number: int, seq: int | None = None) -> bytes:
    """The key of the chunk of states that begins with checkpoint `seq`, or the prefix of all of the run's."""
    return b"s" + name + _RUN.pack(number) + (b"" if seq is None else _ENTRY.pack(seq))


def result_key(name: bytes, number: int, index: int | None = None) -> bytes:
    """The key of the chunk of results that begins with result `index`, or the prefix of all of the run's."""
    return b"v" + name + _RUN.pack(number) + (b"" if index is None else _ENTRY.pack(index))


def batch_key(name: bytes) -> bytes:
    """The key of a batch."""
    return b"b" + name


def cleared_key(name: bytes) -> bytes:
    """The key of what was cleared under a name."""
    return b"c" + name


def cleared_up_to(store: Store, name: bytes) -> int:
    """The highest number of this name that was ever cleared; 0 when none was."""
    value = store.get(cleared_key(name))
    return 0 if value is None else int(decode_plain(value))


def is_gone(store: Store, name: bytes, number: int) -> bool:
    """Whether a run that the log does not have was cleared, or fell out of `keep_runs`, after which a later one began."""
    newest = store.last(run_key(name))
    later = newest is not None and key_run(newest[0])[1] > number
    return later or number <= cleared_up_to(store, name)


def key_run(key: bytes) -> tuple[bytes, int]:
    """(name digest, run number) of a key that belongs to a run."""
    return key[1:17], int(_RUN.unpack_from(key, 17)[0])


def entry_of(key: bytes) -> int:
    """The number of a chunk's first entry."""
    return int(_ENTRY.unpack(key[-8:])[0])


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What the log knows of a run.

    `meta` is the run's description, opaque here. `handed` says up to where the journal is in the log: (segment index,
    offset). `boot` is the boot whose journal may go beyond. `value` is (flags, payload) of a finished run, `failure`
    the payload of the last failure, `updated` ns since the epoch.
    """

    number: int
    status: str
    seq: int
    results: int
    handed: tuple[int, int]
    boot: bytes
    updated: int
    meta: bytes
    value: tuple[int, bytes] | None = None
    failure: bytes | None = None
    rng: bytes | None = None

    def encode(self) -> bytes:
        return bytes(encode_plain(astuple(self)))

    @classmethod
    def decode(cls, data: bytes) -> RunRecord:
        """Raises DamagedLogError for bytes that `encode` never makes."""
        found = decode_kept(data, "the log's record of a run")
        if isinstance(found, tuple) and len(found) == len(_RECORD) and all(map(isinstance, found, _RECORD)):
            return cls(*found)
        raise DamagedLogError(
            "the log's record of a run is none (`python -m resumable check` shows what is intact)", reason="no record of a run"
        )


@dataclass(frozen=True, slots=True)
class StateEntry:
    """A saved state: `flags` say its tier, and whether `payload` is a reference to a side file."""

    seq: int
    flags: int
    payload: bytes


def join_result(index: int, state: bytes, result: bytes) -> bytes:
    """The payload of a CHECKPOINT with a result."""
    return _RESULT_HEAD.pack(index, len(state)) + state + result


def split_result(payload: bytes) -> tuple[int, bytes, bytes]:
    """(result index, state, result) of such a payload."""
    index, size = _RESULT_HEAD.unpack_from(payload)
    middle = _RESULT_HEAD.size + size
    return index, payload[_RESULT_HEAD.size : middle], payload[middle:]


def state_of(seq: int, flags: int, payload: bytes) -> StateEntry:
    """The state part of a CHECKPOINT record."""
    if flags & HAS_RESULT:
        payload = split_result(payload)[1]
    return StateEntry(seq, flags & (TIER_MASK | SIDE), payload)


def result_of(flags: int, payload: bytes) -> tuple[int, int, bytes]:
    """(index, flags, result) of a CHECKPOINT record with a result; the flags are as those of a state."""
    index, _, result = split_result(payload)
    tier = flags >> RESULT_TIER_SHIFT & TIER_MASK
    return index, tier | (SIDE if flags & RESULT_SIDE else 0), result


def encode_states(entries: Iterable[tuple[int, int, bytes]]) -> bytes:
    """A chunk's value, of (seq, flags, state) each."""
    return bytes(encode_plain(list(entries)))


def encode_results(entries: Iterable[tuple[int, bytes]]) -> bytes:
    """A chunk's value, of (flags, result) each."""
    flags, results = [], []
    for flag, result in entries:
        flags.append(flag)
        results.append(result)
    return bytes(encode_plain((results, bytes(flags))))


def decode_results(value: bytes, what: str = "a chunk of results in the log") -> list[tuple[int, bytes]]:
    """The (flags, result) of a chunk. Raises DamagedLogError."""
    try:
        results, flags = decode_kept(value, what)
        if not (isinstance(results, list) and isinstance(flags, bytes)):
            raise TypeError("it is no pair of a list and bytes")
        return list(zip(flags, results, strict=True))
    except (TypeError, ValueError) as error:
        raise DamagedLogError(f"{what} is none: {error}", reason=str(error)) from error


def decode_states(value: bytes) -> Iterator[StateEntry]:
    """The states of a chunk, in order. Raises DamagedLogError."""
    try:
        for seq, flags, payload in decode_kept(value, "a chunk of states in the log"):
            yield StateEntry(seq, flags, payload)
    except (TypeError, ValueError) as error:
        raise DamagedLogError(f"a chunk of states in the log is none: {error}", reason=str(error)) from error
