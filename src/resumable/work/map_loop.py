"""The run of a map: which of its items are handed out and not done, and which are done again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from resumable.errors import UnsavableStateError
from resumable.runs.mapped import AGAIN, MAPPED, TAKEN
from resumable.runs.reports import Results
from resumable.storage.records import StateEntry
from resumable.work.again import Again
from resumable.work.loop import Loop
from resumable.work.samples import Samples

_PENDING = "map"        # where a mark has the items that were handed out and are not done, with how often each has failed


class MapLoop(Loop):
    """The run of a map: nobody's `for`, so that nothing has to be known of who asks."""

    about = MAPPED
    out_of_turn = True
    kept: dict[int, Any]        # items that an earlier life has handed out and not done
    _told_all = False           # the last mark says that all that is done again is handed out

    def start(self, asks: Any) -> Iterator[Any]:
        """The items that are left. What it raises leaves no run behind."""
        try:
            source = self.begin(asks, True)
            self.watch.begin(self.run, self.marks)
            return source
        except BaseException as error:
            self.stop(error)
            raise

    def save(self, done: int) -> None:
        """As a loop does. An error about the result names its item."""
        try:
            super().save(done)
        except UnsavableStateError as error:
            raise of_item(error, self.marks.done) from error
        if self._told_all:
            self._forget_again()
        self._told_all = self._again.over_with

    def pending(self) -> dict[int, int]:
        """The items that earlier lives have handed out and not done, and how often each has failed."""
        return dict(self.marks.parts.get(_PENDING, {}))

    def set_pending(self, pending: dict[int, int]) -> None:
        """What the next mark says of that."""
        if pending:
            self.marks.parts[_PENDING] = pending
        else:
            self.marks.parts.pop(_PENDING, None)
        self.marks.plainly = False

    def take_again(self) -> tuple[int, Any] | None:
        """The next item that was done and is done once more, with its index; the next mark says that it is handed out."""
        if not self._again.count_left:
            return None
        index, items = self._again.index, self._again.take(1, self._iterable)
        assert items is not None
        self.marks.parts[AGAIN] = self._again.next_place()
        self._again.done()
        return index, items[0]

    @property
    def to_do_again(self) -> tuple[int, ...]:
        """The indices of those that are left."""
        return self._again.left

    def _forget_again(self) -> None:
        """They are all handed out, as the mark before this says: the description need not name them any more."""
        assert self.run is not None
        request = self._again.over()
        self.run.describe(AGAIN, tuple(request))
        self._again = Again(request, None)
        self.marks.parts.pop(AGAIN, None)

    def save_attempts(self, done: int, pending: dict[int, int]) -> None:
        """Save at once how often items have failed; none is done with it, so that there is nothing to measure."""
        self.set_pending(pending)
        due, self.marks.due = self.marks.due, False
        self.save_now(done)
        self.marks.due = due

    def count(self, done: int) -> None:
        """So many items are done, but for those that are done once more."""
        assert self.run is not None
        self.marks.go_on(self.run.write, done - self._again.count_left, True)

    def _opened(self) -> Iterator[Any]:
        source = super()._opened()
        try:
            self._take_over()
        except BaseException as error:
            self.fail(error)
            raise
        return source

    def _take_over(self) -> None:
        """Save the results of the run that this one begins with, but for those that an earlier life has saved."""
        run = self.run
        if run is None:
            return
        number, count = run.described(TAKEN) or (0, 0)
        if run.write.results < count:
            run.blamed = False
            view = self._engine.view(self.name, number)
            found = Results(view)
            entries = (StateEntry(at, *found.stored(at)) for at in range(run.write.results, count))
            run.take_over(self.marks.state(self.marks.done), map(view.encoded, entries))
            run.blamed = True

    def _behind(self, items: Iterable[Any], recorded: Samples, done: int) -> Iterator[Any]:
        wanted = [index for index in self.pending() if index < done]
        if isinstance(items, Sequence):
            self.kept = {index: items[index] for index in wanted}
            return super()._behind(items, recorded, done)
        self.kept = dict.fromkeys(wanted)
        return super()._behind(self._picked(items) if wanted else items, recorded, done)

    def _picked(self, items: Iterable[Any]) -> Iterator[Any]:
        for index, item in enumerate(items):
            if index in self.kept:
                self.kept[index] = item
            yield item


def of_item(error: UnsavableStateError, index: int) -> UnsavableStateError:
    """The error about a result that cannot be saved, with its item."""
    fields: dict[str, Any] = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    path = str(fields.get("path", ""))
    if not path.startswith("result"):
        return error        # about an item, or the function's own
    path = f"result {index}" + path.removeprefix(f"result {index}").removeprefix("result").removeprefix("[1]")
    what = f"{path} ({fields['type_name']}) of a map cannot be saved: {fields['reason']}"
    return type(error)(what, **{**fields, "path": path})
