"""The key file and its table, apart from any loop: the hash, what is found, what damage is noticed, how the file grows."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import DamagedLogError, ForkedError, SyncFailedError
from resumable._fastlog import Keys, Marks, NewItems, siphash
from resumable.storage import keys as key_file
from resumable.storage.keys import ENTRY, HEADER, SMALLEST, KeptKeys, mend_keys, new_keys, open_keys, sync_keys

SALT = bytes(range(16))
NEW, DONE, AGAIN = 0, 1, 2

# From the authors' own: the hash of 0, 1, 2, ... of so many bytes, with the key 0, 1, 2, ...
VECTORS = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    7: "a1f1ebbed8dbc153c0b84aa61ff08239",
    8: "3b62a9ba6258f5610f83e264f31497b4",
    15: "5493e99933b0a8117e08ec0f97cfc3d9",
    16: "6ee2a4ca67b054bbfd3315bf85230577",
    63: "5150d1772f50834a503e069a973fbd7c",
}


@pytest.mark.parametrize("size", VECTORS)
def test_the_hash_is_siphash(size: int) -> None:
    """SipHash-2-4 of 128 bits gives what its authors say, for whole words and for rests."""
    assert siphash(SALT, bytes(range(size))) == bytes.fromhex(VECTORS[size])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a key file may be."""
    return tmp_path / "1.keys"


