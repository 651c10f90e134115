"""What the fuzzer starts from: valid plain encodings of every kind that stands in a state directory."""

from __future__ import annotations

from typing import Any

from resumable._fastlog import encode_plain
from resumable.storage.records import RunRecord, encode_results, encode_states

META = {
    "name": "run", "job": "job", "args": b"d" * 16, "shown": "1, 2", "versions": [(0, None), (3, 2)], "started": 1 << 60,
    "resumed": 1, "batch": None, "python": "3.11.2", "package": "0.1.0", "code": None, "host": "h", "rng": None,
    "durability": "process",
}  # fmt: skip
FAILURE = {"type": "E", "message": "m", "traceback": "t\n", "locals": {"x": (1,), "y": ("C", "<C>")}, "time": 1.5}
REFERENCE = ("1.side.7", 300_000, 0xDEADBEEF, ["1.side.5"])
TABLE = (40, 0x12345678, [(65536, 1, "1.side.5", 72), (65536, 2, "1.side.7", 72)])

SMALL: list[Any] = [
    None, True, 0, -1, 1 << 54, 1 << 55, -(1 << 90), 0.0, float("nan"), float("inf"), 1j, complex(float("nan"), -0.0),
    "", "a", "é", "ab" * 9, "Ω" * 5, "\ud800", "😀ab", b"", b"bytes", bytearray(b"array"), (), [], set(), frozenset(), {},
    (1, 2), [None, True], {1, 2, 3}, {"a", "b", b"c"}, frozenset((1.0, "x")), {"k": 1, "l": [2]}, range(3),
    range(-5, 1 << 70, 7), slice(None), slice(1, "b", 2.5),
]  # fmt: skip
NESTED: list[Any] = [
    (1, ("a", [2, {3: {4, 5}}])), {"epoch": 3, "losses": [0.5, 0.25], "best": (1, 0.25)},
    {(1, 2): frozenset((3, frozenset((4,))))}, [[], (), {}, set(), frozenset(), bytearray()],
    [float("nan")] * 3, {float("nan"), 1}, [{i} for i in range(6)], list(range(20)), {f"{i}" for i in range(30)},
    "x" * 300, "Ω" * 260, "😀" * 256, b"y" * 300, [None] * 300, dict.fromkeys(range(40)), 1 << 2400,
]  # fmt: skip


def deep(levels: int) -> Any:
    """Containers in one another."""
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else (value, None)
    return value


def encodings() -> list[bytes]:
    """The corpus."""
    value = bytes(encode_plain((5, [1, 2])))
    meta, failure = bytes(encode_plain(META)), bytes(encode_plain(FAILURE))
    record = RunRecord(1, "running", 5, 1, (0, 4096), b"b" * 16, 1 << 60, meta, (0, value), failure, b"rng")
    entries = [(1, 0, value), (2, 4, bytes(encode_plain(REFERENCE)))]
    sync = (b"n" * 16, 1, 5, 2, 0, value)
    chunks = [record.encode(), encode_states(entries), encode_results((flags, value) for _, flags, value in entries)]
    values = [*SMALL, *NESTED, deep(5), deep(99), deep(100), META, FAILURE, REFERENCE, TABLE, sync]
    return [bytes(encode_plain(each)) for each in values] + chunks
