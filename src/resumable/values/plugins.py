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
from typing import TYPE_CHECKING, Final

from resumable.errors import PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "resumable.reconnectors"


def bring(top_level: str, register: Callable[..., None]) -> None:
    """Let the plugins for types of that top-level module call `register`. Raises PluginError."""
    if top_level == "__main__" or top_level in sys.stdlib_module_names:
        return
    for entry in _entries().get(top_level, ()):
        try:
            entry.load()(register)
        except Exception as error:
            package = entry.dist.name if entry.dist is not None else "a package"
            raise PluginError(
                f"the plugin {entry.value!r} of {package} for types of {entry.name!r} failed: {type(error).__name__}: {error} "
                f"(mend or uninstall {package})", plugin=entry.value, package=package,
            ) from error


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
