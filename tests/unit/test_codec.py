"""The codec: three tiers, exact types, refusals that name their place."""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import pickle
import queue
import subprocess
import sys
import threading
import uuid
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.errors import LiveResourceError, ReconnectError, UndecodableStateError, UnsavableStateError
from resumable.values.codec import DILL, PICKLE, PLAIN, Codec
from resumable.values.registry import Registry


class Point(NamedTuple):
    x: int
    y: Any


class Colour(enum.IntEnum):
    RED = 1


@dataclasses.dataclass
class Record:
    name: str
    tags: list[Any] = dataclasses.field(default_factory=list)


class Slotted:
    __slots__ = ("held", "unset")

    def __init__(self, held: Any) -> None:
        self.held = held


class Plain:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Live:
    """A connection, as far as these tests need one."""

    def __init__(self, where: str = "here") -> None:
        self.where, self.calls = where, queue.SimpleQueue()


class Failing:
    def __reduce__(self) -> Any:
        raise ValueError("no way")


class LoadFails:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


@pytest.fixture
def codec() -> Codec:
    return Codec()


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(Live, lambda live: {"where": live.where}, lambda kept: Live(kept["where"]))
    return registry


def again(codec: Codec, value: Any) -> Any:
    tier, data, buffers = codec.encode(value)
    return codec.decode(tier, data, [bytearray(buffer) for buffer in buffers])


# ---- exact types

EXACT = [
    Point(1, [2]),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.Counter("abca"),
    collections.deque([1, 2], maxlen=3),
    collections.defaultdict(list, {"a": [1]}),
    Colour.RED,
    Record("a", [1]),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    decimal.Decimal("1.50"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=7),
    PurePosixPath("/a/b"),
    ValueError("x", 1),
]


@pytest.mark.parametrize("value", EXACT, ids=lambda value: type(value).__name__)
def test_exact_types_come_back(codec: Codec, value: Any) -> None:
    """What is no plain data comes back with its own type, at the top of a state and inside it."""
    back = again(codec, {"v": [value]})["v"][0]
    assert type(back) is type(value)
    assert repr(back) == repr(value)
    assert codec.encode(value).tier == PICKLE


def test_plain_data_is_tier_0(codec: Codec) -> None:
    """Data of exact builtin types never meets pickle."""
    value = {"a": (1, 2.0, "x", b"y"), "b": [None, True, {1}, frozenset({2})], 3: bytearray(b"z")}
    assert codec.encode(value).tier == PLAIN
    assert again(codec, value) == value


def test_shared_objects_stay_shared(codec: Codec) -> None:
    """Two references to one mutable object come back as two references to one object."""
    shared: list[int] = [1]
    back = again(codec, {"a": shared, "b": shared, "o": Plain(shared=shared)})
    assert back["a"] is back["b"] is back["o"].shared


def test_cycles_come_back(codec: Codec) -> None:
    """A list that holds itself, and objects that hold each other, come back so."""
    ring: list[Any] = []
    ring.append(ring)
    assert (back := again(codec, ring))[0] is back
    left = Plain()
    left.other = Plain(other=left)
    assert (back := again(codec, left)).other.other is back


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.decimals(allow_nan=False),
        st.dates(),
        st.timedeltas(),
        st.fractions(),
        st.uuids(),
        st.sampled_from(Colour),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(Point, st.integers(), inner),
        st.builds(Record, st.text(max_size=3), st.lists(inner, max_size=2)),
        st.lists(inner, max_size=3).map(collections.deque),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(collections.OrderedDict),
    ),
    max_leaves=12,
)
one_codec = Codec()


def shape(value: Any) -> Any:
    """A value with the type of every part."""
    if isinstance(value, dict):
        return type(value), [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, collections.deque)):
        return type(value), [shape(item) for item in value]
    if isinstance(value, Record):
        return Record, shape(value.name), shape(value.tags)
    return type(value), value


@given(values)
def test_round_trip_is_that_of_pickle(value: Any) -> None:
    """Whatever pickle gives back, the codec gives back, part by part of the same type."""
    assert shape(again(one_codec, value)) == shape(pickle.loads(pickle.dumps(value))) == shape(value)


# ---- buffers


