"""Loops over `driver.items(..., key=)`: items are known by their keys, so what is done stays done wherever it stands."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import (
    ChangedItemsError,
    DamagedLogError,
    DiskFullError,
    Driver,
    DuplicateKeyError,
    ForkedError,
    UnstableArgumentError,
)
from resumable.storage import keys as key_file


class Halt(Exception):
    """Stands for a crash of the body."""


def itself(item: Any) -> Any:
    return item


def go(driver: Driver, items: Iterable[Any], *, until: Any = None, key: Any = itself, **given: Any) -> list[Any]:
    """A loop whose body fails at an item; the items that it saw."""
    seen = []
    with contextlib.suppress(Halt):
        for item in driver.items(items, name="keyed", key=key, **given):
            seen.append(item)
            if item == until:
                raise Halt
    return seen


@pytest.fixture(params=["mapped", "written"])
def mapped_or_not(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files can be mapped, and where they cannot."""
    if request.param == "written":
        monkeypatch.setattr(key_file, "can_map", lambda fd: False)
        monkeypatch.setattr("resumable.storage.folder.can_map", lambda fd: False)


@pytest.mark.parametrize("kind", [list, tuple, iter, dict.fromkeys], ids=["list", "tuple", "iterator", "dict"])
def test_items_may_change(driver: Driver, kind: Callable[[Iterable[str]], Iterable[str]], mapped_or_not: None) -> None:
    """Items that come, go and change places between lives: each that was not done is done, and none that was."""
    assert go(driver, kind("abcdef"), until="d") == ["a", "b", "c", "d"]
    assert go(driver, kind("xfedcba"), until="e") == ["x", "f", "e"]
    assert go(driver, kind("bdgx")) == ["d", "g"]
    info = driver.info("keyed")
    assert (info.status, info.seq) == ("finished", 7)


def test_where_the_loop_is(driver: Driver) -> None:
    """`done` counts what is done in all lives, `index` says where the item stands now, `total` how many there are now."""
    go(driver, "abcd", until="c")
    items = driver.items(["n", "a", "b", "m", "c"], name="keyed", key=itself)
    seen = [(item, items.index, items.done, items.total) for item in items]
    assert seen == [("n", 0, 2, 5), ("m", 3, 3, 5), ("c", 4, 4, 5)]
    assert items.done == 5


def test_batches_of_new_items(driver: Driver) -> None:
    """A batch holds new items alone, and they are done together."""
    seen = []
    for until in ("d", None):
        items = driver.items("abcdefg" if until else "gfedcbaz", name="keyed", key=itself)
        with contextlib.suppress(Halt):
            for batch in items.batches(2):
                seen.append((items.index, batch))
                if until in batch:
                    raise Halt
    assert seen == [(0, ["a", "b"]), (2, ["c", "d"]), (0, ["g", "f"]), (2, ["e", "d"]), (4, ["c", "z"])]


def test_state_and_results_of_keyed_items(driver: Driver) -> None:
    """A sum and the results over items that change places are those of each item once."""
    for order, stop in (("abcdef", "c"), ("fedcba", "d"), ("cabfed", "d"), ("fabcde", None)):
        items = driver.items(order, name="keyed", key=itself)
        with items.state(total=0) as state:
            for item in items:
                if item == stop:
                    break
                state.total += ord(item)
                items.record(item)
    assert state.total == sum(map(ord, "abcdef"))
    assert sorted(driver.results("keyed")) == list("abcdef")


def test_an_endless_source_with_keys(driver: Driver) -> None:
    """Nothing is asked for ahead, and an endless source is gone through as far as the loop goes."""
    asked: list[int] = []

    def source() -> Iterator[int]:
        for number in itertools.count():
            asked.append(number)
            yield number

    for stop in (5, 9):
        for item in driver.items(source(), name="keyed", key=itself):
            assert asked[-1] == item
            if item == stop:
                break
    assert asked == [*range(6), *range(10)]


def test_a_finished_keyed_loop(driver: Driver, state_dir: Path) -> None:
    """Gone through it begins anew, `once` leaves nothing to do, `fresh` begins anew, and no key file is left over."""
    assert go(driver, "ab") == ["a", "b"]
    assert go(driver, "ba", once=True) == []
    assert go(driver, "ba", until="a") == ["b", "a"]
    assert go(driver, "ab", fresh=True) == ["a", "b"]
    assert list(state_dir.rglob("*.keys*")) == []
    assert go(driver, "ab", until="b") == ["a", "b"]
    if driver.info("keyed").write_path != "memory" and state_dir.exists():
        assert len(list(state_dir.rglob("*.keys"))) == 1
    assert driver.clear("keyed") == 4
    assert list(state_dir.rglob("*.keys")) == []


