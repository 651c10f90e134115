"""The power of a virtual machine is cut while the library works in it; and disks as they may be between two flushes.

Not in CI: `make torture` fetches the machine; where it has been fetched, the short form is part of the crash tests.
A seed replays the jobs and the choice of moments; what the guest does at a moment is its own, so a disk that fails is kept.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from figures import Figures, amount, share
from harness import Life, Server, scratch, spread
from power_blocks import apply, apply_some, read_log, spans
from power_jobs import KINDS, NAMES
from power_ledger import Ledger
from power_machine import (
    FILE_SYSTEMS,
    FILES,
    Event,
    FileSystem,
    Machine,
    Power,
    await_begin,
    copy_sparse,
    fetch,
    is_fetched,
)

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif("CI" in os.environ or os.geteuid() != 0, reason="needs root and a virtual machine, takes minutes"),
    pytest.mark.skipif(not share() and not is_fetched(), reason="the machine is not fetched: tests/crash/power/fetch-vm"),
]

CUTS = amount("P1", 12)
STATES = amount("P2", 40)
LIVES = 3
FLUSHES, SUBSETS = 40, 10
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


def judged(server: Server, disk: Path, system: FileSystem, ledger: Ledger, last_seen: float, keep: bool) -> None:
    """Have a copy of the disk judged, and compare. A disk that fails is kept if `keep` says so."""
    copy = disk.with_suffix(".copy")
    copy_sparse(disk, copy)
    options = ",".join(part for part in (system.options, system.host_options) if part)
    try:
        life: Life = server.live(
            "judge", disk=str(copy), kind=system.type, options=options, asked=ledger.asked(), timeout=120
        )
        ledger.compare(life.value(), last_seen)
    except AssertionError as error:
        if keep:
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

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.ledger = Ledger()
        self.processes = [list(self.kinds)] if self.kinds else mix(self.chance)
        self.disk = self.machine.place / f"{self.seed.replace(' ', '-')}.img"
        self.system.format(self.disk)

    def go(self, cuts: int) -> Ledger:
        """A new disk, this many lives."""
        try:
            for life in range(cuts):
                self.ledger.new_life()
                power = self.life(life)
                self.ledger.seen["while beginning"] += len(power.events) == 1
                self.ledger.seen["cuts"] += 1
                self.take(power.events)
                judged(self.server, self.disk, self.system, self.ledger, power.events[-1][-1], not self.plant)
        finally:
            self.disk.unlink()
        return self.ledger

    def life(self, number: int, log: Path | None = None) -> Power:
        """One life and its end."""
        chance = self.chance
        word = {
            "type": self.system.type, "options": self.system.options, "life": number, "plant": self.plant,
            "processes": self.processes, "seed": f"{self.seed} {number}", "entropy": chance.randbytes(32).hex(),
            "marks": FILES if log else 0,
        }  # fmt: skip
        with self.machine.begin(self.disk, self.disk.stem, word, log) as power:
            await_begin(power)
            power.listen(self.at_least)
            # Counted in events, as the machine is slow when its host is busy; at times not even the first is awaited.
            power.listen(LONGEST, events=chance.choice((1, chance.randint(2, 12), chance.randint(2, MOST_EVENTS))))
            power.listen(chance.uniform(0, 0.05))
            power.cut()
        return power

    def take(self, events: list[Event]) -> None:
        """Note what was promised."""
        try:
            self.ledger.add(events)
        except AssertionError as error:
            error.args = (f"{error}\n{self.seed}: {self.processes}",)
            raise


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
        ("lying disk", ("disk", "rows", "large"), "reported durable|went on at|the log .* is damaged|a page of it is damaged"),
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


# ---- between two flushes


def block_states(cutter: Cutter, lives: int, most: int) -> int:
    """Disks as a life may have left them after each of its flushes, judged; how many they were. `lives` came before."""
    disk, chance, states = cutter.disk, cutter.chance, 0
    log, base = disk.with_suffix(".log"), disk.with_suffix(".base")
    try:
        for life in range(lives):
            cutter.take(cutter.life(life).events)
        copy_sparse(disk, base)
        cutter.ledger.new_life()
        cutter.life(lives, log)
        writes = list(read_log(log))
        between = spans(writes)
        applied = told = 0
        last_seen = 0.0
        for at, later in sorted(chance.sample(between, min(FLUSHES, len(between)))):
            apply(base, writes[applied : at + 1])
            events = [event for write in writes[told:later] if (event := write.event)]
            cutter.take(events)
            last_seen = events[-1][-1] if events else last_seen
            applied, told = at + 1, later
            for subset in range(min(1 + SUBSETS, most - states)):
                copy_sparse(base, disk)
                if subset:
                    apply_some(disk, writes[at + 1 : later], chance)
                judged(cutter.server, disk, cutter.system, cutter.ledger, last_seen, not cutter.plant)
                states += 1
    finally:
        for path in (disk, base, log):
            path.unlink(missing_ok=True)
    return states


def test_block_states(machine: Machine, seed: int, figures: Figures) -> None:
    """Whichever sectors a disk keeps of what it was given since its last flush, what comes back is an exact earlier state."""
    each = min(FLUSHES * (1 + SUBSETS), STATES)
    done: list[tuple[int, Ledger]] = []

    def work(server: Server, number: int) -> None:
        left = each
        while left > 0:
            name = f"{seed} blocks {number} {left}"
            cutter = Cutter(machine, server, FILE_SYSTEMS["ext4 ordered"], name, at_least=3)
            states = block_states(cutter, random.Random(name).randint(0, 1), left)
            done.append((states, cutter.ledger))
            left -= states

    spread(range(-(-STATES // each)), work, "power_judge")
    states = sum(states for states, _ in done)
    durable = sum(ledger.seen["reported durable"] for _, ledger in done)
    figures("P2", f"recordings of ext4: {len(done)}", states=states, reported_durable=durable)
    assert states >= STATES


def test_control_block_states(machine: Machine, seed: int) -> None:
    """A disk that says it has synced is found out by its log of writes, too."""
    system = FILE_SYSTEMS["ext4 ordered"]

    def record_often() -> None:
        for number in range(12):
            name = f"{seed} lying blocks {number}"
            block_states(Cutter(machine, server, system, name, "lying disk", at_least=5, kinds=("disk", "rows")), 0, 40)

    said = "reported durable|went on at|the log .* is damaged"
    with Server("power_judge") as server, pytest.raises(AssertionError, match=said):
        record_often()
