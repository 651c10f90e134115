"""What tells an effect that was had already: keys of items for servers, checks before the effect."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, ResumableError, idempotent, skip_if_exists


def keys(driver: Driver, name: str = "loop", *, until: int = -1, size: int = 0, **given: Any) -> list[str]:
    """The keys of a loop's items, or batches, left in this one."""
    found = []
    items = driver.items(range(6), name=name, **given)
    for _ in items.batches(size) if size else items:
        found.append(items.idempotency_key())
        assert items.idempotency_key() == found[-1]
        if items.index == until:
            break
    return found


def test_keys_of_items(driver: Driver) -> None:
    """An item's key is the same in each life of a run, and no other item's, run's or loop's; it can stand in a URL."""
    first = keys(driver, until=3)
    second = keys(driver, until=4)
    assert [len(first), len(second), second[0]] == [4, 2, first[3]]
    assert keys(driver)[0] == second[1]
    anew = keys(driver)
    assert len({*first, *second, *anew, *keys(driver, "other")}) == 5 + 6 + 6
    for key in anew:
        assert len(key) == 32
        assert set(key) <= {*string.ascii_letters, *string.digits, *"-_"}


def test_keys_of_what_is_done_again(driver: Driver) -> None:
    """A dead letter has the key that its item had, also in the run that does it again after the first one's end."""
    first: dict[int, str] = {}
    for fail in ({1, 3}, {3}, {3}, set()):
        found = {}
        items = driver.items(range(5), name="letters", max_attempts=1)
        for number in items:
            with items.attempt():
                found[number] = items.idempotency_key()
                if number in fail:
                    raise LookupError
        first = first or found
        assert {first[number] for number in found} == {*found.values()}
        driver.retry_dead_letters("letters")
    assert [*found] == [3]
    assert len({*first.values()}) == 5


def test_keys_of_batches_that_are_done_again(driver: Driver) -> None:
    """A batch of dead letters that did not stand together has no key of another batch."""
    keys_of: dict[str, list[int]] = {}
    seen = []
    for size in (1, 2):
        items = driver.items(range(6), name="letters", max_attempts=1)
        for batch in items.batches(size):
            with items.attempt():
                seen.append(batch)
                assert keys_of.setdefault(items.idempotency_key(), batch) == batch
                if size == 1 and batch[0] in (1, 3):
                    raise LookupError
        driver.retry_dead_letters("letters")
    assert len(keys_of) == len({str(batch) for batch in seen})


def test_keys_of_batches(driver: Driver) -> None:
    """A batch of other items has another key, also if it begins with the same one; a batch of one has its item's."""
    pairs = keys(driver, until=0, size=2)
    threes = keys(driver, until=0, size=3)
    ones = keys(driver, until=0, size=1)
    assert len({*pairs, *threes, *ones}) == 3
    assert ones == keys(driver, until=0)


def test_keys_where_items_have_keys(driver: Driver) -> None:
    """With `key=` an item has its key wherever it stands in a later life; a batch has none."""

    def life(letters: str, until: str = "") -> dict[str, str]:
        found = {}
        items = driver.items(letters, name="letters", key=lambda letter: letter)
        for letter in items:
            found[letter] = items.idempotency_key()
            if letter == until:
                break
        return found

    first = life("abcdef", "c")
    assert len({*first.values()}) == 3
    second = life("xcbaf")
    assert [*second] == ["x", "c", "f"]
    assert second["c"] == first["c"]
    assert len({*first.values(), *second.values()}) == 5
    items = driver.items("abc", name="batches", key=lambda letter: letter)
    for batch in items.batches(2):
        if len(batch) == 2:
            with pytest.raises(ResumableError, match="has no key"):
                items.idempotency_key()


def test_no_key_without_an_item(driver: Driver) -> None:
    """Before, between and behind a loop there is no key."""
    items = driver.items(range(1), name="loop")
    with pytest.raises(ResumableError, match="no item of loop 'loop' is at hand"):
        items.idempotency_key()
    for _ in items:
        items.idempotency_key()
    with pytest.raises(ResumableError, match="is at hand"):
        items.idempotency_key()


def test_two_directories_have_two_keys(tmp_path: Path) -> None:
    """Loops of one name in two state directories have no key in common."""
    with Driver(tmp_path / "a") as a, Driver(tmp_path / "b") as b:
        assert not {*keys(a)} & {*keys(b)}


KEY = """
items = Driver(STATE).items(range(3), name="loop")
for number in items:
    print(items.idempotency_key(), flush=True)
    if number == 1:
        kill()
"""


def test_keys_outlive_kills(script: Callable[..., tuple[int, str, str]], state_dir: Path) -> None:
    """A killed item asks with the same key again; the disk knows of the run before its first key is given out."""
    code, out, errors = script(KEY)
    assert code == -9, errors
    assert script(KEY)[1] == out.split()[1]
    assert script(KEY.replace("number == 1", "False"))[1].split()[0] == out.split()[1]


def test_the_disk_knows_the_run_first(tmp_path: Path) -> None:
    """When an item's key is given out, a power cut cannot make its run another one: the log has its beginning."""
    with Driver(tmp_path / "state", sync_every=1000) as driver:
        items = driver.items(range(3), name="loop")
        for _ in items:
            store = driver._open().home.store
            assert not list(store.scan(b"r"))
            items.idempotency_key()
            assert list(store.scan(b"r"))
            break


# ---- checks


def test_skip_if_exists(tmp_path: Path) -> None:
    """What is there is skipped; a name below a file, and a link that leads nowhere, are not there; what cannot be told raises."""
    target = tmp_path / "file"
    assert not skip_if_exists(target)
    target.touch()
    assert skip_if_exists(target)
    assert skip_if_exists(str(tmp_path))
    assert not skip_if_exists(target / "below")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert not skip_if_exists(tmp_path / "link")
    with pytest.raises(OSError):
        skip_if_exists(tmp_path / ("x" * 300))


def test_idempotent() -> None:
    """A function whose check is true is not called, and what the check found stands for its value."""
    there: dict[str, str] = {}
    skipped: list[str] = []

    @idempotent(check=lambda name, value: there.get(name), on_skip=lambda name, value: skipped.append(name))
    def put(name: str, value: str) -> str | None:
        """Puts it there."""
        there[name] = value
        return None

    assert put("a", "1") is None
    assert put("a", value="2") == "1"
    assert (there, skipped, put.__doc__, put.__name__) == ({"a": "1"}, ["a"], "Puts it there.", "put")

    @idempotent(check=lambda: None)
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        fail()


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_idempotent_coroutines(kind: str) -> None:
    """A coroutine function stays one, whether its check is a function or another one."""
    calls: list[int] = []
    skipped: list[int] = []

    async def look(number: int) -> int:
        await asyncio.sleep(0)
        return number in calls and 100 + number

    async def tell(number: int) -> None:
        skipped.append(number)

    check: Any = look if kind == "async" else lambda number: number in calls and 100 + number

    @idempotent(check=check, on_skip=tell if kind == "async" else skipped.append)
    async def call(number: int) -> int:
        calls.append(number)
        return number

    async def main() -> list[int]:
        return [await call(1), await call(2), await call(1)]

    assert asyncio.run(main()) == [1, 2, 101]
    assert (calls, skipped) == ([1, 2], [1])
