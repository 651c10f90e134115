"""What a loop shows of itself: its progress, the line at a resume, and what `verbose` tells."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rich.progress
import tqdm
from rich.console import Console

import resumable
from resumable import Driver, ProgressInfo, loop
from resumable.runs import progress as shown
from resumable.work import watch


class Stumble(Exception):
    """Stands for a crash of the body."""


def go(
    driver: Driver, items: Iterable[Any], *, until: Any = None, each: float = 0, error: BaseException | None = None, **given: Any
) -> None:
    """A loop whose items take so many seconds each, and whose body fails at one; what is no Stumble passes on."""
    stumble = Stumble("no luck\nmore of it")
    try:
        for item in driver.items(items, name="loop", **given):
            if item == until:
                raise error or stumble
            time.sleep(each)
    except Stumble as caught:
        if caught is not stumble:
            raise


@pytest.fixture
def plain_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines where stderr is no terminal come at once, not every ten seconds."""
    monkeypatch.setattr(shown, "PLAIN_EVERY", 0.0)


# ---- figures


def test_figures_of_a_life() -> None:
    """Rate and time left are those of this life; what cannot be told is None."""
    info = ProgressInfo("loop", done=60, total=100, skipped=50, elapsed=5.0)
    assert (info.rate, info.eta) == (2.0, 20.0)
    assert str(info) == "loop: 60 of 100 (60 %), 2.0/s, 20 s left"
    fresh = ProgressInfo("loop", 50, 100, 50, 0.0)
    assert (fresh.rate, fresh.eta) == (None, None)
    endless = ProgressInfo("a\nb", 1, None, 0, 4.0)
    assert (endless.rate, endless.eta) == (0.25, None)
    assert str(endless) == r"'a\nb': 1 item, 4.0 s each, 4.0 s"
    assert str(ProgressInfo("loop", 0, 0, 0, 0.0)) == "loop: 0 of 0, 0 ms"
    assert str(ProgressInfo("loop", 3, 3, 0, 0.01)) == "loop: 3 of 3 (100 %), 300/s, in 10 ms"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0123, "12 ms"), (4.21, "4.2 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (250, "4 min 10 s"), (11_500, "3 h 11 min"),
     (200_000, "2 d 7 h")],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    """A duration is told by its two largest units."""
    assert shown.duration(seconds) == words


def test_progress_of_the_items(driver: Driver) -> None:
    """`items.progress()` says how far the loop is, before, in and after it."""
    go(driver, range(10), until=4)
    items = driver.items(range(10), name="loop")
    assert items.progress() == ProgressInfo("loop", 0, 10, 0, 0.0)
    for item in items:
        now = items.progress()
        assert (now.done, now.total, now.skipped) == (item, 10, 4)
    after = items.progress()
    assert (after.done, after.eta) == (10, 0)
    assert items.progress() == after


# ---- functions


def test_a_function_is_told(driver: Driver) -> None:
    """A function hears of the place where the loop goes on, of at most ten updates a second, and of the end."""
    heard: list[tuple[float, ProgressInfo]] = []

    def hear(info: ProgressInfo) -> None:
        assert threading.current_thread() is threading.main_thread()
        heard.append((time.monotonic(), info))

    go(driver, range(100), until=40)
    go(driver, range(100), each=0.01, progress=hear)
    done = [info.done for _, info in heard]
    assert (done[0], done[-1]) == (40, 100)
    assert done == sorted(done)
    assert {(info.skipped, info.total) for _, info in heard} == {(40, 100)}
    times = [at for at, _ in heard[:-1]]
    assert 3 <= len(times) <= 2 + 10 * (times[-1] - times[0])
    assert all(after - before >= 0.99 * watch.BETWEEN for before, after in itertools.pairwise(times))
    rate = heard[-1][1].rate
    assert rate is not None
    assert rate <= 100


def test_a_fast_loop_is_seen_in_between(driver: Driver) -> None:
    """Of a loop that goes through millions of items a second a function hears in between, as of a slow one."""
    heard: list[int] = []
    ended = time.monotonic() + 0.6
    for _ in driver.items(itertools.count(), name="loop", progress=lambda info: heard.append(info.done)):
        if time.monotonic() > ended:
            break
    assert 3 <= len(heard) <= 8
    assert heard == sorted(heard)
    assert driver.info("loop").seq == heard[-1]