def test_large_arrays_are_not_copied_and_come_back_writable(codec: Codec) -> None:
    """A buffer of 64 KiB or more is handed out as the array's own memory; the array that comes back can be written."""
    array = np.arange(100_000)
    tier, data, (buffer,) = codec.encode({"a": array, "small": np.arange(3)})
    assert tier == PICKLE
    assert len(data) < 1000
    array[0] = 7
    assert buffer[:8] == array[:1].tobytes()
    back = codec.decode(tier, data, [bytearray(buffer)])
    back["a"][1] = 9
    assert back["a"][0] == 7
    back["small"][0] = 5


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(90_000).reshape(300, 300)),
        np.arange(200_000)[::2],
        np.array([1, "a", None], dtype=object),
        np.zeros(0),
        np.float64(1.5),
    ],
    ids=["fortran", "strided", "objects", "empty", "scalar"],
)
def test_arrays_of_any_layout_come_back(codec: Codec, array: Any) -> None:
    """Arrays come back equal, with their dtype, whatever their layout in memory."""
    back = again(codec, [array])[0]
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_frames_go_out_of_band(codec: Codec) -> None:
    """The columns of a pandas frame are not copied either."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(20_000), "b": np.arange(20_000) / 2})
    encoded = codec.encode(frame)
    assert sum(map(len, encoded.buffers)) == 320_000
    assert len(encoded.data) < 5000
    assert again(codec, frame).equals(frame)


def test_large_bytes_in_a_pickled_state(codec: Codec) -> None:
    """Large bytes, which pickle writes past its own buffer, come back complete and in order."""
    value = [Plain(a=b"x" * 200_000, b="y" * 200_000), b"z" * 100_000]
    back = again(codec, value)
    assert (back[0].a, back[0].b, back[1]) == (value[0].a, value[0].b, value[1])
    assert again(codec, Record("small")) == Record("small")


# ---- dill


def test_lambdas_and_local_classes_take_tier_2(codec: Codec) -> None:
    """What pickle cannot name is saved by value."""

    class Local:
        pass

    factor = 3
    tier, data, _ = codec.encode({"f": lambda x: x * factor, "c": Local})
    assert tier == DILL
    back = codec.decode(tier, data)
    assert back["f"](2) == 6
    assert back["c"].__name__ == "Local"


def test_importable_classes_go_by_reference_in_tier_2(codec: Codec) -> None:
    """A state that needs dill still gives back instances of the very class that the program has."""
    back = again(codec, [lambda: 1, Point(1, 2), Record("a")])
    assert type(back[1]) is Point
    assert type(back[2]) is Record


def test_classes_of_the_script_are_those_of_the_next_process(tmp_path: Any) -> None:
    """Instances of classes in `__main__`, with and without dill, are instances of that class in the rerun script."""
    script = tmp_path / "job.py"
    script.write_text(
        "import pathlib, sys\n"
        "from resumable.values.codec import Codec\n"
        "SCALE = 10\n"
        "class K:\n"
        "    pass\n"
        "def helper(x):\n"
        "    return x * SCALE\n"
        "file, codec = pathlib.Path(sys.argv[1]), Codec()\n"
        "for number, value in enumerate([[K()], [K(), lambda x: helper(x) + SCALE]]):\n"
        "    kept = file.with_suffix(f'.{number}')\n"
        "    if sys.argv[2] == 'save':\n"
        "        tier, data, _ = codec.encode(value)\n"
        "        kept.write_bytes(bytes([tier]) + data)\n"
        "    else:\n"
        "        data = kept.read_bytes()\n"
        "        back = codec.decode(data[0], data[1:])\n"
        "        assert type(back[0]) is K, (number, type(back[0]))\n"
        "        assert number == 0 or back[1](2) == 30\n"
    )
    for what in ("save", "load"):
        subprocess.run([sys.executable, script, tmp_path / "kept", what], check=True)


def test_dill_is_imported_only_when_needed() -> None:
    """Neither importing the codec nor a tier 1 state imports dill, or a library with a built-in handler."""
    code = (
        "import sys, decimal\n"
        "from resumable.values.codec import Codec\n"
        "before, c = set(sys.modules), Codec()\n"
        "c.decode(*c.encode([decimal.Decimal(1)]))\n"
        "print([m for m in ('dill', 'requests', 'sqlite3', 'numpy') if m in sys.modules])\n"
        "print([m for m in sys.modules.keys() - before if 'handlers.' in m])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout == "[]\n[]\n"


# ---- refusals


@pytest.mark.parametrize(
    ("place", "path"),
    [
        (lambda it: it, "state"),
        (lambda it: {"conn": Plain(pool=[it])}, 'state["conn"].pool[0]'),
        (lambda it: [1, (2, {3: it})], "state[1][1][3]"),
        (lambda it: Point(1, it), "state.y"),
        (lambda it: Record("a", [0, it]), "state.tags[1]"),
        (lambda it: Slotted({"k": it}), 'state.held["k"]'),
        (lambda it: collections.deque([0, it]), "state[1]"),
        (lambda it: collections.defaultdict(list, a=it), 'state["a"]'),
        (lambda it: {"f": (lambda: it)}, 'state["f"].__closure__[it]'),
    ],
)
@pytest.mark.parametrize("make", [queue.SimpleQueue, lambda: (x for x in ()), Failing])
def test_refusals_name_their_place(codec: Codec, place: Any, path: str, make: Any) -> None:
    """What cannot be saved is refused with its path in the state, its type and a reason."""
    culprit = make()
    with pytest.raises(UnsavableStateError) as caught:
        codec.encode(place(culprit))
    assert caught.value.path == path
    assert caught.value.type_name.endswith(type(culprit).__qualname__)
    assert str(caught.value).startswith(f"{path} (")
    assert caught.value.reason in str(caught.value)


def test_the_root_is_named_as_asked(codec: Codec) -> None:
    """A result that cannot be saved is not called a state."""
    with pytest.raises(LiveResourceError, match=r'^result\["a"\] '):
        codec.encode({"a": queue.SimpleQueue()}, root="result")


def test_too_deep_is_refused(codec: Codec) -> None:
    """A state nested beyond the recursion limit is a named error, in tier 1 and in tier 2."""
    deep: Any = Plain()
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UnsavableStateError, match="nested too deeply"):
        codec.encode(deep)
    with pytest.raises(UnsavableStateError, match="nested too deeply"):
        codec.encode([lambda: 1, deep])
    while isinstance(deep, list):  # taken apart in a loop: the interpreter would do it by recursion
        deep = deep.pop()


def test_a_failure_leaves_nothing_behind(codec: Codec) -> None:
    """After a refused state the same codec saves the next ones, with nothing of the refused one in them."""
    before = codec.encode(Record("a")).data
    for _ in range(3):
        with pytest.raises(UnsavableStateError):
            codec.encode([Record("secret"), Failing()])
        assert codec.encode(Record("a")).data == before


def test_states_do_not_share_a_memo(codec: Codec) -> None:
    """Each state can be decoded by itself, though the pickler is used again."""
    record = Record("a" * 50, ["b" * 50])
    encoded = [codec.encode([record, n]) for n in range(3)]
    assert [codec.decode(*it) for it in reversed(encoded)] == [[record, 2], [record, 1], [record, 0]]


# ---- plain mode


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, decimal.Decimal(1)]}, 'state["a"][1]'),
        ({"a": {Point(1, 2): 3}}, 'state["a"].keys() -> Point(x=1, y=2)'),
        (Record("a"), "state"),
    ],
)
def test_plain_mode_saves_plain_data_only(value: Any, path: str) -> None:
    """With codec="plain" everything but plain data is refused, with its path."""
    codec = Codec("plain")
    assert again(codec, {"a": [1]}) == {"a": [1]}
    with pytest.raises(UnsavableStateError) as caught:
        codec.encode(value)
    assert caught.value.path == path


def test_plain_mode_refuses_shared_objects() -> None:
    """One list in two places would come back as two, so plain mode refuses it and says where."""
    shared: list[int] = []
    with pytest.raises(UnsavableStateError, match=r'state\["b"\] \(list\).*twice'):
        Codec("plain").encode({"a": shared, "b": shared})


@pytest.mark.parametrize("tier", [PICKLE, DILL])
def test_plain_mode_never_unpickles(tier: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With codec="plain" pickled bytes are refused unread."""
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(UndecodableStateError, match="never unpickles"):
        Codec("plain").decode(tier, pickle.dumps(1))


