"""Feeders for NumPy and pandas, neither of which is imported here: whoever has such a value has done that."""

from __future__ import annotations

import sys
from typing import Any

from .digest_code import feed_unknown
from .digest_plain import constant, facts, feed_complex, feed_datetime, feed_int, feed_real, feed_timedelta
from .digester import Digester, Feeder, Unstable

_ATTOSECONDS = {"W": 604_800 * 10**18, "D": 86_400 * 10**18, "h": 3600 * 10**18, "m": 60 * 10**18} | {
    unit: 10 ** (18 - 3 * power) for power, unit in enumerate(["s", "ms", "us", "ns", "ps", "fs", "as"])
}
_EPOCH = 719_163 * _ATTOSECONDS["D"]  # datetime.toordinal counts from the year 1, NumPy from 1970


def feed_dtype(out: Digester, value: Any) -> None:
    """Byte order does not count: arrays of either compare equal."""
    if value.names is not None:
        out.feed(value.names)
        for name in value.names:
            feed_dtype(out, value.fields[name][0])
    elif value.subdtype is not None:
        out.feed(value.subdtype[1])
        feed_dtype(out, value.subdtype[0])
    else:
        out.text(b"y", value.str.lstrip("<>|="))


def feed_array(out: Digester, value: Any) -> None:
    """dtype, shape, bytes. Where the bytes hold pointers or padding, the items go in instead."""
    numpy = sys.modules["numpy"]
    array = numpy.asarray(value)
    out.token(b"a")
    feed_dtype(out, array.dtype)
    out.feed(array.shape)
    if array.dtype.names is not None:
        for name in array.dtype.names:
            out.part(array[name], f"[{name!r}]")
    elif array.dtype.kind in "OT" or array.dtype.char in "gG":
        items = array.reshape(-1).tolist()
        out.sequence(b"[", items, len(items))
    elif array.nbytes:
        flat = numpy.ascontiguousarray(array).reshape(-1)
        out.update(flat.astype(flat.dtype.newbyteorder("<"), copy=False).view("u1"))


def feed_scalar(out: Digester, value: Any) -> None:
    """A NumPy scalar: the number, text or date that it stands for."""
    kind = value.dtype.kind
    if kind == "M":
        _feed_datetime64(out, value)
    elif kind == "m":
        _feed_timedelta64(out, value)
    elif kind == "V":
        feed_array(out, value)
    elif kind == "c":
        feed_complex(out, value)
    elif kind == "f":
        feed_real(out, value)
    else:
        out.feed(value.item())


def _feed_datetime64(out: Digester, value: Any) -> None:
    """Equal to the same instant in any other unit."""
    numpy = sys.modules["numpy"]
    if numpy.isnat(value):
        out.token(b"?")
        return
    if numpy.datetime_data(value.dtype)[0] in "YM":  # of no fixed length
        value = value.astype("M8[D]")
    unit, count = numpy.datetime_data(value.dtype)
    out.token(b"t")
    feed_int(out, _EPOCH + int(value.view("i8")) * count * _ATTOSECONDS[unit])


def _feed_timedelta64(out: Digester, value: Any) -> None:
    numpy = sys.modules["numpy"]
    unit, count = numpy.datetime_data(value.dtype)
    if numpy.isnat(value):
        out.token(b"?")
    elif unit in _ATTOSECONDS:
        out.token(b"d")
        feed_int(out, int(value.view("i8")) * count * _ATTOSECONDS[unit])
    else:
        out.text(b"d", "months" if unit in "YM" else unit)
        feed_int(out, int(value.view("i8")) * count * (12 if unit == "Y" else 1))


def feed_column(out: Digester, value: Any) -> None:
    """The values of a pandas object of one dimension."""
    out.text(b"y", str(value.dtype))
    feed_array(out, value.to_numpy())


def feed_index(out: Digester, value: Any) -> None:
    out.token(b"x")
    out.part(list(value.names), ".names")
    feed_column(out, value)


def feed_series(out: Digester, value: Any) -> None:
    facts(b"1", "name", "index")(out, value)
    feed_column(out, value)


def feed_frame(out: Digester, value: Any) -> None:
    facts(b"2", "index", "columns")(out, value)
    for place, name in enumerate(value.columns):
        try:
            feed_column(out, value.iloc[:, place])
        except Unstable as unstable:
            unstable.steps.append(f"[{name!r}]")
            raise


# Each class of these brings an `__eq__` of its own that keeps the family's rules.
FAMILIES: dict[str, Feeder] = {"numpy.generic": feed_scalar, "numpy.dtype": feed_dtype, "pandas.Index": feed_index}

BY_NAME: dict[str, Feeder] = {
    "numpy.ndarray": feed_array,
    "numpy.MaskedArray": feed_unknown,  # its mask is no part of its bytes
    "pandas.DataFrame": feed_frame,
    "pandas.Series": feed_series,
    "pandas.ExtensionArray": feed_column,
    "pandas.Timestamp": feed_datetime,
    "pandas.Timedelta": feed_timedelta,
    "pandas.NaTType": constant(b"?"),
    "pandas.NAType": constant(b"?"),
}
