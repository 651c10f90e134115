"""Files that are as far as the loop that writes them: `resumable.open`.

What an item writes and that it is done are one record of the loop's journal; the file gets the bytes by and by, behind what it
has. A resumed loop writes what the last record holds at its place and cuts the file there. So after kill -9 anywhere the file is
that of a loop that nothing happened to. Before a record reaches the log the file reaches the disk (values/outputs.py).
"""

from __future__ import annotations

import atexit
import builtins
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import IO, Any, Final, Literal, NoReturn, Self
from weakref import WeakValueDictionary

from resumable._fastlog import fork_count, in_run
from resumable.errors import LiveResourceError, OutputError, UnclosedOutputWarning
from resumable.runs.warn import warn_user
from resumable.values import outputs
from resumable.work import parts
from resumable.work.output_places import Text, append, check_place, replace, status
from resumable.work.output_records import RecordedFile
from resumable.work.parts import OpenLoop

Mode = Literal["w", "a", "x", "wb", "ab", "xb"]

_HELD: Final = 1 << 16      # bytes that are held, at most, where no item is at hand

# Where the bytes go: to memory until it is known where; into a loop's records; to the file; to the file, where the loop cuts them
# off when it goes on; behind what a loop has finished that is not gone through again; nowhere; to an ordinary file.
_WAITING, _JOINED, _OVER, _LEFT, _ENDED, _SPARED, _PLAIN = "waiting", "joined", "over", "left", "ended", "spared", "plain"

_known: Final[WeakValueDictionary[str, OutputFile]] = WeakValueDictionary()


