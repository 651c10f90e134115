"""What takes part in a loop's marks beside the count of items: files, databases, and whatever else is as far as the loop is.

Each has a place in the state that is saved with a mark, one record for all of them. Whoever begins to take part before the loop
does waits for the loop that starts next in the same context.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from resumable.errors import ItemsConsumerError, TransactionError

if TYPE_CHECKING:
    from resumable._fastlog import Marks
    from resumable.runs.live import LiveRun

State = tuple[int, dict[str, Any] | None, dict[str, Any]]
"""What is saved with a mark: how many items are done, what `items.state` carries, and the parts' own by their keys."""


TRANSACTION = "transaction"
"""The key of a transaction, and what says in a run's description that its loop is in one."""


class OpenLoop(Protocol):
    """What a part sees of its loop.

    `run` is None when the loop is over; `resumed`: an earlier life began it; `finished`: it was gone through to its end;
    `out_of_turn`: its items are done in another order than they come in; `state`: where it went on from.
    """

    name: str
    state: State
    run: LiveRun | None
    resumed: bool
    finished: bool
    out_of_turn: bool
    marks: Marks


class Part(Protocol):
    """What takes part in a loop's marks."""

    @property
    def key(self) -> str:
        """Its place among the loop's parts, the same in each life."""

    @property
    def leads(self) -> bool:
        """Whether it joins before the others, because it may know better how far the loop is."""

    def joined(self, loop: OpenLoop, saved: Any) -> State | None:
        """The loop's run is open. `saved`: what `mark` gave with the last mark of an earlier life, None if there was none.

        One that leads may give back the state that counts instead of the log's. Called again if the loop is begun anew after all.
        """

    def mark(self, done: int) -> object:
        """So many items are done; called before that is published. What it gives back, plain, is saved with the mark."""

    def marked(self) -> None:
        """The mark is published."""

    def again(self) -> None:
        """An attempt at the item at hand has failed: drop what it did. It is tried again, or marked without that."""

    def left(self) -> None:
        """The loop is over, or left; called once."""

    def missed(self, saved: Any) -> None:
        """There is no loop to join: it could not begin, or was finished before, with `saved`. Not told to those that lead."""


class Parts:
    """Those that have joined one loop."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._joined: list[Part] = []

    @property
    def are_slow(self) -> bool:
        """Whether there are others than files, which the compiled loop marks itself."""
        return len(self._joined) > len(self._marks.outputs)

    def join(self, part: Part, loop: OpenLoop) -> State | None:
        """One more, which may know better how far the loop is."""
        state = part.joined(loop, self._marks.parts.get(part.key))
        self._joined.append(part)
        return state

    def check_opened(self, loop: OpenLoop) -> None:
        """A database may be ahead of the log: without it nobody knows how far the loop is. Raises TransactionError."""
        run = loop.run
        if run is not None and run.described(TRANSACTION) is not None and not any(part.leads for part in self._joined):
            raise TransactionError(
                f"run {run.number} of loop {loop.name!r} is in a transaction of a database, which knows better than the log how "
                f"far it is: put `with driver.transaction(...)` around the loop (or fresh=True begins anew without)",
                run=loop.name,
            )

    def check_started(self, loop: OpenLoop, known: bool) -> None:
        """`known`: whether a `for` goes over the items. Raises TransactionError, ItemsConsumerError."""
        waiting = leader()
        if waiting is not None and waiting not in self._joined:
            raise TransactionError(
                f"loop {loop.name!r} was opened by items.state before its transaction began: put `with driver.transaction(...)` "
                f"around that, too", run=loop.name,
            )
        if not known and any(part.leads for part in self._joined):
            raise ItemsConsumerError(
                f"what goes over the items of {loop.name!r} does not say when one is done, so no transaction can be committed: "
                f"write `for item in items:` itself, or `for batch in items.batches(n):`", consumer="unknown",
            )

    def mark(self, done: int) -> None:
        """So many items are done: have each say what is saved with the mark."""
        for part in reversed(self._joined):     # one that leads comes last: it sees what the others have said
            self._marks.parts[part.key] = part.mark(done)

    def marked(self) -> None:
        """The mark is published."""
        for part in self._joined:
            part.marked()

    def again(self) -> None:
        """An attempt at the item at hand has failed."""
        for part in self._joined:
            part.again()

    def leave(self) -> None:
        """The loop is over, or left: all hear of it, whatever one of them raises."""
        if self._joined:
            try:
                self._joined.pop().left()
            finally:
                self.leave()

    def wait_again(self) -> None:
        """The loop is begun anew: they join that."""
        for part in self._joined:
            wait(part)


_waiting: ContextVar[tuple[Part, ...]] = ContextVar("parts that join the loop that starts next", default=())
started_loops: ContextVar[tuple[OpenLoop, ...]] = ContextVar("loops that have started, the innermost last", default=())


def wait(part: Part) -> None:
    """The part joins the loop that starts next in this context."""
    stop_waiting(part)      # it may be told again by a loop that is begun anew
    _waiting.set((*_waiting.get(), part))


def stop_waiting(part: Part) -> None:
    """It does not, if it has not yet."""
    _waiting.set(tuple(other for other in _waiting.get() if other is not part))


def leader() -> Part | None:
    """The one that waits in this context and leads, if there is one."""
    return next((part for part in _waiting.get() if part.leads), None)


def taken(*, followers: bool = True) -> list[Part]:
    """Those that wait in this context, and wait no more; those that lead come first, and alone without `followers`."""
    waiting = _waiting.get()
    _waiting.set(() if followers else tuple(part for part in waiting if not part.leads))
    return sorted((part for part in waiting if followers or part.leads), key=lambda part: not part.leads)


def followers() -> list[Part]:
    """Those that wait in this context and do not lead, and wait no more."""
    waiting = _waiting.get()
    _waiting.set(tuple(part for part in waiting if part.leads))
    return [part for part in waiting if not part.leads]


def turn_away(saved: dict[str, Any]) -> None:
    """There is no loop to join for those that wait in this context. `saved`: what they saved before it was finished."""
    for part in followers():
        part.missed(saved.get(part.key))


def started(loop: OpenLoop) -> None:
    """The loop is the innermost one of this context until it is over."""
    started_loops.set((*(other for other in started_loops.get() if other.run is not None), loop))


def current() -> OpenLoop | None:
    """The innermost loop of this context that has started and is not over."""
    # One that was left in another context is still in the list.
    return next((loop for loop in reversed(started_loops.get()) if loop.run is not None), None)
