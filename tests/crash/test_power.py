"""The power of a virtual machine is cut while the library works in it; and disks as they may be between two flushes.

Not in CI: `make torture` fetches the machine; where it has been fetched, the short form is part of the crash tests.
A seed replays the jobs and the choice of moments; what the guest does at a moment is its own, so a disk that fails is kept.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from figures import Figures, amount, share
from harness import Life, Server, scratch, spread
from power_jobs import KINDS, NAMES
from power_ledger import Ledger
from power_machine import FILE_SYSTEMS, FileSystem, Machine, await_begin, copy_sparse, fetch, is_fetched

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif("CI" in os.environ or os.geteuid() != 0, reason="needs root and a virtual machine, takes minutes"),
    pytest.mark.skipif(not share() and not is_fetched(), reason="the machine is not fetched: tests/crash/fetch-vm"),
]

CUTS = amount("P1", 12)
LIVES = 3
MOST_EVENTS, LONGEST = 200, 10.0


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with scratch() as place:
        made = Machine(place, fetch())
        made.save()
        yield made


def mix(chance: random.Random) -> list[list[str]]:
    """Which jobs share the directory, and how they are spread over one or two processes."""
    kinds = chance.sample(NAMES, chance.randint(2, 5))
    if not any(KINDS[kind].durability == "disk" for kind in kinds):
        kinds.append("disk")
    half = chance.randint(0, len(kinds))
    return [part for part in (kinds[:half], kinds[half:]) if part]


def judged(server: Server, disk: Path, system: FileSystem, ledger: Ledger, last_seen: float) -> None:
    """Have a copy of the disk judged, and compare. A disk that fails is kept."""
    copy = disk.with_suffix(".copy")
    copy_sparse(disk, copy)
    options = ",".join(part for part in (system.options, system.host_options) if part)
    try:
        life: Life = server.live(
            "judge", disk=str(copy), kind=system.type, options=options, asked=ledger.asked(), timeout=120
        )
        ledger.compare(life.value(), last_seen)
    except AssertionError as error:
        kept = Path(tempfile.gettempdir()) / f"resumable-{disk.stem}.img"
        copy_sparse(disk, kept)
        error.args = (f"{error}\nthe disk is kept: {kept}",)
        raise
    finally:
        copy.unlink()


@dataclass
class Cutter:
    """Cuts the power of one disk's guest, time and again."""

    machine: Machine
    server: Server
    system: FileSystem
    seed: str
    plant: str | None = None
    at_least: float = 0.0
    kinds: tuple[str, ...] = ()

    def go(self, cuts: int) -> Ledger:
        """A new disk, this many lives."""
        chance, ledger = random.Random(self.seed), Ledger()
        processes = [list(self.kinds)] if self.kinds else mix(chance)
        name = self.seed.replace(" ", "-")
        disk = self.machine.place / f"{name}.img"
        self.system.format(disk)
        try:
            for life in range(cuts):
                word = {
                    "type": self.system.type, "options": self.system.options, "life": life, "plant": self.plant, "marks": 0,
                    "processes": processes, "seed": f"{self.seed} {life}", "entropy": chance.randbytes(32).hex(),
                }  # fmt: skip
                ledger.seen["while beginning"] += self._life(disk, name, word, chance, ledger)
                ledger.seen["cuts"] += 1
        finally:
            disk.unlink()
        return ledger

    def _life(self, disk: Path, name: str, word: dict[str, Any], chance: random.Random, ledger: Ledger) -> bool:
        """One life, its end, and the judgement. True if it ended before any of its jobs went on."""
        with self.machine.begin(disk, name, word) as power:
            await_begin(power)
            power.listen(self.at_least)
            # Counted in events, as the machine is slow when its host is busy; at times not even the first is awaited.
            power.listen(LONGEST, events=chance.choice((1, chance.randint(2, 12), chance.randint(2, MOST_EVENTS))))
            power.listen(chance.uniform(0, 0.05))
            power.cut()
        try:
            ledger.add(power.events)
        except AssertionError as error:
            error.args = (f"{error}\n{json.dumps(word)}",)
            raise
        judged(self.server, disk, self.system, ledger, power.events[-1][-1])
        return len(power.events) == 1


def test_power_cuts(machine: Machine, seed: int, figures: Figures) -> None:
    """A power cut loses nothing that was reported durable, of the rest at most the window, and leaves an exact earlier state."""
    each = -(-CUTS // len(FILE_SYSTEMS))
    cases = [
        (system, number) for number in range(-(-each // LIVES)) for system in FILE_SYSTEMS.values()
    ]
    done: list[tuple[str, Ledger]] = []

    def work(server: Server, case: tuple[FileSystem, int]) -> None:
        system, number = case
        cuts = min(LIVES, each - number * LIVES)
        done.append((system.name, Cutter(machine, server, system, f"{seed} {system.name} {number}").go(cuts)))

    spread(cases, work, "power_judge")
    counts = {
        name: sum(ledger.seen[name] for _, ledger in done)
        for name in ("cuts", "while beginning", "acknowledged", "reported durable")
    }
    by_system = ", ".join(f"{name} {sum(led.seen['cuts'] for of, led in done if of == name)}" for name in FILE_SYSTEMS)
    oldest = max(ledger.oldest for _, ledger in done)
    figures(
        "P1", f"{by_system}; the oldest loss was acknowledged {oldest:.2f} s before",
        **{name.replace(" ", "_"): count for name, count in counts.items()},
    )
    assert counts["cuts"] >= CUTS


@pytest.mark.parametrize(
    ("plant", "kinds", "said"),
    [
        ("lying disk", ("disk", "rows", "large"), "reported durable|went on at|the log .* is damaged"),
        ("no fsync", ("disk large", "large"), "reported durable|went on at|side file"),
        ("late", ("sets", "rows"), "s before the cut"),
    ],
)
def test_control_planted(machine: Machine, seed: int, plant: str, kinds: tuple[str, ...], said: str) -> None:
    """A disk that lies about its syncs, syncs that are left out, and a writer that comes too late are found out."""
    system = FILE_SYSTEMS["ext4 ordered"]

    def cut_often() -> None:
        for number in range(12):
            Cutter(machine, server, system, f"{seed} {plant} {number}", plant, at_least=5, kinds=kinds).go(1)

    with Server("power_judge") as server, pytest.raises(AssertionError, match=said):
        cut_often()