@pytest.fixture(params=["mapped", "written"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where files can be mapped, and where they cannot."""
    if request.param == "written":
        monkeypatch.setattr(key_file, "can_map", lambda fd: False)
    return str(request.param)


def alike(random_: random.Random) -> bytes:
    """A hash that has its place at the end or the beginning of the table, with few others to tell it from."""
    place = random_.choice([0, 1, 0xFFFFFFFE, 0xFFFFFFFF]).to_bytes(4, "little")
    return random_.randbytes(1) * 4 + place + random_.randbytes(1) * 4 + random_.randbytes(4)


def apart(random_: random.Random) -> bytes:
    return random_.randbytes(16)


@pytest.mark.parametrize("make", [alike, apart])
def test_the_table_is_a_dict(path: Path, either_way: str, seed: int, make: Any) -> None:
    """Over several lives, whatever the hashes are, keys are told apart as a dict of their first 12 bytes tells them."""
    random_ = random.Random(seed)
    known: dict[bytes, int] = {}
    for life in range(4):
        done = len(known)
        keys = open_keys(path, SALT, done) if done else new_keys(path, SALT)
        met: set[bytes] = set()
        earlier = list(known)
        random_.shuffle(earlier)
        for turn in range(done // 2 + 3000):
            again = earlier[turn] if turn < done // 2 else random_.choice(earlier) if turn % 3 == 0 and earlier else None
            hashed = again + b"rest" if again else make(random_)
            key = hashed[:12]
            expected = AGAIN if key in met else DONE if key in known else NEW
            assert keys.meet_hash(hashed) == expected, (life, hashed)
            met.add(key)
            if expected == NEW:
                earlier.append(key)
                known[key] = len(known)
            assert keys.count == len(known)
        keys.close()


def test_what_stands_behind_the_mark_is_nobodys(path: Path) -> None:
    """Keys that were given out and not marked count for nothing, and the next life writes over them."""
    hashes = [siphash(SALT, bytes([number])) for number in range(10)]
    keys = new_keys(path, SALT)
    assert [keys.meet_hash(hashed) for hashed in hashes] == [NEW] * 10
    keys = open_keys(path, SALT, 4)
    assert [keys.meet_hash(hashed) for hashed in reversed(hashes)] == [NEW] * 6 + [DONE] * 4
    keys = open_keys(path, SALT, 10)
    assert [keys.meet_hash(hashed) for hashed in hashes] == [DONE] * 10


def test_the_file_grows_before_it_is_full(path: Path, either_way: str) -> None:
    """The file owns the space of every key that is in it, and what was there stays when it grows."""
    keys = new_keys(path, SALT)
    count = 3 * SMALLEST // ENTRY
    for number in range(count):
        assert keys.meet_hash(siphash(SALT, number.to_bytes(4, "little"))) == NEW
        if number % 1000 == 0:
            found = os.stat(path)
            assert found.st_size >= HEADER + keys.count * ENTRY
            assert found.st_blocks * 512 >= found.st_size
    keys.close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    keys = open_keys(path, SALT, count)
    assert keys.meet_hash(siphash(SALT, bytes(4))) == DONE


# ---- damage


def written(path: Path, count: int) -> list[bytes]:
    """The hashes of a file with so many keys."""
    hashes = [siphash(SALT, number.to_bytes(2, "little")) for number in range(count)]
    keys = new_keys(path, SALT)
    for hashed in hashes:
        keys.meet_hash(hashed)
    keys.close()
    return hashes


def test_every_flipped_bit_is_damage(path: Path, either_way: str) -> None:
    """A bit that flips in the header or in a key that counts raises, and never lets an item pass for done."""
    count = 5
    written(path, count)
    whole = path.read_bytes()
    for bit in range(8 * (HEADER + count * ENTRY)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedLogError, match="key file"):
            open_keys(path, SALT, count)
    path.write_bytes(whole)
    open_keys(path, SALT, count).close()


def test_every_truncation_is_damage(path: Path, either_way: str) -> None:
    """A file that ends before the last key that counts raises, at whatever byte it ends, and so does one that is gone."""
    written(path, 5)
    whole = path.read_bytes()
    for size in range(HEADER + 5 * ENTRY):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedLogError):
            open_keys(path, SALT, 5)
    path.unlink()
    with pytest.raises(DamagedLogError, match="gone"):
        open_keys(path, SALT, 5)


def test_zeros_and_keys_of_elsewhere_are_damage(path: Path) -> None:
    """Pages of zeros, keys at another place and another run's keys do not verify."""
    written(path, 300)
    whole = path.read_bytes()
    two = HEADER + 2 * ENTRY
    for damaged in (
        whole[:two] + bytes(ENTRY) + whole[two + ENTRY :],
        whole[:two] + whole[two - ENTRY : two] + whole[two + ENTRY :],
        whole[:4096] + bytes(len(whole) - 4096),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DamagedLogError):
            open_keys(path, SALT, 300)
    path.write_bytes(whole)
    with pytest.raises(DamagedLogError, match="not this run's"):
        open_keys(path, SALT[::-1], 300)


def test_a_refused_sync_is_final(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sync that failed every later one does, until another life has copied what is left into a new file."""
    hashes = written(path, 5)
    before = os.stat(path).st_ino
    assert sync_keys(path)

    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", refuse)
        with pytest.raises(SyncFailedError):
            sync_keys(path)
    with pytest.raises(SyncFailedError, match="earlier sync"):
        sync_keys(path)
    mend_keys(path)
    assert sync_keys(path)
    assert os.stat(path).st_ino != before
    keys = open_keys(path, SALT, 5)
    assert [keys.meet_hash(hashed) for hashed in hashes] == [DONE] * 5


def test_no_file_is_no_sync(path: Path) -> None:
    """Where no key was ever done there is nothing to sync, and nothing to mend."""
    mend_keys(path)
    assert not sync_keys(path)


# ---- misuse


def test_of_two_entries_of_a_key_the_first_is_met() -> None:
    """A key whose item was done once more has two entries: it is met once, however many came between, then it is a double."""
    done_again = siphash(SALT, b"done again")
    twice = Keys(-1, SMALLEST, SALT, lambda size: None)
    twice.format()
    for number in range(30):
        twice.meet_hash(siphash(SALT, bytes([number])))
    twice.meet_hash(done_again)
    keys = Keys(-1, SMALLEST, SALT, lambda size: None)
    keys.format()
    keys.meet_hash(siphash(SALT, b"in front of it"))    # which is looked at before the table is asked
    keys.meet_hash(done_again)
    for number in range(100, 128):
        keys.meet_hash(siphash(SALT, bytes([number])))
    keys.put_back(30, twice.entries(30, 31))
    keys.load(31)
    assert keys.meet_hash(done_again) == DONE
    for number in range(200, 240):
        assert keys.meet_hash(siphash(SALT, bytes([number]))) == NEW
    assert keys.meet_hash(done_again) == AGAIN


def test_a_forked_child_has_no_keys(path: Path) -> None:
    """A child that goes on with its parent's loop is told so, and does the file no harm."""
    keys = new_keys(path, SALT)
    child = os.fork()
    if child == 0:
        try:
            keys.meet_hash(bytes(16))
        except ForkedError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert keys.meet_hash(bytes(16)) == NEW


def test_the_table_is_small() -> None:
    """A table that is as full as it gets takes 12 bytes a key, and twice as many when it has just grown."""

    def mapped() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    count = 6 << 18
    keys = Keys(-1, HEADER + ENTRY * (count + 2), SALT, lambda size: None)
    keys.format()
    empty = mapped()
    for number in range(count):
        keys.meet_hash(siphash(SALT, number.to_bytes(4, "little")))
    full = mapped()
    keys.meet_hash(bytes(16))
    assert (full - empty) / count < 13
    assert 20 < (mapped() - empty) / count < 25


def test_closed_keys() -> None:
    """What was closed says so; closing twice is fine."""
    keys = Keys(-1, SMALLEST, SALT, lambda size: None)
    keys.format()
    keys.close()
    keys.close()
    with pytest.raises(ValueError, match="closed"):
        keys.meet_hash(bytes(16))


def test_wrong_arguments() -> None:
    """Salts and hashes have 16 bytes, and a file has room for a key."""
    for size, salt in ((8, SALT), (SMALLEST, b"short")):
        with pytest.raises(ValueError, match="16 bytes"):
            Keys(-1, size, salt, lambda size: None)
    with pytest.raises(ValueError, match="16 bytes"):
        Keys(-1, SMALLEST, SALT, lambda size: None).meet_hash(b"short")
    with pytest.raises(ValueError, match="16 bytes"):
        siphash(b"short", b"")


class Plainly:
    """Keys of which none is rare."""

    def digest(self, key: object, place: int) -> bytes:
        raise AssertionError(f"{key!r} is plain")

    def met_twice(self, key: object, place: int, earlier: int) -> Any:
        raise KeyError(key, place, earlier)


def new_in(items: Any, key: Any, keys: Keys) -> Iterator[Any]:
    return NewItems(iter(items), key, keys, Marks(), Plainly())


def test_plain_keys_are_told_apart() -> None:
    """Texts of each width, numbers, bytes, None and tuples of them are keys of their own, however long they are."""
    plain = [
        "a", "\xe4", "\u20ac", "\U0001f600", "x" * 1000, "", b"a", b"", 0, 1, -1, 1 << 55, 1 << 5000, 1.0, 0.5, True, False, None,
        (), ("a",), ("a", 1), (1, "a"), ("a", "1"), (None, True), ("y" * 300, 1),
    ]  # fmt: skip
    keys = Keys(-1, SMALLEST, SALT, lambda size: None)
    keys.format()
    assert list(new_in(plain, lambda item: item, keys)) == plain
    keys.load(len(plain))
    assert list(new_in(plain, lambda item: item, keys)) == []
    keys.load(len(plain))
    with pytest.raises(KeyError) as caught:
        list(new_in(["a", "new", "\u20ac", "a"], lambda item: item, keys))
    assert caught.value.args == ("a", 3, 0)


def test_what_a_source_or_a_key_raises() -> None:
    """Exceptions of source and key function pass through, and the place goes on."""

    def source() -> Iterator[int]:
        yield 1
        yield 0
        raise OSError("over")

    keys = Keys(-1, SMALLEST, SALT, lambda size: None)
    found = new_in(source(), lambda number: 1 / number, keys)
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)
    with pytest.raises(OSError, match="over"):
        next(found)
    with pytest.raises(StopIteration):
        next(found)


def test_entries_that_are_put_back(path: Path, either_way: str) -> None:
    """What a file gives of itself makes another one that has lost it whole, also behind its end; others are told by their sum."""
    hashes = [siphash(SALT, number.to_bytes(4, "little")) for number in range(2 * SMALLEST // ENTRY)]
    keys = new_keys(path, SALT)
    for hashed in hashes:
        keys.meet_hash(hashed)
    count, first = keys.count, 7
    tail, total = keys.entries(first, count), keys.sum_of(0, count)
    assert total == sum(int.from_bytes(hashed[:8], "little") for hashed in hashes) % (1 << 64)
    assert (keys.entries(3, 3), keys.sum_of(3, 3)) == (b"", 0)
    assert (total - keys.sum_of(0, first)) % (1 << 64) == keys.sum_of(first, count)
    for wrong in ((0, count + 1), (2, 1)):
        with pytest.raises(ValueError, match="none from"):
            keys.entries(*wrong)
        with pytest.raises(ValueError, match="none from"):
            keys.sum_of(*wrong)
    keys.close()
    path.write_bytes(path.read_bytes()[: HEADER + first * ENTRY])
    keys = open_keys(path, SALT, count, KeptKeys(first, tail))
    assert keys.sum_of(0, count) == total
    assert {keys.meet_hash(hashed) for hashed in hashes} == {DONE}
    keys.close()
    keys = open_keys(path, SALT, count)
    assert keys.entries(first, count) == tail


def test_entries_of_another_run(path: Path, tmp_path: Path) -> None:
    """Entries that were kept of another run, or from another place, are damage."""
    other = new_keys(tmp_path / "2.keys", bytes(16))
    own = new_keys(path, SALT)
    for number in range(9):
        other.meet_hash(bytes([number]) * 16)
        own.meet_hash(bytes([number]) * 16)
    for kept in (KeptKeys(0, other.entries(0, 9)), KeptKeys(2, own.entries(1, 8)), KeptKeys(5, b"")):
        open_keys(path, SALT, 9).close()
        whole = path.read_bytes()
        if kept.entries:
            with pytest.raises(DamagedLogError):
                open_keys(path, SALT, 9, kept)
        else:
            open_keys(path, SALT, 9, kept).close()
        path.write_bytes(whole)
