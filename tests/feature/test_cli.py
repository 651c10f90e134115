"""`python -m resumable`: each verb as a real process, and every way to call it wrongly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable import Driver, checkpoint
from resumable.tools import cli

Capture = pytest.CaptureFixture[str]

JOBS = '''
from resumable import checkpoint

def count(n, what="x", state=0):
    for i in range(state, n):
        yield checkpoint(i + 1)
    print("effects:", n, what)

def plain(n):
    return n

async def later(state=None):
    yield checkpoint(1)

number = 3
'''


def job(n: int, state: int = 0) -> Iterator[object]:
    for i in range(state, n):
        yield checkpoint(i + 1, result=i)


def started(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RESUMABLE_HOME"}
    command = [sys.executable, "-m", "resumable", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory with a finished run and a failed one."""
    with Driver(tmp_path / "state") as driver:
        driver.run(job, 3, name="first")
        with pytest.raises(ZeroDivisionError):
            driver.run(failing, name="second\n")
    return tmp_path / "state"


def failing(state: object = None) -> Iterator[object]:
    yield checkpoint(1)
    raise ZeroDivisionError


def test_the_runs(directory: Path) -> None:
    """The bare form prints a table of the runs, the newest first, with names that cannot break a line."""
    found = started(directory.parent, "state")
    assert (found.returncode, found.stderr) == (0, "")
    titles, second, first = found.stdout.splitlines()
    assert titles.split("  ")[0] == "name"
    assert titles.replace("on disk", "on-disk").split() == [
        "name", "run", "status", "checkpoints", "on-disk", "results", "updated",
    ]  # fmt: skip
    assert second.split()[:6] == [r"'second\n'", "1", "failed", "1", "1", "0"]
    assert first.split()[:6] == ["first", "1", "finished", "3", "3", "3"]
    assert titles.index("status") == first.index("finished")


def test_json(directory: Path, capsys: Capture) -> None:
    """--json prints everything that is known of each run."""
    assert cli.main([str(directory), "--json"]) == cli.FINE
    second, first = json.loads(capsys.readouterr().out)
    assert (first["name"], first["status"], first["seq"], first["results"]) == ("first", "finished", 3, 3)
    assert second["started"].endswith("+00:00")


def test_the_default_directory(directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Without DIR it is RESUMABLE_HOME, else .resumable in the working directory."""
    monkeypatch.delenv("RESUMABLE_HOME", raising=False)
    monkeypatch.chdir(directory.parent)
    assert cli.main([]) == cli.USAGE
    assert ".resumable is no state directory" in capsys.readouterr().err
    directory.rename(directory.parent / ".resumable")
    assert cli.main([]) == cli.FINE
    assert cli.main(["check"]) == cli.FINE
    monkeypatch.setenv("RESUMABLE_HOME", str(directory.parent / ".resumable"))
    monkeypatch.chdir("/")
    assert cli.main([]) == cli.FINE


@pytest.mark.parametrize("verb", [[], ["check"], ["repair"]])
def test_what_is_no_state_directory(tmp_path: Path, verb: list[str], capsys: Capture) -> None:
    """A directory without a log, or none at all, is wrong usage, and nothing is made."""
    (tmp_path / "other").mkdir()
    copy = [str(tmp_path / "new")] if verb == ["repair"] else []
    for name in ("other", "none"):
        assert cli.main([*verb, str(tmp_path / name), *copy]) == cli.USAGE
        assert f"{name} is no state directory" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["other"]
    assert not list((tmp_path / "other").iterdir())


def test_a_directory_named_like_a_verb(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./check is the directory, check the verb."""
    directory.rename(directory.parent / "check")
    monkeypatch.chdir(directory.parent)
    assert cli.main(["./check"]) == cli.FINE
    assert cli.main(["check", "check"]) == cli.FINE


def test_check(directory: Path) -> None:
    """check prints what is intact of each run and exits with 0; with damage it exits with 1 and names the way out."""
    found = started(directory.parent, "check", "state")
    assert found.returncode == 0
    assert "run 'first' 1 (finished): checkpoints 1..3 intact" in found.stdout
    segment = next(directory.glob("runs/*/1.0"))
    segment.write_bytes(bytes(65536))
    found = started(directory.parent, "check", "state")
    assert found.returncode == 1
    assert "damage: run 'second\\n' 1: segment 1.0: it has no whole header" in found.stdout
    assert f"repair {directory} NEW_DIR" in found.stdout


def test_repair(directory: Path) -> None:
    """repair writes a copy with the same runs, and refuses a directory that has something in it."""
    found = started(directory.parent, "repair", "state", "new")
    assert (found.returncode, found.stderr) == (0, "")
    with Driver(directory.parent / "new") as driver:
        assert [(info.name, info.status) for info in driver.runs()] == [("second\n", "failed"), ("first", "finished")]
        assert list(driver.results("first")) == [0, 1, 2]
    found = started(directory.parent, "repair", "state", "new")
    assert found.returncode == 2
    assert "not empty" in found.stderr


def test_measure(tmp_path: Path) -> None:
    """measure runs the job once, with literals and strings as arguments, and says what its checkpoints cost."""
    (tmp_path / "jobs.py").write_text(JOBS)
    found = started(tmp_path, "measure", "jobs:count", "2000", "some text")
    assert (found.returncode, found.stderr) == (0, "")
    effects, head, costs, states = found.stdout.splitlines()
    assert effects == "effects: 2000 some text"
    assert head.startswith("jobs:count: 2,000 checkpoints in ")
    assert costs.startswith("checkpoints: ")
    assert costs.endswith("% of the job's time")
    assert states.startswith("the last states: 1,000 plain; ")
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "__pycache__") == ["jobs.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jobs"], "names no job"),
        (["nowhere:job"], "no module 'nowhere'"),
        (["jobs.inner:job"], "no module 'jobs.inner'"),
        (["jobs:missing"], "jobs has no 'missing'"),
        (["jobs:number"], "is a int"),
        (["jobs:plain", "3"], "has no parameter `state`"),
        (["jobs:later"], "async"),
        (["jobs:count"], "missing a required argument: 'n'"),
    ],
)
def test_measuring_what_is_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, arguments: list[str], message: str
) -> None:
    """Whatever keeps a job from being found or called is said in a line, with exit code 2."""
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "jobs", raising=False)
    assert cli.main(["measure", *arguments]) == cli.USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--nonsense"], ["a", "b"], ["repair", "a"], ["measure"], ["check", "a", "b"]])
def test_wrong_usage(arguments: list[str]) -> None:
    """What the parser refuses has exit code 2."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == cli.USAGE


def test_help_names_the_verbs(capsys: Capture) -> None:
    """--help of the bare form tells of the others."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert all(verb in out for verb in ("check", "repair", "measure"))


def test_import_does_not_bring_the_tools() -> None:
    """`import resumable` does not load what only the command line needs."""
    code = "import sys, resumable; print([name for name in sys.modules if name.startswith('resumable.tools')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
