"""A set of keys that outlives its process: what was sent, fetched, charged already.

It is a run of its own, `seen:NAME`. Each change is a checkpoint: the number of keys, and as its result the key that came or went.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Self

from resumable._fastlog import checkpoint, encode_plain, take_checkpoint
from resumable.errors import ResumableError, RunNameError, UnsavableStateError
from resumable.runs.identity import identify_loop
from resumable.runs.live import LiveRun
from resumable.runs.opening import Answer
from resumable.runs.preempt import forget
from resumable.values.registry import type_name

if TYPE_CHECKING:
    from resumable.runs.engine import Engine

_ABOUT = "seen"


def seen_job(state: Any = None) -> None:
    """The job of such a run: whoever marks keys."""


class SeenKeys:
    """Keys that were seen, as `Driver.seen` gives them: kept in the state directory, for one process at a time. Thread-safe.

    A change is saved when its call returns, as a checkpoint is: no kill takes it, and a power cut at most the last `sync_every`
    seconds. A change or a look costs the same for ten keys and for ten million; all keys are in memory, and are read at the
    opening. A key is anything hashable that can be saved and is equal to what is read back: texts, numbers, bytes, tuples of
    them, dates, paths. A context manager; closed, it is free for others.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self._engine = engine
        self._turn = threading.RLock()
        self._keys: set[Hashable] = set()
        self._run: LiveRun | None = self._open()

    def _open(self) -> LiveRun:
        identity = identify_loop(seen_job, {}, name=f"seen:{self.name}", registry=self._engine.registry, body=seen_job.__code__)
        run = self._engine.begin(identity, {}, {_ABOUT: True})
        assert not isinstance(run, Answer)      # it never finishes
        try:
            forget(run)     # it obeys no signal to stop: whatever marks keys does
            if run.described(_ABOUT) is None:
                raise RunNameError(f"run 'seen:{self.name}' is one of a job (give the set of keys another name)", name=self.name)
            for came, key in self._engine.results(run.identity.name, run.number):
                (self._keys.add if came else self._keys.discard)(key)
        except BaseException:
            run.leave()
            raise
        return run

    def seen(self, key: Hashable) -> bool:
        """Whether it was marked."""
        with self._turn:
            self._going()
            return key in self._keys

    __contains__ = seen

    def mark(self, key: Hashable) -> None:
        """It was seen; that is saved when this returns. Raises UnsavableStateError, StorageError."""
        with self._turn:
            if key not in self._keys:
                self._check(key)
                self._save(len(self._keys) + 1, (True, key))
                self._keys.add(key)

    def forget(self, key: Hashable) -> None:
        """It was not seen after all; saved when this returns. Raises StorageError."""
        with self._turn:
            if key in self._keys:
                self._save(len(self._keys) - 1, (False, key))
                self._keys.discard(key)

    def clear(self) -> None:
        """Forget all keys, and free what they take on disk. A kill in the middle leaves all or none. Raises StorageError."""
        with self._turn:
            self._going().leave()
            self._run = None
            self._engine.clear(f"seen:{self.name}")
            self._keys.clear()
            self._run = self._open()

    def __len__(self) -> int:
        with self._turn:
            self._going()
            return len(self._keys)

    def __repr__(self) -> str:
        return f"<{len(self._keys)} keys seen, {self.name!r}>"

    def close(self) -> None:
        """Sync, and let others open it. Closing twice is fine."""
        with self._turn:
            run, self._run = self._run, None
            if run is not None:
                run.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_run", None) is not None:
            self.close()

    def _going(self) -> LiveRun:
        if self._run is None:
            raise ResumableError(f"the seen keys {self.name!r} are closed (call driver.seen again)", run=f"seen:{self.name}")
        return self._run

    def _check(self, key: Hashable) -> None:
        """A key of a class that compares by identity would never be met again. Raises UnsavableStateError."""
        if encode_plain(key) is None:
            codec = self._engine.codec
            back = codec.decode(*codec.encode(key, root="key"))
            if back != key or hash(back) != hash(key):
                kind = type_name(key)
                raise UnsavableStateError(
                    f"a {kind} is no key: read back, it does not equal itself (give its class __eq__ and __hash__, or mark "
                    f"what tells it from others)", path="key", type_name=kind, reason="not equal to what is read back",
                )

    def _save(self, count: int, change: tuple[bool, Hashable]) -> None:
        run = self._going()
        made = checkpoint(count, result=change)
        if not take_checkpoint(run.write, made):
            run.save(made)
