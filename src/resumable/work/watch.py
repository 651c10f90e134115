"""What a loop tells while it goes on: its progress, and with `verbose` how each of its lives begins and ends.

An item costs nothing for it. A thread asks twenty times a second that the next mark be taken by the long way; whatever there is
to show and to measure is done there, in the loop's own thread. An item's duration is the time between two such marks.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from resumable import clock
from resumable._fastlog import Marks
from resumable.runs.failure import in_a_line
from resumable.runs.progress import Display, Pace, Progress, counted, display_of, duration, tell

if TYPE_CHECKING:
    from resumable.runs.live import LiveRun

BETWEEN = 0.1           # seconds, at least, between two updates
FEWEST = 3              # durations below which there is no median worth telling
_TICK = BETWEEN / 2
_SLOW = 0.001           # an item of as many seconds can afford to have the next one measured too
_MOST = 128             # durations that are kept
_DURATIONS = "durations"


class Watch:
    """Looks on while a loop goes through its items. Holds nothing of the loop, so that a dropped loop is dropped."""

    def __init__(self, name: str, items: object) -> None:
        self.pace = Pace(name, items)
        self.complete = False   # the run is finished
        self._display: Display | None = None
        self._verbose = False
        self._run: LiveRun | None = None
        self._marks = Marks()
        self._left_out_in = 0.0     # seconds
        self._durations: list[float] = []
        self._measured, self._keep_at = 0, FEWEST
        self._since: tuple[float, int] | None = None    # when the item that is being measured began, and its index
        self._shown_at = 0.0
        self._through = False   # the items came to their end
        self._over = threading.Event()

    def show(self, progress: Progress, verbose: bool) -> None:
        """Tell of the loop by these. Raises TypeError for a `progress` that is nothing to show it by."""
        self._display, self._verbose = display_of(progress), verbose

    @contextmanager
    def leaving_out(self) -> Iterator[None]:
        """Inside, items are passed by that are done."""
        began = clock.monotonic()
        try:
            yield
        finally:
            self._left_out_in += clock.monotonic() - began

    def begin(self, run: LiveRun | None, marks: Marks) -> None:
        """The first item of this life is about to be asked for; without a run there is none.

        From now on `marks.due` may say that the next mark is one to look at.
        """
        if run is None:
            return
        self._run, self._marks = run, marks
        self.pace.begin(marks.done)
        if self._display is None and not self._verbose:
            return
        self._durations = list(run.described(_DURATIONS) or ())
        self._tell_beginning(run.described("resumed") + 1, marks.done)
        if self._display is not None:
            self._display.begin(self.pace.info(marks.done))
        self._shown_at = clock.monotonic()
        self._since, marks.due = (self._shown_at, marks.done), True
        threading.Thread(target=self._tick, name=f"progress of {self.pace.name}", daemon=True).start()

    def _tick(self) -> None:
        while not self._over.wait(_TICK):
            self._marks.due = True

    def marked(self) -> None:
        """The mark of the items at hand, which was due, is published."""
        now, marks = clock.monotonic(), self._marks
        done = marks.done if marks.redoing else marks.done + marks.at_hand
        if self._since is None:
            self._since = now, done
        else:
            lasted = (now - self._since[0]) / (done - self._since[1])
            self._keep(lasted)
            again = lasted >= _SLOW or self._measured < FEWEST
            self._since, marks.due = (now, done) if again else None, again
        if self._display is not None and now - self._shown_at >= BETWEEN:
            self._display.show(self.pace.info(done))
            self._shown_at = clock.monotonic()      # one that is slow has its pause, too

    def leave(self, *, through: bool = False) -> None:
        """The `for` is over; called again, it does nothing. `through`: it came to its end."""
        self._through |= through
        if self._run is None or self._over.is_set():
            return
        self._over.set()
        self.pace.end()
        if self._display is not None:
            self._display.end(self.pace.info(self._marks.done))

    def end(self, error: BaseException | None) -> None:
        """This life of the run is over, with this exception or without one."""
        self.leave()
        run, self._run = self._run, None
        if run is None or not self._verbose:
            return
        info = self.pace.info(self._marks.done)
        if self.complete:
            gone = _items(info.done) if info.total in (None, info.done) else counted(info.done, info.total)
            now = f", {info.done - info.skipped:,} of them now" if info.skipped else ""
            self._tell(f"is complete: {gone}{now}, in {duration(info.elapsed)}")
        else:
            index = run.item[0] if run.item is not None else info.done
            place = "after its last item" if self._through else f"at item {index:,}"
            self._tell(f"{ended(error, place)}: {counted(info.done, info.total)} done, kept in {run.where}")

    # ---- durations

    def _keep(self, lasted: float) -> None:
        """One more duration. They are kept in the run's description as they double in number: that is not for nothing."""
        self._durations.append(lasted)
        if len(self._durations) > _MOST:
            self._durations = self._durations[::2]
        self._measured += 1
        if self._measured == self._keep_at and self._run is not None:
            self._keep_at *= 2
            self._run.describe(_DURATIONS, [*self._durations])

    def _time_saved(self, done: int) -> float:
        """Seconds that the items left out would have taken again; 0 if nobody can tell: fewer than FEWEST are not kept."""
        return max(0.0, done * statistics.median(self._durations) - self._left_out_in) if self._durations else 0.0

    # ---- sentences

    def _tell_beginning(self, lives: int, done: int) -> None:
        total = self.pace.total
        if lives == 1:
            if self._verbose:
                self._tell("begins" + (f": {_items(total)}" if total is not None else ""))
        elif done or self._verbose:
            saved = self._time_saved(done)
            gain = f", about {duration(saved)} saved" if saved >= _SLOW else ""
            self._tell(f"goes on (run #{lives}): {counted(done, total)} done and left out{gain}")

    def _tell(self, what: str) -> None:
        (self._display.tell if self._display is not None else tell)(f"{self.pace.name!r} {what}")


def ended(error: BaseException | None, place: str = "") -> str:
    """How a run ended, in words: "failed at item 7 (ValueError: no such user)"."""
    how = "failed" if isinstance(error, Exception) else "stopped"
    return " ".join(filter(None, [how, place, f"({in_a_line(error)})" if error is not None else ""]))


def _items(count: int) -> str:
    return f"{count:,} item{'s' * (count != 1)}"
