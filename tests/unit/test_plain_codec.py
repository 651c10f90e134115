"""The plain codec against its twin: exact types back, and nothing but clean errors from hostile bytes."""

from __future__ import annotations

import collections
import enum
import gc
import random
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import twin
from resumable._fastlog import decode_plain, encode_plain

INTS = (
    st.integers()
    | st.integers(-(1 << 200), 1 << 200)
    | st.builds(lambda power, by: (1 << power) + by, st.integers(0, 130), st.integers(-2, 2))
)
TEXT = (
    st.text(st.characters(codec=None, categories=None))
    | st.text(st.characters(max_codepoint=0xFF))
    | st.text(min_size=254, max_size=257)
)
ATOMS = (
    st.none()
    | st.booleans()
    | INTS
    | st.floats()
    | st.complex_numbers()
    | TEXT
    | st.binary()
    | st.binary(min_size=254, max_size=257)
)
RANGES = st.builds(range, INTS, INTS, INTS.filter(bool))
KEYS = st.recursive(
    ATOMS | RANGES,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
VALUES = st.recursive(
    ATOMS | RANGES | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
        | st.builds(slice, inner, inner, inner)
    ),
)

# What a decoder may hold for each byte of input: `{}` and `set()` are two bytes and 64 to 216 bytes of memory.
MEMORY_PER_BYTE, MEMORY_FIXED = 200, 65536