def test_keys_are_asked_for_once(driver: Driver) -> None:
    """The key function is called once for each item of a life, when the loop comes to it."""
    asked: list[str] = []

    def key(item: str) -> str:
        asked.append(item)
        return item

    go(driver, "abc", until="b", key=key)
    go(driver, "cab", key=key)
    assert "".join(asked) == "ab" + "cab"


# ---- which keys


RARE: list[Any] = [
    datetime.date(2026, 11, 21), uuid.UUID(int=7), Path("a/b"), frozenset("abc"), ("a", ("b", frozenset("xyz"))), b"a", 1, "1",
    {"a": 1, "b": [1, 2]}, datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC), (1, None), range(3),
]  # fmt: skip


def test_keys_of_many_types(driver: Driver) -> None:
    """Whatever has a digest can be a key, and equal ones of a later life are the same."""
    assert go(driver, RARE, until=RARE[-2]) == RARE[:-1]
    again = [{"b": [1, 2], "a": 1}, frozenset("cba"), *RARE]
    assert go(driver, again[:2]) == []
    assert go(driver, RARE, until=RARE[2]) == RARE[:3]


SETS = """
items = [frozenset(f"{letter}{number}" for number in range(9)) for letter in "abcdef"]
with Driver(STATE) as driver:
    for item in driver.items(items, name="sets", key=lambda item: item):
        print(sorted(item)[0][0], end="", flush=True)
        if item == items[int(sys.argv[2])]:
            kill()
"""


def test_sets_are_the_same_in_each_process(script: Callable[..., tuple[int, str, str]]) -> None:
    """A set is the same key in a process that goes over its elements in another order."""
    assert script(SETS, 3, env={"PYTHONHASHSEED": "1"})[1] == "abcd"
    assert script(SETS, 5, env={"PYTHONHASHSEED": "2"})[1] == "def"


def test_a_key_without_a_digest(driver: Driver) -> None:
    """A key that no later process could tell is refused by name, with the item's place and what to give instead."""
    with pytest.raises(UnstableArgumentError, match=r"item 1 of loop .keyed.*str, an int") as caught:
        go(driver, [1, object()])
    assert caught.value.type_name == "object"


