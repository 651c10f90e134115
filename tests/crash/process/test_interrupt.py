"""Ctrl-C anywhere in driver, save and resume."""

from __future__ import annotations

import random
from typing import Any

import jobs
import pytest
from figures import Figures, chosen
from harness import Ledger, Server, scratch, spread
from plots import AWAITS, RUN, YIELDS

pytestmark = pytest.mark.crash

# So many places in CI, chosen by the seed.
SAMPLE = 50
TASKS = ("plots",)
KINDS = [
    (RUN, "process", False),
    (RUN, "process", True),
    (RUN, "disk", False),
    (RUN, "disk", True),
    (AWAITS, "process", True),
    (YIELDS, "process", False),
]


def interrupt(
    server: Server, way: str, durability: str, resume: bool, point: list[Any] | None, plant: str | None = None,
    cancel_at: int = -1,
) -> Any:
    """A run with Ctrl-C at this point [file, function, offset, occurrence]: what came of it, checked for what was lost."""
    with scratch() as place:
        at: dict[str, Any] = {} if point is None else {"place": point[:3], "occurrence": point[3]}
        life = server.live(
            "interrupted", directory=str(place / "d"), way=way, durability=durability, resume=resume, plant=plant,
            cancel_at=cancel_at, **at,
        )
        ledger = Ledger()
        try:
            ledger.add(life, jobs)
            return life.value()
        except AssertionError as error:
            raise AssertionError(f"{way}, Ctrl-C at {point or cancel_at}: {error}") from error


def interrupt_everywhere(
    way: str, durability: str, resume: bool, seed: int, sample: int, plant: str | None = None
) -> tuple[int, int, int]:
    """Ctrl-C at each opcode that looks for signals, or so many of them: how many were tried, hit, and there are."""
    choose = random.Random(f"{seed} {way} {durability} {resume}")
    with Server(*TASKS) as server:
        right, _, seen = interrupt(server, way, durability, resume, None)
    assert len(seen) > 300
    # Of an opcode that runs many times any one may be hit.
    points = [[*place, choose.randint(1, count)] for *place, count in seen]
    tried = chosen(points, sample, f"{seed} {way} {durability} {resume}")
    hits = []

    def work(server: Server, point: list[Any]) -> None:
        found, hit, _ = interrupt(server, way, durability, resume, point, plant)
        assert found == right, f"Ctrl-C at {point}: {found}"
        hits.append(hit)

    spread(tried, work, *TASKS)
    return len(tried), sum(hits), len(points)


@pytest.mark.parametrize(("way", "durability", "resume"), KINDS)
def test_interrupted(way: str, durability: str, resume: bool, seed: int, figures: Figures) -> None:
    """After Ctrl-C at any opcode the same process can run the job to its right end, and nothing acknowledged is lost."""
    tried, hit, possible = interrupt_everywhere(way, durability, resume, seed, SAMPLE)
    figures("Y1", f"Ctrl-C, {way}, {durability}{', resuming' if resume else ''}, {tried} tried, of {possible}", points=hit)
    assert hit > 0.9 * tried


@pytest.mark.parametrize("way", [AWAITS, YIELDS])
def test_cancelled(way: str, figures: Figures) -> None:
    """A job that is cancelled at any of its pauses goes on from its last checkpoint, in the same process and in a new one."""
    with Server(*TASKS) as server:
        right, _, _ = interrupt(server, way, "process", True, None)
        pauses = 0
        while True:
            found, cancelled, _ = interrupt(server, way, "process", True, None, cancel_at=pauses + 1)
            assert found == right, f"{way}, cancelled at {pauses + 1}: {found}"
            if not cancelled:
                break
            pauses += 1
    assert pauses >= 5
    figures("Y1", f"{way}, cancelled at every pause", points=pauses)


def test_control_never_lets_go(seed: int) -> None:
    """A run that keeps its lock after Ctrl-C is found out."""
    with pytest.raises(AssertionError, match="RunLockedError"):
        interrupt_everywhere(RUN, "process", False, seed, 40, plant="never let go")
