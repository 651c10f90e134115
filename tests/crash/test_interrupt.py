"""Ctrl-C anywhere in driver, save and resume."""

from __future__ import annotations

import random
from typing import Any

import jobs
import pytest
from figures import Figures, chosen
from harness import Ledger, Server, scratch, spread

pytestmark = pytest.mark.crash

# So many places in CI, chosen by the seed.
SAMPLE = 250
KINDS = [("process", False), ("process", True), ("disk", False)]


def interrupt(server: Server, durability: str, resume: bool, point: list[Any] | None, plant: str | None = None) -> Any:
    """A run with Ctrl-C at this point [file, function, offset, occurrence]: what came of it, checked for what was lost."""
    with scratch() as place:
        at = {} if point is None else {"place": point[:3], "occurrence": point[3]}
        life = server.live(
            "interrupted", directory=str(place / "d"), durability=durability, resume=resume, plant=plant, **at
        )
        ledger = Ledger()
        try:
            ledger.add(life, jobs)
            return life.value()
        except AssertionError as error:
            raise AssertionError(f"Ctrl-C at {point}: {error}") from error


def interrupt_everywhere(
    durability: str, resume: bool, seed: int, sample: int, plant: str | None = None
) -> tuple[int, int, int]:
    """Ctrl-C at each opcode that looks for signals, or so many of them: how many were tried, hit, and there are."""
    choose = random.Random(f"{seed} {durability} {resume}")
    with Server() as server:
        right, _, seen = interrupt(server, durability, resume, None)
    assert len(seen) > 300
    # Of an opcode that runs many times any one may be hit.
    points = [[*place, choose.randint(1, count)] for *place, count in seen]
    tried = chosen(points, sample, f"{seed} {durability} {resume}")
    hits = []

    def work(server: Server, point: list[Any]) -> None:
        found, hit, _ = interrupt(server, durability, resume, point, plant)
        assert found == right, f"Ctrl-C at {point}: {found}"
        hits.append(hit)

    spread(tried, work)
    return len(tried), sum(hits), len(points)


@pytest.mark.parametrize(("durability", "resume"), KINDS)
def test_interrupted(durability: str, resume: bool, seed: int, figures: Figures) -> None:
    """After Ctrl-C at any opcode the same process can run the job to its right end, and nothing acknowledged is lost."""
    tried, hit, possible = interrupt_everywhere(durability, resume, seed, SAMPLE)
    figures("Y1", f"Ctrl-C, {durability}{', resuming' if resume else ''}, {tried} tried, of {possible}", points=hit)
    assert hit > 0.9 * tried


def test_control_never_lets_go(seed: int) -> None:
    """A run that keeps its lock after Ctrl-C is found out."""
    with pytest.raises(AssertionError, match="RunLockedError"):
        interrupt_everywhere("process", False, seed, 40, plant="never let go")
