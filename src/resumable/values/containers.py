"""Plain containers walked through: what a description consists of, and the same with other items in it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Final

CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
KINDS: Final = tuple(CONTAINERS)  # for isinstance


def name_of(key: Any) -> str:
    """A dict's key as a name; "" for one that is none. Headers have them in bytes too."""
    return key if type(key) is str else key.decode("latin-1") if type(key) is bytes else ""


def _are_pairs(value: Any) -> bool:
    """Whether it is a list of names with values, as headers and form fields may be given: [("token", "x"), ...]."""
    return type(value) in (list, tuple) and all(
        type(item) in (tuple, list) and len(item) == 2 and type(item[0]) in (str, bytes) for item in value
    )


def rebuilt_like(value: Any, inner: Callable[[Any, Any], Any]) -> Any:
    """`rebuilt` for subclasses too: the container itself if nothing changed, else one of its class, or a plain one."""
    if type(value) in CONTAINERS:
        return rebuilt(value, inner)
    kind = next(kind for kind in KINDS if isinstance(value, kind))
    plain = value._asdict() if hasattr(value, "_fields") else kind(value)
    changed = rebuilt(plain, inner)
    if changed == plain:
        return value
    if hasattr(value, "_fields"):
        return value._replace(**changed)
    if kind is not dict:
        return changed
    updated = copy(value)
    updated.update(changed)
    return updated


def rebuilt(value: Any, inner: Callable[[Any, Any], Any]) -> Any:
    """A plain container with `inner(key, item)` in each item's place; the key is None where the item has no name."""
    kind = type(value)
    if kind is dict:
        return {key: inner(key, item) for key, item in value.items()}
    if _are_pairs(value):
        return kind(type(pair)((inner(None, pair[0]), inner(pair[0], pair[1]))) for pair in value)
    return kind(inner(None, item) for item in value) if kind in CONTAINERS else value