class OutputFile(RecordedFile):
    """What `open` returns: a file to write to, with `write`, `writelines`, `flush`, `close`, and for `with`."""

    leads: Final = False

    def __init__(
        self, path: str | os.PathLike[str], mode: str, text: Text | None = None, *,
        opening: Callable[[int], str] | None = None, in_states: bool = False,
    ) -> None:
        """`opening(size)`: text that comes first in a file of that size. `in_states`: outside of loops a state may hold it."""
        self.closed = True      # until it is open
        self.name: Final = os.fspath(path)
        super().__init__(os.path.realpath(self.name), mode, text, opening)
        self._in_states = in_states
        self._phase = _WAITING
        self._plain: IO[Any] | None = None
        self._forks, self._opener = fork_count(), threading.get_ident()
        self._host = _at_hand()
        check_place(self.path)
        self._take_name()
        self._set_up(
            f"file:{self.path}", parts.started_loops, outputs.noting(self.path), text is not None and text.copies_ascii,
        )
        if self._host is not None and not self._host[0].out_of_turn:
            self._host[0].marks.guests.append(self)
        parts.wait(self)
        self.closed = False

    def _take_name(self) -> None:
        other = _known.get(self.path)
        if other is not None and not other.closed:
            if other._phase in (_WAITING, _JOINED):
                raise OutputError(f"{self.path} is open already (close it first, or write through that one)", path=self.path)
            other._give_up()        # of a loop that is over
        _known[self.path] = self

    # ---- writing

    def _write(self, data: Any) -> int:
        """`write`, by the long way."""
        made = self._encoded(data)
        if self.closed:
            raise ValueError(f"{self.path} is closed")
        if self._plain is not None:
            self._plain.write(data)
        elif self._phase != _SPARED:
            self._check_turn()
            self._put(made if self._phase == _WAITING else self._bom_for(made) + made)
            if self._phase == _JOINED and _at_hand() is None:
                self._keep()
            if self.end - self.offset > _HELD:
                self._make_room()
        return len(data) if self._text is not None else len(made)

    def _check_turn(self) -> None:
        """Raises OutputError if the bytes would not belong to the item at hand."""
        if threading.get_ident() != self._opener:
            raise self._wrong("is written in another thread than it was opened in", "open it in the thread that runs the loop")
        at_hand = _at_hand()
        if at_hand == self._host or (self._phase != _WAITING and (at_hand is None or at_hand[0] is self.loop)):
            return
        if self._host is not None:
            self._outstay()
        assert at_hand is not None
        if at_hand[0].out_of_turn:
            raise self._wrong(
                f"is written while map {at_hand[0].name!r} goes on, whose items are done out of turn",
                "let the function give back what is to be written, and write the results when the map is through",
            )
        if self._phase == _WAITING:
            raise self._wrong(f"was opened where loop {at_hand[0].name!r} did not see it", "open it before the loop")
        raise self._wrong(
            f"belongs to another loop than {at_hand[0].name!r}, whose item would be done without what it wrote here",
            "open it inside the outer item, before the inner loop, or write behind the inner loop",
        )

    def _outstay(self) -> NoReturn:
        """It is still open though the item that it was opened in is done."""
        assert self._host is not None
        loop, index = self._host
        self._give_up()
        raise self._wrong(
            f"was opened inside item {index} of loop {loop.name!r} and is still open when that is done",
            "close it there, best by `with`, or open it before the loop",
        )

    def _make_room(self) -> None:
        if self._phase in (_OVER, _LEFT):
            self._spill()
        elif self._phase == _WAITING and self._in_job:
            self._become_plain()

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write each of them; nothing is put in between."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Does nothing: what is written is safe when its item is done, and reaches the file and the disk by itself."""

    # ---- in a loop

    def joined(self, loop: OpenLoop, saved: Any) -> None:
        """See Part."""
        if self._phase == _WAITING:
            self._first = self._taken()
        self._phase, self.loop = _SPARED, loop      # until all is well
        if saved is not None:
            self._take_up(*saved)
        elif loop.resumed:
            raise self._wrong(
                f"is new to loop {loop.name!r}, of which items are done that are not in it",
                "open it by the path that it had, or begin anew with fresh=True",
            )
        else:
            self._begin_anew()
        self._set_marks(loop.marks)
        self._phase, self._opener = _JOINED, threading.get_ident()
        loop.marks.parts[self.key], loop.marks.plainly = self, False
        if self not in loop.marks.outputs:
            loop.marks.outputs.append(self)

    def mark(self, done: int) -> object:
        """See Part."""
        self._make_short()
        self._uncertain = True
        return self._state()

    def marked(self) -> None:
        """See Part."""
        self._uncertain = False
        self._is_marked()
        self.loop.marks.parts[self.key] = self      # instead of what `mark` gave

    def again(self) -> None:
        """See Part."""
        self._drop_item()

    def left(self) -> None:
        """See Part."""
        loop, joined = self.loop, self._phase == _JOINED
        self._phase = _SPARED
        if joined and self._forks == fork_count():
            if loop.finished:
                self._complete()
                self._phase = _OVER
            else:
                self._stand_still()
                self._phase = _LEFT if self.known else _SPARED
        self.loop = None
        self._set_marks(None)
        if self.closed:
            self._give_up()

    def missed(self, saved: Any) -> None:
        """See Part."""
        self._taken()
        self._phase = _SPARED
        if saved is not None:
            offset, _, _, _, held = saved
            self._start_at(offset + len(held), 0, 0)
            self._phase = _ENDED

    # ---- without a loop

    @property
    def _in_job(self) -> bool:
        return self._in_states and self._host is None and in_run()

    def as_plain(self) -> IO[Any]:
        """The ordinary file that it becomes for good where a state is to hold it. Raises LiveResourceError."""
        if self._plain is None:
            if self.closed or self._phase != _WAITING:
                why = "it is closed (keep its path)" if self.closed else "a loop writes it and saves it (leave it out)"
                raise LiveResourceError(f"{self.path} cannot be in a state: {why}")
            self._become_plain()
        assert self._plain is not None
        return self._plain

    def _become_plain(self) -> None:
        assert self._text is not None
        parts.stop_waiting(self)
        held = self._text.decoded(self._taken())
        file = builtins.open(self.name, self.mode, encoding=self.encoding, newline="")  # noqa: SIM115 - it stays open
        try:
            if self._opening is not None:
                file.write(self._opening(file.tell()))
            file.write(held)
        except BaseException:
            file.close()
            raise
        self._phase, self._plain = _PLAIN, file

    def close(self) -> None:
        """Write no more. A file without a loop takes its place under its name here, whole.

        What the item at hand has written is in the file when that is done.
        """
        self._close(told=True)

    def _close(self, told: bool) -> None:
        """`told`: whether what fails is raised where a loop was left; else it is logged, beside the error that closes it."""
        if self.closed:
            return
        if self._forks != fork_count():
            self._phase = _SPARED       # it is the parent's
        try:
            if self._phase == _WAITING:
                self._close_waiting()
            elif self._phase in (_OVER, _LEFT):
                self._spill()
            elif self._phase == _ENDED:
                self._end()
            if self._plain is not None:
                self._plain.close()
        except (OSError, OutputError) as error:
            if told or self._phase != _LEFT:
                raise
            self._left_behind(error)
        finally:
            self.closed = True
            self._set_marks(None)
            if self._phase != _JOINED:
                self._give_up()

    def _close_waiting(self) -> None:
        self._check_turn()
        if self._in_job:
            self._become_plain()
            return
        if self._host is not None and self.mode[0] != "w":
            raise self._wrong(
                f"was opened with {self.mode!r} inside an item, which would write it twice when it is repeated",
                'open it with "w", or before the loop',
            )
        found = status(self.path)
        self._first = self._taken()
        made = self._beginning(found.st_size if found is not None and self.mode[0] == "a" else 0)
        if self.mode[0] == "a":
            append(self.path, made)
        else:
            replace(self.path, made, new=self.mode[0] == "x")
        outputs.written(self.path)

    def _give_up(self) -> None:
        """Let go of everything; nothing more is written."""
        self.closed = True
        parts.stop_waiting(self)
        self._taken()
        self._place(-1, 0)
        if self._host is not None and self in self._host[0].marks.guests:
            self._host[0].marks.guests.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None and self._phase == _WAITING:
            self._give_up()
        else:
            self._close(told=error is None)

    def __del__(self) -> None:
        if self.closed or self._forks != fork_count():
            return
        if self._phase == _WAITING and self.end:
            self.closed = True
            warn_user(f"{self.path} was never closed, so nothing was written (open it by `with`)", UnclosedOutputWarning)
        elif self._phase in (_OVER, _LEFT):
            self.close()

    def __repr__(self) -> str:
        return f"<OutputFile {self.name!r} mode={self.mode!r}>"


