"""For tests of one's own: the suite that every store must pass.

    from resumable.testing import StoreContract

    class TestMyStore(StoreContract):
        def make_store(self, tmp_path):
            return MyStore(tmp_path / "store")

pytest collects the subclass; nothing else is needed. The docstring of `resumable.storage.store.Store` is the contract.
"""

from __future__ import annotations

import os
import threading
import unittest
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from resumable.errors import ForkedError, StorageError
from resumable.storage.store import Store

__all__ = ["StoreContract"]


class StoreContract:
    """Subclass it, say how a store is made, and for a durable one how it is opened again."""

    def make_store(self, tmp_path: Path) -> Store:
        """A new, empty store that may keep its files in this empty directory."""
        raise NotImplementedError("a StoreContract says how its store is made: def make_store(self, tmp_path)")

    def reopen(self, store: Store, tmp_path: Path) -> Store | None:
        """Close this store and open what it left; None for a store whose entries end with it."""
        return None

    # ---- entries

    def test_a_missing_key_has_no_value(self, tmp_path: Path) -> None:
        """A key that was never put reads as None, and an empty store has no last entry and nothing to scan."""
        with closing(self.make_store(tmp_path)) as store:
            assert store.get(b"key") is None
            assert store.last(b"") is None
            assert list(store.scan(b"")) == []

    def test_a_value_comes_back_as_it_was_put(self, tmp_path: Path) -> None:
        """A value of any bytes comes back equal and as bytes, through get, last and scan."""
        value = bytes(range(256)) * 3
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"key", value)], [])
            assert store.get(b"key") == value
            assert type(store.get(b"key")) is bytes
            assert store.last(b"k") == (b"key", value)
            assert list(store.scan(b"k")) == [(b"key", value)]

    def test_an_empty_value_is_a_value(self, tmp_path: Path) -> None:
        """An entry with an empty value is there, unlike a missing one."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"empty", b"")], [])
            assert store.get(b"empty") == b""
            assert store.last(b"") == (b"empty", b"")
            store.commit([], [b"empty"])
            assert store.get(b"empty") is None

    def test_a_value_of_ten_megabytes_comes_back(self, tmp_path: Path) -> None:
        """A value may be large."""
        value = os.urandom(10 << 20)
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"large", value), (b"small", b"1")], [])
            assert store.get(b"large") == value
            assert [key for key, _ in store.scan(b"")] == [b"large", b"small"]

    def test_keys_may_have_511_bytes(self, tmp_path: Path) -> None:
        """The longest key works everywhere a key can stand."""
        longest = b"\xff" * 511
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(longest, b"1")], [])
            assert store.get(longest) == b"1"
            assert store.last(longest) == store.last(b"") == (longest, b"1")
            assert list(store.scan(longest)) == list(store.scan(b"", longest)) == [(longest, b"1")]

    def test_what_is_no_key_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        """An empty key, one of 512 bytes and the store's own raise ValueError, and the other puts are not made."""
        with closing(self.make_store(tmp_path)) as store:
            for bad in (b"", b"k" * 512, b"format"):
                assert _raises(ValueError, partial(store.commit, [(b"good", b"1"), (bad, b"2")], []))
                assert _raises(ValueError, partial(store.commit, [(b"good", b"1")], [bad]))
                assert store.get(bad) is None
            assert list(store.scan(b"")) == []

    # ---- commits

    def test_a_put_replaces(self, tmp_path: Path) -> None:
        """A put to a key that is there replaces its value."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"key", b"old")], [])
            store.commit([(b"key", b"new")], [])
            assert list(store.scan(b"")) == [(b"key", b"new")]

    def test_the_later_of_two_puts_counts(self, tmp_path: Path) -> None:
        """Of two puts to one key in one commit the later counts."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"key", b"1"), (b"key", b"2")], [])
            assert list(store.scan(b"")) == [(b"key", b"2")]

    def test_deletes_come_before_puts(self, tmp_path: Path) -> None:
        """A key that one commit both deletes and puts is there afterwards."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"key", b"old")], [])
            store.commit([(b"key", b"new")], [b"key"])
            assert store.get(b"key") == b"new"

    def test_deleting_a_missing_key_is_no_error(self, tmp_path: Path) -> None:
        """A commit may delete what is not there, also twice, and the rest of it is made."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"a", b"1"), (b"b", b"2")], [])
            store.commit([(b"c", b"3")], [b"missing", b"a", b"a"])
            assert list(store.scan(b"")) == [(b"b", b"2"), (b"c", b"3")]

    def test_an_empty_commit_changes_nothing(self, tmp_path: Path) -> None:
        """A commit of nothing is allowed."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"key", b"1")], [])
            store.commit([], [])
            assert list(store.scan(b"")) == [(b"key", b"1")]

    def test_readers_see_whole_commits_only(self, tmp_path: Path) -> None:
        """Readers in other threads see a commit's entries all or not at all, and never go back."""
        rounds, width = 60, 50
        wrong: list[object] = []
        done = threading.Event()

        def watch(store: Store) -> None:
            newest = -1
            while not done.is_set():
                seen = [int(value) for _, value in store.scan(b"row")]
                if len(set(seen)) > 1 or len(seen) not in (0, width) or (seen and seen[0] < newest):
                    wrong.append(seen)
                newest = seen[0] if seen else newest

        with closing(self.make_store(tmp_path)) as store:
            readers = [threading.Thread(target=watch, args=(store,)) for _ in range(3)]
            for reader in readers:
                reader.start()
            try:
                for number in range(rounds):
                    store.commit([(b"row%03d" % row, b"%d" % number) for row in range(width)], [])
            finally:
                done.set()
                for reader in readers:
                    reader.join()
        assert not wrong

    def test_threads_can_commit_at_the_same_time(self, tmp_path: Path) -> None:
        """Commits of several threads are all made."""

        def write(store: Store, name: bytes) -> None:
            for number in range(25):
                store.commit([(name + b"%03d" % number, name)], [])

        with closing(self.make_store(tmp_path)) as store:
            writers = [threading.Thread(target=write, args=(store, name)) for name in (b"a", b"b", b"c", b"d")]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
            assert len(list(store.scan(b""))) == 100

    # ---- order

    def test_entries_are_ordered_as_unsigned_bytes(self, tmp_path: Path) -> None:
        """A scan is ascending in the order of unsigned bytes, whatever the order of the puts."""
        keys = [b"\x00", b"\x00\x00", b"\x01", b"a", b"a\x00", b"ab", b"b", b"\x7f", b"\x80", b"\xff", b"\xff\xff"]
        with closing(self.make_store(tmp_path)) as store:
            for key in reversed(keys):
                store.commit([(key, key)], [])
            assert list(store.scan(b"")) == [(key, key) for key in keys]

    def test_last_is_the_highest_key_of_its_prefix(self, tmp_path: Path) -> None:
        """`last` finds the highest key with a prefix, and None when no key has it, whatever stands around."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(key, b"") for key in (b"a", b"b", b"b1", b"b9", b"c", b"format1")], [])
            found = {prefix: store.last(prefix) for prefix in (b"", b"a", b"b", b"b1", b"b2", b"c", b"format", b"d")}
        assert {prefix: entry and entry[0] for prefix, entry in found.items()} == {
            b"": b"format1", b"a": b"a", b"b": b"b9", b"b1": b"b1", b"b2": None, b"c": b"c", b"format": b"format1",
            b"d": None,
        }  # fmt: skip

    def test_last_of_a_prefix_that_ends_in_ff(self, tmp_path: Path) -> None:
        """`last` works for prefixes that have no successor of their own length."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(key, b"") for key in (b"a\xff", b"a\xff\xff", b"b")], [])
            assert store.last(b"a\xff") == (b"a\xff\xff", b"")
            assert store.last(b"\xff") is None
            store.commit([(b"\xff\xff\x01", b"")], [])
            assert store.last(b"\xff") == store.last(b"\xff\xff") == (b"\xff\xff\x01", b"")
            assert store.last(b"\xff\xff\xff") is None

    def test_a_scan_keeps_to_its_prefix(self, tmp_path: Path) -> None:
        """A scan gives the keys of its prefix alone."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(key, b"") for key in (b"a", b"b", b"b\x00", b"b\xff", b"c")], [])
            assert [key for key, _ in store.scan(b"b")] == [b"b", b"b\x00", b"b\xff"]
            assert list(store.scan(b"bb")) == []

    def test_a_scan_starts_where_it_is_told(self, tmp_path: Path) -> None:
        """`start` is included; below the prefix it changes nothing, above it nothing is left, and it need not exist."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(key, b"") for key in (b"a", b"b1", b"b3", b"c")], [])
            starts = {start: [key for key, _ in store.scan(b"b", start)] for start in (b"", b"a", b"b1", b"b2", b"c")}
        assert starts == {b"": [b"b1", b"b3"], b"a": [b"b1", b"b3"], b"b1": [b"b1", b"b3"], b"b2": [b"b3"], b"c": []}

    def test_a_long_scan_is_complete(self, tmp_path: Path) -> None:
        """A scan over several batches gives each entry once, by number and by size of the entries."""
        small = [(b"n%05d" % number, b"") for number in range(2000)]
        large = [(b"s%05d" % number, bytes(300_000)) for number in range(12)]
        with closing(self.make_store(tmp_path)) as store:
            store.commit(small + large, [])
            assert list(store.scan(b"n")) == small
            assert list(store.scan(b"s")) == large

    def test_a_scan_goes_on_beside_commits(self, tmp_path: Path) -> None:
        """A slow scan holds no commit up, and what is there all the while comes exactly once."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"%05d" % number, b"") for number in range(1000)], [])
            seen = []
            for key, _ in store.scan(b""):
                seen.append(key)
                if len(seen) % 100 == 0:
                    store.commit([(key + b"x", b"")], [b"%05d" % (len(seen) - 50)])
            assert seen == sorted(set(seen))
            assert {b"%05d" % number for number in range(1000) if number % 100 != 50} <= set(seen)

    # ---- life

    def test_what_was_committed_is_there_after_reopening(self, tmp_path: Path) -> None:
        """A durable store has the entries of its last commit when it is opened again."""
        store = self.make_store(tmp_path)
        entries = [(b"%03d" % number, bytes([number])) for number in range(200)]
        store.commit([*entries, (b"gone", b"")], [])
        store.commit([], [b"gone"])
        again = self.reopen(store, tmp_path)
        if again is None:
            store.close()
            raise unittest.SkipTest("the entries of this store end with it")
        with closing(again):
            assert list(again.scan(b"")) == entries

    def test_the_size_grows_with_the_entries(self, tmp_path: Path) -> None:
        """A megabyte of values adds at least about as much to the size."""
        with closing(self.make_store(tmp_path)) as store:
            before = store.size()
            store.commit([(b"large", bytes(1 << 20))], [])
            assert store.size() >= before + 1_000_000

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        """Closing twice is no error, and every use after it is a StorageError, also of a scan that was begun."""
        store = self.make_store(tmp_path)
        store.commit([(b"%03d" % number, b"") for number in range(600)], [])
        scan = store.scan(b"")
        next(scan)
        store.close()
        store.close()
        for use in _uses(store):
            assert _raises(StorageError, use)
        assert _raises(StorageError, lambda: list(scan))

    def test_a_forked_child_is_refused(self, tmp_path: Path) -> None:
        """In a forked child every use raises ForkedError and `close` does nothing; the parent's store is unharmed."""
        with closing(self.make_store(tmp_path)) as store:
            store.commit([(b"key", b"1")], [])
            with warnings.catch_warnings():
                # The only other threads there may be are not ours.
                warnings.filterwarnings("ignore", "This process.*is multi-threaded", DeprecationWarning)
                child = os.fork()
            if child == 0:
                verdict = 1
                try:
                    verdict = 0 if all(_raises(ForkedError, use) for use in _uses(store)) else 1
                    store.close()
                finally:
                    os._exit(verdict)
            assert os.waitpid(child, 0)[1] == 0
            store.commit([(b"key", b"2")], [])
            assert store.get(b"key") == b"2"


def _uses(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.get(b"key"),
        lambda: store.last(b""),
        lambda: list(store.scan(b"")),
        lambda: store.commit([(b"key", b"2")], []),
        store.size,
    ]


def _raises(expected: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except expected:
        return True
    return False
