"""The walk over a value that makes its digest; how each type goes in is told by feeders, see fingerprint.py.

The feed is prefix-free: a tag byte, then a body of fixed size or with its length in front. So no two unlike values can
lay the same bytes before the hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any, TypeAlias

from .excerpt import show


class Unstable(Exception):
    """A value without a stable digest, and the steps that lead to it, innermost first; `digest` words the error."""

    def __init__(self, value: object, why: str) -> None:
        self.type_name = type(value).__qualname__
        self.why = why
        self.steps: list[str] = []


class Digester:
    """One walk over one value. `update` feeds the hash that is current."""

    def __init__(self, leaves: Mapping[type, Feeder], feeder_for: Callable[[type], Feeder]) -> None:
        """`leaves`: exact types without parts, fed at once. `feeder_for` is asked once for each other class."""
        self.update: Callable[[Any], None] = hashlib.blake2b(digest_size=16).update
        self._leaves = leaves
        self._feeder_for = feeder_for
        self._feeders: dict[type, Feeder] = {}
        self._open: dict[int, int] = {}  # id of each value that we are inside of: its depth

    def feed(self, value: object) -> None:
        """Feed any value. Raises Unstable."""
        cls = type(value)
        leaf = self._leaves.get(cls)
        if leaf is not None:
            leaf(self, value)
            return
        feeder = self._feeders.get(cls)
        if feeder is None:
            feeder = self._feeders[cls] = self._feeder_for(cls)
        mark = id(value)
        if mark in self._open:
            if cls is not FunctionType:
                raise Unstable(value, "it contains itself")
            # A recursive inner function holds itself in a closure cell: said by how far out it stands.
            self.token(b"^", (len(self._open) - self._open[mark]).to_bytes(8, "little"))
            return
        self._open[mark] = len(self._open)
        try:
            feeder(self, value)
        finally:
            del self._open[mark]

    def part(self, value: object, step: str) -> None:
        """Feed what stands at `step` (".name") of the current value."""
        try:
            self.feed(value)
        except Unstable as unstable:
            unstable.steps.append(step)
            raise

    def apart(self, *values: object, key: object = ...) -> bytes:
        """The digest of values of their own, outside the current feed; `key` says where they stand."""
        outer = self.update
        hasher = hashlib.blake2b(digest_size=16)
        self.update = hasher.update
        try:
            for value in values:
                self.feed(value)
        except Unstable as unstable:
            if key is not ...:
                unstable.steps.append(f"[{show(key, 40)}]")
            raise
        finally:
            self.update = outer
        return hasher.digest()

    def token(self, tag: bytes, body: bytes = b"") -> None:
        """Feed a tag and bytes."""
        self.update(tag + len(body).to_bytes(8, "little") + body)

    def text(self, tag: bytes, text: str) -> None:
        """Feed a tag and a text."""
        self.token(tag, text.encode("utf-8", "surrogatepass"))

    def named(self, tag: bytes, thing: Any) -> None:
        """Feed a class or function by where it is found; the main module has another name in worker processes."""
        module = "__main__" if thing.__module__ == "__mp_main__" else thing.__module__
        self.text(tag, f"{module}:{thing.__qualname__}")

    def sequence(self, tag: bytes, parts: Iterable[object], size: int) -> None:
        """Feed parts whose order counts."""
        self.update(tag + size.to_bytes(8, "little"))
        index = 0
        try:
            for part in parts:
                self.feed(part)
                index += 1
        except Unstable as unstable:
            unstable.steps.append(f"[{index}]")
            raise

    def unordered(self, tag: bytes, digests: Iterator[bytes]) -> None:
        """Feed the digests of parts whose order does not count."""
        self.token(tag, b"".join(sorted(digests)))


Feeder: TypeAlias = Callable[[Digester, Any], None]
