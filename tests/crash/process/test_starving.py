"""Memory that gives out, at any allocation, for a moment or for a while."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import jobs
import pytest
from figures import Figures, chosen
from harness import Ledger, Server, scratch, spread
from plots import AWAITS, RUN, YIELDS
from starving import LOCK_KEPT, NOT_STARTED

pytestmark = pytest.mark.crash

TASKS = ("plots", "starving")
# So many allocations of each kind of run in CI, chosen by the seed.
SAMPLE = 16
# What Python makes of an error of memory on its way: os.stat says that a path is no path, a lock cannot be made, a call
# returns nothing.
SAID_BY_PYTHON = {"MemoryError", "TypeError", "RuntimeError", "SystemError"}


class Kind(NamedTuple):
    """A run, and how many allocations in a row fail. `inline`: the caller does what the writer's thread would."""

    way: str
    durability: str
    resume: bool
    inline: bool
    name: str | None
    width: int


KINDS = [
    Kind(RUN, "process", False, True, "plot", 1),
    Kind(RUN, "process", True, True, None, 1),
    Kind(RUN, "disk", True, False, "plot", 1),
    Kind(AWAITS, "process", True, True, "plot", 1),
    Kind(YIELDS, "process", False, False, None, 1),
    Kind(RUN, "disk", False, True, None, 50),
    Kind(RUN, "process", True, False, "plot", 50),
]


def starve(server: Server, kind: Kind, first: int, plant: str | None = None) -> tuple[list[Any], str, int]:
    """A run whose allocations fail from this one on: what everybody finds afterwards, how it ended, how many there were."""
    run = {"way": kind.way, "durability": kind.durability, "name": kind.name}
    last = first + kind.width - 1 if first else 0
    with scratch() as place:
        directory = str(place / "d")
        life = server.live(
            "starved", directory=directory, resume=kind.resume, inline=kind.inline, go_on=first % 3 != 0 or not first,
            first=first, last=last, plant=plant, **run,
        )  # fmt: skip
        ledger = Ledger()
        try:
            ledger.add(life, jobs)
            found, ended, count = life.value()
            if found is None:       # the process ends here, and another goes on
                second = server.live("elsewhere", directory=directory, **run)
                ledger.add(second, jobs)
                found = second.value()
        except AssertionError as error:
            raise AssertionError(f"{kind}, no memory for {first}: {error}") from error
        return found, ended, count


def starve_everywhere(kind: Kind, seed: int, sample: int, plant: str | None = None) -> tuple[Counter[str], int]:
    """Have each allocation fail, or so many of them: how the runs ended, and how many allocations there are."""
    with Server(*TASKS) as server:
        right, _, count = starve(server, kind, 0)
    assert count > 2000
    ends: Counter[str] = Counter()

    def work(server: Server, first: int) -> None:
        found, ended, _ = starve(server, kind, first, plant)
        assert found == right, f"{kind}, no memory for {first}: {found}"
        assert ended in {"", "a named error", LOCK_KEPT, NOT_STARTED} | SAID_BY_PYTHON, f"{kind}, {first}: {ended}"
        ends[ended or "none"] += 1

    # The first is the call that begins to count.
    spread(chosen(range(2, count + 1), sample, f"{seed} {kind}"), work, *TASKS)
    return ends, count


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_memory(kind: Kind, seed: int, figures: Figures) -> None:
    """Whichever allocation fails, this process and the next one can run the job to its right end, and nothing is lost."""
    ends, count = starve_everywhere(kind, seed, SAMPLE)
    how = ", ".join(f"{name} {times}" for name, times in ends.most_common())
    figures("Y1", f"no memory for {kind.width} of {count}, {kind} ({how})", points=ends.total())


def test_control_not_saved(seed: int) -> None:
    """A run that goes on although there was no memory for a checkpoint is found out."""

    def starve_on() -> None:
        for more in range(10):      # one allocation in thirty is a checkpoint's
            starve_everywhere(KINDS[0], seed + more, 60, plant="shrug off memory")

    with pytest.raises(AssertionError, match="no memory for"):
        starve_on()


def test_control_lock_kept(seed: int) -> None:
    """A run that keeps its lock when memory gives out is found out."""
    with pytest.raises(AssertionError, match="RunLockedError"):
        starve_everywhere(KINDS[0], seed, 20, plant="never let go")
