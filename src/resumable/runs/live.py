"""A run while its job is running: saves every checkpoint, and ends in one of four ways.

Finished, failed, stopped (Ctrl-C, SystemExit, cancellation, preemption), or killed, which nobody here notices. At every end
but the last the log gets everything before the lock is free.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from resumable._fastlog import Checkpoint, encode_plain, fork_count, run_ended, run_started, take_checkpoint, take_unyielded
from resumable.errors import (
    ForkedError,
    NotACheckpointError,
    NotDurableWarning,
    Preempted,
    ResumableError,
    StorageError,
    UndecodableStateError,
    UnsavableStateError,
    UnyieldedCheckpointWarning,
)
from resumable.runs.failure import freeze
from resumable.runs.identity import Identity
from resumable.runs.opening import Answer, Start, decide, decode_stored, migrated
from resumable.runs.settings import Request, Settings
from resumable.runs.warn import warn_at, warn_user
from resumable.storage.folder import Folder, Lock
from resumable.storage.handoff import Handoff
from resumable.storage.home import Home
from resumable.storage.journal import RunJournal
from resumable.storage.records import (
    CHECKPOINT,
    FAILED,
    FAILURE,
    FINISHED,
    HAS_RESULT,
    META,
    NOT_KEPT,
    RESULT_SIDE,
    RESULT_TIER_SHIFT,
    RETURN,
    RNG,
    RUNNING,
    SIDE,
    TIER_MASK,
    join_result,
    result_key,
    run_key,
    state_key,
)
from resumable.storage.side import THRESHOLD, side_name
from resumable.values.codec import Encoded
from resumable.values.picklers import state_pickler

if TYPE_CHECKING:
    from resumable.values.rng import GeneratorsWatch

logger = logging.getLogger("resumable")

_SAVED, _FULL = 0, 1
_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, range)


def open_run(home: Home, identity: Identity, settings: Settings, request: Request) -> LiveRun | Answer:
    """Take the run's lock and go on, begin, or answer with a finished run's value.

    Raises RunLockedError and whatever `opening.decide` raises; then the lock is free.
    """
    folder = home.folder(identity.folder)
    lock = folder.acquire(identity.name)
    run: LiveRun | Answer | None = None
    try:
        start = decide(home, folder, identity, settings, request)
        run = start if isinstance(start, Answer) else LiveRun(home, folder, lock, identity, settings, request, start)
        return run
    finally:
        if not isinstance(run, LiveRun):
            if folder.numbers():
                lock.release()
            else:
                lock.remove_and_release()


class LiveRun:
    """Holds the run's lock from its making to `finish`, `fail` or `stop`."""

    def __init__(
        self, home: Home, folder: Folder, lock: Lock, identity: Identity, settings: Settings, request: Request, start: Start,
    ) -> None:
        self.identity = identity
        self.number = start.number
        self.stop_signal = 0
        self.stopped = False    # the signal was obeyed
        self._home = home
        self._folder = folder
        self._lock = lock
        self._settings = settings
        self._request = request
        self._start = start
        self._meta = {**start.meta, "durability": settings.durability}
        self._described = bytes(encode_plain({**self._meta, "rng": None}))
        self._status = RUNNING
        self._forks = fork_count()
        self._turn = threading.Lock()
        self._disk_turn = threading.Lock()
        self._unsynced: list[tuple[int, int, int, bytes]] = []
        self._over = False
        self.blamed = True      # an exception that ends it is its own; not so for jobs that take turns with the one that failed
        self._sync = home.sync if settings.durability == "disk" else None
        self._watch = _watch_generators() if settings.rng else None
        self._generators = start.rng or (self._watch.snapshot_if_changed() if self._watch else None)
        self.journal = RunJournal(
            folder, identity.name16, start.number, keep_states=settings.keep_states, head=self._head, wait=self._hurry,
        )
        self._handoff = Handoff(
            self.journal, start.record, home.store, keep_states=settings.keep_states, sync_every=settings.sync_every,
            describe=lambda: (self._status, self._described), sides=self._state_sides(),
        )
        self.journal.begin(
            start.segments, index=start.next_index, seq=start.seq, results=start.results, handed=start.record.handed,
            handed_seq=start.record.seq,
        )
        self.write = self.journal.write
        self.write.save_every = settings.save_every
        self._set_pace()
        home.writer.add(self._handoff)
        try:
            self._put_on_disk(META, 0, self._head())
            self._reach_disk()
        except BaseException:
            home.writer.remove(self._handoff)
            self.journal.close()
            raise
        logger.info(
            "%s run %r (number %d) after checkpoint %d", "resuming" if start.resumed else "starting", identity.name,
            self.number, start.seq, extra={"run": identity.name, "seq": start.seq},
        )

    def _state_sides(self) -> list[int]:
        found = [name.rpartition(".")[2] for name in self._folder.sides(self.number) if "result" not in name]
        return [int(seq) for seq in found if seq.isdecimal()]

    @property
    def seq(self) -> int:
        """The last acknowledged checkpoint."""
        return int(self.write.seq)

    def _set_pace(self) -> None:
        """Whether every checkpoint must go through `save`."""
        slow = self._sync is not None or self._watch is not None or not self.journal.mapped or self.stop_signal
        self.write.attention = 1 if slow else 0
        if self.write.kit is None and self._settings.codec.mode == "auto":
            self.write.kit = state_pickler(self._settings.codec.registry)

    def _head(self) -> bytes:
        return bytes(encode_plain({**self._meta, "rng": self._generators}))

    def _hurry(self) -> None:
        self._home.writer.kick(self._handoff)

    # ---- beginning

    def state(self) -> Any:
        """The state for the job: the last checkpoint's, migrated, or a fresh copy of its default.

        Raises UndecodableStateError, ReconnectError, DamagedLogError, and what a migration raises.
        """
        if self._generators is not None and self._watch is not None:
            self._watch.restore(self._generators)
            self._watch.snapshot_if_changed()
        entry = self._start.entry
        if entry is None:
            default = self.identity.signature.parameters["state"].default
            return default if type(default) in _IMMUTABLE else copy.deepcopy(default)
        try:
            state = decode_stored(self._folder, entry, self._settings.codec)
        except UndecodableStateError as error:
            raise UndecodableStateError(
                f"checkpoint {entry.seq} of run {self.identity.name!r}: {error}", run=self.identity.name, seq=entry.seq,
                reason=str(error),
            ) from error
        return migrated(state, self._start, self._request.version, self._request.migrate)

    # ---- saving

    def refuse(self, value: object) -> None:
        """The job yielded something that is no checkpoint."""
        raise NotACheckpointError(
            f"run {self.identity.name!r} yielded a {type(value).__name__} after checkpoint {self.seq}: a job yields "
            f"checkpoint(state) and nothing else", run=self.identity.name, seq=self.seq, value_type=type(value).__name__,
        )

    def save(self, made: Checkpoint[Any], pickled: tuple[int, bytes, tuple[memoryview, ...]] | None = None) -> None:
        """Save what the fast way left over; `pickled` is the state if that has been pickled already.

        Raises UnsavableStateError, StorageError, Preempted, ForkedError.
        """
        self._publish(made, pickled)
        self._reach_disk()
        self._go_on()

    def _publish(self, made: Checkpoint[Any], pickled: tuple[int, bytes, tuple[memoryview, ...]] | None = None) -> None:
        self.warn_unyielded()
        if self.journal.error is not None:
            raise self.journal.error
        if self.write.due or self.stop_signal:
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
        generators = self._watch.snapshot_if_changed() if self._watch else None
        encoded = encoded or self._settings.codec.encode(made.state)
        result = self._settings.codec.encode(made.result, root="result") if made.has_result else None
        flags, payload = self._pack(encoded, self.seq + 1)
        crowded = flags & SIDE and self._handoff.side_written(self.seq + 1)
        if result is not None:
            result_flags, packed = self._pack(result, f"result.{self.journal.results}")
            flags |= HAS_RESULT | (result_flags & TIER_MASK) << RESULT_TIER_SHIFT | (RESULT_SIDE if result_flags & SIDE else 0)
            payload = join_result(self.journal.results, payload, packed)
        if generators is not None:
            # Both in one segment, so that whoever finds the state finds the generators that belong to it.
            if not self.write.fits(len(payload) + len(generators)):
                self.journal.roll(len(payload) + len(generators))
            self.journal.append(RNG, 0, generators)
            self._put_on_disk(RNG, 0, generators)
        self.journal.append(CHECKPOINT, flags, payload)
        self._generators = generators or self._generators
        self.journal.results += made.has_result
        self._put_on_disk(CHECKPOINT, flags, payload)
        if crowded:
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
        if not encoded.buffers and len(encoded.data) < THRESHOLD:
            return encoded.tier, encoded.data
        name = side_name(self.number, what)
        reference = self._folder.write_side(name, encoded.data, encoded.buffers, durable=self._sync is not None)
        return encoded.tier | SIDE, reference

    def _put_on_disk(self, kind: int, flags: int, payload: bytes) -> None:
        if self._sync is not None:
            self._unsynced.append((self.seq + (kind == RNG), kind, flags, payload))

    def _reach_disk(self) -> None:
        """Return when the disk has all that was published, in that order: after a power cut a gap ends the run."""
        if self._sync is None:
            return
        with self._disk_turn:
            while self._unsynced:
                self._sync.put(self.identity.name16, self.number, *self._unsynced[0])
                del self._unsynced[0]

    def save_awaited(self, made: Checkpoint[Any]) -> Iterator[Any]:
        """What `await checkpoint(...)` runs on: saved before the coroutine goes on."""
        if take_checkpoint(self.write, made):
            return iter(())
        return self.save_in_loop(made).__await__()

    async def save_in_loop(self, made: Checkpoint[Any]) -> None:
        """`save` for jobs in an event loop."""
        if self._sync is not None:
            import asyncio

            # Waiting for the disk would hold up every other task; what these change meanwhile is not in this checkpoint.
            self._publish(made)
            await asyncio.to_thread(self._reach_disk)
            self._go_on()
        else:
            self.save(made)

    def warn_unyielded(self) -> None:
        """Warn of checkpoints that were made and dropped, at the lines where that was."""
        for file, line, names in take_unyielded():
            warn_at(
                f"a checkpoint was made in run {self.identity.name!r} and never yielded, so nothing was saved here "
                f"(write `yield checkpoint(...)`)", UnyieldedCheckpointWarning, file, line, names,
            )

    # ---- ending

    def finish(self, value: object) -> None:
        """The job has returned: its value and everything else goes to the log, the journal goes away, the lock is free."""
        self.warn_unyielded()
        self._check_going()
        flags, payload = self._returned(value)
        self.journal.append(RETURN, flags, payload)
        self._put_on_disk(RETURN, flags, payload)
        self._reach_disk()
        self._status = FINISHED
        pruned = self._pruned()
        self._handoff.doomed = [key for number in pruned for key in self._keys(number)]
        try:
            self._home.writer.flush(self._handoff)
        except StorageError as error:
            self._let_go()
            warn_user(
                f"run {self.identity.name!r} is finished, and a kill cannot undo that, but the log could not be written: "
                f"{error}; the next call of it, or `once=True`, will try again", NotDurableWarning,
            )
            return
        self._over = True
        try:
            self._home.writer.remove(self._handoff)
            self.journal.close()
            self._folder.discard(self.number)
            self._folder.remove_sides(self._handoff.spent_sides())
            for number in pruned:
                self._folder.remove_sides(self._folder.sides(number))
            self._lock.remove_and_release()
        finally:
            self._let_go()      # even if Ctrl-C came in between; the next start tidies up
        logger.info("finished run %r after checkpoint %d", self.identity.name, self._handoff.record.seq)

    def _returned(self, value: object) -> tuple[int, bytes]:
        try:
            return self._pack(self._settings.codec.encode(value, root="return value"), "return")
        except UnsavableStateError as error:
            if self._request.once or self._request.batch is not None:
                warn_user(f"run {self.identity.name!r} cannot give this value back later: {error}", NotDurableWarning)
            return NOT_KEPT, bytes(encode_plain(str(error)))

    def _pruned(self) -> list[int]:
        """Runs of this name that fall out of `keep_runs` now that this one is finished."""
        if self.number <= self._settings.keep_runs:
            return []
        found = [int.from_bytes(key[-4:], "big") for key, _ in self._home.store.scan(run_key(self.identity.name16))]
        others = [number for number in found if number != self.number]      # this one may not be in the log yet
        return others[: max(0, len(others) + 1 - self._settings.keep_runs)]

    def _keys(self, number: int) -> list[bytes]:
        name, scan = self.identity.name16, self._home.store.scan
        chunks = [*scan(state_key(name, number)), *scan(result_key(name, number))]
        return [run_key(name, number), *(key for key, _ in chunks)]

    def end_with(self, error: BaseException) -> None:
        """The job ended with an exception: keep why, sync, free the lock, and say in a note how to go on."""
        if self._over or self._forks != fork_count():
            return      # finished before another job that takes turns with it failed; or it is the parent's, not a child's
        seq = self.seq
        notes = []
        try:
            self.warn_unyielded()
        except UnyieldedCheckpointWarning as warning:       # warnings are errors here: not in place of the job's own
            notes.append(f"resumable: {warning}")
        try:
            if self.blamed and isinstance(error, Exception) and not isinstance(error, StorageError):
                self._status = FAILED
                code = self.identity.code
                frozen = freeze(error, job_code=code, keep_locals=self._settings.failure_locals)
                self.journal.append(FAILURE, 0, bytes(encode_plain(frozen)))
            self._home.writer.flush(self._handoff)
        except ResumableError as trouble:
            notes.append(f"resumable: keeping the failure met another: {trouble}")
        finally:
            self._let_go()
        ways = "call it again to go on" if seq else "call it again to start over"
        notes.append(f"resumable: run {self.identity.name!r} is safe at checkpoint {seq} in {self._home.where}; {ways}")
        for note in notes:
            with suppress(Exception):       # a class may have its own add_note, or __notes__ of another kind
                error.add_note(note)
        logger.info("run %r ended with %s after checkpoint %d", self.identity.name, type(error).__name__, seq)

    def _let_go(self) -> None:
        try:
            with self._turn, self._disk_turn:       # a save that still goes on in a thread comes to its end
                self._over = True
                self._home.writer.remove(self._handoff)
                self.journal.close()
        finally:
            self._lock.release()

    def __enter__(self) -> LiveRun:
        run_started()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        run_ended()
        if error is not None:
            self.end_with(error)


def _watch_generators() -> GeneratorsWatch:
    # Only who asks for it pays for ctypes.
    from resumable.values.rng import GeneratorsWatch

    return GeneratorsWatch()
