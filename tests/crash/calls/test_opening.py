"""A process is killed while it opens the log, and another one waits to open it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from harness import Server, fault_settings, scratch

pytestmark = pytest.mark.crash

HELD = 0.24     # seconds; for the control, which must not miss the moment on a busy machine, three times that


def opening_calls(server: Server, place: Path) -> int:
    """How many system calls it takes to open the log, commit to it and close it."""
    counts = place.parent / "counts"
    server.live("swap", directory=str(place), value=0, faults=fault_settings(place, counts=counts)).value()
    return len(counts.read_text().splitlines())


def overtaken(killed: Server, other: Server, place: Path, nth: int, plant: str | None = None) -> list[int]:
    """Values that processes meet: one is held before its nth call and killed there, beside it another opens the log."""
    met = [other.live("swap", directory=str(place), value=nth * 10).value()]
    faults = fault_settings(place, nth=nth, hold=True)
    task = {"directory": str(place), "value": nth * 10 + 1, "plant": plant}
    waiting = threading.Thread(target=lambda: met.append(other.live("swap", **task).value()))
    held = 3 * HELD if plant else HELD
    starter = threading.Timer(held / 3, waiting.start)
    starter.start()
    killed.live("swap", directory=str(place), value=-1, faults=faults, plant=plant, kill_after=held)
    starter.join()
    waiting.join()
    met.append(other.live("swap", directory=str(place), value=nth * 10 + 2).value())
    return met


def check_overtaken(plant: str | None = None) -> None:
    with Server("opening_jobs", shim=True) as killed, Server("opening_jobs") as other, scratch() as place:
        (place / "d").mkdir()
        calls = range(1, opening_calls(killed, place / "d") + 1)
        for nth in calls:
            _, second, third = overtaken(killed, other, place / "d", nth, plant)
            # What the killed one had committed may be there.
            assert second in (nth * 10, -1), f"killed before call {nth}: {nth * 10} was committed, and {second} found"
            assert third in (nth * 10 + 1, -1), f"killed before call {nth}: {nth * 10 + 1} was committed, and {third} found"


def test_an_opener_that_is_killed() -> None:
    """Whoever opens the log beside a process that is killed while it opens it finds the last commit, and adds to it."""
    check_overtaken()


def test_control_opened_together() -> None:
    """Without one after the other, the commit before the last is found."""
    with pytest.raises(AssertionError, match="was committed, and"):
        check_overtaken("open together")
