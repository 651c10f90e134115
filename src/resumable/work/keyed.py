"""Which items of a loop with `key=` are done: those whose keys an earlier life has done, wherever they stand now."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from resumable._fastlog import Marks, NewItems
from resumable.errors import ChangedItemsError, DuplicateKeyError, UnstableArgumentError
from resumable.runs.mapped import AGAIN
from resumable.values.fingerprint import digest, show
from resumable.values.registry import Registry
from resumable.work.again import Request

if TYPE_CHECKING:
    from resumable._fastlog import Keys
    from resumable.runs.live import LiveRun
    from resumable.storage.keys import KeptKeys

Key = Callable[[Any], object]
KEYS: Final = "keys"    # in a run's description: what its keys are hashed with
KEY_SIZE: Final = 12       # bytes by which a letter knows the key of an item


def check_key(key: object) -> None:
    """Raises TypeError for what gives no keys."""
    if key is not None and not callable(key):
        raise TypeError(f"key is a function of an item, not {key!r}")


def description(key: Key | None) -> dict[str, Any]:
    """What a new run keeps in its description: what its keys are hashed with, so that nobody can make two of one hash."""
    return {} if key is None else {KEYS: secrets.token_bytes(16)}


def is_keyed(described: Mapping[str, Any]) -> bool:
    """Whether this is the description of a loop with keys."""
    return described.get(KEYS) is not None


def has_keys(run: LiveRun) -> bool:
    """Whether the run was begun with a key."""
    return run.described(KEYS) is not None


def keys_of(run: LiveRun, done: int, kept: KeptKeys | None = None) -> Keys:
    """The keys of such a run, of which so many are done. Raises DamagedLogError, StorageError."""
    return run.keys(run.described(KEYS), done, kept)


def fits(run: LiveRun, key: Key | None) -> bool:
    """Whether the run was begun with a key, as it is called now, or without one."""
    return has_keys(run) == (key is not None)


def misfit(run: str, key: Key | None) -> ChangedItemsError:
    """The error that says that it does not fit."""
    begun, called = ("without key=", "with it") if key is not None else ("with key=", "without it")
    return ChangedItemsError(
        f"loop {run!r} was begun {begun} and is called {called}, so it cannot be told which of its items are done (call it as it "
        f"was begun to finish it; on_change=\"restart\" or fresh=True begins anew)", run=run, index=0,
    )


def new_items(
    run: LiveRun, items: Iterable[Any] | AsyncIterable[Any], key: Key, done: int, marks: Marks, registry: Registry
) -> NewItems:
    """Those of the items that no earlier life has done, or that are done again, none of an asynchronous source.

    Raises DamagedLogError, StorageError.
    """
    keys = keys_of(run, done)
    source = iter(()) if isinstance(items, AsyncIterable) else iter(items)
    described = run.described(AGAIN)
    request = Request(*described or ())
    found = NewItems(source, key, keys, marks, _Judge(run.identity.name, items, key, done > 0 or request.alone, registry))
    if described is not None:
        wanted, asked = _wanted(request, keys)
        found.want(wanted, asked if request.alone else None)
        if asked and not wanted:
            run.describe(AGAIN, tuple(request.over()))
    return found


def _wanted(request: Request, keys: Keys) -> tuple[set[bytes], frozenset[bytes]]:
    """The keys of items that are done again, without those that are by now; and with them."""
    wanted: set[bytes] = set()
    asked: set[bytes] = set()
    stops = [*(done for done, _ in request.keys[1:]), keys.count]
    for (done, joined), stop in zip(request.keys, stops, strict=False):
        named = {joined[at : at + KEY_SIZE] for at in range(0, len(joined), KEY_SIZE)}
        wanted |= named
        asked |= named
        keys.take_out(wanted, done, stop)
    return wanted, frozenset(asked)


class NewInLoop:
    """Those of an asynchronous source."""

    def __init__(self, source: AsyncIterator[Any], new: NewItems) -> None:
        self._source, self._new = source, new

    def __aiter__(self) -> NewInLoop:
        return self

    async def __anext__(self) -> Any:
        while True:
            item = await anext(self._source)
            if self._new.is_new(item):
                return item


class _Judge:
    """What is asked of rare keys. It must not hold the loop, which holds it."""

    def __init__(self, run: str, items: object, key: Key, left_out: bool, registry: Registry) -> None:
        """`left_out`: whether items may be passed by that have no place among this life's keys."""
        self._run, self._items, self._key, self._left_out, self._registry = run, items, key, left_out, registry

    def digest(self, key: object, place: int) -> bytes:
        """For a key that is not plain. Raises UnstableArgumentError."""
        try:
            return digest(key, path="key", registry=self._registry)
        except UnstableArgumentError as error:
            path, kind = error.__dict__["path"], error.__dict__["type_name"]
            raise UnstableArgumentError(
                f"the key of item {place} of loop {self._run!r} has no digest that is equal in every process: {path} is of type "
                f"{kind} (let key= give a str, an int, bytes, or a tuple of these)", path=path, type_name=kind,
            ) from error

    def met_twice(self, key: object, place: int, earlier: int) -> NoReturn:
        """This life has met the key before; its entry is number `earlier`. Raises DuplicateKeyError."""
        first = self._first(key, place, earlier)
        what = f"item {place} has the key of one before it" if first is None else f"items {first} and {place} have the same key"
        raise DuplicateKeyError(
            f"{what}, {show(key)}, in loop {self._run!r}, which knows what is done by the keys: the second was not given out "
            f"(give each item a key of its own, or leave repeated items out before the loop)",
            run=self._run, key=show(key), index=place, first=first,
        )

    def _first(self, key: object, place: int, earlier: int) -> int | None:
        if not self._left_out:
            return earlier
        if not isinstance(self._items, Sequence):
            return None
        return next((index for index in range(place) if self._key(self._items[index]) == key), None)
