"""The lock of a run: one holder at a time, free the instant the holder is gone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resumable.errors import RunLockedError, StorageError
from resumable.storage import lock as lock_module
from resumable.storage.lock import RunLock, peek

HOLD = """
import sys, time
from resumable.storage.lock import RunLock
lock = RunLock.acquire(sys.argv[1], "totals")
print("held", flush=True)
time.sleep(60)
"""

RACE = """
import sys
from resumable.errors import RunLockedError
from resumable.storage.lock import RunLock
for line in sys.stdin:
    try:
        lock = RunLock.acquire(line.strip(), "totals")
        print("won", flush=True)
        sys.stdin.readline()
        lock.remove_and_release()
    except RunLockedError as error:
        print("lost", error.pid, flush=True)
        sys.stdin.readline()
    print("done", flush=True)
"""


def start(script: str, *arguments: str, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*wrapper, sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "lock"


def test_a_second_process_is_refused_by_name(path: Path) -> None:
    """The loser's error names the run, and the winner's pid, host and start time."""
    before = time.time()
    holder = start(HOLD, str(path))
    try:
        assert read_line(holder) == "held"
        with pytest.raises(RunLockedError, match=f"'totals' is held by process {holder.pid} on ") as caught:
            RunLock.acquire(path, "totals")
        error = caught.value
        assert (error.run, error.pid, error.host) == ("totals", holder.pid, os.uname().nodename)
        assert before <= error.since <= time.time()
    finally:
        finish(holder)


def test_a_killed_holder_leaves_the_lock_free(path: Path) -> None:
    """After SIGKILL of the holder the next start succeeds at once, over its stale record."""
    holder = start(HOLD, str(path))
    assert read_line(holder) == "held"
    finish(holder)
    assert json.loads(path.read_bytes())["pid"] == holder.pid
    assert peek(path) is None
    started = time.monotonic()
    RunLock.acquire(path, "totals").release()
    assert time.monotonic() - started < 0.5


def test_one_process_cannot_hold_it_twice(path: Path) -> None:
    """Two threads of one process, and one thread twice, exclude each other, and the message says it is this process."""
    held = RunLock.acquire(path, "totals")
    caught: list[Exception] = []

    def second() -> None:
        try:
            RunLock.acquire(path, "totals")
        except RunLockedError as error:
            caught.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    assert "this very process" in str(caught[0])
    with pytest.raises(RunLockedError, match="this very process"):
        RunLock.acquire(path, "totals")
    held.release()


def test_release_frees_it_and_may_be_repeated(path: Path) -> None:
    """After `release` the next start succeeds, and releasing again does not touch the new holder."""
    first = RunLock.acquire(path, "totals")
    first.release()
    second = RunLock.acquire(path, "totals")
    first.release()
    first.remove_and_release()
    with pytest.raises(RunLockedError):
        RunLock.acquire(path, "totals")
    second.release()


def test_the_file_is_private_and_not_inherited(path: Path) -> None:
    """The lock file is 0600 in a folder of 0700 under any umask, and an executed program gets no descriptor of it."""
    umask = os.umask(0)
    try:
        held = RunLock.acquire(path, "totals")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    listing = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False)
    assert str(path) not in listing.stdout
    held.release()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """A symbolic link in the lock file's place is refused, and its target is left alone."""
    target = tmp_path / "precious"
    target.write_text("data")
    path.parent.mkdir()
    path.symlink_to(target)
    with pytest.raises(StorageError):
        RunLock.acquire(path, "totals")
    with pytest.raises(StorageError):
        peek(path)
    assert target.read_text() == "data"


def test_a_link_to_nothing_makes_nothing(path: Path, tmp_path: Path) -> None:
    """A symbolic link in the lock file's place that leads nowhere is refused, and no file is made where it leads."""
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        RunLock.acquire(path, "totals")
    assert not (tmp_path / "elsewhere").exists()


def test_other_opens_and_closes_do_not_drop_it(path: Path) -> None:
    """Reading and closing the lock file in the holder's own process leaves it locked, unlike a POSIX lock."""
    held = RunLock.acquire(path, "totals")
    path.read_bytes()
    peek(path)
    with pytest.raises(RunLockedError):
        RunLock.acquire(path, "totals")
    held.release()


def test_peek_tells_the_holder_and_disturbs_nobody(path: Path) -> None:
    """`peek` gives the owner while it is held and None when it is free or was never made."""
    assert peek(path) is None
    held = RunLock.acquire(path, "totals")
    owner = peek(path)
    assert owner is not None
    assert (owner.pid, owner.run, owner.host) == (os.getpid(), "totals", os.uname().nodename)
    held.release()
    assert peek(path) is None


def test_a_start_beside_peeks_succeeds(path: Path) -> None:
    """Someone who peeks all the time makes no start fail."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            peek(path)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(200):
            RunLock.acquire(path, "totals").release()
    finally:
        stop.set()
        watcher.join()


def test_an_unreadable_record_still_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's lock decides: with no record to read the error has no names, and `peek` gives empty fields."""
    monkeypatch.setattr(lock_module, "_LOOKS_FOR_RECORD", 5)
    path.parent.mkdir()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for record in ("", "{", "[]", '{"pid": 1}'):
            path.write_text(record)
            with pytest.raises(RunLockedError, match="another process") as caught:
                RunLock.acquire(path, "totals")
            assert caught.value.pid is None
            owner = peek(path)
            assert owner is not None
            assert owner.pid == 0


