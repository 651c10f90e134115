"""Processes of our own that call a function on items, one item at a time each; one that dies is replaced.

Not concurrent.futures' pool: that breaks as a whole when one worker dies, cannot tell whose item it was, and its workers may
outlive a parent that was killed. Here a worker has a pipe of its own, so its death is the matter of one item; it ends when
the parent does, whatever it is doing; and it is spawned, so nothing of the parent's state directory is in its hands.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection, process, util
from types import FunctionType
from typing import Any, NamedTuple

from resumable._fastlog import decode_plain, encode_plain
from resumable.errors import ResumableError, UndecodableStateError, WorkerDiedError, WorkerError, WorkerStartError
from resumable.values.codec import DILL, Codec, Encoded
from resumable.values.registry import GLOBAL, Registry, type_name

MOST_DEATHS = 3         # of the workers of one item, which then is to blame
_LOOK_AFTER = 1.0       # seconds after which the living are counted: a child of a worker may hold its pipe open
_Connection = connection.Connection


class Outcome(NamedTuple):
    """What came of an item: its value, or an error."""

    item: int       # its index
    value: Any
    error: BaseException | None


class Processes:
    """So many workers, started as they are needed."""

    def __init__(self, fn: Callable[[Any], Any], count: int, registry: Registry) -> None:
        self._codec = Codec("auto", registry)
        self._fn = encoded_function(fn, self._codec)
        self._count = count
        self._deaths: dict[int, int] = {}
        self._workers: list[_Worker] = []
        # Also when this is dropped half way, or never: multiprocessing joins at exit whoever still lives.
        self._end = util.Finalize(self, _kill, args=(self._workers,), exitpriority=10)

    @property
    def room(self) -> bool:
        """Whether a worker has nothing to do, or another one may be started."""
        return len(self._workers) < self._count or any(worker.item is None for worker in self._workers)

    @property
    def busy(self) -> bool:
        """Whether a worker has an item."""
        return any(worker.item is not None for worker in self._workers)

    def recall(self) -> None:
        """Nothing: an item that a worker has been handed has begun."""

    def submit(self, index: int, item: object) -> None:
        """Hand an item to a worker. Raises UnsavableStateError for one that cannot be sent."""
        encoded = self._codec.encode(item, root=f"items[{index}]")
        idle = next((worker for worker in self._workers if worker.item is None), None) or self._started()
        idle.take(index, encoded)

    def wait(self, timeout: float | None) -> list[Outcome]:
        """What has come of the items, after at most so many seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _LOOK_AFTER if until is None else min(_LOOK_AFTER, max(0, until - time.monotonic()))
            ready = set(connection.wait([worker.pipe for worker in self._workers], left))
            found = []
            for worker in list(self._workers):
                if (worker.pipe in ready or not worker.lives()) and (outcome := self._heard(worker)) is not None:
                    found.append(outcome)
            if found or (until is not None and time.monotonic() >= until):
                return found

    def _heard(self, worker: _Worker) -> Outcome | None:
        try:
            failed, encoded = worker.hear()
        except (EOFError, OSError):
            return self._replaced(worker)
        assert worker.item is not None
        index = worker.item[0]
        if not worker.ready and not failed:
            worker.ready = True
            return None
        worker.item = None
        if not worker.ready:
            self._drop(worker)
            return Outcome(index, None, WorkerStartError(
                f"a worker process cannot make the function: {self._codec.decode(*encoded)} (what a script's workers need is "
                f"defined at its top level, not under `if __name__ == \"__main__\":`)", exitcode=None,
            ))
        try:
            answer = self._codec.decode(*encoded)
        except ResumableError as error:
            return Outcome(index, None, error)
        return Outcome(index, None, answer) if failed else Outcome(index, answer, None)

    def _replaced(self, dead: _Worker) -> Outcome | None:
        """Another worker gets the item of one that died; an item that has killed several is to blame."""
        code = self._drop(dead)
        if dead.item is None:
            return None
        index, encoded = dead.item
        if not dead.ready and (code is None or code >= 0):
            return Outcome(index, None, WorkerStartError(
                f"a worker process ended with exit code {code} before it took its first item; what it had to say is on stderr "
                f"(a worker imports the main script: what starts the work belongs under `if __name__ == \"__main__\":`)",
                exitcode=code,
            ))
        self._deaths[index] = deaths = self._deaths.get(index, 0) + 1
        if deaths < MOST_DEATHS:
            self._started().take(index, encoded)
            return None
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return Outcome(index, None, WorkerDiedError(
            f"a worker process {how} while it had item {index}, as {deaths - 1} others before it (does the item take too much "
            f"memory, or crash a library?)", index=index, exitcode=code,
        ))

    def _drop(self, worker: _Worker) -> int | None:
        """Its exit code."""
        self._workers.remove(worker)
        return worker.end()

    def stop(self, *, now: bool) -> None:
        """End the workers; `now`: whatever they do."""
        if not now:
            for worker in self._workers:
                worker.pipe.close()     # which tells it to end
            until = time.monotonic() + 5
            for worker in self._workers:
                worker.process.join(max(0, until - time.monotonic()))
        self._end()

    def _started(self) -> _Worker:
        worker = _Worker(self._fn)
        self._workers.append(worker)
        return worker


