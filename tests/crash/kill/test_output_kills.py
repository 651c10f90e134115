"""SIGKILL at every moment of a loop that writes files: they are byte for byte those of a loop that nothing happened to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from figures import Figures, chosen
from harness import scratch

pytestmark = pytest.mark.crash

LIVES = Path(__file__).with_name("output_lives.py")
SAMPLE = 40


def stories(seed: object, kills: list[int], plant: str = "") -> list[dict[str, Any]]:
    """What `output_lives` tells of these stories."""
    with scratch() as place:
        command = [sys.executable, str(LIVES), str(place), str(seed), plant, *map(str, kills)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr
    return [json.loads(row) for row in done.stdout.splitlines()]


def test_killed_at_every_moment(seed: int, figures: Figures) -> None:
    """Whenever a loop that writes five kinds of file is killed, once or again and again, the files at its end are right."""
    (told,) = stories(seed, [])
    moments = chosen(range(1, told["moments"] + 1), SAMPLE, seed)
    found = stories(seed, moments)
    assert [story for story in found if story["wrong"]] == []
    kills = sum(story["kills"] for story in found)
    assert kills >= len(moments)
    figures("K1", "at the moments of a loop that writes files", boundaries=kills)


@pytest.mark.parametrize("plant", ["cut nothing", "write at once", "forget what is held"])
def test_bugs_of_output_files_are_found(plant: str, seed: int) -> None:
    """With a bug planted the same kills find wrong files, or a life that cannot go on."""
    (told,) = stories(seed, [])
    assert not are_right(seed, list(range(1, told["moments"], 23)), plant)


def are_right(seed: int, kills: list[int], plant: str) -> bool:
    """Whether all stories end, and with the right files."""
    try:
        return not [story for story in stories(seed, kills, plant) if story["wrong"]]
    except AssertionError:
        return False
