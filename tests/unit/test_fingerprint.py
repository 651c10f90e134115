"""Digests of arguments."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import enum
import functools
import json
import math
import operator
import os
import pathlib
import re
import subprocess
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy
import pandas
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from resumable.errors import UnstableArgumentError
from resumable.values.fingerprint import digest
from resumable.values.registry import Registry

REGISTRY = Registry()


def of(value: object) -> bytes:
    return digest(value, path="args[0]", registry=REGISTRY)


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: float
    y: float


@dataclasses.dataclass
class Config:
    rate: float
    names: list[str]
    cache: object = dataclasses.field(default=None, compare=False)

    def run(self) -> None: ...


@dataclasses.dataclass
class Rounded:
    rate: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rounded) and round(self.rate) == round(other.rate)

    __hash__ = None  # type: ignore[assignment]


class Opaque:
    pass


def closing_over(value: object) -> Callable[[], object]:
    def inner() -> object:
        return value

    return inner


def recursive(step: int) -> Callable[[int], int]:
    def down(number: int) -> int:
        return down(number - step) if number > 0 else number

    return down


@functools.lru_cache
def cached() -> None: ...


UTC, BERLIN = dt.UTC, zoneinfo.ZoneInfo("Europe/Berlin")
PAIR = [("n", "i1"), ("x", "f8")]
FRAME = {"a": [1, 2], "b": ["x", None]}

# Each row: values of one meaning; they share a digest with each other and with no other row.
ALIKE: list[list[Any]] = [
    [0, 0.0, -0.0, False, Decimal("0.00"), 0j, numpy.uint8(0)],
    [1, 1.0, True, Decimal(1), Fraction(1), 1 + 0j, Level.LOW, numpy.int64(1), numpy.float32(1), numpy.bool(True)],
    [0.5, Decimal("0.50"), Fraction(1, 2), numpy.float16(0.5), numpy.longdouble(0.5)],
    [-(2**70), float(-(2**70)), Decimal(-(2**70))],
    [math.nan, Decimal("nan"), Decimal("sNaN"), numpy.float32("nan"), pandas.NaT, pandas.NA, numpy.datetime64("NaT", "s")],
    [math.inf, Decimal("inf"), numpy.float32("inf")],
    [-math.inf],
    [1j, numpy.complex64(1j)],
    ["a", numpy.str_("a")],
    ["\ud800"],
    [b"a", bytearray(b"a"), memoryview(b"a"), numpy.bytes_(b"a")],
    [array.array("i", [1, 2]), array.array("d", [1, 2]), memoryview(array.array("q", [1, 2]))],
    [None],
    [...],
    [[1, 2], [1.0, 2]],
    [(1, 2), Point(1, 2)],
    [[]],
    [()],
    [[[1], 2]],
    [[1, [2]]],
    [collections.deque([1, 2])],
    [{1, 2}, frozenset([2, 1]), {1: 0, 2: 0}.keys()],
    [{"a": 1, "b": 2}, {"b": 2, "a": 1}, collections.OrderedDict(b=2, a=1), types.MappingProxyType({"a": 1, "b": 2})],
    [collections.Counter(a=3), collections.Counter(a=3, b=0), {"a": 3}, collections.defaultdict(int, a=3)],
    [range(0), range(5, 5), range(3, 1)],
    [range(7, 8), range(7, 9, 5)],
    [range(0, 4, 2), range(0, 3, 2)],
    [range(10**30)],
    [slice(1, 2), slice(1.0, 2)],
    [Color.RED],
    [Color.GREEN],
    [Access.READ | Access.WRITE],
    [Access.READ],
    [pathlib.Path("/a/b"), pathlib.PurePosixPath("/a//b")],
    [pathlib.PureWindowsPath("C:\\A"), pathlib.PureWindowsPath("c:/a")],
    [dt.date(2020, 1, 2)],
    [dt.datetime(2020, 1, 2), numpy.datetime64("2020-01-02"), numpy.datetime64("2020-01-02T00:00", "ns")],
    [dt.datetime(2020, 1, 2, 12, tzinfo=UTC), dt.datetime(2020, 1, 2, 13, tzinfo=BERLIN)],
    [pandas.Timestamp("2020-01-02T12:00:00.000000001", tz="UTC")],
    [numpy.datetime64("2020-01"), dt.datetime(2020, 1, 1), pandas.Timestamp(2020, 1, 1)],
    [dt.time(12, tzinfo=UTC), dt.time(13, tzinfo=dt.timezone(dt.timedelta(hours=1)))],
    [dt.time(12)],
    [dt.timedelta(seconds=1), numpy.timedelta64(1000, "ms"), pandas.Timedelta("1s")],
    [numpy.timedelta64(1, "Y"), numpy.timedelta64(12, "M")],
    [UTC, dt.timezone(dt.timedelta(0), "other")],
    [BERLIN],
    [uuid.UUID(int=1)],
    [re.compile("a")],
    [re.compile("a", re.IGNORECASE)],
    [int],
    [list[int]],
    [int | str, str | int],
    [math],
    [math.sin],
    [len],
    [numpy.sin],
    [cached],
    [str.upper],
    ["a".upper],
    [dict.fromkeys],
    [closing_over],
    [closing_over(1), closing_over(1.0)],
    [closing_over(2)],
    [recursive(1), recursive(1)],
    [recursive(2)],
    [lambda x: x + 1],
    [lambda x: x + 2],
    [functools.partial(int, base=2), functools.partial(int, base=2)],
    [operator.itemgetter(1, 2)],
    [operator.attrgetter("a.b")],
    [operator.methodcaller("a", 1, b=2)],
    [Config(1, ["a"], Opaque()), Config(1.0, ["a"])],
    [Config(1, ["b"])],
    [Config(1, ["a"]).run],
    [types.SimpleNamespace(a=1, b=2), types.SimpleNamespace(b=2, a=1)],
    [numpy.array([[1, 2], [3, 4]]), numpy.array([[1, 3], [2, 4]]).T, numpy.array([[1, 2], [3, 4]], ">i8")],
    [numpy.array([1, 2, 3, 4])],
    [numpy.array([1, 2, 3, 4], "f4")],
    [numpy.array([])],
    [numpy.array(7)],
    [numpy.array([1, "a", None], object)],
    [numpy.array([1, 2], numpy.longdouble)],
    [numpy.array(["2020-01-01"], "M8[D]")],
    [numpy.array(["ab", "c"], numpy.dtypes.StringDType())],
    [numpy.array([(1, 2.0)], PAIR), numpy.array([(1, 2.0)], numpy.dtype(PAIR, align=True))],
    [numpy.array([(1, 2.0)], PAIR)[0]],
    [numpy.dtype("i8"), numpy.dtype(">i8")],
    [numpy.dtype([("n", "i8", (2,))])],
    [pandas.Series([1, 2]), pandas.Series([1, 2], index=[0, 1])],
    [pandas.Series([1, 2], name="n")],
    [pandas.Series([1, None], dtype="Int64")],
    [pandas.Series(["a", "b"], dtype="category")],
    [pandas.Series(pandas.date_range("2020", periods=2, tz="UTC"))],
    [pandas.DataFrame(FRAME), pandas.DataFrame(FRAME).iloc[::-1].iloc[::-1]],
    [pandas.DataFrame(FRAME)[["b", "a"]]],
    [pandas.Index([0, 1]), pandas.RangeIndex(2)],
    [pandas.MultiIndex.from_tuples([(1, "a"), (2, "b")])],
]


def test_equal_values_share_a_digest_and_others_do_not() -> None:
    """A digest is one of each row's own, whatever type says the value."""
    rows = [{of(value) for value in row} for row in ALIKE]
    for row, digests in zip(ALIKE, rows, strict=True):
        assert len(digests) == 1, row
    seen: dict[bytes, Any] = {}
    for row, (one,) in zip(ALIKE, rows, strict=True):
        assert seen.setdefault(one, row) is row, (row, seen[one])
    assert all(len(one) == 16 for one in seen)


