"""Hostile pickles and memory bombs in state directories that are otherwise valid, checksums and all."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from compiled import cache_directory
from figures import Figures, chosen
from harness import scratch
from hostile_maker import DILL, PICKLE, PLACES, PLAIN, plant
from hostile_reader import MOST, job
from places import PYTHONPATH

from resumable import Driver
from resumable._fastlog import encode_plain
from resumable.errors import UndecodableStateError, UnsafeDirectoryError
from resumable.values.rng import GeneratorsWatch

pytestmark = pytest.mark.crash

Case = tuple[str, str, int, bytes]  # name of the bytes, place, tier, bytes
# What a pickle that is found out about is called in its error.
NEVER = "never unpickles"


@pytest.fixture
def canary() -> Iterator[Path]:
    """The file that anything unpickled makes: its path is short and has nothing to quote."""
    path = cache_directory() / f"canary-{os.getpid()}"
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A state directory to be."""
    with scratch() as place:
        yield place / "state"


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=600)


def read(directory: Path, codec: str, names: list[str]) -> dict[str, Any]:
    """What a process of 2 GB met that tried every public way; see hostile_reader.py."""
    done = python(Path(__file__).with_name("hostile_reader.py"), directory, codec, *names)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-3000:]}"
    return dict(json.loads(done.stdout))


def planted(directory: Path, cases: list[Case]) -> list[str]:
    """A run for each case; their names begin with the place."""
    names = []
    for number, (_, place, tier, data) in enumerate(cases):
        names.append(f"{place}/{number}")
        plant(directory, place, tier, data, names[-1])
    return names


def judge(found: dict[str, Any], directory: Path, canary: Path) -> list[str]:
    """What went wrong: a canary, a class that was asked for, much memory, an error of another kind or that names nothing."""
    wrong = [f"unpickled: {asked}" for asked in found["asked"]]
    if canary.exists():
        wrong.append("the canary is there")
    if found["peak"] > MOST:
        wrong.append(f"{found['peak'] >> 20} MB of memory")
    for way, name, error, message in found["met"]:
        if error is not None and not error.startswith("resumable."):
            wrong.append(f"{way} of {name}: {error}: {message[:200]}")
        elif error is not None and repr(name) not in message and str(directory) not in message:
            wrong.append(f"{way} of {name} does not say which: {error}: {message[:200]}")
    return wrong


def test_nothing_is_unpickled(directory: Path, canary: Path, seed: int, figures: Figures) -> None:
    """Under codec="plain" no hostile pickle is loaded, wherever it stands and however it is read; the errors name the run."""
    corpus = hostile.pickles(str(canary))
    every = [
        (name, place, tier, data) for number, (name, data) in enumerate(corpus.items()) for place in PLACES
        for tier in ((PICKLE, DILL)[number % 2],)
    ]  # fmt: skip
    cases = list(chosen(every, 40, seed))
    found = read(directory, "plain", planted(directory, cases))
    wrong = judge(found, directory, canary)
    refused = [message for _, _, error, message in found["met"] if error and NEVER in message]
    figures("Z2", f"{len(corpus)} pickles in {len(PLACES)} places", wrong=len(wrong), inputs=len(cases), tries=len(found["met"]))
    assert not wrong, "\n".join(wrong[:20])
    assert len(refused) > len(cases)


@pytest.mark.parametrize("codec", ["plain", "auto"])
def test_bombs_of_plain_data(codec: str, directory: Path, canary: Path, seed: int, figures: Figures) -> None:
    """No plain encoding, however long, deep or huge it says it is, takes more memory than a file of its size may."""
    bombs = hostile.plain_bombs()
    cases = list(chosen([(name, place, PLAIN, data) for name, data in bombs.items() for place in PLACES], 24, seed))
    found = read(directory, codec, planted(directory, cases))
    wrong = judge(found, directory, canary)
    figures("Z2", f"plain bombs, codec={codec!r}", wrong=len(wrong), inputs=len(cases), tries=len(found["met"]))
    assert not wrong, "\n".join(wrong[:20])


