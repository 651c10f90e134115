"""The public API in plain Python: what a directory must tell, whatever happened to the processes that used it.

A `World` holds the runs by key: a name, or `#7` for the unnamed run of the job with argument 7. What a request does is a script
of notes, which the process sends through a pipe, and events, which change the world. A process that was killed behind its n-th
note has done every event before that note and some first part of those up to the next one: each makes a world that may be the
true one. A power cut leaves of each run a first part of its past that holds at least what was durable.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Plan = dict[str, Any]
Note = tuple[int, int]


@dataclass(frozen=True)
class Life:
    """A process went on with a run."""

    arguments: str
    version: int | None
    batch: tuple[str, int] | None
    keep: int | None
    disk: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint of item `i`; state and result as `exact` shows them."""

    i: int
    state: str
    large: bool
    result: str | None


@dataclass(frozen=True)
class Returned:
    """The job's value; None when it cannot be saved."""

    value: str | None


FAILED, OVER = "failed", "over"
Past = Life | Saved | Returned | str


@dataclass
class Seen:
    """What a run's past makes of it."""

    status: str = "interrupted"
    life: Life | None = None
    resumed: int = -1
    states: list[Saved] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    state_version: int | None = None
    failed: bool = False
    value: Returned | None = None
    first_kept: int = 1

    @property
    def seq(self) -> int:
        return len(self.states)

    def add(self, event: Past) -> None:
        if isinstance(event, Life):
            self.status, self.life, self.resumed = "interrupted", event, self.resumed + 1
            if not self.states:
                self.state_version = event.version
        elif isinstance(event, Saved):
            assert self.life is not None
            self.states.append(event)
            self.results += [event.result] if event.result is not None else []
            self.state_version = self.life.version
        elif isinstance(event, Returned):
            self.status, self.value = "finished", event
        elif event == FAILED:
            self.status, self.failed = "failed", True
        else:
            self.status = "abandoned"
        if self.life is not None and self.life.keep is not None:
            self.first_kept = max(self.first_kept, self.seq - self.life.keep + 1)

    def promised(self) -> set[int]:
        """The checkpoints that must be readable: those in the window, of large ones the last two."""
        large = [seq for seq, saved in enumerate(self.states, 1) if saved.large]
        return {
            seq for seq, saved in enumerate(self.states, 1)
            if seq >= self.first_kept and (not saved.large or seq in large[-2:])
        }  # fmt: skip


@dataclass
class Run:
    """`past[:durable]` is what a power cut cannot take; `perhaps` may come back when the run is next opened after one."""

    number: int
    job: str
    boot: int
    past: list[Past] = field(default_factory=list)
    durable: int = 0
    perhaps: list[Past] = field(default_factory=list)

    def seen(self, until: int | None = None) -> Seen:
        found = Seen()
        for event in self.past[:until]:
            found.add(event)
        return found


@dataclass(frozen=True)
class Event:
    """One change of the world."""

    what: str
    key: str
    data: tuple[Any, ...] = ()


Script = list[Note | Event]


