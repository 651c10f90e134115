"""Feeders for what Python itself brings: numbers, texts, containers, dataclasses, dates, paths."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from .digester import Digester, Feeder, Unstable

_LARGEST_EXPONENT = 20_000  # Decimal("1e999999999") is ten bytes to write and a gigabyte as a ratio


def facts(tag: bytes, *names: str) -> Feeder:
    """The feeder of a type that is told by these attributes."""

    def feeder(out: Digester, value: Any) -> None:
        out.token(tag)
        for name in names:
            out.part(getattr(value, name), f".{name}")

    return feeder


def constant(tag: bytes) -> Feeder:
    """The feeder of a type that has one value."""
    return lambda out, _value: out.token(tag)


# ---- numbers: as exact ratios in lowest terms


def feed_int(out: Digester, value: int) -> None:
    out.token(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def feed_real(out: Digester, value: Any) -> None:
    try:
        numerator, denominator = value.as_integer_ratio()
    except OverflowError:
        out.token(b"I", b"+" if value > 0 else b"-")
    except ValueError:
        out.token(b"?")  # NaN: not equal to itself, and yet the same argument when the job is run again
    else:
        if denominator != 1:
            out.token(b"/")
            feed_int(out, int(denominator))
        feed_int(out, int(numerator))


def feed_complex(out: Digester, value: Any) -> None:
    if value.imag != 0:
        out.token(b"c")
        feed_real(out, value.imag)
    feed_real(out, value.real)


def feed_decimal(out: Digester, value: Any) -> None:
    if value.is_finite() and abs(value.as_tuple().exponent) > _LARGEST_EXPONENT:
        raise Unstable(value, "its exponent is too large to be compared with other numbers")
    feed_real(out, value)


# ---- texts and bytes


def feed_str(out: Digester, value: str) -> None:
    data = value.encode("utf-8", "surrogatepass")
    out.update(b"s" + len(data).to_bytes(8, "little") + data)


def feed_bytes(out: Digester, value: Any) -> None:
    out.update(b"b" + len(value).to_bytes(8, "little"))
    out.update(value)


def feed_memory(out: Digester, value: Any) -> None:
    """memoryview and array.array compare item by item, whatever the format; plain bytes in them compare as bytes."""
    view = memoryview(value)
    if view.format == "B" and view.ndim == 1:
        feed_bytes(out, view.tobytes())
    else:
        out.token(b"M")
        out.feed(view.shape)
        out.feed(value.tolist())


# ---- containers


def sequence(tag: bytes) -> Feeder:
    """The feeder of a sequence type that equals no other type."""
    return lambda out, value: out.sequence(tag, value, len(value))


def feed_range(out: Digester, value: range) -> None:
    """As ranges compare: where it starts counts only if there is an item, the step only if there are two."""
    size = value.index(value[-1]) + 1 if value else 0  # len() stops at 2**63
    out.token(b"r")
    for fact in (size, value.start, value.step)[: 1 + min(size, 2)]:
        feed_int(out, fact)


def feed_mapping(out: Digester, value: Mapping[object, object]) -> None:
    _feed_pairs(out, value.items())


def feed_counter(out: Digester, value: Any) -> None:
    _feed_pairs(out, ((key, count) for key, count in value.items() if count != 0))  # as Counter compares


def _feed_pairs(out: Digester, pairs: Iterable[tuple[object, object]]) -> None:
    out.unordered(b"{", (out.apart(key, value, key=key) for key, value in pairs))


def feed_set(out: Digester, value: Iterable[object]) -> None:
    out.unordered(b"S", (out.apart(item, key=item) for item in value))


# ---- instances told by their attributes


def feeder_of_fields(names: Iterable[str]) -> Feeder:
    """The feeder of a class whose instances are equal when these fields are."""
    return functools.partial(_feed_fields, names=names)


def _feed_fields(out: Digester, value: object, *, names: Iterable[str]) -> None:
    out.named(b"o", type(value))
    for name in names:
        out.text(b".", name)
        out.part(getattr(value, name), f".{name}")


def feed_namespace(out: Digester, value: object) -> None:
    _feed_fields(out, value, names=sorted(vars(value)))


@functools.lru_cache(maxsize=256)
def compared_fields(cls: type) -> tuple[str, ...] | None:
    """The fields that this dataclass compares, or None if its `__eq__` is not the one that dataclasses writes.

    The only sure sign is the code: it must be what dataclasses writes for another class with the same fields.
    """
    written = getattr(vars(cls).get("__eq__"), "__code__", None)
    if written is None or "__dataclass_fields__" not in vars(cls):
        return None
    names = tuple(field.name for field in dataclasses.fields(cls) if field.compare)
    expected = vars(dataclasses.make_dataclass("Twin", names))["__eq__"].__code__
    same = (written.co_code, written.co_names) == (expected.co_code, expected.co_names)
    return names if same else None


def feed_enum(out: Digester, value: Any) -> None:
    out.named(b"e", type(value))
    out.feed(value.name if value.name in type(value).__members__ else value.value)  # combined flags have no name


def feed_path(out: Digester, value: Any) -> None:
    windows = "\\" in str(type(value)("a", "b"))
    out.text(b"w" if windows else b"p", str(value).lower() if windows else str(value))


# ---- dates: in attoseconds, the finest unit that NumPy knows, so that one instant has one digest


def _microseconds(delta: Any) -> int:
    return int(delta.days * 86_400 + delta.seconds) * 10**6 + int(delta.microseconds)


def feed_timedelta(out: Digester, value: Any) -> None:
    out.token(b"d")
    feed_int(out, _microseconds(value) * 10**12 + getattr(value, "nanoseconds", 0) * 10**9)  # pandas has nanoseconds


def feed_datetime(out: Digester, value: Any) -> None:
    """An aware one by its instant, a naive one by its wall clock; `fold` counts for nothing, as in `==`."""
    offset = value.replace(fold=0).utcoffset()
    seconds = value.toordinal() * 86_400 + value.hour * 3600 + value.minute * 60 + value.second
    since = seconds * 10**6 + value.microsecond - (_microseconds(offset) if offset is not None else 0)
    out.token(b"t" if offset is None else b"T")
    feed_int(out, since * 10**12 + getattr(value, "nanosecond", 0) * 10**9)


def feed_time(out: Digester, value: Any) -> None:
    offset = value.replace(fold=0).utcoffset()
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    out.token(b"h" if offset is None else b"H")
    feed_int(out, seconds * 10**6 + value.microsecond - (_microseconds(offset) if offset is not None else 0))


def feed_timezone(out: Digester, value: Any) -> None:
    out.token(b"z")
    feed_timedelta(out, value.utcoffset(None))


LEAVES: dict[type, Feeder] = {
    int: feed_int,
    bool: feed_int,
    float: feed_real,
    complex: feed_complex,
    str: feed_str,
    bytes: feed_bytes,
    bytearray: feed_bytes,
    type(None): constant(b"N"),
    type(...): constant(b"E"),
    range: feed_range,
}

BY_NAME: dict[str, Feeder] = {
    **{f"builtins.{cls.__name__}": feeder for cls, feeder in LEAVES.items()},
    "builtins.memoryview": feed_memory,
    "array.array": feed_memory,
    "fractions.Fraction": feed_real,
    "decimal.Decimal": feed_decimal,
    "builtins.list": sequence(b"["),
    "builtins.tuple": sequence(b"("),
    "collections.deque": sequence(b"<"),
    "builtins.slice": facts(b":", "start", "stop", "step"),
    "builtins.dict": feed_mapping,
    "builtins.mappingproxy": feed_mapping,
    "collections.OrderedDict": feed_mapping,
    "collections.Mapping": feed_mapping,
    "collections.Counter": feed_counter,
    "builtins.set": feed_set,
    "builtins.frozenset": feed_set,
    "builtins.dict_keys": feed_set,
    "builtins.dict_items": feed_set,
    "types.SimpleNamespace": feed_namespace,
    "enum.Enum": feed_enum,
    "pathlib.PurePath": feed_path,
    "datetime.datetime": feed_datetime,
    "datetime.date": facts(b"D", "year", "month", "day"),
    "datetime.time": feed_time,
    "datetime.timedelta": feed_timedelta,
    "datetime.timezone": feed_timezone,
    "zoneinfo.ZoneInfo": facts(b"Z", "key"),
    "uuid.UUID": facts(b"U", "int"),
    "re.Pattern": facts(b"P", "flags", "pattern"),
}
