"""Loops with `key=` in a transaction, when log, key file and database do not agree: power cuts, and copies that are put back."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resumable import DamagedLogError, Driver, TransactionError
from resumable.tools.repair import repair
from resumable.work.mark_keys import MOST, KeysMark
from resumable.work.mark_rows import Mark

HEADER, ENTRY = 64, 16


class Stumble(Exception):
    """Stands for a crash of the body."""


Rows = Callable[[], list[Any]]
Life = Callable[..., list[Any]]


@pytest.fixture
def life(state_dir: Path, database: Path) -> Life:
    """A loop over these items, in batches, that writes a row for each and fails behind that of one; the items that it saw."""

    def one(items: Iterable[Any], until: Any = None, *, size: int = 1, **given: Any) -> list[Any]:
        seen = []
        with Driver(state_dir) as driver, closing(sqlite3.connect(database)) as connection, suppress(Stumble):
            with driver.transaction(connection):
                for batch in driver.items(items, name="load", key=str, **given).batches(size):
                    seen += batch
                    connection.executemany("INSERT INTO rows VALUES (?)", [(item,) for item in batch])
                    if until in batch:
                        raise Stumble
        return seen

    return one


def keep(path: Path) -> Path:
    """A copy, as of a backup."""
    kept = path.with_name(f"kept-{path.name}")
    shutil.copytree(path, kept) if path.is_dir() else shutil.copy(path, kept)
    return kept


def put_back(path: Path, kept: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        shutil.copytree(kept, path)
    else:
        shutil.copy(kept, path)


def key_file(state_dir: Path) -> Path:
    [path] = state_dir.rglob("*.keys")
    return path


# ---- power cuts


POWERED = """
import shutil, sqlite3
from contextlib import closing
from resumable.runs import opening
from resumable.storage import disksync, handoff, journal, platform, recovery
boot, numbers, target, database, disk, sync_at = bytes.fromhex(sys.argv[2]), eval(sys.argv[3]), *map(eval, sys.argv[4:])
for module in list(sys.modules.values()):
    if hasattr(module, "boot_id"):
        module.boot_id = lambda: boot

def fdatasync(fd):
    sync(fd)
    path = os.readlink(f"/proc/self/fd/{fd}")
    if path.endswith(".keys"):
        shutil.copy(path, disk)

sync, os.fdatasync = os.fdatasync, fdatasync
with closing(sqlite3.connect(database)) as connection, Driver(STATE, sync_every=3600) as driver:
    with driver.transaction(connection):
        for number in driver.items(numbers, name="load", key=str):
            connection.execute("INSERT INTO rows VALUES (?)", (number,))
            if number == sync_at:
                driver.sync()
            if number == target:
                kill()