@dataclass
class World:
    """`untold`: runs that finished in a process that may have told nobody. `held`: running now: its pid, and what is to come."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    cleared: dict[str, int] = field(default_factory=dict)
    untold: set[str] = field(default_factory=set)
    batches: dict[str, tuple[int, bool]] = field(default_factory=dict)
    boot: int = 0
    held: dict[str, tuple[int, Any]] = field(default_factory=dict)

    def newest(self, key: str) -> Run | None:
        return self.runs[key][-1] if self.runs.get(key) else None

    def copy(self) -> World:
        return copy.deepcopy(self)

    def after(self, events: list[Event]) -> World:
        world = self.copy()
        for event in events:
            CHANGES[event.what](world, event.key, *event.data)
        return world

    # ---- events

    def _settle(self, key: str, revealed: int) -> None:
        run = self.newest(key)
        self.untold.discard(key)
        if run is None or run.boot == self.boot:
            return
        run.past += run.perhaps[:revealed]
        run.perhaps, run.durable = [], len(run.past)
        if not run.past:
            self.runs[key].pop()

    def _abandon(self, key: str) -> None:
        run = self.runs[key][-1]
        run.past.append(OVER)
        run.durable = len(run.past)

    def _begin(self, key: str, job: str, life: Life) -> None:
        numbers = [run.number for run in self.runs.get(key, [])]
        self.runs.setdefault(key, []).append(Run(max([self.cleared.get(key, 0), *numbers]) + 1, job, self.boot, [life]))

    def _happens(self, key: str, event: Past) -> None:
        run = self.runs[key][-1]
        run.past.append(event)
        run.boot = self.boot
        if isinstance(event, Returned):
            self.untold.add(key)

    def _durable(self, key: str) -> None:
        self.runs[key][-1].durable = len(self.runs[key][-1].past)

    def _prune(self, key: str, keep: int) -> None:
        if self.runs[key][-1].number > keep:
            self.runs[key] = self.runs[key][-keep:]

    def _told(self, key: str) -> None:
        self.untold.discard(key)

    def _clear(self, key: str, lost_counts: bool = True) -> None:
        """`lost_counts`: of a run of which a power cut left no checkpoint, there may still be a file that tells its number."""
        numbers = [run.number for run in self.runs.pop(key, []) if run.past or lost_counts]
        self.cleared[key] = max([self.cleared.get(key, 0), *numbers])
        self.untold.discard(key)

    def _batch(self, name: str, count: int, is_open: bool) -> None:
        self.batches[name] = count, is_open

    def believe(self, key: str, number: int, on_disk: int) -> None:
        """A report said that so many checkpoints are on disk: no power cut may take them then."""
        for run in self.runs[key]:
            if run.number == number:
                saved = [at for at, event in enumerate(run.past, 1) if isinstance(event, Saved)]
                run.durable = max([run.durable, *saved[on_disk - 1 : on_disk]]) if on_disk else run.durable

    def cut(self) -> None:
        """The power goes; what the disk kept is found out by looking."""
        self.boot += 1


CHANGES: dict[str, Callable[..., None]] = {
    "settle": World._settle, "abandon": World._abandon, "begin": World._begin, "happens": World._happens,
    "durable": World._durable, "prune": World._prune, "told": World._told, "clear": World._clear, "batch": World._batch,
}  # fmt: skip


# ---- what a request does


@dataclass
class Expected:
    """One way it may go: the script, and what comes of each call."""

    script: Script = field(default_factory=list)
    outcomes: list[dict[str, str]] = field(default_factory=list)

    def events(self) -> list[Event]:
        return [step for step in self.script if isinstance(step, Event)]

    def notes(self) -> list[Note]:
        return [step for step in self.script if not isinstance(step, Event)]

    def stopped(self, notes: int) -> Iterator[list[Event]]:
        """The events that have happened when a process told so many notes and was killed: at least these, at most those."""
        events: list[Event] = []
        for step in self.script:
            if isinstance(step, Event):
                if notes == 0:
                    yield list(events)
                events.append(step)
            elif notes == 0:
                break
            else:
                notes -= 1
        yield events


    def divided(self, note: Note) -> tuple[list[Event], Expected]:
        """What has happened when this note was told, and the same way without that."""
        at = self.script.index(note)
        before = self.script[:at]
        told: Script = [step for step in before if not isinstance(step, Event)]
        return [step for step in before if isinstance(step, Event)], Expected(told + self.script[at:], self.outcomes)


def key_of(plan: Plan) -> str:
    return plan["name"] or f"#{shown(plan)}"


def shown(plan: Plan) -> str:
    """The call's arguments, as reports show them."""
    return f"partial[0]={plan['tag']}" if plan.get("bound") else str(plan["tag"])
