"""Dead letters that are done again: which items of a loop, and how many of them are done by now.

The run's description says which, for it can be written without the loop; the loop's state says how many. So a request is one
record, and so is each item that is done again.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.runs.mapped import AGAIN

if TYPE_CHECKING:
    from resumable.values.codec import Codec


class Request(NamedTuple):
    """What the description says. `seen`: results of the run that are dealt with, and which request it is; `base`: the state,
    (tier, bytes), that a run begins with which takes over from a finished one.

    With `key=` the items are named by the keys of their letters: of each request how many keys were done then, and these; those
    that stand behind that number once more have been done again. `alone`: a run that does nothing else.
    """

    seen: int = 0
    indices: tuple[int, ...] = ()
    base: tuple[int, bytes] | None = None
    keys: tuple[tuple[int, bytes], ...] = ()
    alone: bool = False

    def first_state(self, codec: Codec) -> Any:
        """What the run begins with, None if with nothing."""
        state = codec.decode(*self.base) if self.base is not None else None
        if isinstance(state, tuple):
            state[2].pop(AGAIN, None)       # of the finished run's own
            return (0, *state[1:]) if self.alone else state
        return None if self.alone else state


    def over(self) -> Request:
        """What the description says when all are done."""
        return self._replace(indices=(), base=None, keys=())


class Again:
    """A request on its way, of a loop without keys or a map."""

    def __init__(self, request: Request, saved: tuple[int, int] | None) -> None:
        """`saved` is what a loop's state says: (which request, how many of its items)."""
        self._request = request
        count = saved[1] if saved is not None and saved[0] == request.seen else 0
        self._count = min(count, len(request.indices))      # when all are done the description forgets them first
        self._taken = 0
        self._wanted = frozenset(self.left)
        self._found: dict[int, Any] = {}

    @property
    def left(self) -> tuple[int, ...]:
        """The items that are not done again yet."""
        return self._request.indices[self._count :]

    @property
    def count_left(self) -> int:
        """How many these are."""
        return len(self._request.indices) - self._count

    @property
    def over_with(self) -> bool:
        """Whether there were some, and none is left."""
        return bool(self._request.indices) and not self.count_left

    @property
    def index(self) -> int:
        """The next one of them."""
        return self._request.indices[self._count]

    def take(self, size: int, items: Iterable[Any] | AsyncIterable[Any]) -> list[Any] | None:
        """The next items, as many as follow one on another, up to `size`; None if there are none left."""
        left = self._request.indices[self._count : self._count + size]
        indices = [index for place, index in enumerate(left) if index == left[0] + place]
        self._taken = len(indices)
        return [items[index] if isinstance(items, Sequence) else self._found.pop(index) for index in indices] or None

    def next_place(self) -> tuple[int, int]:
        """What is saved when the items that were taken are done."""
        return self._request.seen, self._count + self._taken

    def done(self) -> None:
        """They are."""
        self._count += self._taken

    def over(self) -> Request:
        """What the description says when all are done."""
        return self._request.over()

    def picked(self, source: Iterator[Any]) -> Iterator[Any]:
        """What the source gives; on the way the items that are needed are kept."""
        for index, item in enumerate(source):
            self.pass_by(index, item)
            yield item

    def pass_by(self, index: int, item: Any) -> None:
        """An item that is done is passed by; it is kept if it is needed."""
        if index in self._wanted:
            self._found[index] = item
