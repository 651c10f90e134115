"""Whether a loop has the items that it was begun with, told by digests of a few of them.

Of a sequence: the first, those at powers of two, and the last. Of what can only be gone through: the first, and those at 64, 256,
1024 and so on as the loop comes to them. More items at the end are no change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from resumable.errors import ChangedItemsError, UnstableArgumentError
from resumable.values.fingerprint import digest
from resumable.values.registry import Registry

FIRST_LATER = 64
_BYTES = 8


class Samples(NamedTuple):
    """How many items there are, if that is known, and the digests of some, None for what has no stable one."""

    total: int | None
    digests: dict[int, bytes | None]

    def with_item(self, index: int, item: object, registry: Registry) -> Samples:
        """With another sample."""
        return Samples(self.total, {**self.digests, index: digest_of(item, registry)})


def digest_of(item: object, registry: Registry) -> bytes | None:
    """Equal for equal items, in every process; None for an item that has no such digest."""
    try:
        return digest(item, path="item", registry=registry)[:_BYTES]
    except UnstableArgumentError:
        return None


def taken(items: object, registry: Registry) -> Samples:
    """The samples that can be had without going through the items."""
    if not isinstance(items, Sequence):
        return Samples(None, {})
    total = len(items)
    places = {0, total - 1, *(1 << bit for bit in range(total.bit_length()))}
    return Samples(total, {index: digest_of(items[index], registry) for index in sorted(places) if 0 <= index < total})


def check_sequence(recorded: Samples, items: Sequence[Any], done: int, run: str, registry: Registry) -> None:
    """Raises ChangedItemsError."""
    if len(items) < max(done, recorded.total or 0):
        raise changed(run, f"there were {max(done, recorded.total or 0)}, and now there are {len(items)}", len(items))
    for index, known in recorded.digests.items():
        check(index, known, items[index], run, registry)


def check(index: int, known: bytes | None, item: object, run: str, registry: Registry) -> None:
    """Raises ChangedItemsError."""
    found = digest_of(item, registry)
    if None not in (known, found) and known != found:
        raise changed(run, f"item {index} is another one", index)


def skip(source: Iterator[Any], count: int, done: int, run: str) -> None:
    """Pass by so many of the `done` items. Raises ChangedItemsError."""
    left = deque(enumerate(islice(source, count), 1), maxlen=1)
    if count and (not left or left[0][0] < count):
        raise changed(run, f"{done} were done, and now there are fewer", done)


def changed(run: str, what: str, index: int) -> ChangedItemsError:
    """The error that says so, and what can be done."""
    return ChangedItemsError(
        f"the items of loop {run!r} are not those it was begun with: {what} (give those; new ones may follow at the end; "
        f"on_change=\"restart\" begins anew, \"continue\" goes on at the same place)", run=run, index=index,
    )