def test_what_a_key_function_raises(driver: Driver) -> None:
    """An exception of the key function is the loop's: it passes through, and the loop goes on from there later."""
    with pytest.raises(ZeroDivisionError):
        go(driver, [2, 1, 0, 3], key=lambda number: (number, 1 // number))
    assert driver.info("keyed").status == "failed"
    assert go(driver, [2, 1, 5, 3], key=lambda number: (number, 1 // number)) == [5, 3]


def test_what_is_no_key_function(driver: Driver) -> None:
    """A key that cannot be called is a TypeError at once."""
    with pytest.raises(TypeError, match="function of an item"):
        driver.items("ab", name="keyed", key="id")  # type: ignore[arg-type]


# ---- two items with one key


@pytest.mark.parametrize("kind", [list, iter])
def test_two_items_with_one_key(driver: Driver, kind: Callable[[str], Iterable[str]]) -> None:
    """The second item of a key is never skipped and never given out: the error names both places, in each life anew."""
    for life in range(2):
        with pytest.raises(DuplicateKeyError, match=r"have the same key, .b.|has the key of one before it, .b.") as caught:
            go(driver, kind("abcb"))
        error = caught.value
        assert (error.run, error.key, error.index) == ("keyed", "'b'", 3)
        assert error.first == (1 if kind is list or life == 0 else None)
        assert driver.info("keyed").seq == 3
    assert go(driver, kind("abcd")) == ["d"]


def test_one_key_twice_in_a_batch(driver: Driver) -> None:
    """Two items of a key in one batch are told before the batch is given out."""
    seen = []

    def body() -> None:
        for batch in driver.items("abcc", name="keyed", key=itself).batches(2):
            seen.append(batch)

    with pytest.raises(DuplicateKeyError, match="items 2 and 3"):
        body()
    assert seen == [["a", "b"]]
    assert go(driver, "abc") == ["c"]


# ---- with a key, and without


@pytest.mark.parametrize(("first", "then"), [(itself, None), (None, itself)], ids=["with", "without"])
def test_a_loop_keeps_its_way(driver: Driver, first: Any, then: Any) -> None:
    """A loop that was begun with keys goes on with keys, one without goes on without; `restart` begins anew."""
    assert go(driver, "abc", until="b", key=first) == ["a", "b"]
    for on_change in ("error", "continue"):
        with pytest.raises(ChangedItemsError, match="was begun with"):
            go(driver, "abc", key=then, on_change=on_change)
    assert go(driver, "abc", until="b", key=first) == ["b"]
    assert go(driver, iter("abc"), key=then, on_change="restart") == ["a", "b", "c"]


# ---- the file


def key_files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.keys"))


def test_a_damaged_key_file(disk: Driver, state_dir: Path) -> None:
    """A flipped bit stops the next life with a named error, and nothing is done twice or skipped meanwhile."""
    go(disk, "abcdef", until="e")
    [path] = key_files(state_dir)
    whole = path.read_bytes()
    for place in (9, 64 + 16, 64 + 3 * 16 + 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedLogError, match="repair") as caught:
            go(disk, "abcdef")
        assert any("repair" in note for note in caught.value.__notes__)
    path.unlink()
    with pytest.raises(DamagedLogError, match="it is gone"):
        go(disk, "abcdef")
    path.write_bytes(whole)
    path.chmod(0o600)
    assert go(disk, "abcdef") == ["e", "f"]


def test_a_disk_that_is_full(disk: Driver, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the key file cannot grow the loop stops with a named error before an item is given out, and goes on later."""
    allocate = os.posix_fallocate
    numbers = range(3 * key_file.SMALLEST // 16)

    def full(fd: int, at: int, size: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".keys") and size > 2 * key_file.SMALLEST:
            raise OSError(28, "No space left on device")
        allocate(fd, at, size)

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(DiskFullError):
            go(disk, numbers)
    done = disk.state("keyed")
    assert done == (2 * key_file.SMALLEST - key_file.HEADER) // key_file.ENTRY
    assert go(disk, numbers) == [*numbers[done:]]


def test_a_keyed_loop_in_a_forked_child(disk: Driver) -> None:
    """A child that goes on with its parent's loop gets ForkedError, and the parent's goes on unharmed."""
    seen = []
    items = iter(disk.items("abc", name="keyed", key=itself))
    for item in items:
        seen.append(item)
        if item == "b":
            child = os.fork()
            if child == 0:
                try:
                    next(items)
                except ForkedError:
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
    assert seen == ["a", "b", "c"]


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_keys_are_on_disk_before_the_log(make: Any, monkeypatch: pytest.MonkeyPatch, durability: Any) -> None:
    """Whenever the disk is to have a mark, it has the keys of its items already."""
    syncs: list[str] = []
    real = os.fdatasync

    def sync(fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        if name.endswith(".keys"):
            syncs.append(name)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", sync)
    driver = make(durability=durability, sync_every=1000)
    before = 0
    for number in driver.items(range(5), name="keyed", key=itself):
        if driver.info("keyed").write_path == "memory":
            return
        if durability == "disk":
            assert len(syncs) >= number
        else:
            driver.sync()
            assert len(syncs) > before
            before = len(syncs)


# ---- kills


KILLED = """
order, target, when, size = sys.argv[2].split(","), sys.argv[3], sys.argv[4], int(sys.argv[5])
effects = os.open(sys.argv[6], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def body(item):
    if item == target and when == "before":
        kill()
    os.write(effects, (item + chr(10)).encode())
    if item == target:
        kill()

items = Driver(STATE).items(order, name="killed", key=str)
if size == 1:
    for item in items:
        body(item)
else:
    for batch in items.batches(size):
        for item in batch:
            body(item)
"""


def life_of(order: list[str], done: set[str], target: str | None, when: str, size: int) -> list[str]:
    """The effects that a life has, as they must be; `done` is what is marked after it."""
    effects = []
    new = [item for item in order if item not in done]
    for start in range(0, len(new), size):
        for item in new[start : start + size]:
            if item == target and when == "before":
                return effects
            effects.append(item)
            if item == target:
                return effects
        done.update(new[start : start + size])
    return effects


@pytest.mark.parametrize(("when", "size"), [("before", 1), ("after", 1), ("after", 3)])
def test_killed_while_the_items_change(
    script: Callable[..., tuple[int, str, str]], tmp_path: Path, when: str, size: int, seed: int
) -> None:
    """Killed before or after any item's effect, with items put in, taken out and moved between the lives, each life has the
    effects of what was not marked, in its order, and no others."""
    chosen = random.Random(seed)
    order = [f"item {number}" for number in range(10)]
    done: set[str] = set()
    expected: list[str] = []
    for life in range(13):
        new = [item for item in order if item not in done]
        target = chosen.choice(new) if life < 12 else None
        code, _, errors = script(KILLED, ",".join(order), target, when, size, tmp_path / "effects")
        assert code == (-9 if target else 0), errors
        expected += life_of(order, done, target, when, size)
        assert (tmp_path / "effects").read_text().split("\n")[:-1] == expected, (order, target)
        order.remove(chosen.choice(order))
        order += [f"new {life}", f"newer {life}"]
        chosen.shuffle(order)
