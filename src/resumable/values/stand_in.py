"""Stand-ins for live resources that are rebuilt when they are first used, not when the state is handed to the job.

A stand-in passes for its resource wherever that is used through its attributes and operators, and for `isinstance`; code in C
that asks for the exact type does not take it. Saved before it was used, it leaves the description as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from resumable.values.registry import reconnect

# What a stand-in has of its own, or gets from `object`.
_OWN: Final = frozenset({
    "__class__", "__new__", "__init__", "__del__", "__dict__", "__weakref__", "__slots__", "__doc__", "__module__",
    "__init_subclass__", "__subclasshook__", "__class_getitem__", "__getattribute__", "__getattr__", "__setattr__",
    "__delattr__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__",
    "__getnewargs_ex__", "__copy__", "__deepcopy__", "__sizeof__", "__repr__",
})
_get, _set = object.__getattribute__, object.__setattr__


def stand_in(
    cls: type[Any], stored: tuple[str, Any], rebuild: Callable[[], Any], describe: Callable[[Any], Any]
) -> Any:
    """A stand-in for an object of `cls` that `rebuild` makes. `stored`: (key, description) as it was saved."""
    made: Any = object.__new__(_stand_in_class(cls))  # type: ignore[arg-type] # classes are hashable
    for name, value in (("stored", stored), ("rebuild", rebuild), ("describe", describe), ("turn", threading.RLock())):
        _set(made, f"_resumable_{name}", value)
    return made


class _StandIn:
    __slots__ = ("_resumable_describe", "_resumable_real", "_resumable_rebuild", "_resumable_stored", "_resumable_turn")

    def __getattribute__(self, name: str) -> Any:
        if name in ("__reduce_ex__", "__reduce__"):
            return _get(self, name)
        return getattr(_real(self), name) if name != "__class__" else _get(self, "_resumable_class")

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_real(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_real(self), name)

    def __repr__(self) -> str:
        if _is_rebuilt(self):
            return repr(_real(self))
        return f"<stand-in for a {_get(self, '_resumable_class').__qualname__}, not rebuilt yet>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        key, description = _get(self, "_resumable_stored")
        if _is_rebuilt(self):
            description = _get(self, "_resumable_describe")(_real(self))
        return reconnect, (key, description)


def is_stand_in(value: object) -> bool:
    """Whether it is one, without using it."""
    return issubclass(type(value), _StandIn)


def _is_rebuilt(made: _StandIn) -> bool:
    try:
        _get(made, "_resumable_real")
    except AttributeError:
        return False
    return True


def _real(made: _StandIn) -> Any:
    """The resource, rebuilt now unless it was before, once if several threads ask. Raises ReconnectError."""
    with _get(made, "_resumable_turn"):
        if not _is_rebuilt(made):
            _set(made, "_resumable_real", _get(made, "_resumable_rebuild")())
            _set(made, "_resumable_rebuild", None)
        return _get(made, "_resumable_real")


@cache
def _stand_in_class(cls: type[Any]) -> type[_StandIn]:
    """Operators are looked up in the class, past `__getattribute__`: one forwarder for each that `cls` has."""
    names = {name for name in dir(cls) if name.startswith("__") and name.endswith("__")} - _OWN
    methods = {name: _forwarder(name) for name in names if callable(getattr(cls, name, None))}
    return type(f"StandInFor{cls.__name__}", (_StandIn,), {"__slots__": (), "_resumable_class": cls, **methods})


def _forwarder(name: str) -> Callable[..., Any]:
    def forward(self: _StandIn, *args: Any, **keywords: Any) -> Any:
        return getattr(_real(self), name)(*args, **keywords)

    return forward