def _at_hand() -> tuple[OpenLoop, int] | None:
    """The loop whose item is at hand in this context, and which item that is; of one whose items are done out of turn, any."""
    loop = parts.current()
    if loop is None or not (loop.marks.at_hand or loop.out_of_turn):
        return None
    return loop, -1 if loop.out_of_turn else loop.marks.done


@atexit.register
def _at_exit() -> None:
    # Those that wait, and those that a traceback or a global holds.
    for file in list(_known.values()):
        try:
            file.__del__()
        except (OSError, OutputError) as error:
            sys.excepthook(type(error), error, error.__traceback__)     # and on to the next


def open(
    path: str | os.PathLike[str],
    mode: Mode = "w",
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    newline: str | None = None,
) -> OutputFile:
    """A file that a loop writes, each item's bytes once: open it, then go through the loop in the same function or one below.

    path: a regular file, in a directory that is there.
    mode: "w" begins the file anew when the loop does, "x" refuses one that is there, "a" goes on behind what it has; with "b"
        bytes are written, else text. A resumed loop goes on where its items ended, in any mode.
    encoding, errors, newline: as for the builtin `open`, but the encoding is UTF-8 if none is given.

    The file belongs to the loop that starts next in this context, the inner one if it is opened inside an item. What is written
    before the first item is there once, and so is what is written behind the loop. What an item writes is there when it is done:
    kept by kill -9, dropped with an item that fails. The file is complete when the loop is through. Closed without a
    loop, it is put in its place whole, or not at all if an exception closed it.

    Raises OSError, LookupError, ValueError, and OutputError for a file that is open already; `write` raises OutputError where
    the bytes would not belong to the item at hand, the first item where the file is not the one that the loop has written.
    """
    if mode not in ("w", "a", "x", "wb", "ab", "xb"):
        raise ValueError(f'mode is "w", "a" or "x", with "b" for bytes, not {mode!r}')
    return OutputFile(path, mode, None if mode.endswith("b") else Text(encoding, errors, newline))
