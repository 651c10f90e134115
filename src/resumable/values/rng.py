"""The global random generators, saved with each checkpoint so that a resumed run is bit-identical.

Watched are `random` and, once the process has imported it, `numpy.random`. Asking either for its state builds hundreds
of ints (8 µs and 47 µs), too much for every checkpoint of a job that draws nothing. Both keep a Mersenne Twister in one
block of memory, so the watch compares that block with the last one. NumPy publishes where its block is
(`bit_generator.ctypes.state_address`). `random` does not, nor does NumPy for the spare number of a pair of gaussians.
Those two places are found, not assumed: `_place_of` looks for known states in the memory of a generator of its own, and
what is then read from the global one must agree with the public way of asking; where not, the public way is taken.

A snapshot is little-endian: u8 version (1), u8 kind of the NumPy part (0 none, 1 Mersenne Twister, 2 another
generator), u8 whether `random` holds a spare gaussian; then

- `random`: i32 position, 624 u32 words, f64 spare gaussian (0 when there is none);
- NumPy, kind 1: 624 u32 words, i32 position, i32 whether there is a spare gaussian, i32 zero, f64 spare gaussian;
- NumPy, kind 2: what `numpy.random.get_state(legacy=False)` says, plain-encoded, arrays as (dtype, bytes).
"""

from __future__ import annotations

import ctypes
import importlib
import random
import struct
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from .. import _fastlog
from ..errors import UndecodableStateError

_HEADER = struct.Struct("<3B")
_PYTHON = struct.Struct("<i624I")
_NUMPY = struct.Struct("<624Ii")
_DOUBLE = struct.Struct("<d")
_SPARE = struct.Struct("<i4xd")
_VERSION, _NO_NUMPY, _TWISTER, _OTHER = 1, 0, 1, 2

_PythonState: TypeAlias = tuple[bytes, float | None]  # block, spare gaussian
_NumpyState: TypeAlias = tuple[int, bytes, bytes]  # kind, block or encoded state, spare gaussian


class GeneratorsWatch:
    """Tells when a global generator was used since it was last asked. For one thread at a time."""

    def __init__(self) -> None:
        self._read_python = _reader_of_python()
        self._read_numpy: Callable[[], _NumpyState] | None = None
        self._generator: object = None  # the bit generator that `_read_numpy` reads
        self._seen: tuple[_PythonState, _NumpyState | None] | None = None

    def snapshot_if_changed(self) -> bytes | None:
        """The generators' state, or None when it is as it was at the last call."""
        now = self._read_python(), self._numpy_state()
        if now == self._seen:
            return None
        self._seen = (block, spare), numpy_state = now
        kind, *parts = numpy_state or (_NO_NUMPY,)
        return b"".join(
            [_HEADER.pack(_VERSION, kind, spare is not None), block, _DOUBLE.pack(spare or 0.0), *parts],
        )

    @staticmethod
    def restore(snapshot: bytes) -> None:
        """Put the generators back; imports NumPy if it is in the snapshot. Raises UndecodableStateError."""
        try:
            _restore(snapshot)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error, ImportError) as error:
            reason = f"the random generators cannot be restored: {error}"
            raise UndecodableStateError(
                f"{reason} (run with the versions of Python and NumPy that saved them, or with rng=False)",
                reason=reason,
            ) from error

    def _numpy_state(self) -> _NumpyState | None:
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is None:
            return None
        try:
            generator = numpy_random.get_bit_generator()
        except AttributeError:  # another thread is importing it just now
            return None
        if generator is not self._generator or self._read_numpy is None:
            self._read_numpy, self._generator = _reader_of_numpy(numpy_random), generator
        return self._read_numpy()


def _memory(thing: object) -> bytes:
    return ctypes.string_at(id(thing), type(thing).__basicsize__)


def _block_reader(address: int, size: int) -> Callable[[], bytes]:
    block = (ctypes.c_char * size).from_address(address)
    return lambda: block.raw


def _place_of(thing: object, *changes: Callable[[], bytes]) -> int | None:
    """Where in an object's own memory stand the bytes that each change says: the same place each time, or None."""
    places = set()
    for change in changes:
        expected = change()
        places.add(_memory(thing).find(expected))
    place = places.pop()
    return None if places or place < 0 else place


# ---- random


