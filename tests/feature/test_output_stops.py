"""Output files and what may come in between: Ctrl-C, forked children, kills, a record that is not published."""

from __future__ import annotations

import errno
import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resumable
from resumable import Driver, Preempted
from resumable.work.loop import Loop


class Broken(Exception):
    """Stands for a failure of ours."""


def rows(count: int) -> str:
    return "".join(f"{item}: " + "-" * (item % 90) + "\n" for item in range(count))


def write(driver: Driver, path: Path, count: int) -> None:
    with resumable.open(path) as file:
        for item in driver.items(range(count), name="loop"):
            file.write(f"{item}: ")
            file.write("-" * (item % 90) + "\n")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")      # one that comes while an object dies
def test_ctrl_c_at_any_time(driver: Driver, tmp_path: Path) -> None:
    """Interrupted at moments of chance, again and again, a loop ends with the right file."""
    path, count, stops = tmp_path / "out", 20_000, 0
    earlier = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        while True:
            signal.setitimer(signal.ITIMER_REAL, 0.002 + stops % 13 * 0.003)
            try:
                write(driver, path, count)
                break
            except KeyboardInterrupt:
                stops += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert stops
    assert path.read_text() == rows(count)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_record_that_may_be_published(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """An error from saving a mark, before or after it was published, leaves a file that the loop goes on with."""
    path = tmp_path / "out"
    whole = Loop.save

    def save(self: Loop, done: int) -> None:
        if done == 300:
            if when == "after":
                run = self.run
                assert run is not None
                monkeypatch.setattr(run, "save", lambda made: (type(run).save(run, made), broken()))
                run.write.attention = 1
            else:
                monkeypatch.setattr(self.run, "save", lambda made: broken())
                assert self.run is not None
                self.run.write.attention = 1
        whole(self, done)

    def broken() -> None:
        raise Broken

    monkeypatch.setattr(Loop, "save", save)

    def body() -> None:
        items = driver.items(range(1000), name="loop")
        with resumable.open(path) as file:
            for item in items:
                file.write(f"{item}: " + "-" * (item % 90) + "\n")
                if item == 299:
                    items._loop.run.write.attention = 1     # type: ignore[union-attr]

    with pytest.raises(Broken):
        body()
    assert driver.info("loop").seq == (300 if when == "after" else 299)
    monkeypatch.undo()
    write(driver, path, 1000)
    assert path.read_text() == rows(1000)


def test_a_preempted_loop(tmp_path: Path) -> None:
    """A loop that a signal stops at a mark goes on behind it."""
    path = tmp_path / "out"

    def body() -> None:
        with Driver(tmp_path / "state", preempt=(signal.SIGUSR1,)) as driver, resumable.open(path) as file:
            for item in driver.items(range(1000), name="loop"):
                file.write(f"{item}: " + "-" * (item % 90) + "\n")
                if item == 500 and not (tmp_path / "stopped").exists():
                    (tmp_path / "stopped").touch()
                    os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Preempted):
        body()
    body()
    assert path.read_text() == rows(1000)


FORKING = """
import resumable
driver = Driver(STATE)
with resumable.open("out") as file:
    for item in driver.items(range(2000), name="loop"):
        file.write(f"{item}: " + "-" * (item % 90) + "\\n")
        if item % 500 == 7:
            if os.fork() == 0:
                if item > 1000:
                    os._exit(0)
                try:
                    for _ in range(9):
                        file.write("the child's")
                    sys.exit(0)     # leaves the loop, and closes the file
                finally:
                    file.close()
            os.wait()
    file.write("foot")
"""


