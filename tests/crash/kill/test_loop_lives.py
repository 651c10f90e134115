"""SIGKILL at steps of any module, life after life, of loops, maps, loops in transactions and sets of keys."""

from __future__ import annotations

import random
from collections import Counter

import jobs
import pytest
from figures import Figures, amount
from harness import Server, scratch, spread
from loop_lives import ITEMS, KINDS

pytestmark = pytest.mark.crash

KILLS = amount("K2", 240) // 4
LONGEST = 30        # kills of one run


def kill_over_and_over(server: Server, kind: str, kills: int, seed: int, plant: str | None = None) -> Counter[str]:
    """Kill runs of this kind until there are so many kills, letting each of them end; what was done."""
    draw = random.Random(f"{seed} {kind}")
    done: Counter[str] = Counter(kills=0)
    with scratch() as place:
        undisturbed = server.live("loop life", kind=kind, place=str(place / "life"), seed=0, settings={}).value()
        steps = server.live("loop steps", kind=kind, place=str(place / "steps")).value()
    while done["kills"] < kills:
        done["runs"] += 1
        settings = {
            "sync_every": draw.choice((0.001, 0.02, 3600)), "save_every": draw.choice((1, 1, 4)),
            "durability": draw.choice(("process", "process", "disk")),
        }  # fmt: skip
        killed, begun = 0, 0
        with scratch() as place:
            while True:
                module = draw.choice(list(steps))
                seam = (module, int(steps[module] ** draw.random())) if killed < LONGEST else None
                task = {"kind": kind, "place": str(place), "seed": draw.getrandbits(32), "settings": settings}
                life = server.live("loop life", seam=seam, plant=plant, **task)
                begun += sum(what == jobs.BEGIN for what, _ in life.list())
                if not life.killed:
                    break
                killed += 1
        assert life.value() == undisturbed, f"{kind} under {settings}, killed {killed} times"
        if kind in ("keyed", "rows", "seen"):
            # What a kill repeats: the items since the last mark.
            assert begun <= ITEMS + killed * int(settings["save_every"])
        done += Counter(kills=killed, begun=begun)
    return done


def test_loops_killed_at_steps(seed: int, figures: Figures) -> None:
    """However often a loop is killed, between which steps ever, all that it leaves is what an undisturbed one leaves."""
    done: Counter[str] = Counter()

    def work(server: Server, kind: str) -> None:
        done.update(kill_over_and_over(server, kind, -(-KILLS // len(KINDS)), seed))

    spread(KINDS, work, "loop_lives")
    figures("K2", "of loops and maps, at steps of one module", **done)


def test_control_no_state_at_the_end(seed: int) -> None:
    """A finished loop that has lost its state is found out."""
    with Server("loop_lives") as server, pytest.raises(AssertionError, match="killed"):
        kill_over_and_over(server, "keyed", 2000, seed, "forget the end")