@pytest.mark.parametrize(("at", "status"), [(0, "failed"), (1, "failed"), (30, "finished")])
def test_a_function_that_fails(driver: Driver, at: int, status: str) -> None:
    """What a function raises stops the loop at an item's boundary, and what is done stays done."""

    def fails(info: ProgressInfo) -> None:
        if info.done == at or 30 > info.done > at > 0:
            raise Stumble

    with pytest.raises(Stumble):
        go(driver, range(30), each=0.01 if at < 30 else 0, progress=fails)
    assert driver.info("loop").status == status
    done = driver.info("loop").seq
    for item in driver.items(range(30), name="loop", once=True):
        assert item == done
        break


def test_what_shows_nothing(driver: Driver) -> None:
    """A `progress` that is nothing to show it by is a TypeError at once."""
    with pytest.raises(TypeError, match="progress is True, a tqdm"):
        driver.items(range(3), name="loop", progress=7)
    assert driver.runs() == []


# ---- a line of our own


def test_nothing_is_printed_by_default(driver: Driver, capfd: pytest.CaptureFixture[str]) -> None:
    """Without `progress` and `verbose` a loop that fails, goes on and ends prints nothing, and starts no thread."""
    before = {thread.name for thread in threading.enumerate()}
    go(driver, range(20), until=10, progress=False)
    go(driver, range(20))
    assert not any("progress" in thread.name for thread in threading.enumerate() if thread.name not in before)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("plain_now")