NUMBERS = st.one_of(
    st.integers(),
    st.booleans(),
    st.floats(),
    st.fractions(),
    st.decimals().filter(lambda number: not number.is_snan()),  # cannot be hashed nor compared
    st.complex_numbers(),
    st.sampled_from([0, 1, 1.0, True, Decimal(1), Fraction(1), 2**53, float(2**53), 0.5, Fraction(1, 2)]),
)
ATOMS = st.one_of(NUMBERS, st.text(max_size=3), st.binary(max_size=3), st.none(), st.dates(), st.datetimes())
# Deferred, for the repr of a recursive strategy is so long that hypothesis warns.
HASHABLE: st.SearchStrategy[Any] = st.deferred(
    lambda: ATOMS | st.lists(HASHABLE, max_size=3).map(tuple) | st.frozensets(HASHABLE, max_size=3)
)
VALUES: st.SearchStrategy[Any] = st.deferred(
    lambda: HASHABLE | st.lists(VALUES, max_size=4) | st.dictionaries(HASHABLE, VALUES, max_size=4)
)


@given(NUMBERS, NUMBERS)
def test_numbers_that_are_equal_digest_alike(one: Any, other: Any) -> None:
    """For any two numbers, equality and equality of digests are the same thing."""
    assume(one == one and other == other)  # no NaN
    assert (one == other) == (of(one) == of(other))


@given(VALUES, VALUES)
def test_equal_values_digest_alike(one: Any, other: Any) -> None:
    """x == y implies equal digests, for generated builtin values."""
    if one == other:
        assert of(one) == of(other)


def told_otherwise(value: Any) -> Any:
    """An equal value made of other types, in another order."""
    if isinstance(value, dict):
        return collections.OrderedDict((key, told_otherwise(item)) for key, item in reversed(value.items()))
    if isinstance(value, frozenset):
        return set(value)
    if isinstance(value, list):
        return [told_otherwise(item) for item in value]
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int):
        return Fraction(value)
    return value


