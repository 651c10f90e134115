"""SIGKILL before every system call of a run's life."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import crowds
import jobs
import pytest
from figures import Figures, chosen
from harness import Ledger, Life, Server, fault_settings, scratch, spread

pytestmark = pytest.mark.crash

# Kills of each kind in CI, chosen by the seed.
SAMPLE, ITEMS = 22, 20
# durability, and what else is not as usual
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "process": ("process", {}),
    "disk": ("disk", {}),
    "pwrite": ("process", {"mapped": False}),
    "every state kept": ("process", {"keep_states": None}),
}
CROWDS: dict[str, dict[str, Any]] = {
    f"{manner}, {durability}": {"manner": manner, "durability": durability}
    for manner in (*crowds.MANNERS, crowds.KEYED) for durability in ("process", "disk")
} | {"loop, pwrite": {"manner": "loop", "mapped": False}, "keyed, pwrite": {"manner": "keyed", "mapped": False}, "a bitset": {}}


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
    for _ in range(20):
        life = server.live(
            "story", directory=str(place), whole=False, kill_at=lambda life: (life.last(jobs.ACK) or 0) >= jobs.STUMBLE_AT,
        )
        if life.killed:
            break
        shutil.rmtree(place)        # on a busy machine it may be over before the kill
    assert life.killed
    ledger = Ledger()
    ledger.add(life, jobs)
    return ledger


def kill_everywhere(
    durability: str, seed: int, op: str = "any", plant: str | None = None, **settings: Any
) -> tuple[list[str], int, int]:
    """Kill the story before each of its calls of this kind; in CI before some of them, but with a planted bug before each.

    Gives back the calls' kinds, how many kills there were, and how many items were repeated.
    """
    args = {"durability": durability, "plant": plant, **settings}
    with Server(shim=True) as server, scratch() as place:
        right = told(server)
        calls = [kind for kind in calls_of(server, place, **args) if op in ("any", kind)]
    repeated = []

    def work(server: Server, nth: int) -> None:
        with scratch() as place:
            ledger = Ledger()
            faults = fault_settings(place, op, nth, kill=True)
            first = server.live("story", directory=str(place), faults=faults, **args)
            # Which of two threads makes a call may change, and by that the count by a few.
            assert first.killed or nth > len(calls) - 8, f"call {nth}: {first.report.get('trace')}"
            second = server.live("story", directory=str(place), durability=durability, whole=False, **settings)
            check_rerun(ledger, first, second, right)
            repeated.append(ledger.repeated)

    numbers = range(1, len(calls) + 1)
    spread(chosen(numbers, SAMPLE, seed) if plant is None else numbers, work, shim=True)
    return calls, len(repeated), sum(repeated)


@pytest.mark.parametrize("how", SETTINGS)
def test_killed_before_every_call(how: str, seed: int, figures: Figures) -> None:
    """Whichever system call a run is killed before, the next call of it loses nothing and ends right."""
    durability, settings = SETTINGS[how]
    calls, kills, repeated = kill_everywhere(durability, seed, **settings)
    kinds = ", ".join(f"{op} {count}" for op, count in Counter(calls).most_common())
    figures("K1", f"before the calls of a run, {how} ({kinds})", boundaries=kills, repeated=repeated)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_killed_while_resuming(durability: str, seed: int, figures: Figures) -> None:
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

        spread(chosen(range(1, len(calls) + 1), SAMPLE, seed), work, shim=True)
    figures("K1", f"before the calls of resuming, {durability}", boundaries=len(repeated), repeated=sum(repeated))


@pytest.mark.parametrize("how", CROWDS)
def test_killed_beside_other_runs(how: str, seed: int, figures: Figures) -> None:
    """Whichever system call several runs of one process are killed before, each of them loses nothing and ends right."""
    args = {"label": "lane", "items": ITEMS, **CROWDS[how]}
    args |= {"weight": 9_000, "sync_every": 3600.0, "timeout": 60} if args.get("manner") else {}
    task = "crowd" if "manner" in args else "mark"
    with Server("crowds", shim=True) as server, scratch() as place:
        right = server.live(task, directory=str(place / "right"), **args).value()
        # How many there are is a matter of threads: of three lives the one in the middle says how many are tried.
        counts = [place / f"{life}.counts" for life in range(3)]
        for life, file in enumerate(counts):
            where = place / str(life)
            server.live(task, directory=str(where), faults=fault_settings(where, counts=file), **args).value()
        calls = sorted(len(file.read_text().splitlines()) for file in counts)[1]
    kills, repeated = [], []

    def work(server: Server, nth: int) -> None:
        with scratch() as place:
            where = str(place / "d")
            first = server.live(task, directory=where, faults=fault_settings(place, nth=nth, kill=True), **args)
            assert not first.timed_out, f"call {nth}: hung"
            second = server.live(task, directory=where, **args)
            ledgers = [Ledger() for _ in range(crowds.LANES)]
            for life in (first, second):
                for (_, part), ledger in zip(crowds.lanes(life), ledgers, strict=True):
                    ledger.add(part, jobs)
            assert second.value() == right, f"call {nth}"
            assert all(ledger.begun in (0, ITEMS) for ledger in ledgers), "finished without doing its items"
            kills.append(first.killed)
            repeated.append(sum(ledger.repeated for ledger in ledgers))

    spread(chosen(range(1, calls + 1), SAMPLE, seed), work, "crowds", shim=True)
    assert sum(kills) > 0.8 * len(kills), "threads change the count by some calls, not by many"
    figures("K1", f"before the calls of {how}", boundaries=sum(kills), repeated=sum(repeated))


def test_control_journal_removed_early(seed: int) -> None:
    """A run that removes its journal before the log has its end is found out, by a kill alone."""
    with pytest.raises(AssertionError, match=r"DamagedLogError|resumed at|finished run began again"):
        kill_everywhere("process", seed, "fdatasync", "settle early")
