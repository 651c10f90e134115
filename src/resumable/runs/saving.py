"""Saving: how a checkpoint that the fast way left over is encoded, published, and put on disk."""

from __future__ import annotations

import threading
from collections.abc import Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from resumable._fastlog import Checkpoint, Keys, encode_plain, fork_count, take_checkpoint, take_unyielded
from resumable.errors import (
    ForkedError,
    NotACheckpointError,
    Preempted,
    ResumableError,
    StorageError,
    UnyieldedCheckpointWarning,
)
from resumable.runs.identity import Identity
from resumable.runs.opening import Start
from resumable.runs.settings import Settings
from resumable.runs.warn import warn_at
from resumable.storage.folder import Folder
from resumable.storage.handoff import Handoff
from resumable.storage.home import Home
from resumable.storage.journal import RunJournal
from resumable.storage.keys import KeptKeys
from resumable.storage.records import (
    CHECKPOINT,
    FINISHED,
    HAS_RESULT,
    META,
    RESULT_SIDE,
    RESULT_TIER_SHIFT,
    RNG,
    RUNNING,
    SIDE,
    TIER_MASK,
    join_result,
)
from resumable.storage.side import THRESHOLD, Part, Written, side_name
from resumable.storage.side_window import SideWindow
from resumable.values import outputs
from resumable.values.codec import Encoded
from resumable.values.picklers import state_pickler

if TYPE_CHECKING:
    from resumable.values.rng import GeneratorsWatch

_SAVED, _FULL = 0, 1
_TOGETHER = 1000        # results of another run that wait for the disk together


