"""The picklers behind tiers 1 and 2: pickle and dill, each asking the reconnect registry first.

`state_pickler` makes the C one, for speed: to be used again and again. The two in Python serve tier 2, and finding out
why a state could not be pickled.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import FunctionType, SimpleNamespace
from typing import Any, Final

from resumable._fastlog import Reducer
from resumable.values.registry import Registry, reconnect

PROTOCOL: Final = 5
_OUT_OF_BAND: Final = 64 * 1024  # bytes from which a buffer is handed out, not copied

# pickle's own Pickler in Python: what dill builds on, and the only one that can say where it failed.
_PythonPickler: Final[type[Any]] = pickle._Pickler


def reducer(registry: Registry) -> Callable[[Any], Any]:
    """A `reducer_override` that puts a description in the place of each live resource."""
    def reduce(obj: Any) -> Any:
        handler = registry.handler_of(obj)
        if handler is None:
            return NotImplemented
        if handler.is_value:
            return registry.extracted(handler, obj)
        return reconnect, (handler.key, registry.describe(handler, obj))

    return Reducer(registry.unhandled, reduce).override


def _large_to(buffers: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """A `buffer_callback` that takes large contiguous buffers; what it answers is whether pickle keeps the buffer."""

    def take(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _OUT_OF_BAND:
            return True
        buffers.append(view)
        return False

    return take


class _StatePickler(pickle.Pickler):
    """A subclass, as only they ask `reducer_override`."""


# A C pickler taken apart, as attributes looked up at every checkpoint show: dump, clear_memo, and the lists in which
# `dump` leaves what it pickled and the large buffers of it. Both lists are to be emptied and `clear_memo` called before
# it is used again; after a failed dump it is not. A plain tuple is unpacked three times as fast as a named one.
Kit = tuple[Callable[[Any], None], Callable[[], None], list[bytes], list[memoryview]]


def state_pickler(registry: Registry) -> Kit:
    chunks: list[bytes] = []
    buffers: list[memoryview] = []
    sink: Any = SimpleNamespace(write=chunks.append)  # one call for each dump, and no copy
    pickler = _StatePickler(sink, PROTOCOL, buffer_callback=_large_to(buffers))
    # What stands in the instance is called as it is; a method of the class would be bound anew for each dump.
    pickler.reducer_override = reducer(registry)  # type: ignore[method-assign, unused-ignore]
    return pickler.dump, pickler.clear_memo, chunks, buffers


@cache
def python_pickler(dill: bool) -> type[Any]:
    """A pickler class in Python with a registry: `cls(registry)`, then `dump`, `data()` and `buffers`.

    It keeps the chain of objects that it is inside of in `stack`; after a failure that leads to the culprit.
    """
    base: Any = import_module("dill").Pickler if dill else _PythonPickler

    class PythonPickler(base):  # type: ignore[misc]
        def __init__(self, registry: Registry) -> None:
            self._sink = io.BytesIO()
            self.buffers: list[memoryview] = []
            self.stack: list[Any] = []
            self._reduce = reducer(registry)
            keywords = {"recurse": True} if dill else {}  # of a function's globals only those that it uses
            super().__init__(self._sink, PROTOCOL, buffer_callback=_large_to(self.buffers), **keywords)

        def save(self, obj: Any, *args: Any, **keywords: Any) -> None:
            self.stack.append(obj)
            super().save(obj, *args, **keywords)
            self.stack.pop()  # not in a `finally`: after a failure the chain is the answer

        def reducer_override(self, obj: Any) -> Any:
            if dill and isinstance(obj, (type, FunctionType)) and _is_importable(obj):
                return obj.__qualname__
            return self._reduce(obj)

        def data(self) -> bytes:
            return self._sink.getvalue()

    return PythonPickler


def _is_importable(obj: Any) -> bool:
    """Whether a class or function is found under its module and name, so that a reference is enough.

    By value its class would be another one after resuming, and its code would be the old one.
    """
    found: Any = sys.modules.get(obj.__module__)
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj
