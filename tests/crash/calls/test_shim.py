"""The fault shim itself: each kind of call is seen, fails when told to, and only then."""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path

import pytest
from shim import OPS, count_calls, run_with_faults

pytestmark = pytest.mark.crash

# One call of every kind on files of a directory; each that fails is named with its errno.
EVERY_KIND = """
import ctypes, fcntl, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, call):
    try:
        return call()
    except OSError as error:
        print(name, error.errno)
os.chdir(sys.argv[1])
fd = attempt("open", lambda: os.open("file", os.O_RDWR | os.O_CREAT))
if fd is None:
    sys.exit()
print("written", attempt("write", lambda: os.write(fd, b"12345678")))
print("pwritten", attempt("pwrite", lambda: os.pwrite(fd, b"12345678", 8)))
attempt("fsync", lambda: os.fsync(fd))
attempt("fdatasync", lambda: os.fdatasync(fd))
attempt("ftruncate", lambda: os.ftruncate(fd, 4096))
if libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(4096)):
    print("fallocate", ctypes.get_errno())
attempt("posix_fallocate", lambda: os.posix_fallocate(fd, 0, 4096))
attempt("flock", lambda: fcntl.flock(fd, fcntl.LOCK_EX))
view = attempt("mmap", lambda: mmap.mmap(fd, 4096))
if view:
    attempt("msync", view.flush)
attempt("mkdir", lambda: os.mkdir("directory"))
attempt("rmdir", lambda: os.rmdir("directory"))
attempt("rename", lambda: os.rename("file", "other"))
attempt("unlink", lambda: os.unlink("other"))
print("end")
"""

FIVE_WRITES = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for i in range(5):
    try:
        print(os.pwrite(fd, b"x", i))
    except OSError:
        print("E")
"""
TWO_FORKS = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for i in range(2):
    if os.fork() == 0:
        os.pwrite(fd, b"x", i)
        os._exit(0)
    os.wait()
os.pwrite(fd, b"x", 2)
"""


def program(directory: Path) -> list[str]:
    return [sys.executable, "-S", "-c", EVERY_KIND, str(directory)]


def test_every_kind_is_counted(tmp_path: Path) -> None:
    """An undisturbed run is left alone, and each of its calls is counted once, with its file."""
    calls = count_calls(program(tmp_path), under=tmp_path)
    assert sorted(call.op for call in calls) == sorted(OPS)
    assert {call.path for call in calls if call.op not in ("msync", "mkdir", "rmdir", "unlink")} == {
        str(tmp_path / "file")
    }
    assert len({call.pid for call in calls}) == 1
    assert len(count_calls(program(tmp_path))) > len(calls), "without `under` the interpreter's own files are seen"


@pytest.mark.parametrize("op", OPS)
def test_a_call_fails_as_told(op: str, tmp_path: Path) -> None:
    """The chosen call fails with the chosen errno, one beyond the last disturbs nothing, a kill comes before it."""
    places = [tmp_path / name for name in ("failed", "undisturbed", "killed")]
    for place in places:
        place.mkdir()
    failed = run_with_faults(program(places[0]), op, 1, errno.ENOSPC, under=places[0])
    assert f"{op} {errno.ENOSPC}" in failed.stdout
    assert failed.returncode == 0
    assert op == "open" or failed.stdout.endswith("end\n")
    undisturbed = run_with_faults(program(places[1]), op, 2, errno.ENOSPC, under=places[1])
    assert undisturbed.stdout == "written 8\npwritten 8\nend\n"
    killed = run_with_faults(program(places[2]), op, 1, under=places[2], kill=True)
    assert killed.returncode == -signal.SIGKILL
    assert op != "unlink" or (places[2] / "other").exists()


def test_short_writes(tmp_path: Path) -> None:
    """A short write takes half of the bytes, and says so."""
    assert "written 4\npwritten 8" in run_with_faults(program(tmp_path), "write", short=True, under=tmp_path).stdout
    assert "written 8\npwritten 4" in run_with_faults(program(tmp_path), "pwrite", short=True, under=tmp_path).stdout


@pytest.mark.parametrize("persistent", [False, True])
def test_once_or_from_then_on(persistent: bool, tmp_path: Path) -> None:
    """Without `persistent` the call after works again; with it none does."""
    argv = [sys.executable, "-S", "-c", FIVE_WRITES, str(tmp_path / "file")]
    done = run_with_faults(argv, "pwrite", 3, errno.EIO, persistent=persistent, under=tmp_path)
    assert done.stdout.split() == ["1", "1", "E", *(["E", "E"] if persistent else ["1", "1"])]


def test_forked_children_count_with_their_parent(tmp_path: Path) -> None:
    """The k-th call is the k-th of parent and forked child together."""
    argv = [sys.executable, "-S", "-c", TWO_FORKS, str(tmp_path / "file")]
    calls = count_calls(argv, "pwrite", under=tmp_path)
    assert len(calls) == len({call.pid for call in calls}) == 3
    assert run_with_faults(argv, "pwrite", 3, kill=True, under=tmp_path).returncode == -signal.SIGKILL
    assert run_with_faults(argv, "pwrite", 4, kill=True, under=tmp_path).returncode == 0


def test_an_unknown_kind_is_refused() -> None:
    """A kind that the shim does not know is an error, not a run without faults."""
    with pytest.raises(ValueError, match="sync_file_range"):
        run_with_faults(["true"], "sync_file_range")