class SavingRun:
    """The saving half of a run in progress: its journal, what hands it over to the log, and every way into them."""

    def __init__(self, home: Home, folder: Folder, identity: Identity, settings: Settings, start: Start) -> None:
        self.identity = identity
        self.number = start.number
        self.stop_signal = 0
        self.stopped = False    # the signal was obeyed
        self._home = home
        self._folder = folder
        self._settings = settings
        self._meta = {**start.meta, "durability": settings.durability}
        self._described = bytes(encode_plain({**self._meta, "rng": None}))
        self._status = RUNNING
        self._forks = fork_count()
        self._turn = threading.Lock()
        self._disk_turn = threading.Lock()
        self._unsynced: list[tuple[int, int, int, bytes]] = []
        self._over = False
        self._sync = home.sync if settings.durability == "disk" else None
        self._watch = _watch_generators() if settings.rng else None
        self._generators = start.rng or (self._watch.snapshot_if_changed() if self._watch else None)
        self._drawn: bytes | None = None    # the generators as no checkpoint has them yet
        self.journal = RunJournal(
            folder, identity.name16, start.number, keep_states=settings.keep_states, head=self._head, wait=self._hurry,
        )
        self._sides = SideWindow(folder, start.number, start.seq)
        self._parts: tuple[Part, ...] = ()      # of the last state that went to a side file
        self._keys: Keys | None = None
        if "keys" in self._meta:
            folder.mend_keys(start.number)
        self._handoff = Handoff(
            self.journal, start.record, home.store, keep_states=settings.keep_states, sync_every=settings.sync_every,
            describe=lambda: (self._status, self._described), sync_outputs=self._sync_outputs, sides=self._sides,
        )
        self.write = self.journal.write
        self.write.save_every = settings.save_every

    @property
    def seq(self) -> int:
        """The last acknowledged checkpoint."""
        return int(self.write.seq)

    @property
    def where(self) -> str:
        """The state directory."""
        return self._home.where

    def _set_pace(self) -> None:
        """Whether every checkpoint must go through `save`."""
        slow = self._watch is not None or not self.journal.mapped
        way = self._sync.way() if self._sync is not None else None
        self.write.attention = 1 if slow or self._sync is not None else 0
        if way is not None and not slow:
            self.write.wait_for(*way, (self.identity.name16, self.number))
        if self.stop_signal or self.journal.error is not None:
            self.write.attention = 1    # asked last: a signal, or the log's thread, may have set it meanwhile
        if self.write.kit is None and self._settings.codec.mode == "auto":
            self.write.kit = state_pickler(self._settings.codec.registry)

    def described(self, name: str) -> Any:
        """What the run's description has under this name, None if nothing."""
        return self._meta.get(name)

    def describe(self, name: str, value: object) -> None:
        """Keep something plain in the run's description: in its journal when this returns. Raises StorageError."""
        self.describe_all({name: value})

    def describe_all(self, about: dict[str, object]) -> None:
        """`describe` several things at once: a kill finds all of them or none."""
        self._meta.update(about)
        self._described = bytes(encode_plain({**self._meta, "rng": None}))
        self.journal.roll(0)        # a segment begins with the description
        self._put_on_disk(META, 0, self._head())
        self._reach_disk()
        self._set_pace()

    def keys(self, salt: bytes, done: int, kept: KeptKeys | None = None) -> Keys:
        """The keys of a loop's items, of which so many are done; opened once in a life. Raises DamagedLogError, StorageError."""
        if self._keys is None:
            self._keys = self._folder.keys(self.number, salt, done, kept)
        return self._keys

    def sync_keys(self) -> None:
        """Put them on disk. Raises SyncFailedError."""
        self._folder.sync_keys(self.number)

    def _sync_outputs(self) -> None:
        if "keys" in self._meta and self._status != FINISHED:       # then nobody asks for a key any more
            self._folder.sync_keys(self.number)
        outputs.sync()

    def _head(self) -> bytes:
        return bytes(encode_plain({**self._meta, "rng": self._generators}))

    def _hurry(self) -> None:
        self._home.writer.kick(self._handoff)

    # ---- from the job

    def refuse(self, value: object) -> None:
        """The job yielded something that is no checkpoint."""
        raise NotACheckpointError(
            f"run {self.identity.name!r} yielded an object of type {type(value).__name__} after checkpoint {self.seq}: a job "
            f"yields checkpoint(state) and nothing else", run=self.identity.name, seq=self.seq, value_type=type(value).__name__,
        )

    def save(self, made: Checkpoint[Any], pickled: tuple[int, bytes, tuple[memoryview, ...]] | None = None) -> None:
        """Save what the fast way left over; `pickled` is the state if that has been pickled already.

        Raises UnsavableStateError, StorageError, Preempted, ForkedError.
        """
        self._publish(made, self.write.due, pickled)
        self._reach_disk()
        self._go_on()

    def save_now(self, made: Checkpoint[Any]) -> None:
        """`save` whatever `save_every` says, and without stopping for a signal."""
        self._publish(made, True)
        self._reach_disk()
        self._set_pace()

    def take_over(self, state: object, results: Iterable[Encoded]) -> None:
        """Save results that another run has, each with this state. Raises StorageError, Preempted, ForkedError."""
        encoded = self._settings.codec.encode(state)
        for result in results:
            if self.stop_signal:
                break
            if self.journal.error is not None:
                raise self.journal.error
            with self._turn:
                self._check_going()
                self._save_encoded(encoded, result)
            if len(self._unsynced) >= _TOGETHER:
                self._reach_disk()
        self._reach_disk()
        self._go_on()

    def _publish(
        self, made: Checkpoint[Any], due: bool, pickled: tuple[int, bytes, tuple[memoryview, ...]] | None = None
    ) -> None:
        self.warn_unyielded()
        if self.journal.error is not None:
            raise self.journal.error
        if due or self.stop_signal:
            with self._turn:
                self._check_going()
                self._save(made, Encoded(*pickled) if pickled is not None else None)

    def _go_on(self) -> None:
        if self.stop_signal:
            self.stopped = True
            raise Preempted(self.identity.name, self.seq, self.stop_signal)
        self._set_pace()

    def _check_going(self) -> None:
        if self._over:
            raise ResumableError(
                f"run {self.identity.name!r} is over, and something of it still saves checkpoints (await its tasks before "
                f"the job returns, for instance in an asyncio.TaskGroup)", run=self.identity.name,
            )
        if self._forks != fork_count():
            raise ForkedError(
                f"run {self.identity.name!r} was carried into a forked child: only the process that started it may go on "
                f"(leave the child with os._exit, or start it with spawn)", run=self.identity.name,
            )

    def _save(self, made: Checkpoint[Any], encoded: Encoded | None) -> None:
        if encoded is None and not made.has_result and self._watch is None and self._sync is None:
            status = self._save_plain(made.state)
            if status == _SAVED:
                return
        if self._watch is not None:
            # Told once: this checkpoint may be refused, and the job go on to one that must have them.
            self._drawn = self._watch.snapshot_if_changed() or self._drawn
        encoded = encoded or self._settings.codec.encode(made.state)
        result = self._settings.codec.encode(made.result, root="result") if made.has_result else None
        self._save_encoded(encoded, result)

    def _save_encoded(self, encoded: Encoded, result: Encoded | None) -> None:
        generators = self._drawn
        large = self._write_side(encoded, self.seq + 1, self._parts) if _is_large(encoded) else None
        flags, payload = (encoded.tier, encoded.data) if large is None else (encoded.tier | SIDE, large.reference)
        if result is not None:
            result_flags, packed = self._pack(result, f"result.{self.write.results}")
            flags |= HAS_RESULT | (result_flags & TIER_MASK) << RESULT_TIER_SHIFT | (RESULT_SIDE if result_flags & SIDE else 0)
            payload = join_result(self.write.results, payload, packed)
        if generators is not None:
            # Both in one segment, so that whoever finds the state finds the generators that belong to it.
            if not self.write.fits(len(payload) + len(generators)):
                self.journal.roll(len(payload) + len(generators))
            self.journal.append(RNG, 0, generators)
            self._put_on_disk(RNG, 0, generators)
        self.journal.append(CHECKPOINT, flags, payload)
        self._generators, self._drawn = generators or self._generators, None
        self._put_on_disk(CHECKPOINT, flags, payload)
        if large is not None:
            # Not before it is published: what is no state may be written over, so nothing may refer to it.
            self._parts = large.parts
            if self._sides.written(self.seq, large.reference):
                self._hurry()

    def _save_plain(self, state: object) -> int:
        try:
            status = self.write.append_plain(state)
            if status == _FULL:
                self.journal.roll(0)
                status = self.write.append_plain(state)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise self.journal.write_error(error) from error
        return int(status)

    def _pack(self, encoded: Encoded, what: int | str) -> tuple[int, bytes]:
        """(flags, payload): in the journal, or, if it is large, a reference to a side file."""
        if not _is_large(encoded):
            return encoded.tier, encoded.data
        return encoded.tier | SIDE, self._write_side(encoded, what).reference

    def _write_side(self, encoded: Encoded, what: int | str, earlier: tuple[Part, ...] = ()) -> Written:
        name = side_name(self.number, what)
        durable = self._sync is not None
        return self._folder.write_side(name, encoded.data, encoded.buffers, durable=durable, earlier=earlier)

    def write_whole(self) -> None:
        """Write the next large state as if all of it had changed."""
        self._parts = ()

    def _put_on_disk(self, kind: int, flags: int, payload: bytes) -> None:
        if self._sync is not None:
            self._unsynced.append((self.seq + (kind == RNG), kind, flags, payload))

    def put_on_disk(self, payload: bytes) -> None:
        """The compiled loop has published a plain state and could not put it into the sync file that it knew."""
        self._put_on_disk(CHECKPOINT, 0, payload)
        if self.journal.error is not None:      # a closed driver has retired that file
            raise self.journal.error
        self._reach_disk()
        self._set_pace()

    def _reach_disk(self) -> None:
        """Return when the disk has all that was published, in that order: after a power cut a gap ends the run."""
        if self._sync is None:
            return
        with self._disk_turn:
            while ready := len(self._unsynced):
                self._sync_outputs()    # what another task adds meanwhile may name files that this did not sync
                for _ in range(ready):
                    self._sync.put(self.identity.name16, self.number, *self._unsynced[0])
                    del self._unsynced[0]

    def save_awaited(self, made: Checkpoint[Any]) -> Iterator[Any]:
        """What `await checkpoint(...)` runs on: saved before the coroutine goes on."""
        if take_checkpoint(self.write, made):
            return iter(())
        return self.save_in_loop(made).__await__()

    def save_in_loop(self, made: Checkpoint[Any]) -> Coroutine[Any, Any, None]:
        """`save` for jobs in an event loop."""
        # Whether it is due is told now: before this is awaited, another task's checkpoint may be taken.
        return self._save_in_loop(made, self.write.due)

    async def _save_in_loop(self, made: Checkpoint[Any], due: bool) -> None:
        self._publish(made, due)
        if self._sync is not None:
            import asyncio

            # Waiting for the disk would hold up every other task; what these change meanwhile is not in this checkpoint.
            await asyncio.to_thread(self._reach_disk)
        self._go_on()

    def warn_unyielded(self) -> None:
        """Warn of checkpoints that were made and dropped, at the lines where that was."""
        for file, line, names in take_unyielded():
            warn_at(
                f"a checkpoint was made in run {self.identity.name!r} and never yielded, so nothing was saved here "
                f"(write `yield checkpoint(...)`)", UnyieldedCheckpointWarning, file, line, names,
            )


def _is_large(encoded: Encoded) -> bool:
    return bool(encoded.buffers) or len(encoded.data) >= THRESHOLD


def _watch_generators() -> GeneratorsWatch:
    # Only who asks for it pays for ctypes.
    from resumable.values.rng import GeneratorsWatch

    return GeneratorsWatch()
