"""What the guest was promised, and whether what came back keeps it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from harness import Lost
from power_jobs import ACK, CLEARED, CLEARING, COMMITTED, COMMITTING, DONE, DURABLE, KINDS, START, WINDOW
from power_machine import Event

# How long a thread of the guest may wait for its turn: it is slow, and its host busy.
GRACE = 1.0


class Invented(AssertionError):
    """More came back than was ever saved, or what had been removed."""


@dataclass
class Promise:
    """One run over all its lives: `floor` is on disk for good, `top` the most that can have been saved."""

    floor: int = 0
    top: int = 0
    acked: list[tuple[float, int]] = field(default_factory=list)


@dataclass
class Ledger:
    """All that was promised on one disk. `oldest`: the age of the oldest acknowledged checkpoint that was lost."""

    runs: dict[str, Promise] = field(default_factory=dict)
    briefs: dict[int, int] = field(default_factory=dict)     # by number, the last event
    seen: Counter[str] = field(default_factory=Counter)
    oldest: float = 0.0
    slowest: float = 0.0        # commit
    _begun: dict[int, float] = field(default_factory=dict)      # by process

    def new_life(self) -> None:
        """The commits of the last one ended with it, and so did its clock."""
        self._begun, self.slowest = {}, 0.0

    def add(self, events: list[Event]) -> None:
        """Take what a life told. Raises Lost, Invented: it began where no earlier one can have left off."""
        for what, kind, _, value, when in events:
            if what == COMMITTING:
                self._begun[value] = when
            elif what == COMMITTED:
                self.slowest = max(self.slowest, when - self._begun.pop(value))
            if kind == "brief" and what in (DONE, CLEARING, CLEARED):
                self.briefs[value] = what
            elif what in (START, ACK, DURABLE):
                self._note(self.runs.setdefault(kind, Promise()), what, kind, value, when)

    def _note(self, run: Promise, what: int, kind: str, value: int, when: float) -> None:
        stride = KINDS[kind].stride
        if what == START:
            if not run.floor <= value <= run.top:
                raise (Lost if value < run.floor else Invented)(f"{kind} went on at {value}, promised were {run.floor}")
            # What a life begins with was put on disk before it began.
            # Of the bits, some behind the first that is not done may have come back too.
            run.floor, run.acked = value, []
            run.top = max(run.top, value + stride) if kind == "bits" else value + stride
        elif what == ACK:
            self.seen["acknowledged"] += 1
            run.top = max(run.top, value + stride)
            run.acked.append((when, value))
            if KINDS[kind].durability == "disk":
                run.floor = value
        else:
            self.seen["reported durable"] += 1
            run.floor = max(run.floor, value)

    def compare(self, found: dict[str, Any], last_seen: float) -> None:
        """Compare with what the judge found. `last_seen`: when the guest lived for sure. Raises Lost, Invented."""
        for kind, run in self.runs.items():
            row, top = found["bits"] if kind == "bits" else [found["runs"].get(kind, 0)] * 2
            if row < run.floor:
                raise Lost(f"{kind} came back with {row}, reported durable were {run.floor}")
            if top > run.top:
                raise Invented(f"{kind} came back with {top}, there were {run.top}")
            if kind != "bits":
                self._check_window(kind, run, row, last_seen)
        for number, what in self.briefs.items():
            state = found["briefs"][f"brief {number}"]
            if what == DONE and state != "finished":
                raise Lost(f"brief {number} had finished and is {state}")
            if what == CLEARED and state != "gone":
                raise Invented(f"brief {number} was cleared and is {state}")

    def _check_window(self, kind: str, run: Promise, came_back: int, last_seen: float) -> None:
        # One commit may have been on its way, and the next one, which has the checkpoint, not have ended.
        slowest = max([self.slowest, *(last_seen - begun for begun in self._begun.values())])
        lost = [when for when, value in run.acked if value > came_back]
        if lost:
            self.oldest = max(self.oldest, last_seen - lost[0])
            if last_seen - lost[0] > WINDOW + 2 * slowest + GRACE:
                raise Lost(f"{kind} lost what was acknowledged {last_seen - lost[0]:.2f} s before the cut")

    def asked(self) -> list[str]:
        return [f"brief {number}" for number in self.briefs]