@given(VALUES)
def test_the_same_value_told_in_other_types_digests_alike(value: Any) -> None:
    """Order of dicts, and the type that a number or a set has, do not count."""
    assert of(told_otherwise(value)) == of(value)


PROGRAM = """
import json, sys, pathlib, datetime, decimal, functools, operator, re, numpy
from resumable.values.fingerprint import digest
from resumable.values.registry import Registry
def job(x): return lambda: x
values = [
    {"b": {"z", "y", "x"}, "a": [1, 2.5, None, "text", b"bytes"]}, frozenset(range(100)), {1: {2: {3}}},
    pathlib.Path("a"), datetime.datetime(2020, 1, 1), decimal.Decimal("1.1"), re.compile("x", re.I),
    functools.partial(int, "7", base=8), operator.itemgetter(3), numpy.arange(5), job, job({"p", "q"}),
]
print(json.dumps([digest(value, path="", registry=Registry()).hex() for value in values]))
"""


def test_digests_are_the_same_in_every_process() -> None:
    """Another process, with other hashes of strings, gives the same digests."""
    told = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True)
        told.append(json.loads(done.stdout))
    assert told[0] == told[1]
    assert len(set(told[0])) == len(told[0])


def test_a_digest_is_fixed_for_ever() -> None:
    """These digests stand in users' directories: a change would make finished work start anew."""
    value = {"a": [1, 2.5, None, "ä", b"b", (True,), {3}], "d": dt.date(2020, 1, 2)}
    assert of(value).hex() == "4720cd64dcf11b83d6ddcf934392f693"


def cycle() -> list[object]:
    items: list[object] = [1]
    items.append({"again": items})
    return items


def deep() -> list[object]:
    items: list[object] = []
    for _ in range(100_000):
        items = [items]
    return items


UNSTABLE: list[tuple[Callable[[], object], str, str]] = [
    (lambda: {"items": [0, 1, 2, (n for n in "ab")]}, "args[0]['items'][3]", "generator"),
    (lambda: Config(1, [Opaque()]), "args[0].names[0]", "Opaque"),  # type: ignore[list-item]
    (lambda: functools.partial(int, Opaque()), "args[0].args[0]", "Opaque"),
    (lambda: closing_over(Opaque()), "args[0].value", "Opaque"),
    (lambda: {Opaque()}, "args[0][<", "Opaque"),
    (lambda: Rounded(1), "args[0]", "Rounded"),
    (object, "args[0]", "object"),
    (lambda: Config.__new__(Config), "args[0]", "Config"),
    (lambda: [threading.local()], "args[0][0]", "_local"),
    (lambda: iter([1]), "args[0]", "list_iterator"),
    (cycle, "args[0][1]['again']", "list"),
    (deep, "args[0]", "list"),
    (lambda: Decimal("1e999999"), "args[0]", "Decimal"),
    (lambda: numpy.ma.MaskedArray([1], [True]), "args[0]", "MaskedArray"),
    (lambda: pandas.DataFrame({"c": [Opaque()]}), "args[0]['c'][0]", "Opaque"),
]


@pytest.mark.parametrize(("make", "path", "type_name"), UNSTABLE)
def test_what_has_no_stable_digest_is_refused_by_name(make: Callable[[], object], path: str, type_name: str) -> None:
    """The error says where, which type, and that the run needs a name."""
    with pytest.raises(UnstableArgumentError, match=r"name='\.\.\.'") as caught:
        of(make())
    assert vars(caught.value)["path"].startswith(path)
    assert vars(caught.value)["type_name"] == type_name


def test_live_resources_go_in_by_their_description() -> None:
    """Two resources of one description share a digest; what a handler raises is an UnstableArgumentError."""
    registry = Registry()
    registry.register(Opaque, extract=vars, reconnect=lambda _: Opaque())

    def named(**facts: object) -> Opaque:
        opaque = Opaque()
        vars(opaque).update(facts)
        return opaque

    def of_resource(value: object) -> bytes:
        return digest([value], path="args[0]", registry=registry)

    assert of_resource(named(host="a")) == of_resource(named(host="a"))
    assert of_resource(named(host="a")) != of_resource(named(host="b"))
    registry.register(Opaque, extract=vars, reconnect=lambda _: Opaque(), identify=lambda opaque: opaque.host)
    assert of_resource(named(host="a", at=1)) == of_resource(named(host="a", at=2))
    with pytest.raises(UnstableArgumentError, match="AttributeError"):
        of_resource(named())


def test_worker_processes_call_the_main_module_otherwise() -> None:
    """A function of `__mp_main__`, as multiprocessing calls it, is the one of `__main__`."""

    def function_in(module: str) -> Callable[[], None]:
        def work() -> None: ...

        work.__module__ = module
        return work

    assert of(function_in("__mp_main__")) == of(function_in("__main__")) != of(function_in("elsewhere"))
