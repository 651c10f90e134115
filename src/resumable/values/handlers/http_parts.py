"""What the handlers of HTTP clients share: headers, cookies and functions in descriptions."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from http.cookiejar import Cookie
from typing import Any

from resumable.values.registry import alive


def by_name(client: Any, function: Any, what: str) -> Any:
    """The function or class, if it can be imported again. Raises LiveResourceError: others may carry anything inside."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    if found is None or found is not function:
        raise alive(client, f"its {what} is not at the top of a module (define it there, and keep no data in it)")
    return function


def by_key(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Headers or parameters with all their values by name, as the scan for secrets goes by names."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(str(name), []).append(str(value))  # plain ones: the scan does not look into subclasses
    return found


def in_pairs(found: dict[str, list[str]]) -> list[tuple[str, str]]:
    """What `by_key` was given, the values of one name together."""
    return [(name, value) for name, values in found.items() for value in values]


def describe_cookie(cookie: Cookie) -> dict[str, Any]:
    """Not under a name such as cookies: domain and path are no secrets, the value is."""
    return {**vars(cookie), "value": None, "cookie": cookie.value}


def rebuild_cookie(kept: dict[str, Any]) -> Cookie:
    cookie = Cookie.__new__(Cookie)
    vars(cookie).update({name: value for name, value in kept.items() if name != "cookie"}, value=kept["cookie"])
    return cookie
