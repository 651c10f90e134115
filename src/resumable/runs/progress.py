"""How far a loop is, and who is shown it: a line of our own on stderr, a tqdm or rich bar, or a function of the user's.

All of it is called in the loop's own thread, between two items.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from resumable import clock
from resumable.runs.log import logger

PLAIN_EVERY = 10.0      # seconds between two lines where stderr is no terminal
_CLEARED = "\r\x1b[K"


@dataclass(frozen=True, slots=True)
class ProgressInfo:
    """How far a loop is.

    done: how many items are done, over all lives. total: how many there are, None if that is not known. skipped: how many of
    `done` an earlier life did, so that this one left them out. elapsed: seconds that this life has taken so far.
    """

    name: str
    done: int
    total: int | None
    skipped: int
    elapsed: float

    @property
    def rate(self) -> float | None:
        """Items a second, of this life alone; None before its first one is done."""
        return (self.done - self.skipped) / self.elapsed if self.done > self.skipped and self.elapsed > 0 else None

    @property
    def eta(self) -> float | None:
        """Seconds left at this rate, None if that cannot be told."""
        if self.total is None or self.rate is None:
            return None
        return max(0, self.total - self.done) / self.rate

    def __str__(self) -> str:
        parts = [f"{shown(self.name)}: {counted(self.done, self.total)}"]
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f}/s" if self.rate >= 100 else f"{self.rate:.1f}/s" if self.rate >= 1 else
                         f"{duration(1 / self.rate)} each")
        if self.eta is None:
            parts.append(duration(self.elapsed))
        else:
            parts.append(f"{duration(self.eta)} left" if self.total != self.done else f"in {duration(self.elapsed)}")
        return ", ".join(parts)


Progress = Callable[[ProgressInfo], object] | object
"""What `progress=` may be: a function, or else True, None, a tqdm, a rich Progress, their classes."""


class Pace:
    """Counts one life of a loop."""

    def __init__(self, name: str, items: object) -> None:
        self.name = name
        self.skipped = 0
        self._items = items
        self._begun: float | None = None
        self._ended: float | None = None

    @property
    def total(self) -> int | None:
        """How many items there are, None if that is not known."""
        return len(self._items) if isinstance(self._items, Sized) else None

    def begin(self, done: int) -> None:
        """Of this life nothing is done yet."""
        self.skipped, self._begun = done, clock.monotonic()

    def end(self) -> None:
        """This life is over."""
        self._ended = clock.monotonic()

    def info(self, done: int) -> ProgressInfo:
        """Where the loop is at this moment."""
        now = clock.monotonic() if self._ended is None else self._ended
        return ProgressInfo(self.name, done, self.total, self.skipped, now - self._begun if self._begun is not None else 0.0)


# ---- words


def shown(name: str) -> str:
    """A run's name in a line; quoted if a terminal would make something of it."""
    return name if name.isprintable() else repr(name)


def counted(done: int, total: int | None) -> str:
    """Items in words: "233 of 500 (46 %)"."""
    if total is None:
        return f"{done:,} item{'s' * (done != 1)}"
    return f"{done:,} of {total:,}" + (f" ({100 * done // total} %)" if total else "")


def duration(seconds: float) -> str:
    """Seconds in words, by their two largest units."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {part}"
    return f"{whole} s"


def quiet() -> bool:
    """Whether RESUMABLE_QUIET asks for silence. What users bring themselves is shown all the same."""
    return os.environ.get("RESUMABLE_QUIET", "0") not in ("", "0")


def tell(sentence: str) -> None:
    """A line of its own on stderr, above what stands on the terminal's last one."""
    if not quiet():
        _write((_CLEARED if Line.on_terminal else "") + f"resumable: {sentence}\n")


def _write(text: str) -> None:
    if sys.stderr is None:      # as under pythonw
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError) as error:      # a terminal that is gone ends no work
        logger.info("progress cannot be shown: %s", error)


# ---- displays


