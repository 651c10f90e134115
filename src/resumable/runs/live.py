"""A run while its job is running: how it begins, and how it ends, in one of four ways.

Finished, failed, stopped (Ctrl-C, SystemExit, cancellation, preemption), or killed, which nobody here notices. At every end
but the last the log gets everything before the lock is free.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from resumable._fastlog import encode_plain, fork_count, run_ended, run_started
from resumable.errors import (
    DamagedLogError,
    DriverClosedError,
    NotDurableWarning,
    ResumableError,
    StorageError,
    UndecodableStateError,
    UnsavableStateError,
    UnyieldedCheckpointWarning,
)
from resumable.runs.failure import freeze
from resumable.runs.identity import Identity
from resumable.runs.log import logger
from resumable.runs.opening import Answer, Start, decide, migrated, read_stored
from resumable.runs.resources import InjectedRegistry
from resumable.runs.saving import SavingRun
from resumable.runs.settings import Request, Settings
from resumable.runs.warn import warn_user
from resumable.storage.folder import Folder, Lock
from resumable.storage.home import Home
from resumable.storage.records import (
    FAILED,
    FAILURE,
    FINISHED,
    META,
    META_FIELDS,
    NOT_KEPT,
    RETURN,
    StateEntry,
    decode_kept,
    key_run,
    run_key,
)
from resumable.storage.recovery import run_keys, run_record
from resumable.values.codec import Codec
from resumable.values.secrets import mask_text

_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, range)


def _may_pass(error: StorageError) -> bool:
    """Whether the cause is the machine's (a disk that is full, read-only or fails), and may be gone at the next call."""
    return error.errno is not None and not isinstance(error, DamagedLogError)


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