def test_unknown_modes_are_refused() -> None:
    """A misspelt mode is an error at once."""
    with pytest.raises(ValueError, match="picklee"):
        Codec("picklee")  # type: ignore[arg-type]


# ---- decoding


@pytest.mark.parametrize("tier", [PLAIN, PICKLE, DILL, 3])
def test_damaged_bytes_are_a_named_error(codec: Codec, tier: int) -> None:
    """Bytes that make no value, or a tier that nobody knows, raise UndecodableStateError."""
    with pytest.raises(UndecodableStateError) as caught:
        codec.decode(tier, b"\xff\xfe nonsense")
    assert caught.value.reason in str(caught.value)


def test_a_class_that_moved_is_a_named_error(codec: Codec) -> None:
    """A state whose class is gone says which, and what to do."""
    data = codec.encode(Record("a")).data.replace(b"Record", b"Recorb")
    with pytest.raises(UndecodableStateError, match=r"AttributeError.*Recorb.*importable"):
        codec.decode(PICKLE, data)


def test_any_failure_of_loading_is_a_named_error(codec: Codec) -> None:
    """Whatever a value's own loading raises becomes an UndecodableStateError caused by it."""
    with pytest.raises(UndecodableStateError) as caught:
        again(codec, LoadFails())
    assert isinstance(caught.value.__cause__, ValueError)


