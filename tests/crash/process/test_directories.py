"""State directories that are not writable, not ours, or open to others, as a user who is not root meets them."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from figures import Figures
from harness import Server

pytestmark = [pytest.mark.crash, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")]

US, OTHERS = 54321, 54322

class Refused(NamedTuple):
    """A directory that is refused: how it is prepared, the error, and what the message says is to be done."""

    name: str
    prepare: Callable[[Path], Path]
    error: str
    advice: str
    existing: bool = False      # a run had begun there before


def closed(place: Path) -> Path:
    place.chmod(0o500)
    return place


def all_closed(place: Path) -> Path:
    subprocess.run(["chmod", "-R", "a-w", place], check=True)
    return place


def below_closed(place: Path) -> Path:
    place.chmod(0o500)
    return place / "state"


def foreign(place: Path) -> Path:
    os.chown(place, OTHERS, OTHERS)
    place.chmod(0o755)
    return place


def group_writable(place: Path) -> Path:
    place.chmod(0o770)
    return place


def world_writable(place: Path) -> Path:
    place.chmod(0o777)
    return place


def read_only(place: Path) -> Path:
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    return place


def link_of_others(place: Path) -> Path:
    link = place.parent / "link"
    link.symlink_to(place)
    os.chown(link, OTHERS, OTHERS, follow_symlinks=False)
    return link


def link_to_others(place: Path) -> Path:
    foreign(place)
    link = place.parent / "link"
    link.symlink_to(place)
    os.chown(link, US, US, follow_symlinks=False)
    return link


def file_instead(place: Path) -> Path:
    (place / "state").write_text("mine")
    os.chown(place / "state", US, US)
    return place / "state"


WRITABLE = "make it writable for this user"
REFUSED = [
    Refused("mode 0500", closed, "ReadOnlyError", WRITABLE),
    Refused("in a directory of mode 0500", below_closed, "ReadOnlyError", WRITABLE),
    Refused("read-only mount", read_only, "ReadOnlyError", WRITABLE),
    Refused("another owner's", foreign, "UnsafeDirectoryError", "choose a directory of your own"),
    Refused("group-writable", group_writable, "UnsafeDirectoryError", "chmod go-w"),
    Refused("world-writable", world_writable, "UnsafeDirectoryError", "chmod go-w"),
    Refused("another user's link", link_of_others, "UnsafeDirectoryError", "choose a directory of your own"),
    Refused("a link to another user's", link_to_others, "UnsafeDirectoryError", "choose a directory of your own"),
    Refused("a file", file_instead, "StorageError", "remove it, or choose another path"),
    Refused("nothing writable since", all_closed, "ReadOnlyError", WRITABLE, existing=True),
    Refused("read-only mount since", read_only, "ReadOnlyError", WRITABLE, existing=True),
    Refused("another owner's since", foreign, "UnsafeDirectoryError", "choose a directory of your own", existing=True),
    Refused("group-writable since", group_writable, "UnsafeDirectoryError", "chmod go-w", existing=True),
    Refused("world-writable since", world_writable, "UnsafeDirectoryError", "chmod go-w", existing=True),
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("directory_jobs") as server:
        yield server


@contextmanager
def place_of_ours() -> Iterator[Path]:
    """An empty directory of the other user, where that one can get at it."""
    base = Path(tempfile.mkdtemp(prefix="resumable-", dir="/tmp"))
    base.chmod(0o755)
    place = base / "place"
    place.mkdir(0o700)
    os.chown(place, US, US)
    try:
        yield place
    finally:
        # A bind mount is not told from what is around it: it is taken away where there is one.
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", base], check=True)


def run_as_us(server: Server, directory: Path, umask: str = "077", plant: str | None = None) -> dict[str, Any]:
    """Three checkpoints more by somebody who is not root; see directory_jobs.py."""
    return dict(server.live("run as", user=US, directory=str(directory), umask=umask, plant=plant).value())


def picture(base: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is there: owner, mode, content."""
    found = {}
    for path in sorted(base.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = status.st_uid, status.st_mode, content
    return found


def refuse(server: Server, case: Refused, plant: str | None = None) -> None:
    with place_of_ours() as place:
        if case.existing:
            assert run_as_us(server, place) == {"went": 3}
        directory = case.prepare(place)
        before = picture(place.parent)
        said = run_as_us(server, directory, plant=plant)
        assert said.get("error") == case.error, f"{case.name}: {said}"
        assert case.advice in str(said["message"]), f"{case.name}: {said}"
        after = picture(place.parent)
        assert after == before, f"{case.name}: {sorted(set(after) ^ set(before))} changed"


def test_refused_directories(server: Server, figures: Figures) -> None:
    """A directory that cannot or must not be used is refused by name, with what to do, and nothing in it changes."""
    for case in REFUSED:
        refuse(server, case)
    figures("R1", "refused", directories=len(REFUSED))


def test_directories_that_become_writable_again(server: Server, figures: Figures) -> None:
    """A run goes on where it was when its directory is made writable again."""
    cases = [case for case in REFUSED if case.existing and case.prepare not in (read_only, foreign)]
    for case in cases:
        with place_of_ours() as place:
            assert run_as_us(server, place) == {"went": 3}
            directory = case.prepare(place)
            assert run_as_us(server, directory)["error"] == case.error
            subprocess.run(["chmod", "-R", "u+w,go-w", place], check=True)
            assert run_as_us(server, directory) == {"went": 6}
    figures("R1", "made writable again", directories=len(cases))


def test_what_is_made_is_ours_alone(server: Server, figures: Figures) -> None:
    """Whatever the umask is, and through a link of our own, what is made is closed to everybody else."""
    for umask in ("000", "022", "077"):
        with place_of_ours() as place:
            link = place.parent / "link"
            link.symlink_to(place)
            os.chown(link, US, US, follow_symlinks=False)
            assert run_as_us(server, link / "below" / "state", umask) == {"went": 3}
            for path, (owner, mode, _) in picture(place).items():
                assert owner == US, path
                assert not stat.S_IMODE(mode) & 0o077, f"umask {umask}: {path} has mode {mode:o}"
    figures("R1", "open umasks", directories=3)


def test_control_a_careless_check(server: Server) -> None:
    """A library that looks at no owner and no mode is found out."""
    case = next(case for case in REFUSED if case.name == "world-writable")
    with pytest.raises(AssertionError, match="world-writable"):
        refuse(server, case, plant="look at no owner")