class _Worker:
    """One process, and the item that it has."""

    def __init__(self, fn: Encoded) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.item: tuple[int, Encoded] | None = None
        self.ready = False
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_work, args=(theirs, os.getpid()), name="resumable worker")
        with theirs:
            self.process.start()
        self._send(-1, fn)

    def take(self, index: int, encoded: Encoded) -> None:
        self.item = index, encoded
        self._send(index, encoded)

    def _send(self, index: int, encoded: Encoded) -> None:
        with suppress(OSError):     # it is dead: `hear` finds that out, and whose item it was
            _send(self.pipe, index, encoded)

    def lives(self) -> bool:
        return self.process.exitcode is None

    def hear(self) -> tuple[bool, Encoded]:
        """Whether it has failed, and with what, or else its answer. Raises EOFError, OSError of a dead one."""
        if not self.lives() and not self.pipe.poll():
            raise EOFError
        _, failed, encoded = _receive(self.pipe)
        return failed, encoded

    def end(self) -> int | None:
        self.pipe.close()
        self.process.join(_LOOK_AFTER)
        self.process.kill()
        self.process.join()
        return self.process.exitcode


def _kill(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.pipe.close()
    workers.clear()


# ---- what goes through the pipe


def _send(pipe: _Connection, index: int, encoded: Encoded, failed: bool = False) -> None:
    pipe.send_bytes(encode_plain((index, failed, encoded.tier, encoded.data, len(encoded.buffers))))
    for buffer in encoded.buffers:
        pipe.send_bytes(buffer)


def _receive(pipe: _Connection) -> tuple[int, bool, Encoded]:
    index, failed, tier, data, count = decode_plain(pipe.recv_bytes())
    # Writable, so that arrays are.
    return index, failed, Encoded(tier, data, tuple(memoryview(bytearray(pipe.recv_bytes())) for _ in range(count)))


def encoded_function(fn: Callable[[Any], Any], codec: Codec) -> Encoded:
    """The function for another process. Raises UnsavableStateError."""
    main = sys.modules["__main__"]
    if isinstance(fn, FunctionType) and fn.__module__ == "__main__" and not _is_file(main):
        import dill

        # A notebook's, or one typed in: nobody else can import it.
        return Encoded(DILL, dill.dumps(fn, recurse=True), ())
    return codec.encode(fn, root="fn")


def _is_file(main: Any) -> bool:
    return getattr(main, "__spec__", None) is not None or os.path.exists(getattr(main, "__file__", ""))


class Carried:
    """A function for the workers of somebody else's process pool, which sends what it has made as our own workers do."""

    def __init__(self, fn: Callable[[Any], Any], registry: Registry) -> None:
        encoded = encoded_function(fn, Codec("auto", registry))
        self._encoded = encoded.tier, encoded.data, tuple(bytes(buffer) for buffer in encoded.buffers)

    def __call__(self, item: object) -> tuple[int, bytes, list[bytearray]]:
        tier, data, buffers = Codec().encode(_function(*self._encoded)(item), root="result")
        return tier, data, [bytearray(buffer) for buffer in buffers]


_functions: dict[bytes, Callable[[Any], Any]] = {}


def _function(tier: int, data: bytes, buffers: tuple[bytes, ...]) -> Callable[[Any], Any]:
    if data not in _functions:
        _functions.clear()      # of one map at a time
        _functions[data] = Codec().decode(tier, data, buffers)
    return _functions[data]


# ---- in the worker


def _work(pipe: _Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C goes to all of a terminal's processes, and the parent answers it
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    codec = Codec("auto", GLOBAL)
    try:
        fn = codec.decode(*_receive(pipe)[2])
    except UndecodableStateError as error:
        _send(pipe, -1, codec.encode(str(error.__cause__ or error)), failed=True)
        return
    with suppress(EOFError, ConnectionError):       # the parent wants no more
        _send(pipe, -1, codec.encode(None))
        while True:
            index, _, encoded = _receive(pipe)
            failed, answer = _answer(fn, index, encoded, codec)
            _send(pipe, index, answer, failed)


def _answer(fn: Callable[[Any], Any], index: int, encoded: Encoded, codec: Codec) -> tuple[bool, Encoded]:
    try:
        return False, codec.encode(fn(codec.decode(*encoded)), root=f"result {index}")
    except BaseException as error:  # noqa: BLE001 - for the parent to judge
        told = "".join(traceback.format_exception(error)).rstrip()
        try:
            error.add_note(f"resumable: in a worker process:\n{told}")
            answer = codec.encode(error)
            codec.decode(*answer)       # many an exception can be pickled, and not be made again
        except Exception:  # noqa: BLE001 - the user's classes
            kind = type_name(error)
            answer = codec.encode(WorkerError(f"item {index} raised {kind}:\n{told}", index=index, type_name=kind))
        return True, answer


def _end_with(parent: int) -> None:
    """End when the parent does, however it ends, and whatever the item does meanwhile."""
    told = process.parent_process()
    while os.getppid() == parent and not (told and connection.wait([told.sentinel], _LOOK_AFTER)):
        pass
    os._exit(1)