# ---- the registry inside


@pytest.mark.parametrize("extra", [[], [lambda: 1]], ids=["pickle", "dill"])
def test_resources_are_described_not_pickled(registry: Registry, extra: list[Any]) -> None:
    """A resource deep in a state is rebuilt from its description, and two references come back as one."""
    codec, live = Codec(registry=registry), Live("there")
    back = again(codec, [{"a": Plain(pool=(live,))}, live, *extra])
    assert back[0]["a"].pool[0] is back[1]
    assert back[1].where == "there"


def test_a_failed_reconnect_is_not_an_undecodable_state(registry: Registry) -> None:
    """Where a resource cannot be rebuilt the error is a ReconnectError with its type and description."""

    def fail(kept: Any) -> Any:
        raise OSError("refused by db://me:hunter2@host")

    registry.register(Live, lambda live: {"where": live.where}, fail)
    with pytest.raises(ReconnectError, match="Live") as caught:
        again(Codec(registry=registry), [Live("there")])
    assert caught.value.metadata == {"where": "there"}
    assert "hunter2" not in str(caught.value)


def test_a_type_that_is_registered_later(registry: Registry) -> None:
    """Objects whose like were pickled as they are are described from the registration of their type on."""
    codecs = Codec(registry=registry), Codec(registry=registry)     # the second begins when the type is known for ordinary
    for codec in codecs:
        assert again(codec, [Record("x")]) == [Record("x")]
    registry.register(Record, lambda record: record.name, lambda name: Record(f"{name} again"))
    for codec in codecs:
        assert again(codec, [Record("x")]) == [Record("x again")]


def test_extracting_may_encode(registry: Registry) -> None:
    """A codec is re-entrant: an extract that encodes with it gets its own pickler."""
    codec = Codec(registry=registry)
    registry.register(Live, lambda live: codec.encode(Record(live.where)).data, lambda data: codec.decode(1, data))
    assert again(codec, [Live("x"), Record("y")]) == [Record("x"), Record("y")]


def test_threads_share_a_codec(codec: Codec) -> None:
    """Threads that save at the same time get each their own bytes."""
    wrong: list[Any] = []

    def save(n: int) -> None:
        for i in range(300):
            value = [Record(f"{n}-{i}", [n] * 20)]
            if again(codec, value) != value:
                wrong.append(value)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_of_a_state_is_kept(codec: Codec) -> None:
    """The codec holds no reference to a state once it is encoded or refused."""
    value = Record("a", [1])
    before = sys.getrefcount(value), sys.getrefcount(value.tags)
    codec.encode([value])
    codec.encode([value, np.arange(100_000)])
    codec.encode([value, lambda: 1])
    assert (sys.getrefcount(value), sys.getrefcount(value.tags)) == before


def test_copyreg_is_honoured(codec: Codec) -> None:
    """A reducer that the program registered with copyreg is used for types without a handler."""
    copyreg.pickle(Failing, lambda it: (Record, ("from copyreg",)))
    try:
        assert again(codec, [Record("x"), Failing()])[1] == Record("from copyreg")
    except UnsavableStateError:
        pytest.fail("copyreg was not asked")
    finally:
        copyreg.dispatch_table.pop(Failing)


def test_an_extract_that_meets_an_unsavable_value() -> None:
    """The error of an `extract` that encodes something itself is told with the resource's own place in the state."""
    registry = Registry()
    registry.register(Failing, lambda it: Codec().encode([threading.Thread()]), Failing)
    with pytest.raises(UnsavableStateError, match=r'^state\["outer"\] .* cannot be saved: state\[0\]') as caught:
        Codec(registry=registry).encode({"outer": Failing()})
    assert caught.value.path == 'state["outer"]'
