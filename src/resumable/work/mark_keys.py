"""The keys of a loop in a transaction: with each mark the database gets those that the key file may not have on disk yet.

So the row alone says which items are done: the file has, on disk, the keys before `first`, and the row those from there on. A
sum over all of them says whether the file's are the ones that the row was written with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from resumable.errors import DamagedLogError, TransactionError
from resumable.storage.keys import ENTRY, KeptKeys
from resumable.work import keyed

if TYPE_CHECKING:
    from resumable._fastlog import Keys
    from resumable.runs.live import LiveRun
    from resumable.work.parts import OpenLoop

MOST: Final = 64        # keys in a row: a KiB that each item writes, against a sync of the key file each so many items


class KeysMark(NamedTuple):
    """What a row has of its run's keys: the entries from place `first` on, and the sum over all that are done."""

    first: int = 0
    entries: bytes = b""
    total: int = 0


class MarkedKeys:
    """The keys of a loop that goes on."""

    def __init__(self, run: LiveRun, keys: Keys, first: int) -> None:
        """`first`: where those begin that the disk may not have."""
        self._run, self._keys, self._first = run, keys, first
        self._counted = keys.count
        self._total = keys.sum_of(0, self._counted)

    @property
    def total(self) -> int:
        """The sum over those that are done."""
        return self._total

    def upto(self, done: int) -> KeysMark:
        """What the row is to have when so many items are done. Raises SyncFailedError."""
        self._total = (self._total + self._keys.sum_of(self._counted, done)) % (1 << 64)
        self._counted = done
        if done - self._first > MOST:
            self._run.sync_keys()
            self._first = done
        return KeysMark(self._first, self._keys.entries(self._first, done), self._total)


def begun(run: LiveRun, done: int) -> MarkedKeys | None:
    """The keys of a run as its log has it, of which no row knows yet; None for one without. Raises DamagedLogError,
    StorageError."""
    return MarkedKeys(run, keyed.keys_of(run, done), 0) if keyed.has_keys(run) else None


def resumed(loop: OpenLoop, run: LiveRun, done: int, mark: KeysMark, *, continues: bool) -> MarkedKeys | None:
    """The keys of a run as its row has it. `continues`: items whose keys are lost are done again.

    Raises TransactionError, DamagedLogError, StorageError.
    """
    if not keyed.has_keys(run):
        return None
    if len(mark.entries) != (done - mark.first) * ENTRY:
        raise DamagedLogError(
            f"the keys of loop {loop.name!r} in the database are not what was written: {done} items are done, and from place "
            f"{mark.first} on it has {len(mark.entries)} bytes (fresh=True begins anew)", reason="keys in the database",
        )
    try:
        found = _marked(run, done, mark, lossy=False)
    except DamagedLogError as error:
        if not continues:
            raise _are_lost(loop, done, str(error.__dict__["reason"])) from error
        found = _marked(run, done, mark, lossy=True)
    if found.total != mark.total and not continues:
        raise _are_lost(loop, done, "some are not those that the database was written with")
    return found


def _marked(run: LiveRun, done: int, mark: KeysMark, *, lossy: bool) -> MarkedKeys:
    return MarkedKeys(run, keyed.keys_of(run, done, KeptKeys(mark.first, mark.entries, lossy)), mark.first)


def _are_lost(loop: OpenLoop, done: int, reason: str) -> TransactionError:
    return TransactionError(
        f"loop {loop.name!r} has {done} items done as the database has it, and its state directory does not have the keys of all "
        f"of them any more ({reason}): it was put back from an older copy, or is damaged (put back the newest one; "
        f'on_change="continue" goes on and does the items of lost keys again, fresh=True begins anew)',
        run=loop.name, database=done, log=loop.state[0],
    )