def test_a_folder_removed_while_starting_is_made_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock taken on a file that its last holder removed meanwhile is no lock: the start begins again."""
    last = RunLock.acquire(path, "totals")
    lock_file = fcntl.flock
    removed: list[bool] = []

    def remove_first(fd: int, operation: int) -> None:
        if not removed and operation & fcntl.LOCK_EX:
            removed.append(True)
            last.remove_and_release()
        lock_file(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    held = RunLock.acquire(path, "totals")
    assert removed
    assert os.path.samestat(os.stat(path), os.fstat(held._fd or -1))
    held.release()


@pytest.mark.parametrize("call", ["flock", "ftruncate", "pwrite", "sleep"])
def test_an_interrupted_start_holds_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Ctrl-C or an error anywhere in `acquire` leaves the lock free, even while its traceback is alive."""
    holder = RunLock.acquire(path, "totals") if call == "sleep" else None

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr({"flock": fcntl, "sleep": time}.get(call, os), call, interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            RunLock.acquire(path, "totals")
    if holder is not None:
        holder.release()
    RunLock.acquire(path, "totals").release()
    assert caught.traceback


def test_a_dropped_lock_is_free(path: Path) -> None:
    """A lock that nobody has any more is released."""
    RunLock.acquire(path, "totals")
    RunLock.acquire(path, "totals").release()


def test_remove_takes_the_folder_only_when_empty(path: Path) -> None:
    """`remove_and_release` removes the file and an empty folder, and leaves a folder with other files."""
    RunLock.acquire(path, "totals").remove_and_release()
    assert not path.parent.exists()
    held = RunLock.acquire(path, "totals")
    (path.parent / "0.0").touch()
    held.remove_and_release()
    assert os.listdir(path.parent) == ["0.0"]


def test_the_file_goes_while_it_is_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets the lock on a file that its holder is about to remove: he would hold what is nothing to the next one."""
    refused: list[RunLockedError] = []

    def unlink(target: Path, remove: Callable[[Path], None] = os.unlink) -> None:
        with pytest.raises(RunLockedError) as caught:
            RunLock.acquire(path, "totals")
        refused.append(caught.value)
        remove(target)

    held = RunLock.acquire(path, "totals")
    monkeypatch.setattr(os, "unlink", unlink)
    held.remove_and_release()
    assert len(refused) == 1
    assert not path.exists()


def in_child(action: Callable[[], object]) -> int:
    """Fork, call, and give the child's exit status: 0 if it returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_does_not_free_the_parents_lock(path: Path) -> None:
    """A child that releases, removes or exits leaves the parent's lock as it is."""
    held = RunLock.acquire(path, "totals")
    for action in (held.release, held.remove_and_release, lambda: None):
        assert in_child(action) == 0
        assert path.exists()
        with pytest.raises(RunLockedError):
            RunLock.acquire(path, "totals")
    held.release()


def test_a_forked_child_can_lock_another_run(path: Path) -> None:
    """Locking works in a child, whatever its parent holds."""
    held = RunLock.acquire(path, "totals")
    assert in_child(lambda: RunLock.acquire(path.with_name("other"), "other").release()) == 0
    held.release()


def test_a_child_that_outlives_its_parent_holds_nothing(path: Path) -> None:
    """When the holder is killed, its forked child that lives on does not keep the lock."""
    # One write each: with PYTHONUNBUFFERED a printed line is two, and those of parent and child would mix.
    script = HOLD.replace("time.sleep", "import os; child = os.fork(); os.write(1, b'%d\\n' % child); time.sleep")
    holder = start(script, str(path))
    assert read_line(holder) == "held"
    child = max(int(read_line(holder)), int(read_line(holder)))
    try:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        os.kill(child, 0)
        assert peek(path) is None
        RunLock.acquire(path, "totals").release()
    finally:
        os.kill(child, signal.SIGKILL)
        finish(holder)


def test_of_two_starters_exactly_one_wins(path: Path) -> None:
    """In every race one wins, the loser's error names the winner, and the folder's removal confuses neither."""
    racers = [start(RACE), start(RACE)]
    try:
        for _ in range(200):
            for line in (f"{path}\n", "\n"):
                for racer in racers:
                    assert racer.stdin is not None
                    racer.stdin.write(line)
                    racer.stdin.flush()
                answers = [read_line(racer) for racer in racers]
                if line == "\n":
                    assert answers == ["done", "done"]
                else:
                    winner = answers.index("won")
                    assert answers[1 - winner] == f"lost {racers[winner].pid}"
    finally:
        finish(*racers)


@pytest.mark.skipif(os.geteuid() != 0, reason="making a pid namespace needs root")
def test_a_holder_in_another_container_is_named(path: Path) -> None:
    """A holder whose pid means nothing here is named as it named itself."""
    holder = start(HOLD, str(path), wrapper=("unshare", "--pid", "--fork", "--kill-child"))
    try:
        assert read_line(holder) == "held"
        with pytest.raises(RunLockedError) as caught:
            RunLock.acquire(path, "totals")
        assert caught.value.pid == 1
    finally:
        finish(holder)


def test_a_lock_that_cannot_be_asked_for_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails while `peek` asks is told with an error of ours."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    RunLock.acquire(path, "job").release()
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(StorageError, match="cannot see who holds a run"):
        peek(path)
