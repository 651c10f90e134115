"""Everything mixed at random: jobs, durabilities, kills, failing calls, full disks, power cuts, forks, signals, reports."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from figures import Figures, amount
from harness import Server, scratch
from soak import Episode

pytestmark = pytest.mark.crash

SECONDS = amount("S1", 10)
WORKERS = 2


def soak(seed: int, seconds: float, plant: str | None = None) -> Counter[str]:
    """Episodes until the time is over; what was done. RESUMABLE_EPISODE: that one alone, as a failure named it."""
    only = os.environ.get("RESUMABLE_EPISODE")
    numbers = iter([int(only)]) if only else itertools.count()
    until = time.monotonic() + seconds
    done: Counter[str] = Counter()
    failed: list[AssertionError] = []

    def is_over() -> bool:
        return bool(failed) or time.monotonic() >= until

    def work(_: Any) -> None:
        with ExitStack() as stack:
            servers = [stack.enter_context(Server("soak_jobs", shim=True)) for _ in range(2)]
            while not is_over() and (number := next(numbers, None)) is not None:
                with scratch() as place:
                    episode = Episode(servers, place, seed, number, plant)
                    try:
                        episode.go(is_over)
                    except AssertionError as error:
                        failed.append(error)
                    done.update(episode.done)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))
    if failed:
        raise failed[0]
    return done


def test_soak(seed: int, figures: Figures) -> None:
    """Whatever comes together, nothing acknowledged is lost, nothing wrong comes back, and every error has a name."""
    done = soak(seed, SECONDS)
    figures("S1", seconds=SECONDS, **done)
    assert done["steps"] > 0


@pytest.mark.parametrize("plant", ["acknowledge early", "sync nothing"])
def test_control_planted_bugs(plant: str, seed: int) -> None:
    """A checkpoint that is acknowledged too early, for a kill or for a power cut, is soon found."""
    with pytest.raises(AssertionError, match=f"^seed {seed}, episode"):
        soak(seed, 60, plant)