def test_lines_where_stderr_is_no_terminal(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a whole line now and then, and one at the end, on stderr."""
    go(driver, range(20), each=0.02, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) >= 3
    assert all(re.match(r"resumable: loop: \d+ of 20", line) for line in lines)
    assert lines[-1].startswith("resumable: loop: 20 of 20 (100 %), ")
    assert "\r" not in err


def test_one_line_where_stderr_is_no_terminal(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop of a moment leaves a single line there."""
    go(driver, range(20), progress=True)
    assert len(capsys.readouterr().err.splitlines()) == 1


ON_A_TERMINAL = """
import sys, time
from resumable import Driver
driver = Driver(sys.argv[1])
for outer in driver.items(range(2), name="outer", progress=True):
    for inner in driver.items(range(30), name=f"inner {outer}", progress=True, fresh=True):
        time.sleep(0.01)
        if outer == int(sys.argv[2]) and inner == 20:
            raise SystemExit("stopped")
print("after", file=sys.stderr)
"""


def on_a_terminal(code: str, *arguments: object, columns: int = 100, **environ: str) -> str:
    """What a program writes to a terminal that is its stderr."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {**os.environ, "TERM": "xterm", **environ}
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=theirs, env=environ)
    os.close(theirs)
    written = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:     # the terminal is gone with the last who had it
            break
        if not data:
            break
        written += data
    os.close(ours)
    process.wait()
    return written.decode()


def test_one_line_on_a_terminal(state_dir: Path) -> None:
    """On a terminal the line is written over itself, shared by nested loops, as narrow as it is, and ends as a line."""
    written = on_a_terminal(ON_A_TERMINAL, state_dir, 1)
    assert written.endswith("stopped\r\n")
    body = written.removesuffix("stopped\r\n")
    assert body.count("\n") == 1
    drawn = body.removesuffix("\r\n").split("\r\x1b[K")[1:]
    assert any(re.match(r"outer: \d of 2 .* \| inner \d: \d+ of 30 ", line) for line in drawn)
    assert re.fullmatch(r"outer: 1 of 2 \(50 %\), .*", drawn[-1])
    written = on_a_terminal(ON_A_TERMINAL, state_dir, -1, columns=30)
    sentence, *drawn, last = written.split("\r\x1b[K")
    assert sentence == "resumable: 'outer' goes on (run #2): 1 of 2 (50 %) done and left out\r\n"
    assert last.startswith("outer: 2 of 2 (100 %), ")
    assert last.endswith("\r\nafter\r\n")
    assert max(map(len, drawn)) <= 29


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"RESUMABLE_QUIET": "1"}])
def test_no_line_on_such_a_terminal(state_dir: Path, environ: dict[str, str]) -> None:
    """A terminal that cannot go back has whole lines, and RESUMABLE_QUIET=1 has none."""
    written = on_a_terminal(ON_A_TERMINAL, state_dir, -1, **environ)
    lines = written.splitlines()
    assert "\x1b" not in written
    assert len(lines) == (1 if "RESUMABLE_QUIET" in environ else 4)


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_a_stderr_that_is_gone(driver: Driver, monkeypatch: pytest.MonkeyPatch, stderr: str | None) -> None:
    """A loop goes on when its progress cannot be written any more."""
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stderr", None if stderr is None else gone)
    if stderr is not None:
        monkeypatch.setattr(shown, "PLAIN_EVERY", 0.0)
    go(driver, range(5), progress=True, verbose=True)
    monkeypatch.undo()
    assert driver.info("loop").status == "finished"


# ---- bars of others


@pytest.mark.parametrize("kind", ["class", "partial", "instance"])
def test_tqdm(driver: Driver, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A tqdm, its class or what makes one begins where the loop goes on, has its rate from there, and ends at the end."""
    made: list[Any] = []

    class Bar(tqdm.tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            made.append(self)

    out = io.StringIO()
    given = {"class": lambda: Bar, "partial": lambda: partial(Bar, file=out), "instance": lambda: Bar(file=out)}[kind]()
    go(driver, range(100), until=90)
    go(driver, range(100), each=0.02, progress=given)
    (bar,) = made
    assert (bar.initial, bar.n, bar.total) == (90, 100, 100)
    text = capsys.readouterr().err + out.getvalue()
    assert "90/100" in text
    assert "100/100" in text
    assert "resumable: 'loop' goes on (run #2): 90 of 100 (90 %) done and left out\n" in text
    assert (bar.n - bar.initial) / bar.format_dict["elapsed"] < 60
    if kind == "instance":
        bar.close()


@pytest.mark.parametrize("kind", ["class", "started", "not started"])
def test_rich(driver: Driver, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rich Progress has a task that begins where the loop goes on, and is stopped by whoever started it."""
    out = io.StringIO()
    made: list[rich.progress.Progress] = []

    class Bars(rich.progress.Progress):
        def __init__(self) -> None:
            super().__init__(console=Console(file=out, force_terminal=True, width=80))
            made.append(self)

    given: Any = Bars if kind == "class" else Bars()
    if kind == "started":
        given.start()
    go(driver, range(100), until=90)
    completed: list[float] = []
    update = rich.progress.Progress.update

    def heard(self: Any, task: Any, **fields: Any) -> None:
        completed.append(self.tasks[0].completed)
        update(self, task, **fields)

    monkeypatch.setattr(Bars, "update", heard)
    go(driver, range(100), each=0.02, progress=given)
    (bars,) = made
    (task,) = bars.tasks
    assert (task.description, task.total, task.completed) == ("loop", 100, 100)
    assert completed[0] == 90
    assert task.speed is None or task.speed < 60
    assert bars.live.is_started == (kind == "started")
    bars.stop()
    assert "loop" in out.getvalue()


# ---- going on


def test_the_line_on_a_resume(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """With progress a resume says how many items are left out, and the time that saves by the median of those measured."""
    go(driver, range(40), until=20, each=0.02)      # not looked at, so nothing is known of it
    go(driver, range(40), until=22, each=0.02, progress=True)
    assert re.search(r"goes on \(run #2\): 20 of 40 \(50 %\) done and left out$", capsys.readouterr().err, re.MULTILINE)
    go(driver, range(40), until=24, each=0.02, progress=True)       # two were measured
    assert "22 of 40 (55 %) done and left out\n" in capsys.readouterr().err
    go(driver, range(40), until=30, each=0.02, progress=True)
    capsys.readouterr()
    go(driver, range(40), until=35, each=0.02, progress=True)
    found = re.search(r"30 of 40 \(75 %\) done and left out, about (\d+) ms saved\n", capsys.readouterr().err)
    assert found
    assert 600 <= int(found[1]) < 1200


def test_time_saved_is_less_what_leaving_out_takes(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """Items that must be made again to be left out save their body's time alone, and none where that is nothing."""

    def slow() -> Iterable[int]:
        for number in range(20):
            time.sleep(0.02)
            yield number

    go(driver, slow(), until=10, progress=True)
    capsys.readouterr()
    go(driver, slow(), progress=True)
    found = re.search(r"10 items done and left out(, about (\d+) ms saved)?\n", capsys.readouterr().err)
    assert found
    assert int(found[2] or 0) < 150     # each took 20 ms, and takes them again


def test_nothing_done_is_not_told(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """A resume that leaves out nothing says nothing of it."""
    go(driver, range(5), until=0)
    go(driver, range(5), progress=True)
    assert "goes on" not in capsys.readouterr().err


def test_batches_are_counted_by_items(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a batch the time saved and the progress are those of its items."""
    heard: list[int] = []
    for life in range(2):
        for batch in driver.items(range(40), name="loop", progress=lambda info: heard.append(info.done)).batches(4):
            time.sleep(0.04)
            if life == 0 and batch[0] == 32:
                break
    found = re.search(r"32 of 40 \(80 %\) done and left out, about (\d+) ms saved", capsys.readouterr().err)
    assert found
    assert 320 <= int(found[1]) < 640
    assert all(done % 4 == 0 for done in heard)
    assert heard[-1] == 40


def test_with_a_state(driver: Driver) -> None:
    """A loop that carries something is shown as any other."""
    heard: list[int] = []
    items = driver.items(range(30), name="loop", progress=lambda info: heard.append(info.done))
    with items.state(total=0) as state:
        for number in items:
            state.total += number
            time.sleep(0.01)
    assert state.total == sum(range(30))
    assert heard[0] == 0
    assert heard[-1] == 30
    assert len(heard) >= 3


@pytest.mark.parametrize("source", ["sync", "async"])
def test_async_for(driver: Driver, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An `async for` is shown as a `for` is, from where it goes on."""
    heard: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(40):
            yield number

    async def body(until: int) -> None:
        given: Any = numbers() if source == "async" else range(40)
        async for number in driver.items(given, name="loop", progress=lambda info: heard.append(info.done)):
            await asyncio.sleep(0.01)
            if number == until:
                break

    asyncio.run(body(20))
    assert (heard[0], heard[-1]) == (0, 20)
    assert len(heard) >= 3
    heard.clear()
    asyncio.run(body(-1))
    assert (heard[0], heard[-1]) == (20, 40)
    assert re.search(r"'loop' goes on \(run #2\): 20 .*done and left out, about \d+ ms saved", capsys.readouterr().err)


def test_durations_are_few(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many items are measured, a bounded number of durations is kept, and seldom."""
    monkeypatch.setattr(watch, "_SLOW", 0.0)    # measure each
    kept = []
    items = driver.items(range(2000), name="loop", verbose=True)
    for item in items:
        if item == 1999:
            run = items._loop.run
            assert run is not None
            kept = run.described("durations")
    assert watch.FEWEST <= len(kept) <= watch._MOST
    assert driver.info("loop").status == "finished"


KILLED = """
items = Driver(STATE).items(range(60), name="loop", progress=True)
for number in items:
    time.sleep(0.01)
    if number == int(sys.argv[2]):
        kill()
"""


def test_durations_survive_a_kill(script: Callable[..., tuple[int, str, str]]) -> None:
    """After kill -9 the resume knows how long the items took."""
    assert script(KILLED, 30)[0] == -9
    code, _, errors = script(KILLED, -1)
    assert code == 0
    found = re.search(r"'loop' goes on \(run #2\): 30 of 60 \(50 %\) done and left out, about (\d+) ms saved", errors)
    assert found
    assert 300 <= int(found[1]) < 900
    assert "loop: 60 of 60 (100 %)" in errors


# ---- verbose


def test_what_verbose_tells(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """A verbose loop says when it begins, fails or stops and where that is kept, goes on, and is complete: on stderr."""
    go(driver, range(50), until=23, verbose=True)
    told = "resumable: 'loop' begins: 50 items\n"
    told += f"resumable: 'loop' failed at item 23 (Stumble: no luck): 23 of 50 (46 %) done, kept in {where(driver)}\n"
    assert capsys.readouterr() == ("", told)
    with pytest.raises(KeyboardInterrupt):
        go(driver, range(50), until=30, error=KeyboardInterrupt(), verbose=True)
    err = capsys.readouterr().err
    assert re.match(r"resumable: 'loop' goes on \(run #2\): 23 of 50 \(46 %\) done and left out(, about \d+ ms saved)?\n", err)
    assert f"'loop' stopped at item 30 (KeyboardInterrupt): 30 of 50 (60 %) done, kept in {where(driver)}\n" in err
    for _ in driver.items(range(50), name="loop", verbose=True):
        break
    assert "(run #3)" in (err := capsys.readouterr().err)
    assert "'loop' stopped at item 30: 30 of 50 (60 %) done, kept in" in err
    go(driver, range(50), verbose=True)
    err = capsys.readouterr().err
    assert "'loop' goes on (run #4)" in err
    assert re.search(r"'loop' is complete: 50 items, 20 of them now, in \d+ ms\n$", err)
    go(driver, iter(range(1)), verbose=True)
    err = capsys.readouterr().err
    assert re.fullmatch(r"resumable: 'loop' begins\nresumable: 'loop' is complete: 1 item, in \d+ ms\n", err)


def where(driver: Driver) -> str:
    return str(driver._open().home.where)


def test_secrets_are_not_told(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure's message is masked as it is where failures are kept."""
    with pytest.raises(Stumble):
        go(driver, range(3), until=0, error=Stumble("cannot reach postgres://me:hunter2secret@db/x"), verbose=True)
    err = capsys.readouterr().err
    assert "cannot reach postgres://" in err
    assert "hunter2secret" not in err


def test_quiet(driver: Driver, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """RESUMABLE_QUIET=1 silences whatever the library writes, and no function of the user's."""
    monkeypatch.setenv("RESUMABLE_QUIET", "1")
    heard: list[ProgressInfo] = []
    go(driver, range(30), until=10, each=0.002, progress=True, verbose=True)
    go(driver, range(30), until=20, each=0.002, progress=heard.append, verbose=True)
    assert capfd.readouterr() == ("", "")
    assert heard[-1].done == 20
    bar = tqdm.tqdm(file=sys.stderr)
    go(driver, range(30), progress=bar)
    bar.close()
    err = capfd.readouterr().err
    assert "30/30" in err
    assert "resumable" not in err


# ---- decorated functions


class Mailer:
    """What a function needs beside its items, and that fails once."""

    fails_at = -1


def send_all(users: Iterable[int]) -> int:
    sent = 0
    for user in users:
        if user == Mailer.fails_at:
            raise Stumble("no luck")
        sent += 1
    return sent


def sends_too_late(users: Iterable[int]) -> None:
    for _ in users:
        pass
    raise Stumble("too late")


def test_a_verbose_function(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """A decorated function tells of its lives as a loop does, and of a failure behind its loop as that."""
    sends = loop(driver=driver, name="mail", verbose=True)(send_all)
    Mailer.fails_at = 23
    with pytest.raises(Stumble):
        sends(range(50))
    told = "resumable: 'mail' begins: 50 items\n"
    told += f"resumable: 'mail' failed at item 23 (Stumble: no luck): 23 of 50 (46 %) done, kept in {where(driver)}\n"
    assert capsys.readouterr() == ("", told)
    peeked = sends.peek_checkpoint()
    assert peeked is not None
    assert peeked.progress() == ProgressInfo("mail", 23, 50, 23, 0.0)
    Mailer.fails_at = -1
    assert sends(range(50)) == 27
    err = capsys.readouterr().err
    assert re.match(r"resumable: 'mail' goes on \(run #2\): 23 of 50 \(46 %\) done and left out(, about \d+ ms saved)?\n", err)
    assert re.search(r"'mail' is complete: 50 items, 27 of them now, in \d+ ms\n$", err)
    late = loop(driver=driver, name="late", verbose=True)(sends_too_late)
    with pytest.raises(Stumble):
        late(range(5))
    assert "'late' failed after its last item (Stumble: too late): 5 of 5 (100 %) done, kept in" in capsys.readouterr().err


@pytest.mark.usefixtures("plain_now")
def test_progress_of_a_function(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """The progress of a decorated function's loop stands still when the loop does, not when the function returns."""
    heard: list[ProgressInfo] = []

    @loop(driver=driver, name="shown", progress=heard.append)
    def shown(numbers: Iterable[int]) -> ProgressInfo:
        for _ in numbers:
            pass
        return heard[-1]

    assert shown(range(5)).done == 5
    assert len(heard) == 2


def test_a_verbose_function_that_is_no_loop(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """What saves its own states tells how its lives begin and end."""

    @loop(driver=driver, name="pages", auto_iterate=False, verbose=True)
    def pages(count: int) -> int:
        page: int = resumable.saved({"page": 0})["page"]
        resumable.save(page=page + 1)
        if page < count:
            raise Stumble("no luck")
        return page

    with pytest.raises(Stumble):
        pages(1)
    assert pages(1) == 1
    assert capsys.readouterr().err.splitlines() == [
        "resumable: 'pages' begins",
        f"resumable: 'pages' failed (Stumble: no luck): what it saved last is in {where(driver)}",
        "resumable: 'pages' goes on (run #2)",
        "resumable: 'pages' is complete",
    ]
    with pytest.raises(ValueError, match="there are none"):
        loop(auto_iterate=False, progress=True)


@pytest.mark.parametrize("how", ["break", "end", "failure"])
def test_no_thread_is_left(driver: Driver, how: str) -> None:
    """However a loop ends, what looked on is gone with it."""
    for item in driver.items(range(3), name="loop", progress=lambda info: None):
        if how == "break" and item == 1:
            break
    if how == "failure":
        go(driver, range(3), until=1, progress=lambda info: None)
    deadline = time.monotonic() + 5
    while any(thread.name == "progress of loop" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