"""


class Machine:
    """One whose power goes again and again, with a disk that keeps what was synced, and of the rest any sectors."""

    def __init__(self, script: Callable[..., tuple[int, str, str]], database: Path, state_dir: Path, seed: str) -> None:
        self._script, self._database, self._state = script, database, state_dir
        self._disk = database.with_name("disk")
        self.random = random.Random(seed)
        self.boot = os.urandom(16).hex()

    def live(self, numbers: list[int], target: int | None, sync_at: int | None) -> None:
        arguments = (self.boot, numbers, target, repr(str(self._database)), repr(str(self._disk)), sync_at)
        code, _, errors = self._script(POWERED, *arguments)
        assert code == (-9 if target is not None else 0), errors

    def cut(self, luck: float = 0.5) -> None:
        """`luck`: how likely it is that a sector that was not synced is on disk all the same, and that the journal is."""
        self.boot = os.urandom(16).hex()
        found = list(self._state.rglob("*.keys"))
        if found and not self._disk.exists():
            found[0].unlink()       # nobody has synced its entry in the folder
        elif found:
            self._disk.write_bytes(self._mixed(self._disk.read_bytes(), found[0].read_bytes(), luck))
            shutil.copy(self._disk, found[0])
        if self.random.random() >= luck:
            for segment in self._state.rglob("*.[012]"):
                segment.unlink()

    def _mixed(self, synced: bytes, newest: bytes, luck: float) -> bytes:
        """For each sector what was synced or what came later; keys that nobody has synced may be zeros."""
        whole = bytearray(synced.ljust(len(newest), b"\0"))
        for start in range(0, len(whole), 512):
            if self.random.random() < luck:
                whole[start : start + 512] = newest[start : start + 512]
        return bytes(whole)


@pytest.mark.parametrize("database_loses", [False, True], ids=["log loses", "both lose"])
def test_power_cuts_with_keys(
    script: Callable[..., tuple[int, str, str]], database: Path, state_dir: Path, rows: Rows, seed: int, database_loses: bool
) -> None:
    """After power cuts that take the journal and whatever of the keys was not synced, and where the database gives up
    durability its last commits, too, each item has its row once."""
    machine = Machine(script, database, state_dir, f"{seed} {database_loses}")
    random_ = machine.random
    numbers = list(range(50))
    for one in range(9):
        before = rows()
        new = [number for number in numbers if number not in before]
        target = random_.choice(new) if one < 8 else None
        kept = keep(database)
        machine.live(numbers, target, random_.choice(new) if random_.random() < 0.3 else None)
        assert rows() == before + new[: new.index(target) if target is not None else len(new)]
        if one == 7 and not database_loses:
            assert len(rows()) > MOST       # the row has not had them all
        if database_loses and one in (2, 5):
            put_back(database, kept)
        machine.cut()
        numbers = random_.sample(numbers, len(numbers) - 2) + [1000 * (one + 1) + more for more in range(15)]
        random_.shuffle(numbers)
    assert list(state_dir.rglob("*.keys")) == []


@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 3 * MOST + 5])
def test_a_power_cut_that_takes_all_it_can(
    script: Callable[..., tuple[int, str, str]], database: Path, state_dir: Path, rows: Rows, count: int
) -> None:
    """A power cut that takes every key that was not synced, and the journal, takes no item, however many are done."""
    machine = Machine(script, database, state_dir, "")
    machine.live([*range(count + 1)], count, None)
    machine.cut(luck=0)
    machine.live([*reversed(range(count + 1))], None, None)
    assert rows() == [*range(count + 1)]


# ---- copies that are put back


def test_a_directory_from_a_copy(life: Life, rows: Rows, state_dir: Path) -> None:
    """A state directory that lacks the last items, keys and all, goes on from the database, wherever the items stand by then."""
    life("abcdefgh", "d")
    kept = keep(state_dir)
    life("hgfedcba", "e")
    put_back(state_dir, kept)
    assert life("xaybzcdefgh") == ["x", "y", "z", "d", "e"]
    assert rows() == [*"abchgfxyzde"]


@pytest.mark.parametrize("how", ["gone", "cut", "zeros", "flipped"])
def test_a_key_file_that_the_row_makes_whole(life: Life, rows: Rows, state_dir: Path, how: str) -> None:
    """What the key file has lost of the keys that are in the row, even all of it, comes back from there."""
    first = [*range(MOST + 20)] if how != "gone" else [*range(20)]
    life(first, first[-1])
    path = key_file(state_dir)
    data = path.read_bytes()
    since = HEADER + (MOST + 1) * ENTRY      # there the key file was synced
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[:since])
    elif how == "zeros":
        path.write_bytes(data[:since] + bytes(1 << 16))
    else:
        path.write_bytes(data[:since] + bytes(byte ^ 1 for byte in data[since:]))
    assert life([*reversed(first), 5000]) == [first[-1], 5000]
    assert sorted(rows()) == [*first, 5000]


@pytest.mark.parametrize("count", [4, MOST + 4])
def test_a_database_from_a_copy(life: Life, rows: Rows, database: Path, count: int) -> None:
    """A database that lost its last commits is gone on with from where it is: what it lacks is done again, and nothing else."""
    order = [*range(count)]
    life([*order, 500], 500)
    kept = keep(database)
    life([600, 601, 602, 603, *order], 602)
    put_back(database, kept)
    assert life([601, 700, *order, 600]) == [601, 700, 600]
    assert rows() == [*order, 601, 700, 600]


def test_a_database_from_before_the_first_item(life: Life, rows: Rows, database: Path) -> None:
    """A database that lost all of its commits but that of the row does every item."""
    life("abc", "a")
    kept = keep(database)
    life("abc", "c")
    put_back(database, kept)
    assert life("cab") == [*"cab"] == rows()


# ---- keys that are lost


def lose(life: Life, state_dir: Path, how: str) -> list[int]:
    """Items of which the state directory has lost keys that the row has not, too; all items, of which the last is not done."""
    order = [*range(MOST + 10)]
    if how == "copy":
        life(order, 3)
        kept = keep(state_dir)
        life(order, order[-1])
        put_back(state_dir, kept)
        return order
    life(order, order[-1])
    path = key_file(state_dir)
    if how == "gone":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[12 if how == "header" else HEADER + 3 * ENTRY + 5] ^= 1
        path.write_bytes(data)
    if how == "repaired":
        repair(state_dir, state_dir.with_name("copy"))
        put_back(state_dir, state_dir.with_name("copy"))
    return order


@pytest.mark.parametrize(
    ("how", "again"),
    [("copy", range(4, MOST + 1)), ("gone", range(MOST + 1)), ("flipped", [3]), ("repaired", [3]), ("header", [])], ids=str,
)  # fmt: skip
def test_keys_that_are_lost(life: Life, rows: Rows, state_dir: Path, how: str, again: Iterable[int]) -> None:
    """Where neither row nor file has the keys the loop does not go on, until it is told to: then their items alone are done
    again."""
    order = lose(life, state_dir, how)
    before = rows()
    for _ in range(2):
        with pytest.raises(TransactionError, match=r"does not have the keys of all.*continue.*fresh=True") as caught:
            life(order)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.run, error.database, error.log) == ("load", len(order) - 1, 3 if how == "copy" else len(order) - 1)
    assert rows() == before
    seen = life(order, order[-1], on_change="continue")
    assert seen == [*again, order[-1]]
    assert life(order) == [order[-1]]
    assert rows() == [*before, *again, order[-1]]


def test_begun_anew_where_keys_are_lost(life: Life, rows: Rows, state_dir: Path) -> None:
    """`fresh=True` begins anew where keys are lost."""
    order = lose(life, state_dir, "gone")
    assert life(order, fresh=True) == order
    assert rows() == [*order[:-1], *order]


def test_the_keys_of_other_items(life: Life, rows: Rows, state_dir: Path) -> None:
    """Keys that are whole and those of other items, as in a copy from before a batch that failed, are noticed."""
    ones, others = [*range(MOST + 2)], [*range(1000, 1000 + MOST + 2)]
    life(ones, ones[0], size=len(ones))
    kept = keep(state_dir)
    life([*others, 5000], 5000, size=len(others))
    put_back(state_dir, kept)
    with pytest.raises(TransactionError, match="not those that the database was written with"):
        life([*others, *ones])
    assert rows() == others


@pytest.mark.parametrize("keys", [KeysMark(1 << 50), KeysMark(0, bytes(15)), KeysMark(1, bytes(32))], ids=str)
def test_a_row_with_other_keys(life: Life, rows: Rows, database: Path, state_dir: Path, keys: KeysMark) -> None:
    """A row whose keys are not as many as it counts is damage, and no file grows by it."""
    life("abc", "c")
    size = key_file(state_dir).stat().st_size
    with closing(sqlite3.connect(database)) as connection:
        [[data]] = connection.execute("SELECT state FROM resumable_loops")
        connection.execute("UPDATE resumable_loops SET state = ?", (replace(Mark.decode(data, "load"), keys=keys).encode(),))
        connection.commit()
    with pytest.raises(DamagedLogError, match="keys of loop 'load' in the database are not what was written"):
        life("abc")
    assert (rows(), key_file(state_dir).stat().st_size) == (["a", "b"], size)


def test_another_directory_with_keys(life: Life, rows: Rows, state_dir: Path) -> None:
    """A row whose run the state directory does not know is refused, also with "continue", for nobody knows its keys."""
    life("abcd", "d")
    shutil.rmtree(state_dir)
    for way in ("error", "continue"):
        with pytest.raises(TransactionError, match="of which this state directory knows nothing") as caught:
            life("abcd", on_change=way)
        assert "continue" not in str(caught.value)
    assert life("dc", fresh=True) == ["d", "c"]
    assert rows() == [*"abcdc"]


def test_another_database_with_keys(life: Life, rows: Rows, database: Path, tmp_path: Path) -> None:
    """A database without the loop's row is refused; with "continue" what the log has as done stays done."""
    empty = keep(database)
    life("abcd", "c")
    put_back(database, empty)
    with pytest.raises(TransactionError, match="has no row of it"):
        life("dcba")
    assert life("dcba", "c", on_change="continue") == ["d", "c"]
    assert life("xabcd") == ["x", "c"]
    assert rows() == [*"dxc"]
