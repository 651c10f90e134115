"""Children made in every way, at every moment, doing everything a child may do."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import forks
import jobs
import pytest
from figures import Figures, share
from harness import Ledger, Server, scratch, spread

pytestmark = pytest.mark.crash

WAYS = ("fork", "spawn", "forkserver")
MOMENTS = ("before", "during", "after")
DEEDS = ("saves", "closes", "exits", "outlives")
# What the parent runs: a job, one whose checkpoints are on disk, a coroutine.
PARENTS = ("plain", "disk", "in a loop")


def expected(how: str, when: str, deed: str) -> dict[str, Any]:
    """What the child of this cell meets."""
    if how == "fork" and when == "during" and deed == "exits":
        return {"in progress": "SystemExit"}
    if deed != "saves":
        return {}
    if how != "fork":
        return {"same": "RunLockedError", "another": 3}
    return {"in progress": "ForkedError", "another": 3} if when == "during" else {"another": 3}


def try_cell(server: Server, cell: tuple[str, str, str, str], plant: str | None = None) -> None:
    how, when, deed, parent = cell
    in_loop = parent == "in a loop"
    with scratch() as place:
        directory, leave = str(place / "d"), place / "leave"
        dies = deed == "outlives" and when == "during"
        ledger = Ledger()
        life = server.live(
            "cell", directory=directory, how=how, when=when, deed=deed, plant=plant, in_loop=in_loop,
            durability="disk" if parent == "disk" else "process",
            kill_at=(lambda life: (life.last(jobs.ACK) or 0) > forks.AT) if dies else None,
        )
        ledger.add(life, jobs)
        assert life.killed if dies else life.value() == forks.ITEMS
        answer = json.loads(Path(place / "answer").read_text())
        assert answer == expected(how, when, deed), f"{cell}: {answer}"
        # A child that lives on holds nothing.
        second = server.live("again", directory=directory, in_loop=in_loop)
        last, value = second.value()
        assert (last >= ledger.acked, value) == (True, forks.ITEMS)
        if life.killed:
            ledger.add(second, jobs)
        leave.touch()


def test_fork_matrix(figures: Figures) -> None:
    """A child cannot go on with its parent's run, may use the driver for others, and never harms or outlocks the parent."""
    # A child that is started anew takes nothing over, so in CI it has plain parents alone.
    every = itertools.product(WAYS, MOMENTS, DEEDS, PARENTS)
    cells = [cell for cell in every if share() or cell[0] == "fork" or cell[3] == "plain"]
    spread(cells, try_cell)
    figures("Y2", cells=len(cells))


def test_control_lock_kept_in_child() -> None:
    """A lock that an outliving child keeps is found out."""
    with Server() as server, pytest.raises(AssertionError, match="RunLockedError"):
        try_cell(server, ("fork", "during", "outlives", "plain"), "keep the lock")
