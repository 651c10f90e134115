"""Plugins: reconnectors that other packages bring, found by entry points of the group `resumable.reconnectors`.

An entry point is named after the top-level module whose types it covers, and loaded when a state first holds one of them,
or is resumed with one: `redislike = "redislike.checkpoints:reconnectors"`, where `reconnectors(register)` calls `register`
as one would call `resumable.register_reconnector`. The standard library's types and those of `__main__` are never asked for.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from resumable.errors import PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "resumable.reconnectors"
Plugin = Callable[[Callable[..., None]], Any]


def for_types_of(top_level: str) -> list[Plugin]:
    """The plugins' functions for types of that top-level module. Raises PluginError."""
    if top_level == "__main__" or top_level in sys.stdlib_module_names:
        return []
    return [_loaded(entry) for entry in _entries().get(top_level, ())]


def top_levels() -> list[str]:
    """The top-level modules that plugins cover."""
    return sorted(_entries())


@cache
def _entries() -> dict[str, list[EntryPoint]]:
    # Milliseconds, for reading what is installed: once in a process, and not for states of plain data.
    from importlib.metadata import entry_points

    found = defaultdict(list)
    for entry in entry_points(group=GROUP):
        found[entry.name].append(entry)
    return dict(found)


def _loaded(entry: EntryPoint) -> Plugin:
    package = entry.dist.name if entry.dist is not None else "a package"
    try:
        plugin: Plugin = entry.load()
    except Exception as error:
        raise PluginError(
            f"the plugin {entry.value!r} of {package} for types of {entry.name!r} cannot be loaded: "
            f"{type(error).__name__}: {error} (mend or uninstall {package})", plugin=entry.value, package=package,
        ) from error
    if not callable(plugin):
        raise PluginError(
            f"the plugin {entry.value!r} of {package} is a {type(plugin).__name__}, not a function that takes `register` "
            f"(mend or uninstall {package})", plugin=entry.value, package=package,
        )
    return plugin
