"""SIGKILL at random instants of real jobs: alone, several in one process, several processes in one directory."""

from __future__ import annotations

import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from operator import and_
from pathlib import Path
from typing import Any

import crowds
import jobs
import pytest
from figures import Figures, amount
from harness import Ledger, Life, Lost, Server, scratch, spread
from seams import MODULES

pytestmark = pytest.mark.crash

KILLS = amount("K2", 300)
SHARE_OF_RESUMES, SHARE_OF_SECOND_KILLS = 0.3, 0.5
# A new directory now and then, so that making one is killed too, and that it does not grow for ever.
RUNS_IN_A_DIRECTORY = 12
# kind: items and keywords of the Driver
CROWDS = {
    "threads": (4_000, {}), "turns": (6_000, {}), "loop": (4_000, {}), "threads, disk": (600, {"durability": "disk"}),
    "keyed": (6_000, {}), "keyed, disk": (600, {"durability": "disk"}),
}  # fmt: skip
MARKS = 60_000
# Two of these at a time have one directory.
NEIGHBOURS = ("results", "objects", "disk", "threads")
BESIDE_OTHERS = KILLS // 10
# What goes the whole way between journal, side files, sync files and log, many times in a life.
WITH_SEAMS = ("weighty", "results", "large", "layers", "disk", "yields", "threads", "keyed")
AT_SEAMS = KILLS // 2