class LiveRun(SavingRun):
    """Holds the run's lock from its making to `finish` or `end_with`."""

    def __init__(
        self, home: Home, folder: Folder, lock: Lock, identity: Identity, settings: Settings, request: Request, start: Start,
    ) -> None:
        super().__init__(home, folder, identity, settings, start)
        self._lock = lock
        self.request = request
        self._start = start
        self._injected: InjectedRegistry | None = None
        self.item: tuple[int, str | None] | None = None     # of a loop, at hand: its index, and what it looks like
        self._secured = False
        self.blamed = True      # an exception that ends it is its own; not so for jobs that take turns with the one that failed
        self.journal.begin(
            start.segments, index=start.next_index, seq=start.seq, results=start.results, handed=start.record.handed,
            handed_seq=start.record.seq,
        )
        self._set_pace()
        home.writer.add(self._handoff)
        try:
            if start.resumed and "disk" in (settings.durability, start.meta.get("durability")):
                home.writer.flush(self._handoff)    # a sync file, and what was reported on disk, go on from the log
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

    # ---- beginning

    @property
    def begun(self) -> int:
        """When its first life began, in nanoseconds since the epoch: with name and number it tells this run from any other."""
        return int(self.described("started"))

    def beginning_of(self, number: int) -> int | None:
        """`begun` of an earlier run of this name; None if the log does not have it any more."""
        record = run_record(self._home.store, self.identity.name16, number)
        return None if record is None else int(decode_kept(record.meta, "the description of a run", META_FIELDS)["started"])

    def secure_beginning(self) -> None:
        """Return when the disk knows of this run: no power cut makes it another one. Once in a life. Raises StorageError."""
        if not self._secured:
            self.secure()

    def secure(self) -> None:
        """Return when the disk has all that was published. Raises StorageError."""
        self._home.writer.flush(self._handoff)
        self._secured = True

    def inject(self, resources: Mapping[str, Any]) -> None:
        """From here on a state that holds one of these resources keeps its name."""
        codec = self._settings.codec
        self._injected = InjectedRegistry(codec.registry, resources)
        self._settings = replace(self._settings, codec=Codec(codec.mode, self._injected))
        self.write.kit = None
        self._set_pace()

    def state(self) -> Any:
        """The state for the job: the last checkpoint's, migrated, or a fresh copy of its default.

        Raises UndecodableStateError, ReconnectError, DamagedLogError, and what a migration raises.
        """
        entry = self._start.entry
        if entry is None:
            return self._first_state()
        with self._taken_up(entry):
            state = self._settings.codec.decode(*read_stored(self._folder, entry))
        return migrated(state, self._start, self.request.version, self.request.migrate)

    async def state_in_loop(self) -> Any:
        """`state` for a job in an event loop, where reconnecting may have to be waited for."""
        entry = self._start.entry
        if entry is None:
            return self._first_state()
        with self._taken_up(entry):
            state = await self._settings.codec.decode_in_loop(*read_stored(self._folder, entry))
        return migrated(state, self._start, self.request.version, self.request.migrate)

    def _first_state(self) -> Any:
        self._restore_generators()
        default = self.identity.signature.parameters["state"].default
        return default if type(default) in _IMMUTABLE else copy.deepcopy(default)

    @contextmanager
    def _taken_up(self, entry: StateEntry) -> Iterator[None]:
        self._restore_generators()
        try:
            yield
        except UndecodableStateError as error:
            raise UndecodableStateError(
                f"checkpoint {entry.seq} of run {self.identity.name!r}: {error}", run=self.identity.name, seq=entry.seq,
                reason=str(error),
            ) from error

    def _restore_generators(self) -> None:
        if self._generators is not None and self._watch is not None:
            self._watch.restore(self._generators)
            self._watch.snapshot_if_changed()

    # ---- ending

    @property
    def finished(self) -> bool:
        """Whether it has returned."""
        return self._status == FINISHED

    def finish(self, value: object) -> None:
        """The job has returned: its value and everything else goes to the log, the journal goes away, the lock is free."""
        self.warn_unyielded()
        self._check_going()
        flags, payload = self._returned(value)
        self.journal.append(RETURN, flags, payload)
        self._put_on_disk(RETURN, flags, payload)
        self._reach_disk()
        pruned = self._pruned()
        self._handoff.doomed = [
            key for number in pruned for key in run_keys(self._home.store, self.identity.name16, number)
        ]
        self._status = FINISHED     # last: the log's thread may come at any moment
        try:
            self._home.writer.flush(self._handoff)
        except StorageError as error:
            self._let_go()
            if not _may_pass(error):
                error.add_note(
                    f"resumable: run {self.identity.name!r} has returned, and its journal holds the value: once the cause is "
                    f"gone, `once=True` gives it back; of a damaged directory `python -m resumable repair {self._home.where} "
                    f"NEW_DIR` makes a copy in which the run is finished"
                )
                raise
            warn_user(
                f"run {self.identity.name!r} is finished, and a kill cannot undo that, but the log could not be written: "
                f"{error}; the next call of it will try again, and give back this value", NotDurableWarning,
            )
            return
        self._over = True
        try:
            self._home.writer.remove(self._handoff)
            self.journal.close()
            self._folder.discard(self.number)
            self._folder.remove_sides(self._handoff.spent_sides())
            for number in pruned:
                self._folder.discard(number)    # keys that a kill left
                self._folder.remove_sides(self._folder.sides(number))
            self._lock.remove_and_release()
        finally:
            self._let_go()      # even if Ctrl-C came in between; the next start tidies up
        logger.info("finished run %r after checkpoint %d", self.identity.name, self._handoff.record.seq)

    def _returned(self, value: object) -> tuple[int, bytes]:
        if self._injected is not None:
            self._injected.over = True
        try:
            return self._pack(self._settings.codec.encode(value, root="return value"), "return")
        except UnsavableStateError as error:
            if self.request.once or self.request.batch is not None:
                warn_user(f"run {self.identity.name!r} cannot give this value back later: {error}", NotDurableWarning)
            return NOT_KEPT, bytes(encode_plain(mask_text(str(error))))

    def _pruned(self) -> list[int]:
        """Runs of this name that fall out of `keep_runs` now that this one is finished."""
        if self.number <= self._settings.keep_runs:
            return []
        found = [key_run(key)[1] for key, _ in self._home.store.scan(run_key(self.identity.name16))]
        others = [number for number in found if number != self.number]      # this one may not be in the log yet
        return others[: max(0, len(others) + 1 - self._settings.keep_runs)]

    def end_with(self, error: BaseException) -> None:
        """The job ended with an exception: keep why, sync, free the lock, and say in a note how to go on."""
        if self._over or self._forks != fork_count():
            return      # finished before another job that takes turns with it failed; or it is the parent's, not a child's
        try:
            seq, notes = self.seq, []
            try:
                self.warn_unyielded()
            except UnyieldedCheckpointWarning as warning:       # warnings are errors here: not in place of the job's own
                notes.append(f"resumable: {warning}")
            if self.blamed and isinstance(error, Exception) and not isinstance(error, StorageError | DriverClosedError):
                self._status = FAILED
                code = self.identity.code
                given = self._injected.by_name if self._injected is not None else {}
                frozen = freeze(error, job_code=code, keep_locals=self._settings.failure_locals, injected=given, item=self.item)
                self.journal.append(FAILURE, 0, bytes(encode_plain(frozen)))
            if not isinstance(error, DriverClosedError):    # closing has flushed
                self._home.writer.flush(self._handoff)
        except ResumableError as trouble:
            notes.append(f"resumable: keeping the failure met another: {trouble}")
        finally:
            self._let_go()
        stands, ways = "is safe", "call it again to go on" if seq else "call it again to start over"
        if isinstance(error, ResumableError):
            ways = f"mend the cause, then {ways}"
        if isinstance(error, DamagedLogError):
            stands, ways = "was", (
                f"calling it again meets the same damage: put back what is damaged, or let `python -m resumable repair "
                f"{self._home.where} NEW_DIR` make a copy that goes on"
            )
        notes.append(f"resumable: run {self.identity.name!r} {stands} at checkpoint {seq} in {self._home.where}; {ways}")
        for note in notes:
            with suppress(Exception):       # a class may have its own add_note, or __notes__ of another kind
                error.add_note(note)
        logger.info("run %r ended with %s after checkpoint %d", self.identity.name, type(error).__name__, seq)

    def leave(self) -> None:
        """Whoever took the run's steps takes no more: sync and free the lock. The next call goes on."""
        if self._over or self._forks != fork_count():
            return
        try:
            self._home.writer.flush(self._handoff)
        except DriverClosedError:
            pass    # closing has flushed
        except StorageError as error:
            warn_user(f"run {self.identity.name!r} stopped, and the log could not be written: {error}", NotDurableWarning)
        finally:
            self._let_go()
        logger.info("left run %r after checkpoint %d", self.identity.name, self.seq)

    def _let_go(self) -> None:
        try:
            with self._turn, self._disk_turn:       # a save that still goes on in a thread comes to its end
                self._over = True
                self._home.writer.remove(self._handoff)
                self.journal.close()
                if self._keys is not None:
                    self._folder.let_go(self._keys)
        finally:
            try:
                # Also if Ctrl-C came in between: two lives of one run must not hand over side by side.
                self._home.writer.remove(self._handoff)
            finally:
                self._lock.release()

    def __enter__(self) -> LiveRun:
        run_started()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                self.end_with(error)
        finally:
            run_ended()
            if self._injected is not None:
                self._injected.forget()