def test_a_forked_child(script: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """A child that is forked inside an item, and leaves by whatever way, does not touch the file."""
    code, _, errors = script(FORKING)
    assert code == 0, errors
    assert (tmp_path / "out").read_text() == rows(2000) + "foot"


KILLED = """
import resumable
with Driver(STATE) as driver, resumable.csv_writer("rows.csv", header=["n", "text"]) as writer, resumable.open("out") as file:
    for item in driver.items(range(40), name="loop"):
        file.write(f"{item}: ")
        writer.writerow([item, "-" * item * 5])
        if item == int(sys.argv[2]):
            kill()
        file.write("-" * (item % 90) + "\\n")
"""


def test_killed_at_each_item(script: Callable[..., Any], tmp_path: Path) -> None:
    """Killed in the middle of items, a loop ends with the files of one that was not."""
    for at in range(0, 40, 3):
        assert script(KILLED, at)[0] == -9
    assert script(KILLED, -1) == (0, "", "")
    assert (tmp_path / "out").read_text() == rows(40)
    lines = ["n,text", *(f"{item},{'-' * item * 5}" for item in range(40))]
    assert (tmp_path / "rows.csv").read_bytes().decode() == "".join(line + "\r\n" for line in lines)


FILLED = """
import os, resource, resumable
from resumable.errors import StorageError
try:
    with Driver(STATE) as driver, resumable.open("out", "a") as file:
        for item in driver.items(range(40), name="loop"):
            if sys.argv[2] == "filled" and item == 10:      # no more than 700 bytes of the next 2010, whatever asks
                resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat("out").st_size + 700, resource.RLIM_INFINITY))
            file.write("-" * 1004 + "\\n")
except StorageError as error:
    print(error.errno, os.stat("out").st_size)
"""


def test_a_write_that_fails_in_its_middle(script: Callable[..., Any], tmp_path: Path) -> None:
    """Of a write that is taken in part nothing stays: the loop tells what failed, and goes on when there is room."""
    before = b"+" * (16 << 20)      # so that the limit meets no file of the run
    (tmp_path / "out").write_bytes(before)
    code, out, err = script(FILLED, "filled")
    assert (code, out.split()[:1]) == (0, [str(errno.EFBIG)]), err
    size = int(out.split()[1])
    assert (size - len(before)) % 1005 == 0
    assert script(FILLED, "") == (0, "", "")
    assert (tmp_path / "out").read_bytes() == before + (b"-" * 1004 + b"\n") * 40


INTERRUPTED = """
import os, resource, resumable
whole = os.ftruncate
def ftruncate(fd, size):
    if sys.argv[2] == "cut" and os.readlink(f"/proc/self/fd/{fd}").endswith("/out"):
        os.ftruncate = whole
        raise KeyboardInterrupt
    whole(fd, size)
os.ftruncate = ftruncate
with Driver(STATE) as driver, resumable.open("out", "a") as file:
    for item in driver.items(range(40), name="loop"):
        if sys.argv[2] and item == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat("out").st_size, resource.RLIM_INFINITY))
        file.write("-" * 99 + "\\n")
        if sys.argv[2] == "body" and item == 7:
            raise KeyboardInterrupt
"""


@pytest.mark.parametrize("where", ["body", "cut"])
def test_ctrl_c_on_a_full_disk(script: Callable[..., Any], tmp_path: Path, where: str) -> None:
    """Ctrl-C is what stops a loop, though what its records hold cannot be written to its file: the next life does."""
    before = b"+" * (16 << 20)
    (tmp_path / "out").write_bytes(before)
    code, _, err = script(INTERRUPTED, where)
    assert code == -signal.SIGINT, err
    assert script(INTERRUPTED, "") == (0, "", "")
    assert (tmp_path / "out").read_bytes() == before + (b"-" * 99 + b"\n") * 40


HELD = """
import resource, resumable
driver = Driver(STATE)
files = [resumable.open(f"out{number}") for number in range(3)]
for item in driver.items(range(3), name="loop"):
    for file in files:
        file.write("x")
for file in files:
    file.write("foot")
resource.setrlimit(resource.RLIMIT_FSIZE, (3, resource.RLIM_INFINITY))
"""


def test_a_full_disk_at_exit(script: Callable[..., Any], tmp_path: Path) -> None:
    """Of files that are closed at exit each that cannot be written is named."""
    code, _, err = script(HELD)
    assert [f"out{number}: File too large" in err for number in range(3)] == [True] * 3, (code, err)


TOUCHED = """
import resumable
with Driver(STATE) as driver, resumable.open("out", sys.argv[2]) as file:
    file.write("head\\n")
    for item in driver.items(range(3), name="loop"):
        if sys.argv[3] == "leave":
            break
        file.write(f"{item}\\n")
    if sys.argv[3] == "leave":
        file.write("behind\\n")
"""


@pytest.mark.parametrize("mode", ["w", "x", "a"])
def test_a_loop_that_is_left_before_its_first_mark(script: Callable[..., Any], tmp_path: Path, mode: str) -> None:
    """What is written behind a loop of which no record tells does not touch the file: a later life begins with what was there."""
    path = tmp_path / "out"
    if mode != "x":
        path.write_text("before\n")
    assert script(TOUCHED, mode, "leave") == (0, "", "")
    assert (path.read_text() if path.exists() else None) == ("before\n" if mode != "x" else None)
    assert script(TOUCHED, mode, "stay") == (0, "", "")
    assert path.read_text() == ("before\n" if mode == "a" else "") + "head\n0\n1\n2\n"


BEHIND = """
import resumable
with Driver(STATE) as driver, resumable.open("out") as file:
    for item in driver.items(range(3), name="loop"):
        file.write(f"{item}\\n")
        if item == 1 and sys.argv[2] == "leave":
            break
    if sys.argv[2] == "leave":
        file.write("behind\\n")
        raise SystemExit(7)
"""


def test_what_is_written_behind_a_loop_that_was_left(script: Callable[..., Any], tmp_path: Path) -> None:
    """It is in the file, also where an exception closes that, until the loop goes on."""
    assert script(BEHIND, "leave")[0] == 7
    assert (tmp_path / "out").read_text() == "0\nbehind\n"
    assert script(BEHIND, "stay") == (0, "", "")
    assert (tmp_path / "out").read_text() == "0\n1\n2\n"


# statx, by its number on this processor, is refused with EPERM, as old sandboxes do.
SANDBOXED = """
import ctypes, platform, resumable, struct
number = {"x86_64": 332, "aarch64": 291}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
filter = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(code)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, filter, 0, 0) == 0, ctypes.get_errno()
with Driver(STATE) as driver, resumable.open("out") as file:
    for item in driver.items(range(200), name="loop"):
        file.write(f"{item}: " + "-" * (item % 90) + "\\n")
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the number of statx is another one")
def test_a_sandbox_without_statx(script: Callable[..., Any], tmp_path: Path) -> None:
    """Where the kernel refuses statx a file's size is asked for the old way."""
    assert script(SANDBOXED) == (0, "", "")
    assert (tmp_path / "out").read_text() == rows(200)


BETWEEN = """
import resumable
from resumable.values import outputs
left, whole = int(sys.argv[2]), outputs.noting
def noting(path):
    def written():
        global left
        left -= 1
        if left == 0:
            kill()
        note()
    note = whole(path)
    return written
outputs.noting = noting
with Driver(STATE) as driver, resumable.open("out") as file:
    for item in driver.items(range(200), name="loop"):
        file.write(f"{item}: " + "-" * (item % 90) + "\\n")
"""


def test_killed_between_a_write_and_its_record(script: Callable[..., Any], tmp_path: Path) -> None:
    """What a file has that no record tells of is cut when the loop goes on, and written again by its items."""
    sizes = []
    for at in (1, 2, 3, 4):
        assert script(BETWEEN, at)[0] == -9
        sizes.append((tmp_path / "out").stat().st_size)
    assert sizes[0] > 1024
    (tmp_path / "out").write_bytes((tmp_path / "out").read_bytes() + b"of an item that was at hand")
    assert script(BETWEEN, 0) == (0, "", "")
    assert (tmp_path / "out").read_text() == rows(200)
