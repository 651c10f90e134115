"""SIGKILL of a script that downloads files from a server that fails at random, as the people do who have such scripts."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import download_server
import pytest
from figures import Figures, amount
from harness import Lost, Repeated, scratch
from places import HERE

pytestmark = pytest.mark.crash

FILES = 500
KILLS = amount("W1", 10)


class Downloads:
    """One such script, started again and again until it has come to its end."""

    def __init__(self, how: str, place: Path, port: int, seed: int, plant: str = "") -> None:
        self._how, self._place, self._port, self._plant = how, place, port, plant
        self._chance = random.Random(f"{seed} {how}")
        self._folder = place / "files"
        self._folder.mkdir()
        self.kills = 0

    def requests(self) -> int:
        log = self._place / "log"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def _life(self, kill_at: int | None) -> bool:
        """Let it run, and SIGKILL it a little after so many requests; whether it came to its end."""
        script = str(Path(__file__).with_name("download_script.py"))
        where = [str(self._place / "state"), str(self._folder), str(self._port), str(FILES)]
        command = [sys.executable, script, self._how, *where, self._plant]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        if kill_at is not None:
            while self.requests() < kill_at and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(self._chance.uniform(0, 0.004))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), errors
        self.kills += process.returncode < 0
        return process.returncode == 0

    def go(self, kills: int) -> None:
        """Kill it so often, now and then before it has begun, then let it come to its end."""
        while self.kills < kills:
            left = max(0, FILES - self.requests())
            more = self._chance.randint(0, 2 * left // (kills - self.kills) or 1) if self._chance.random() < 0.9 else 0
            if self._life(self.requests() + more):
                break
        self._life(None)

    def judge(self) -> Counter[str]:
        """What the server and the folder say of it. Raises Lost, Repeated."""
        lines = [line.split() for line in (self._place / "log").read_text().splitlines()]
        whole = Counter(int(number) for number, how in lines if how == "whole")
        files = {int(path.name): path.read_bytes() for path in self._folder.iterdir()}
        right = {number for number, data in files.items() if data == download_server.content(number)}
        if right != set(range(FILES)):
            raise Lost(f"files that are not there, or not right: {sorted(set(range(FILES)) ^ right)}")
        repeated = whole.total() - FILES
        if repeated > self.kills:
            raise Repeated(f"{repeated} files were fetched again in {self.kills} kills")
        return Counter(kills=self.kills, files=FILES, failures=len(lines) - whole.total(), fetched_twice=repeated)


@contextmanager
def downloads(how: str, seed: int, plant: str = "") -> Iterator[Downloads]:
    with scratch() as place:
        command = [sys.executable, str(HERE / "kill" / "download_server.py"), str(seed), str(place / "log")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                yield Downloads(how, place, int(server.stdout.readline()), seed, plant)
            finally:
                server.kill()


@pytest.mark.parametrize("how", ["called again", "attempts"])
def test_downloads_survive_kills(how: str, seed: int, figures: Figures) -> None:
    """Every file is there and right, at most one per kill was fetched twice, and failures at random cost nothing else."""
    done: Counter[str] = Counter()
    rounds = 0
    while done["kills"] < KILLS:
        with downloads(how, seed + rounds) as one:
            one.go(KILLS - done["kills"])
            done += one.judge()
        rounds += 1
    figures("W1", how, **{name: done[name] for name in ("kills", "files", "failures", "fetched_twice")})
    assert done["failures"] > 0


@pytest.mark.parametrize(("plant", "found"), [("skip one more", Lost), ("mark nothing", Repeated)])
def test_control_downloads(plant: str, found: type[AssertionError], seed: int) -> None:
    """A loop that leaves out one item too many, or marks none, is found out."""

    def tries() -> None:
        for more in range(8):       # a kill may come where there is nothing to leave out
            with downloads("attempts", seed + more, plant) as one:
                one.go(4)
                one.judge()

    with pytest.raises(found):
        tries()
