"""Keys in the other ways to write a loop: `async for`, attempts at an item, dead letters, the decorator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, DuplicateKeyError, loop

_seen: list[str] = []      # a global: what a loop's function holds is part of its run's identity


class Fall(Exception):
    """Stands for a crash of the body."""


async def slowly(letters: str) -> AsyncIterator[str]:
    for letter in letters:
        await asyncio.sleep(0)
        yield letter


@pytest.mark.parametrize("source", [slowly, list], ids=["async", "plain"])
def test_async_for_over_keyed_items(driver: Driver, source: Callable[[str], Any]) -> None:
    """`async for` leaves out what is done wherever it stands, from sources of both kinds, one by one and in batches."""

    async def body(letters: str, until: str | None, size: int = 0) -> list[tuple[int, Any]]:
        items = driver.items(source(letters), name="async", key=str)
        seen: list[tuple[int, Any]] = []
        with contextlib.suppress(Fall):
            async for item in items.batches(size) if size else items:
                seen.append((items.index, item))
                if until is not None and until in item:
                    raise Fall
        return seen

    assert asyncio.run(body("abcd", "c")) == [(0, "a"), (1, "b"), (2, "c")]
    assert asyncio.run(body("dxacb", "c")) == [(0, "d"), (1, "x"), (3, "c")]
    assert asyncio.run(body("zyxcb", None, 2)) == [(0, ["z", "y"]), (3, ["c"])]
    with pytest.raises(DuplicateKeyError):
        asyncio.run(body("aba", None))


def test_attempts_stay_with_their_item(driver: Driver) -> None:
    """The failed attempts of earlier lives are those of the item, not of its place: another one there has all of its own."""

    def life(letters: str) -> list[str]:
        seen = []
        with contextlib.suppress(Fall):
            for letter in driver.items(letters, name="tried", key=str, max_attempts=2):
                seen.append(letter)
                if letter in "bad":
                    raise Fall
        return seen

    assert life("xbad") == ["x", "b"]
    assert life("axbd") == ["a"]
    assert life("axbd") == ["a"]        # its second attempt: a dead letter now
    assert life("dxyb") == ["d"]
    assert [letter.item for letter in driver.dead_letters("tried")] == ["a"]
    assert life("xyzd") == ["y", "z", "d"]      # others were done meanwhile, and this is its second all the same
    assert [letter.item for letter in driver.dead_letters("tried")] == ["a", "d"]


def test_an_item_that_moves_keeps_its_attempts(driver: Driver) -> None:
    """An item that failed and stands elsewhere in the next life is tried as often as it has attempts left."""

    def life(letters: str) -> None:
        with contextlib.suppress(Fall):
            for letter in driver.items(letters, name="moved", key=str, max_attempts=2):
                if letter == "b":
                    raise Fall

    life("ab")
    life("xab"[::-1])
    assert [(letter.item, letter.attempts) for letter in driver.dead_letters("moved")] == [("b", 2)]


def test_attempts_inside_a_keyed_loop(driver: Driver) -> None:
    """An item that is tried again within the loop is the same one, and its key is no second one."""
    seen = []
    items = driver.items("abc", name="within", key=str, max_attempts=3)
    for letter in items:
        with items.attempt():
            seen.append(letter)
            if letter == "b" and seen.count("b") < 3:
                raise Fall
    assert seen == ["a", "b", "b", "b", "c"]
    assert driver.info("within").status == "finished"


def test_a_decorated_loop_with_keys(tmp_path: Path) -> None:
    """`@loop(key=...)` knows the items by their keys; a key that is none, or has no items, is told at once."""
    _seen.clear()

    @loop(name="decorated", driver=tmp_path / "state", key=str)
    def body(letters: str) -> None:
        for letter in letters:
            _seen.append(letter)
            if _seen == ["a", "b", "c"]:
                raise Fall

    with pytest.raises(Fall):
        body("abcd")
    body("dcbae")
    assert _seen == ["a", "b", "c", "d", "c", "e"]
    with pytest.raises(TypeError, match="function of an item"):
        loop(key="id")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="auto_iterate"):
        loop(key=str, auto_iterate=False)
