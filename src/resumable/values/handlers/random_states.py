"""`random.Random` and its subclasses: the exact state, and what pickle leaves out.

Kept: the state, a spare gaussian too, the class, and attributes. A `SystemRandom` has no state: a new one is as good.
NumPy's generators need no handler: pickle keeps their states, and a bit generator that two of them share.

Not kept: that `random.random` and its like draw from the generator of the module; they draw from a copy of it.
`Driver(rng=True)` keeps that one's state.

Cost: 35 µs, as its state is 625 numbers.
"""

from __future__ import annotations

import random
from typing import Any, Final

from resumable.values.registry import Handler

_PICKLING: Final = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")


def reduce(generator: random.Random) -> Any:
    """By pickle's way if that keeps all, or if the class has a way of its own; else without calling the class."""
    cls = type(generator)
    derived = cls.__mro__[: cls.__mro__.index(random.Random)]
    if any(name in vars(base) for base in derived for name in _PICKLING):
        return generator.__reduce_ex__(5)
    attributes = {name: value for name, value in vars(generator).items() if name != "gauss_next"}
    return make, (cls,), (generator.getstate(), attributes, _slots(generator)), None, None, restore


def make(cls: type[random.Random]) -> random.Random:
    """Called by pickle: its name and module are part of the format."""
    return cls.__new__(cls)


def restore(generator: random.Random, kept: tuple[Any, dict[str, Any], dict[str, Any]]) -> None:
    """Called by pickle: its name and module are part of the format."""
    state, attributes, slots = kept
    _put_back(generator, attributes, slots)
    generator.setstate(state)


def identify(generator: random.Random) -> Any:
    """What it draws next."""
    return generator.getstate()


def reduce_system(generator: random.SystemRandom) -> Any:
    """Its class and attributes."""
    return make, (type(generator),), (dict(vars(generator)), _slots(generator)), None, None, restore_system


def restore_system(generator: random.SystemRandom, kept: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Called by pickle: its name and module are part of the format."""
    _put_back(generator, *kept)


def _slots(generator: random.Random) -> dict[str, Any]:
    """What a subclass keeps in slots, by the name of each."""
    state = object.__getstate__(generator)
    return state[1] if type(state) is tuple else {}


def _put_back(generator: random.Random, attributes: dict[str, Any], slots: dict[str, Any]) -> None:
    vars(generator).update(attributes)
    for name, value in slots.items():
        object.__setattr__(generator, name, value)


def _never(description: Any) -> Any:
    raise AssertionError("values come back by what they were reduced to")


HANDLERS: Final = {
    "random:Random": Handler("random:Random", reduce, _never, identify, is_value=True),
    "random:SystemRandom": Handler("random:SystemRandom", reduce_system, _never, vars, is_value=True),
}
