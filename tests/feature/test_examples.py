"""The examples that people start from: each a plain loop and one line, killed at random and ending as if it had not been."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from resumable import Driver, RunInfo

EXAMPLES = Path(__file__).parents[2] / "examples"
KILLS = 5
ITEMS = 100

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not EXAMPLES.exists(), reason="the source tree is not here"),
]


class Place:
    """Where an example is at work, and what it has left there."""

    def __init__(self, name: str, directory: Path, script: Path, environ: dict[str, str]) -> None:
        self.name, self.directory, self._script = name, directory, script
        self._environ = {**os.environ, "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **environ}

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", str(self._script)]
        return subprocess.Popen(command, cwd=self.directory, env=self._environ, stderr=subprocess.PIPE, text=True)

    def finish(self) -> None:
        process = self.start()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors

    def files(self, pattern: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.directory.glob(pattern))}

    def served(self) -> list[str]:
        """Whom the server has served, as it says itself."""
        log = self.directory / "served"
        return log.read_text().splitlines() if log.exists() else []

    def scores(self) -> list[tuple[int, int | None]]:
        with closing(sqlite3.connect(self.directory / "users.db")) as connection:
            try:
                return connection.execute("SELECT id, score FROM users ORDER BY id").fetchall()
            except sqlite3.OperationalError:    # not made yet
                return []

    def runs(self) -> list[RunInfo]:
        """What is not complete, or was killed before it was forgotten."""
        home = self.directory / ".resumable"
        if not home.exists():
            return []
        with Driver(home) as driver:
            return driver.runs()

    def done(self) -> int:
        """How many items are done or begun: when to kill is told by it, and nothing else."""
        if self.name == "clean_csv":
            return sum(run.seq for run in self.runs()) * ITEMS // 50_000
        if self.name == "backfill":
            return sum(score is not None for _, score in self.scores())
        return len(self.served()) or len(self.files("*/*_thumb.ppm"))

    def outcome(self) -> object:
        """All that is to be as it is without a kill."""
        return {
            "mail": lambda: sorted(set(self.served())), "backfill": self.scores, "clean_csv": lambda: self.files("clean.csv"),
            "enrich": lambda: self.files("leads/*"), "thumbnails": lambda: self.files("pictures/*"),
        }[self.name]()  # fmt: skip


@contextmanager
def place(name: str, directory: Path, *, plain: bool = False) -> Iterator[Place]:
    """A directory with the service that the example needs. `plain`: without the one line that makes it resumable."""
    directory.mkdir()
    script = EXAMPLES / f"{name}.py"
    if plain:
        lines = script.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("@resumable.loop")]
        assert len(kept) == len(lines) - 1 < 60
        script = directory / f"{name}.py"
        script.write_text("".join(kept))
    kind = {"mail": "mail", "enrich": "web"}.get(name)
    if kind is None:
        yield Place(name, directory, script, {})
        return
    command = [sys.executable, str(EXAMPLES / "offline.py"), kind, str(directory / "served")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        yield Place(name, directory, script, {f"OFFLINE_{kind.upper()}": address})
        server.communicate()


def kill(at: Place, moment: int, chance: random.Random) -> None:
    """Start it, and SIGKILL it a little after so many items."""
    process = at.start()
    while at.done() < moment and process.poll() is None:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.005))
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors


@pytest.mark.parametrize("name", ["mail", "backfill", "clean_csv", "enrich", "thumbnails"])
def test_an_example_survives_kills(name: str, tmp_path: Path, seed: int) -> None:
    """Killed at random and started again, an example ends as its plain loop does undisturbed, but for the item in flight."""
    chance = random.Random(f"{seed} {name}")
    with place(name, tmp_path / "calm", plain=True) as calm:
        calm.finish()
        expected = calm.outcome()
    kills = 0
    with place(name, tmp_path / "rough") as rough:
        for moment in sorted(chance.sample(range(1, ITEMS - 10), KILLS)):
            kill(rough, moment, chance)
            if all(run.status == "finished" for run in rough.runs()):
                break       # started again, it would begin anew
            kills += 1
        else:
            rough.finish()
        assert rough.outcome() == expected
        assert kills >= 2
        again = Counter(rough.served()) - Counter(set(rough.served()))
        assert again.total() <= kills
        assert not [run for run in rough.runs() if run.status != "finished"]
