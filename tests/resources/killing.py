"""Jobs that are killed again and again, in processes of their own, until one comes to its end."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ITEMS = 60


def run_with_kills(kind: str, home: Path, address: str, kills: int, rng: random.Random) -> None:
    """Run a job of client_jobs.py to its end, after that many real SIGKILLs, each some items after the job went on."""
    command = [sys.executable, str(Path(__file__).with_name("client_jobs.py")), kind, str(home), str(ITEMS), address]
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randint(1, ITEMS // kills - 1)):
                assert process.stdout.readline()
            process.kill()
            process.stdout.read()
        assert process.returncode == -9
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def assert_done(effects: Iterable[int], kills: int) -> None:
    """Every item was done, and in excess of an undisturbed run at most one item per kill."""
    counts = Counter(effects)
    assert set(counts) == set(range(ITEMS))
    assert counts.total() - ITEMS <= kills


def files_with(secret: str, home: Path) -> list[Path]:
    """Which files of a state directory hold it."""
    return [path for path in home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
