"""The items of a loop, as `Driver.items` gives them: those that an earlier life of the loop has done are left out."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from resumable._fastlog import NOTHING, LoopIterator
from resumable.errors import ResumableError
from resumable.work.awaited import AwaitedItems
from resumable.work.failing import Attempt
from resumable.work.idempotency import key_of
from resumable.work.loop import Loop

if TYPE_CHECKING:
    from resumable.runs.progress import ProgressInfo

T = TypeVar("T")


class LoopState:
    """What a loop carries from item to item: its attributes are saved together with each item's mark.

    A context manager: left before the loop was gone through, it lets go of the run.
    """

    __slots__ = ("__dict__", "_loop")
    _loop: Loop

    def __init__(self, loop: Loop, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self._loop = loop

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __repr__(self) -> str:
        return f"LoopState({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def __enter__(self) -> LoopState:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._loop.stop(error)


class Items(Generic[T]):
    """The items of a loop: `for item in driver.items(xs, name="...")`. An item is done when the `for` comes back for the next.

    Left by `break`, `return` or an exception, the loop goes on with the item that was at hand when it is next called; gone
    through to its end, it is finished. One `for` at a time.
    """

    def __init__(self, loop: Loop, items: Iterable[T] | AsyncIterable[T], *, records: bool = True) -> None:
        """`records`: whether results are kept."""
        self.name = loop.name
        self._loop = loop
        self._items = items
        self._records = records

    @property
    def done(self) -> int:
        """How many items are done, also those that are not there any more; 0 before the loop has begun."""
        return self._loop.marks.done

    @property
    def index(self) -> int:
        """The index of the item at hand, of a batch that of its first item; with `key=` as the items stand in this life."""
        return self._loop.index

    @property
    def is_at_hand(self) -> bool:
        """Whether an item is at hand: given out, and the `for` has not come back for the next one."""
        return self._loop.marks.at_hand > 0

    @property
    def total(self) -> int | None:
        """How many items there are, None if that is not known."""
        return self._loop.watch.pace.total

    def progress(self) -> ProgressInfo:
        """How far the loop is, how fast it goes in this life, and how long it will take."""
        return self._loop.watch.pace.info(self._loop.marks.done)

    def __repr__(self) -> str:
        return f"<items of loop {self.name!r}: {self.done} of {'?' if self.total is None else self.total} done>"

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type] # raises the TypeError of what has no length

    def __bool__(self) -> bool:
        return self.total != 0      # where that is not known there may be some, as of an iterator

    def __iter__(self) -> Iterator[T]:
        if not isinstance(self._items, Iterable) and not hasattr(self._items, "__getitem__"):
            raise TypeError(f"the items of loop {self.name!r} come from an asynchronous source: write `async for`")
        return LoopIterator(self._loop, self._loop.marks)

    def __aiter__(self) -> AsyncIterator[T]:
        return AwaitedItems(self._loop, self._items)

    def batches(self, size: int) -> Batches[T]:
        """The items in lists of `size`, the last one shorter; the items of a list are done together. For `for`, `async for`."""
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"size is an int, not {size!r}")
        if size < 1:
            raise ValueError(f"size is at least 1, not {size}")
        return Batches(self._loop, self._items, size)

    def attempt(self) -> Attempt:
        """Around a loop's whole body: what is decided about an exception in it is done there and then.

        `with items.attempt():`, in a coroutine `async with`. "retry": after the pause the `for` gives out the same item once
        more. "skip", "dead_letter": the exception is swallowed, the `for` goes on. "fail", Ctrl-C, exits and cancellation leave
        the loop. Of an attempt that has failed nothing stays: the state of `items.state` is as it was (rebuilt, as on a resume),
        its result and what it wrote to the loop's outputs are dropped. The number of attempts survives kill -9, also in a pause.
        """
        return Attempt(self._loop)

    def record(self, value: object) -> None:
        """Keep a result of the item at hand, with its mark: `driver.results(name)` has them in order. Once for each item.

        It is saved when the item is done; what cannot be saved raises UnsavableStateError there.
        """
        marks = self._loop.marks
        if not marks.at_hand:
            raise ResumableError(f"no item of loop {self.name!r} is at hand (call record in the loop's body)", run=self.name)
        if not marks.marking:
            raise ResumableError(f"no item of loop {self.name!r} is marked, so none has a result", run=self.name)
        if not self._records:
            raise ResumableError(f"loop {self.name!r} keeps no results (write @loop(store_results=True))", run=self.name)
        self._loop.failing.check_undecided(self._loop)
        if marks.result is not NOTHING:
            raise ResumableError(f"item {self.index} of loop {self.name!r} has a result already", run=self.name)
        marks.result = value

    def idempotency_key(self) -> str:
        """A key of the item at hand for a server that does a thing once a key, as in the header `Idempotency-Key`.

        The same whenever this run comes to this item, in each life, at each attempt, and when it is a dead letter that is done
        again; no other item or run has it. 32 characters that can stand in a URL. A batch has one, by the items in it; with
        `key=`, where these may be others in another life, it has none.
        """
        run, at_hand = self._loop.run, self._loop.marks.at_hand
        if run is None or not at_hand:
            raise ResumableError(f"no item of loop {self.name!r} is at hand (ask for its key in the loop's body)", run=self.name)
        mark = self._loop.mark_of_item
        if at_hand > 1 and isinstance(mark, bytes):
            raise ResumableError(f"a batch of loop {self.name!r}, which has key=, has no key (take single items)", run=self.name)
        return key_of(run, mark if at_hand == 1 else (mark, at_hand))

    def state(self, **defaults: Any) -> LoopState:
        """What the loop carries from item to item: with these attributes at first, on resume as they were after the last item.

        `with items.state(total=0) as s:` before the `for`. Values must be such that can be saved; mind that what they refer to is
        saved as it is when the item is done.
        """
        self._loop.open()
        state = LoopState(self._loop, {**defaults, **(self._loop.marks.values or {})})
        self._loop.marks.values = vars(state)
        self._loop.marks.plainly = False
        return state


class Batches(Generic[T]):
    """A loop's items in lists, for one `for` or `async for`."""

    def __init__(self, loop: Loop, items: Iterable[T] | AsyncIterable[T], size: int) -> None:
        self._loop, self._items, self._size = loop, items, size

    def __iter__(self) -> Iterator[list[T]]:
        return LoopIterator(self._loop, self._loop.marks, self._size)

    def __aiter__(self) -> AsyncIterator[list[T]]:
        return AwaitedItems(self._loop, self._items, self._size)


def check_items(items: object) -> None:
    """Raises TypeError for what cannot be gone through."""
    if not isinstance(items, Iterable | AsyncIterable) and not hasattr(items, "__getitem__"):
        raise TypeError(f"items can be gone through with `for`, and a {type(items).__name__} cannot")