def test_the_command_line(directory: Path, canary: Path, seed: int, figures: Figures) -> None:
    """The command line looks at, checks and repairs a hostile directory without loading a pickle, and tells no traceback."""
    places = [place for place in PLACES if place != "meta"]
    every = [(name, place, PICKLE, data) for name, data in hostile.pickles(str(canary)).items() for place in places]
    cases = list(chosen(every, 12, seed))
    planted(directory, cases)
    copy = directory.with_name("copy")
    for arguments in ([directory], [directory, "--json"], ["check", directory], ["repair", directory, copy]):
        done = python("-m", "resumable", *arguments)
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        assert done.returncode in (0, 1)
        assert not canary.exists(), arguments
    figures("Z2", "command line", inputs=4 * len(cases))


def test_a_reader_that_unpickles_is_found(directory: Path, canary: Path) -> None:
    """The same check of a reader that does unpickle finds the canary, and every class that was asked for."""
    data = hostile.pickles(str(canary))["REDUCE of posix.system"]
    found = read(directory, "auto", planted(directory, [("", "state", PICKLE, data)]))
    wrong = judge(found, directory, canary)
    assert "the canary is there" in wrong
    assert any("posix" in what for what in wrong)


def test_the_pickles_are_armed(canary: Path) -> None:
    """Pickles of each way to call something do make the canary when they are loaded: that it is not there means something."""
    corpus = hostile.pickles(str(canary))
    for name in hostile.ARMED:
        canary.unlink(missing_ok=True)
        code = f"import pickle, time\npickle.loads({corpus[name]!r})\ntime.sleep(0.1)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert canary.exists(), f"{name}: {done.stderr[-500:]}"


def test_a_generator_is_not_any_function() -> None:
    """The name of a random generator that a snapshot gives is that of a generator, or nothing is called."""
    numpy = pytest.importorskip("numpy")
    called = []
    state = bytes(encode_plain({"bit_generator": "planted"}))
    snapshot = struct.pack("<3B", 1, 2, 0) + struct.pack("<i624I", 624, *range(624)) + struct.pack("<d", 0) + state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy.random, "planted", lambda: called.append(1), raising=False)
        with pytest.raises(UndecodableStateError, match="no bit generator 'planted'"):
            GeneratorsWatch.restore(snapshot)
    assert not called


OTHER = 65534


def unsafe(path: Path, how: str) -> None:
    """Let a file or folder be another user's, or open to others."""
    if how == "foreign":
        os.chown(path, OTHER, -1)
    else:
        path.chmod(path.stat().st_mode | {"group": 0o020, "world": 0o002}[how])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("how", ["foreign", "group", "world"])
def test_files_of_others_are_refused(how: str, directory: Path, canary: Path, figures: Figures) -> None:
    """A state directory, or a file or folder in it, of another user or open to others is refused before anything is unpickled."""
    data = hostile.pickles(str(canary))["REDUCE of posix.system"]
    for number, place in enumerate(("state", "side file")):
        plant(directory, place, PICKLE, data, f"{place}/{number}")
    inside = sorted(path for path in directory.rglob("*") if path.name != ".gitignore")
    assert len(inside) > 8
    for path in (directory, *inside):
        before = path.stat()
        unsafe(path, how)
        for name in ("state/0", "side file/1"):
            shared = path == directory or path.name in ("runs", "sync", "log") or path.parent.name in ("log", "sync")
            with Driver(directory) as driver:
                if shared or (name.startswith("side") == (path in side_paths(directory))):
                    with pytest.raises(UnsafeDirectoryError, match=str(path)):
                        driver.state(name)
                    with pytest.raises(UnsafeDirectoryError, match=str(path)):
                        driver.run(job, name=name)
        os.chown(path, before.st_uid, -1)
        path.chmod(before.st_mode)
    assert not canary.exists()
    figures("Z2", f"{how} files", inputs=1 + len(inside))


def side_paths(directory: Path) -> set[Path]:
    """The folder of the run with a side file, and what is in it."""
    folder = next(directory.glob("runs/*/*.side.*")).parent
    return {folder, *folder.iterdir()}