def alike(a: Any, b: Any) -> bool:
    """Equal in value, in exact type and in order all through; floats bit for bit."""
    if type(a) is not type(b):
        return False
    if type(a) is float:
        return struct.pack("<d", a) == struct.pack("<d", b)
    if type(a) is complex:
        return alike(a.real, b.real) and alike(a.imag, b.imag)
    if type(a) in (range, slice):
        return all(alike(getattr(a, part), getattr(b, part)) for part in ("start", "stop", "step"))
    if type(a) is dict:
        return alike(list(a.items()), list(b.items()))
    if type(a) in (list, tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if type(a) in (set, frozenset):
        # The order of a set is not part of its value, so each element looks for its like.
        return len(a) == len(b) and all(any(alike(item, other) for other in b) for item in a)
    return bool(a == b)


def outcome(decoder: Any, data: bytes) -> tuple[Any, type[Exception] | None]:
    """The value, or the class of the error: the only two that hostile bytes may raise."""
    try:
        return decoder(data), None
    except (ValueError, TypeError) as error:
        return None, type(error)


@given(VALUES)
@example([[], [], (), ()])
@example("\ud800\udc00\x00")
@example((-(1 << 55), (1 << 55) - 1, 1 << 55, -(1 << 55) - 1, -(1 << 63), 1 << 63))
@example((0.0, -0.0, float("nan"), struct.unpack("<d", b"\x01\0\0\0\0\0\xf4\xff")[0]))
def test_round_trip_and_twin(value: Any) -> None:
    """A plain value comes back with exact types, and compiled codec and twin agree byte for byte in both directions."""
    data = encode_plain(value)
    assert data == twin.encode(value)
    assert data is not None
    assert alike(decode_plain(data), value)
    assert alike(twin.decode(data), value)
    assert alike(decode_plain(bytearray(data)), decode_plain(memoryview(data)))


@given(st.binary(max_size=60))
@example(b"")
@example(b"\x0a\xff" + b"\xff" * 8)
@example(b"\x10\xff" + b"\xff" * 8)
@example(b"\x09\xff" + b"\x40" + b"\0" * 6 + b"\x40")
@example(b"\x12\x01\x11\x00")
@example(b"\x12\x01\x10\x00")
@example(b"\x15\x00\x00\x00")
@example(b"\x15" + b"\x04\x00" * 3)
@example(b"\x10\x01" * 100 + b"\x00")
@example(b"\x10\x01" * 101 + b"\x00")
def test_any_bytes(data: bytes) -> None:
    """Any bytes decode to what the twin reads, or raise the twin's ValueError or TypeError."""
    value, error = outcome(decode_plain, data)
    expected, expected_error = outcome(twin.decode, data)
    assert error is expected_error
    assert alike(value, expected)


def test_mutated_encodings(seed: int) -> None:
    """Encodings with flipped, cut, doubled or inserted bytes decode as the twin decodes them, or raise as it does."""
    rng = random.Random(seed)
    whole = [data for value in sample_values(rng, 60) if (data := twin.encode(value))]
    for _ in range(20_000):
        data = mutate(rng, rng.choice(whole))
        value, error = outcome(decode_plain, data)
        expected, expected_error = outcome(twin.decode, data)
        assert (error, alike(value, expected)) == (expected_error, True), data.hex()


@pytest.mark.parametrize("point", [0x110000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_code_points_beyond_unicode(point: int) -> None:
    """A code point beyond U+10FFFF is a ValueError, not CPython's SystemError."""
    data = b"\x09\x01" + struct.pack("<I", point)
    assert outcome(twin.decode, data)[1] is not None
    with pytest.raises(ValueError):
        decode_plain(data)


@pytest.mark.parametrize(
    "unit", [b"\x14\x00", b"\x12\x00", b"\x13\x00", b"\x11\x00", b"\x10\x00", b"\x0b\x00", b"\x0a\x00", b"\x00"]
)
def test_memory_is_bounded_by_the_input(unit: bytes) -> None:
    """Decoding holds at most a fixed multiple of the input, whatever sizes the input claims."""
    count = 2000
    for data in (
        b"\x11\xff" + struct.pack("<Q", count) + unit * count,
        b"\x11\xff" + struct.pack("<Q", 1 << 40) + unit * count,
        unit[:1] + b"\xff" + struct.pack("<Q", 1 << 62) + unit * count,
    ):
        gc.collect()
        tracemalloc.start()
        outcome(decode_plain, data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= MEMORY_PER_BYTE * len(data) + MEMORY_FIXED


class Odd(int):
    """A subclass: its type would be lost."""


class Color(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")
NOT_PLAIN: list[Any] = [
    Odd(1), Color.RED, Point(1, 2), object(), len, int, ..., collections.OrderedDict(), collections.defaultdict(int),
    type("Text", (str,), {})("a"), type("Items", (list,), {})(), memoryview(b"a"), collections.deque(),
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_other_types_are_not_plain(value: Any) -> None:
    """A subclass or any other type gives None, wherever it stands."""
    for state in (value, [value], {"a": value}, (1, [value]), slice(0, value)):
        assert encode_plain(state) is None
        assert twin.encode(state) is None


@pytest.mark.parametrize("make", [list, dict, set, bytearray], ids=lambda make: make.__name__)
def test_a_shared_mutable_is_not_plain(make: Any) -> None:
    """A mutable value met twice gives None, however deep or far apart; equal but distinct ones are plain."""
    one = make()
    for state in (
        [one, one],
        {"a": one, "b": [one]},
        (one, *range(500), (one,)),
        [slice(one), one],
        [(one,), [(one,)]],
    ):
        assert encode_plain(state) is None
    assert encode_plain([make(), make()]) is not None


def test_a_cycle_is_not_plain() -> None:
    """A value that holds itself gives None."""
    loop: list[Any] = []
    loop.append(loop)
    tree: dict[str, Any] = {"a": [1]}
    tree["a"].append((tree,))
    assert encode_plain(loop) is None
    assert encode_plain([loop]) is None
    assert encode_plain(tree) is None


def test_sharing_of_immutables_never_explodes() -> None:
    """A tuple met again is written again only while it is small: doubling 64 times gives None, not 2**64 bytes."""
    small = (1, 2)
    value: tuple[Any, ...] = ("x",)
    for _ in range(64):
        value = (value, value)
    assert encode_plain(value) is None
    data = encode_plain([small, small])
    assert data is not None
    assert decode_plain(data) == [small, small]
    holder = ([1],)
    assert encode_plain([holder, holder]) is None


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {1: v}, slice])
def test_depth(wrap: Any) -> None:
    """A hundred levels are plain and come back; one more gives None, and so does a recursion no stack would hold."""
    value: Any = 7
    for level in range(1, 5001):
        value = wrap(value)
        if level == twin.MAX_DEPTH:
            data = encode_plain(value)
            assert data is not None
            assert data == twin.encode(value)
            assert alike(decode_plain(data), value)
        elif level in (twin.MAX_DEPTH + 1, 5000):
            assert encode_plain(value) is None


def test_a_wrong_twin_is_caught() -> None:
    """The comparison itself can fail: a codec that takes True for 1, or drops the sign of zero, is unlike."""
    for value, other in ((True, 1), (0.0, -0.0), ([1], (1,)), ({1: 2, 3: 4}, {3: 4, 1: 2}), (b"", bytearray())):
        assert not alike(value, other)
        assert not alike([value], [other])


@settings(max_examples=20)
@given(st.lists(INTS, min_size=200, max_size=2000))
def test_large_states(values: list[int]) -> None:
    """Encodings that outgrow the first buffer are the same bytes."""
    assert encode_plain(values) == twin.encode(values)


def sample_values(rng: random.Random, count: int) -> list[Any]:
    """Values of every type, nested a few levels."""

    def value(depth: int) -> Any:
        items = [value(depth - 1) for _ in range(rng.randrange(4))] if depth else []
        key = rng.choice([rng.getrandbits(70), "k\u1234", b"k", None, 1.5])
        containers = (items, tuple(items), {key: items}, {key, (1, 2)}, frozenset([key]), slice(1, None, items))
        atoms = (
            None,
            True,
            1j,
            rng.random(),
            rng.getrandbits(90) - (1 << 89),
            range(rng.randrange(9)),
            bytearray(b"x"),
        )
        return rng.choice([*containers, *atoms, "text", "\u1234", "\U0001f600", b"bytes" * 60])

    return [value(3) for _ in range(count)]


def mutate(rng: random.Random, data: bytes) -> bytes:
    """One to three flips, cuts, insertions or doublings."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                del changed[at : at + rng.randrange(4)]
            case 1:
                changed[at:at] = rng.randbytes(rng.randrange(1, 10))
            case 2:
                changed[at:at] = changed[at : at + rng.randrange(20)]
            case _ if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)