def _reader_of_python() -> Callable[[], _PythonState]:
    instance: Any = vars(random)["random"].__self__  # what all functions of the module are bound to
    probe = random.Random(20)

    def drawn() -> bytes:
        probe.random()
        return _python_state(probe)[0]

    place = _place_of(probe, drawn, drawn)
    usual = type(instance) is random.Random
    if place is None or not usual:
        return lambda: _python_state(instance)
    block = _block_reader(id(instance) + place, _PYTHON.size)

    def read() -> _PythonState:
        return block(), instance.gauss_next

    return read if read() == _python_state(instance) else lambda: _python_state(instance)


def _python_state(instance: random.Random) -> _PythonState:
    _version, (*words, position), spare = instance.getstate()
    return _PYTHON.pack(position, *words), spare


# ---- NumPy


def _reader_of_numpy(numpy_random: Any) -> Callable[[], _NumpyState]:
    """The quick way to the state of NumPy's global generator, if it is a Mersenne Twister as all are by default."""

    def ask() -> _NumpyState:
        return _numpy_state(numpy_random.get_state(legacy=False))

    place = _place_of_spare(numpy_random)
    if ask()[0] != _TWISTER or place is None:
        return ask
    block = _block_reader(numpy_random.get_bit_generator().ctypes.state_address, _NUMPY.size)
    spare = _block_reader(id(numpy_random.get_state.__self__) + place, _SPARE.size)

    def read() -> _NumpyState:
        return _TWISTER, block(), spare()

    return read if read() == ask() else ask


def _place_of_spare(numpy_random: Any) -> int | None:
    probe = numpy_random.RandomState(20)
    if type(numpy_random.get_state.__self__) is not type(probe):
        return None

    def with_spare(number: float) -> Callable[[], bytes]:
        def change() -> bytes:
            probe.set_state(probe.get_state(legacy=False) | {"has_gauss": 1, "gauss": number})
            return _SPARE.pack(1, number)

        return change

    return _place_of(probe, with_spare(0.1234567), with_spare(-7.654321))


def _numpy_state(state: dict[str, Any]) -> _NumpyState:
    if state["bit_generator"] != "MT19937":
        return _OTHER, _fastlog.encode_plain(_plain(state)), b""
    block = _NUMPY.pack(*state["state"]["key"].tolist(), state["state"]["pos"])
    return _TWISTER, block, _SPARE.pack(state["has_gauss"], state["gauss"])


def _plain(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _plain(value) for key, value in part.items()}
    if hasattr(part, "tobytes"):  # an array, or one of NumPy's own numbers
        return (part.dtype.str, part.tobytes()) if part.shape else part.item()
    return part


def _unplain(part: Any, numpy: Any) -> Any:
    if isinstance(part, dict):
        return {key: _unplain(value, numpy) for key, value in part.items()}
    return numpy.frombuffer(part[1], part[0]) if isinstance(part, tuple) else part


# ---- back


def _restore(snapshot: bytes) -> None:
    version, kind, has_spare = _HEADER.unpack_from(snapshot)
    if version != _VERSION:
        raise ValueError(f"unknown version {version}")
    at = _HEADER.size
    position, *words = _PYTHON.unpack_from(snapshot, at)
    (spare,) = _DOUBLE.unpack_from(snapshot, at + _PYTHON.size)
    if kind != _NO_NUMPY:
        _restore_numpy(kind, snapshot[at + _PYTHON.size + _DOUBLE.size :])
    random.setstate((3, (*words, position), spare if has_spare else None))


def _restore_numpy(kind: int, part: bytes) -> None:
    numpy = importlib.import_module("numpy")
    if kind == _TWISTER:
        *words, position = _NUMPY.unpack_from(part)
        has_spare, spare = _SPARE.unpack_from(part, _NUMPY.size)
        key = numpy.array(words, dtype="u4")
        twister = {"key": key, "pos": position}
        state = {"bit_generator": "MT19937", "state": twister, "has_gauss": has_spare, "gauss": spare}
    else:
        state = _unplain(_fastlog.decode_plain(part), numpy)
    name = str(state["bit_generator"])
    if type(numpy.random.get_bit_generator()).__name__ != name:
        made_by = getattr(numpy.random, name, None)
        # The name comes out of a file, and numpy.random has functions too: its `test` runs a test suite.
        if not (isinstance(made_by, type) and issubclass(made_by, numpy.random.BitGenerator)):
            raise ValueError(f"numpy.random has no bit generator {name!r}")
        numpy.random.set_bit_generator(made_by())
    numpy.random.set_state(state)