class Display:
    """Who is shown how far a loop is: at its beginning, at most ten times a second, and at its end."""

    def begin(self, info: ProgressInfo) -> None:
        """The first item is about to be asked for."""

    def show(self, info: ProgressInfo) -> None:
        """So far it is."""

    def end(self, info: ProgressInfo) -> None:
        """That is how far it came."""

    def tell(self, sentence: str) -> None:
        """A sentence that stands beside what is shown."""
        tell(sentence)


class Line(Display):
    """A line of our own: on a terminal always the same one, which loops inside each other share; elsewhere one now and then."""

    on_terminal: ClassVar[list[Line]] = []

    def __init__(self) -> None:
        self._text = ""
        self._next_at = PLAIN_EVERY

    def begin(self, info: ProgressInfo) -> None:
        if _can_go_back() and not quiet():
            Line.on_terminal.append(self)
        self.show(info)

    def show(self, info: ProgressInfo) -> None:
        if self in Line.on_terminal:
            self._text = str(info)
            self._draw()
        elif info.elapsed >= self._next_at:
            self._next_at = info.elapsed + PLAIN_EVERY
            tell(str(info))

    def end(self, info: ProgressInfo) -> None:
        if self not in Line.on_terminal:
            tell(str(info))
            return
        self.show(info)
        Line.on_terminal.remove(self)
        if not Line.on_terminal:
            _write("\n")

    def _draw(self) -> None:
        text = " | ".join(line._text for line in Line.on_terminal)
        _write(_CLEARED + text[: _columns() - 1])


def _can_go_back() -> bool:
    """Whether stderr is a terminal on which a line can be written over."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Tqdm(Display):
    """A tqdm: one of the user's, or what makes one."""

    def __init__(self, bar: Any, make: Callable[..., Any] | None = None) -> None:
        self._bar, self._make = bar, make

    def begin(self, info: ProgressInfo) -> None:
        if self._make is not None:
            self._bar = self._make(desc=shown(info.name), total=info.total, initial=info.done)
            return
        self._bar.reset(info.total)
        self._bar.initial = self._bar.n = self._bar.last_print_n = info.done
        self._bar.refresh()

    def show(self, info: ProgressInfo) -> None:
        self._bar.update(info.done - self._bar.n)

    def end(self, info: ProgressInfo) -> None:
        self.show(info)
        self._bar.refresh()
        if self._make is not None:
            self._bar.close()

    def tell(self, sentence: str) -> None:
        if self._bar is None:
            tell(sentence)
        elif not quiet():
            self._bar.write(f"resumable: {sentence}", file=sys.stderr)


class Rich(Display):
    """A task of a rich Progress: of one of the user's, or of one that is made for it."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._ours = False
        self._task: Any = None

    def begin(self, info: ProgressInfo) -> None:
        from rich.markup import escape

        if isinstance(self._bars, type):
            self._bars = self._bars()
        self._ours = not self._bars.live.is_started
        self._bars.start()
        self._task = self._bars.add_task(escape(shown(info.name)), total=info.total, completed=info.done)

    def show(self, info: ProgressInfo) -> None:
        self._bars.update(self._task, completed=info.done)

    def end(self, info: ProgressInfo) -> None:
        self.show(info)
        if self._ours:
            self._bars.stop()


class Function(Display):
    """A function of the user's."""

    def __init__(self, function: Callable[[ProgressInfo], object]) -> None:
        self._function = function

    def begin(self, info: ProgressInfo) -> None:
        self._function(info)

    def show(self, info: ProgressInfo) -> None:
        self._function(info)

    def end(self, info: ProgressInfo) -> None:
        self._function(info)


def display_of(progress: object) -> Display | None:
    """What `progress=` stands for; None for nothing. Raises TypeError."""
    if progress is None or progress is False:
        return None
    if progress is True:
        return Line()
    if hasattr(progress, "add_task"):
        return Rich(progress)
    kind = progress.func if isinstance(progress, partial) else progress
    if hasattr(kind, "update") and hasattr(kind, "refresh"):
        return Tqdm(None, progress) if callable(kind) and callable(progress) else Tqdm(progress)
    if callable(progress):
        return Function(progress)
    raise TypeError(f"progress is True, a tqdm, a rich Progress or a function of a ProgressInfo, not {progress!r}")
