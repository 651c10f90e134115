"""SIGKILL before every system call of a run's life."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import jobs
import pytest
from figures import Figures
from harness import Ledger, Life, Server, fault_settings, scratch, spread

pytestmark = pytest.mark.crash

def told(server: Server) -> list[Any]:
    """What the story tells when nothing disturbs it."""
    with scratch() as place:
        return list(server.live("story", directory=str(place), whole=False).value()[0])


def calls_of(server: Server, place: Path, **args: Any) -> list[str]:
    """The kinds of the system calls that the story makes in its directory, in order."""
    counts = place.parent / f"{place.name}.counts"
    server.live("story", directory=str(place), faults=fault_settings(place, counts=counts), **args).value()
    lines = counts.read_text().splitlines()
    counts.unlink()
    return [line.split(" ")[1] for line in lines]


def check_rerun(ledger: Ledger, first: Life, second: Life, right: list[Any]) -> None:
    """After `first` ended somewhere, `second` went on undisturbed: nothing acknowledged is lost, the end is right."""
    ledger.add(first, jobs)
    started = second.first(jobs.START)
    if first.last(jobs.CLEAR) is None:
        if first.last(jobs.END) is not None:
            assert started is None, "a finished run began again"
        else:
            ledger.add(second, jobs)
            assert started is not None or ledger.begun == jobs.STORY_ITEMS, "finished without doing its items"
    value, brief_began = second.value()
    assert value == right
    assert first.last(jobs.CLEAR) is None or brief_began in (0, jobs.BRIEF_STUMBLES_AT), "half a run was forgotten"


def leave_killed(server: Server, place: Path) -> Ledger:
    """A state directory as SIGKILL in the middle of the story leaves it."""
    ledger = Ledger()
    life = server.live(
        "story", directory=str(place), whole=False, kill_at=lambda life: (life.last(jobs.ACK) or 0) >= jobs.STUMBLE_AT,
    )
    assert life.killed
    ledger.add(life, jobs)
    return ledger


def kill_everywhere(durability: str, plant: str | None = None) -> tuple[list[str], int]:
    """Kill the story before each of its calls; gives back their kinds, and how many items were repeated."""
    with Server(shim=True) as server, scratch() as place:
        right = told(server)
        calls = calls_of(server, place, durability=durability, plant=plant)
    repeated = []

    def work(server: Server, nth: int) -> None:
        with scratch() as place:
            ledger = Ledger()
            settings = fault_settings(place, nth=nth, kill=True)
            first = server.live("story", directory=str(place), durability=durability, faults=settings, plant=plant)
            # Which of two threads makes a call may change, and by that the count by a few.
            assert first.killed or nth > len(calls) - 8, f"call {nth}: {first.report.get('trace')}"
            second = server.live("story", directory=str(place), durability=durability, whole=False)
            check_rerun(ledger, first, second, right)
            repeated.append(ledger.repeated)

    spread(range(1, len(calls) + 1), work, shim=True)
    return calls, sum(repeated)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_killed_before_every_call(durability: str, figures: Figures) -> None:
    """Whichever system call a run is killed before, the next call of it loses nothing and ends right."""
    calls, repeated = kill_everywhere(durability)
    kinds = ", ".join(f"{op} {count}" for op, count in Counter(calls).most_common())
    figures("K1", f"before all calls, {durability} ({kinds})", boundaries=len(calls), repeated=repeated)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_killed_while_resuming(durability: str, figures: Figures) -> None:
    """Whichever system call a resumption is killed before, the next one loses nothing and ends right."""
    repeated = []
    with Server(shim=True) as server, scratch() as left, scratch() as copy:
        right = told(server)
        before = leave_killed(server, left / "d")
        shutil.copytree(left / "d", copy / "d")
        calls = calls_of(server, copy / "d", durability=durability, whole=False)

        def work(server: Server, nth: int) -> None:
            with scratch() as place:
                shutil.copytree(left / "d", place / "d")
                ledger = Ledger(before.acked, before.begun)
                settings = fault_settings(place, nth=nth, kill=True)
                same = {"directory": str(place / "d"), "durability": durability, "whole": False}
                first = server.live("story", faults=settings, **same)
                assert first.killed or nth > len(calls) - 8, f"call {nth}: {first.report.get('trace')}"
                check_rerun(ledger, first, server.live("story", **same), right)
                repeated.append(ledger.repeated)

        spread(range(1, len(calls) + 1), work, shim=True)
    figures("K1", f"before all calls of resuming, {durability}", boundaries=len(calls), repeated=sum(repeated))


def test_control_journal_removed_early() -> None:
    """A run that removes its journal before the log has everything is found out."""
    with pytest.raises(AssertionError, match=r"DamagedLogError|resumed at"):
        kill_everywhere("process", plant="discard early")