class Slaughter:
    """Kills runs of one kind of job until it has its number, then lets the last one finish."""

    def __init__(
        self, server: Server, kind: str, place: Path, seed: int, plant: str | None = None, beside_others: bool = False,
        at_seams: bool = False,
    ) -> None:
        self._server, self._kind, self._place, self._plant, self._beside_others = server, kind, place, plant, beside_others
        self._at_seams = at_seams
        self._random = random.Random(f"{seed} {kind}")
        self._opening = 0.02
        self._again = False     # the last life was killed while it resumed, and so is the next one
        self.done: Counter[str] = Counter(kills=0)

    @property
    def _directory(self) -> Path:
        return self._place if self._beside_others else self._place / str(self.done["runs"] // RUNS_IN_A_DIRECTORY)

    def _life(self, name: str, kill_after: float | None) -> Life:
        common: dict[str, Any] = {"directory": str(self._directory), "plant": self._plant, "kill_after": kill_after}
        common["seam"] = self._seam() if self._at_seams and kill_after is not None else None
        pace = self._random.uniform(0.01, 0.05)
        if self._kind == "bitset":
            return self._server.live("mark", label=name, items=MARKS, **common)
        if self._kind in CROWDS:
            items, settings = CROWDS[self._kind]
            crowd = {"label": name, "manner": self._kind.split(",")[0], "items": items, "sync_every": pace}
            return self._server.live("crowd", **crowd, **settings, **common)
        return self._server.live("kind", kind=self._kind, name=f"{self._kind}, {name}", sync_every=pace, **common)

    def go(self, kills: int) -> None:
        undisturbed = self._life("undisturbed", None).value()
        while self.done["kills"] < kills:
            before = self._directory
            self.done["runs"] += 1
            if before != self._directory:
                shutil.rmtree(before)
            self._one_run(f"run {self.done['runs']}", kills, undisturbed)

    def _one_run(self, name: str, kills: int, undisturbed: object) -> None:
        ledgers: defaultdict[int, Ledger] = defaultdict(Ledger)
        while True:
            begun = any(ledger.begun for ledger in ledgers.values())
            delay = self._delay(begun) if self.done["kills"] < kills else None
            life = self._life(name, delay)
            for lane, part in crowds.lanes(life) if self._kind in CROWDS else [(0, life)]:
                ledgers[lane].add(part, jobs)
            if self._kind == "bitset":
                self._check_bits(name, ledgers[0])
            # One that was killed before it started would have taken longer than that.
            took = life.first_start or max(self._opening, delay or 0)
            self._opening += (took - self._opening) / 8
            if not life.killed:
                assert life.value() == undisturbed
                break
            resuming = begun and life.first(jobs.START) is None
            self.done += Counter(kills=1, while_resuming=int(resuming), twice=int(resuming and self._again))
            self._again = resuming and self._random.random() < SHARE_OF_SECOND_KILLS
        self.done["acknowledged"] += sum(ledger.events for ledger in ledgers.values())
        self.done["repeated"] += sum(ledger.repeated for ledger in ledgers.values())

    def _delay(self, begun: bool) -> float:
        aim_at_resume = begun and (self._again or self.done["while_resuming"] < SHARE_OF_RESUMES * (self.done["kills"] + 1))
        return self._random.uniform(0, self._opening) if aim_at_resume else self._opening + self._random.uniform(0, 0.05)

    def _seam(self) -> tuple[str, int]:
        """A step that a life is killed at if it gets there, most of them early ones."""
        return self._random.choice(MODULES), int(300 ** self._random.random())

    def _check_bits(self, name: str, ledger: Ledger) -> None:
        """Every bit that was acknowledged is set, and no other but the one in flight."""
        path = self._directory / name
        data = path.read_bytes() if path.exists() else bytes(4096 + crowds.PAGES * 8192)
        done, acknowledged = bytearray(), bytearray(crowds.PAGES * 4096)
        for at in range(4096, len(data), 8192):
            done += bytes(map(and_, data[at : at + 4096], data[at + 4096 : at + 8192]))
        for k in range(ledger.acked):
            item = crowds.place_of(k)
            acknowledged[item // 8] |= 1 << item % 8
        found, needed = int.from_bytes(done, "little"), int.from_bytes(acknowledged, "little")
        if needed & ~found:
            raise Lost("acknowledged items are not done")
        in_flight = 1 << crowds.place_of(ledger.acked) if ledger.begun > ledger.acked else 0
        assert not found & ~(needed | in_flight), "a bit is set that nobody set"


def slaughter(
    kinds: Sequence[str], kills: int, seed: int, *, beside_others: bool = False, at_seams: bool = False
) -> Counter[str]:
    """Kill runs of these kinds, two processes at a time, in one directory or each in its own; what was done."""
    done: Counter[str] = Counter()
    with scratch() as common:

        def work(server: Server, kind: str) -> None:
            with scratch() as own:
                place = common if beside_others else own
                one = Slaughter(server, kind, place, seed, beside_others=beside_others, at_seams=at_seams)
                one.go(kills)
                done.update(one.done)

        spread(kinds, work, "crowds")
    return done


def test_random_kills(seed: int, figures: Figures) -> None:
    """kill -9 at any instant loses no acknowledged checkpoint and repeats at most the item in flight."""
    kinds = [*jobs.KINDS, *CROWDS, "bitset"]
    kills = KILLS - BESIDE_OTHERS - AT_SEAMS
    done = slaughter(kinds, -(-kills // len(kinds)), seed)
    figures("K2", "of runs alone in a directory, and several of one process", **done)
    assert done["kills"] >= kills
    assert done["while_resuming"] >= SHARE_OF_RESUMES * done["kills"]
    assert done["twice"] > 0


def test_kills_at_seams(seed: int, figures: Figures) -> None:
    """However many lives are killed between two steps of the write path, one after another, nothing acknowledged is lost."""
    done = slaughter(WITH_SEAMS, -(-AT_SEAMS // len(WITH_SEAMS)), seed, at_seams=True)
    figures("K2", "of runs alone in a directory, at steps of one module, or soon behind", **done)
    assert done["kills"] >= AT_SEAMS


def test_kills_beside_others(seed: int, figures: Figures) -> None:
    """A process that is killed takes nothing from another one on the same directory, and loses nothing itself."""
    done = slaughter(NEIGHBOURS, -(-BESIDE_OTHERS // len(NEIGHBOURS)), seed, beside_others=True)
    figures("K2", "of two processes in one directory", **done)
    assert done["kills"] >= BESIDE_OTHERS


def test_control_acknowledged_too_early(seed: int) -> None:
    """A driver that publishes each checkpoint one yield late is found out."""
    with scratch() as place, Server() as server, pytest.raises(Lost):
        Slaughter(server, "ints", place, seed, plant="acknowledge early").go(20)


def test_control_parts_removed_early(seed: int) -> None:
    """A driver that removes side files in which parts of its last state stand is found out."""
    with scratch() as place, Server() as server, pytest.raises(AssertionError, match=r"StateGoneError|DamagedLogError"):
        Slaughter(server, "layers", place, seed, plant="forget parts").go(20)


def test_control_journal_removed_early(seed: int) -> None:
    """A driver that removes a finished run's journal a moment before the log has its end is found out."""
    with scratch() as place, Server() as server, pytest.raises(AssertionError, match="DamagedLogError"):
        Slaughter(server, "large", place, seed, plant="settle early", at_seams=True).go(1000)


def test_control_bits_set_late(seed: int) -> None:
    """A bitset that sets each bit one item late is found out."""
    with scratch() as place, Server("crowds") as server, pytest.raises(Lost):
        Slaughter(server, "bitset", place, seed, plant="set late").go(20)
