"""Built-in handlers, by kind of resource; a kind's file is loaded when a state first holds one of its types.

Each file has `handlers(top_level)`: the handlers for types of that top-level module.
"""

from __future__ import annotations

from typing import Final

KINDS: Final = {
    "_io": "files",
    "sqlite3": "databases",
    "socket": "network",
    "ssl": "network",
    "requests": "network",
}
