"""One episode of the soak: a directory, some runs in it, and steps that are drawn at random; judged from outside."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jobs
from harness import Life, Lost, Repeated, Server, fault_settings
from soak_jobs import FEWEST_KEPT, FORMS, LANE_BITS, SYNCED, digest_of

STEPS = 12
ROOM = 256 << 20
# Each one-by-one, threaded or interleaved lane and each one in an event loop, by its number.
LANES = [(0, "int"), (1, "dict"), (2, "middle"), (3, "heavy"), (4, "object"), (5, "int"), (6, "middle")]
IN_LOOP = frozenset((5, 6))
ENDS = ("nothing", "kill", "kill", "SIGINT", "SIGTERM", "stumble", "fault", "fault", "killed in a call")
NAMED = {"SIGINT": "KeyboardInterrupt", "SIGTERM": "Preempted", "stumble": "Stumble"}


@dataclass
class Seen:
    """What a lane was seen to promise.

    durable: no power cut takes these. unsure: it may have been forgotten. ran: in the last life.
    """

    lane: tuple[int, str]
    acked: int = 0
    begun: int = 0
    durable: int = 0
    returned: bool = False
    after_cut: bool = False
    unsure: bool = False
    ran: bool = False

    @property
    def items(self) -> int:
        return FORMS[self.lane[1]]

    @property
    def may_be_over(self) -> bool:
        return self.begun == self.items or self.unsure

    def add(self, life: Life, disk: bool) -> None:
        """Take a life's events into account. Raises Lost, Repeated."""
        self.ran = False
        for event in life.events:
            what, value = event >> 56, event & (1 << LANE_BITS) - 1
            if what in (jobs.ENTERED, jobs.END) or event >> LANE_BITS & 0xFFFF != self.lane[0]:
                continue
            if what == jobs.START:
                self._start(value)
                self.ran = True
            elif what == jobs.BEGIN:
                self.begun = value + 1
            elif what == jobs.ACK:
                self.acked = value + 1
                self.durable = self.acked if disk else self.durable
            elif what == SYNCED:
                self.durable = max(self.durable, value)

    def _start(self, at: int) -> None:
        if self.unsure and at == 0:
            self.forget()
        if self.returned:
            raise Repeated(f"lane {self.lane} was finished and began again at {at}")
        if at < self.acked:
            raise Lost(f"lane {self.lane} resumed at {at}, {'durable' if self.after_cut else 'acknowledged'} were {self.acked}")
        if at > self.begun or (self.begun - at > 1 and not self.after_cut):
            raise Repeated(f"lane {self.lane} resumed at {at}, begun were {self.begun}")
        if self.after_cut:
            # What came back is in the log before anything new is acknowledged.
            self.acked = self.begun = self.durable = at
        self.after_cut = self.unsure = False

    def end_with(self, value: list[Any], durable: bool) -> None:
        """The run returned this."""
        assert value == [self.lane[0], digest_of(self.items)], f"lane {self.lane} returned {value}"
        assert self.begun == self.items, f"lane {self.lane} returned and had begun {self.begun} items"
        self.acked, self.returned, self.after_cut, self.unsure = self.items, True, False, False
        self.durable = self.items if durable else self.durable

    def cut(self) -> None:
        """The power went."""
        if not (self.returned and self.durable == self.items):
            self.acked, self.returned, self.after_cut = self.durable, False, True

    def forget(self) -> None:
        """The run was cleared."""
        self.acked = self.begun = self.durable = 0
        self.returned = self.after_cut = self.unsure = False


@dataclass
class Plan:
    """A life: what runs in it and how it is to end."""

    lanes: list[Seen]
    manner: str
    end: str
    settings: dict[str, Any]
    deeds: dict[str, Any] = field(default_factory=dict)
    kill_after: float | None = None
    faults: dict[str, str] | None = None

    def __str__(self) -> str:
        faults = {key: value for key, value in (self.faults or {}).items() if key != "FAULT_UNDER"}
        lanes = [seen.lane[0] for seen in self.lanes]
        return f"lanes {lanes} {self.manner}, {self.settings}, {self.end} {self.deeds} {self.kill_after or ''} {faults or ''}"


class Episode:
    """One directory and its runs. Everything that is drawn derives from the seed, the episode and the step."""

    def __init__(self, servers: list[Server], place: Path, seed: int, number: int, plant: str | None = None) -> None:
        self._servers, self._place, self._seed, self._number, self._plant = servers, place, seed, number, plant
        self._directory = place / "d"
        self._random = random.Random(f"{seed} {number}")
        self._boot = self._random.randbytes(16).hex()
        self._lanes = [Seen(lane) for lane in LANES]
        self._story: list[str] = []
        self.done: Counter[str] = Counter()

    def go(self, is_over: Callable[[], bool]) -> None:
        """All steps for which there is time. Raises AssertionError with what led to it."""
        with _own_disk(self._place) if self._random.random() < 0.4 else _no_disk() as small:
            for step in range(STEPS):
                if is_over():
                    return
                self._random = random.Random(f"{self._seed} {self._number} {step}")
                try:
                    self._step(small)
                except AssertionError as error:
                    story = "\n".join(self._story)
                    raise AssertionError(f"seed {self._seed}, episode {self._number}, step {step}:\n{story}\n{error}") from error
                self.done["steps"] += 1

    def _step(self, small: bool) -> None:
        deeds = {self._live: 12, self._cut: 3, self._clear: 1, self._repair: 1, self._check: 1}
        if small:
            deeds[self._squeeze] = 3
        self._random.choices(list(deeds), list(deeds.values()))[0]()

    def _call(self, server: int, task: str, **args: Any) -> Life:
        self.done["lives"] += 1
        return self._servers[server].live(
            task, directory=str(self._directory), boot=self._boot, plant=self._plant, timeout=60, **args
        )

    # ---- lives

    def _live(self, tight: bool = False) -> None:
        """One process with runs; often another one beside it, with others or with a report."""
        first = self._plan(self._lanes)
        beside = self._random.choice(["nothing", "report", "another"])
        if beside == "another" or tight:
            others = [seen for seen in self._lanes if seen not in first.lanes]
            plans = [first, self._plan(others)] if others else [first]
        else:
            plans = [first]
        for plan in plans if tight else ():
            plan.deeds.pop("fork_at", None)     # the child would need room too
        self._story += [f"  live: {plan}{', little room' if tight else ''}" for plan in plans]
        known = [seen.acked for seen in self._lanes]
        with ThreadPoolExecutor(2) as pool:
            lives = [pool.submit(self._live_by, number, plan) for number, plan in enumerate(plans)]
            if beside == "report" and not tight:
                self._story[-1] += ", and a report beside it"
                reported = pool.submit(self._call, 1, "report", **self._reported())
        for plan, life in zip(plans, lives, strict=True):
            self._judge(plan, life.result(), tight)
        if beside == "report" and not tight:
            self._judge_report(reported.result(), known)

    def _live_by(self, number: int, plan: Plan) -> Life:
        return self._call(
            number, "live", label=self._number, lanes=[seen.lane for seen in plan.lanes], manner=plan.manner,
            settings=plan.settings, deeds=plan.deeds, kill_after=plan.kill_after, faults=plan.faults,
        )

    def _plan(self, lanes: list[Seen]) -> Plan:
        draw = self._random
        in_loop = [seen for seen in lanes if seen.lane[0] in IN_LOOP]
        others = [seen for seen in lanes if seen.lane[0] not in IN_LOOP]
        manner = draw.choice(["threads", "turns", "one by one", "loop"])
        # What is over begins anew when it is interleaved.
        able = in_loop if manner == "loop" else [seen for seen in others if manner != "turns" or not seen.may_be_over]
        if not able:
            manner, able = ("one by one", others) if others else ("loop", in_loop)
        chosen = draw.sample(able, draw.randint(1, min(3, len(able))))
        end = draw.choice(ENDS)
        settings: dict[str, Any] = {
            "durability": draw.choice(["process", "process", "disk"]), "keep_states": draw.choice([FEWEST_KEPT, 50, 1000, None]),
            "sync_every": draw.uniform(0.01, 1.5),
        }  # fmt: skip
        plan = Plan(chosen, manner, end, settings)
        farthest = max(seen.items for seen in chosen)
        if draw.random() < 0.5:
            plan.deeds["sync_at"] = draw.randrange(farthest)
        if end == "kill":
            plan.kill_after = draw.uniform(0, draw.choice([0.02, 0.05, 0.15]))
        elif end in ("SIGINT", "SIGTERM"):
            settings["preempt"] = end == "SIGTERM"
            plan.deeds |= {"signal": end, "signal_after": draw.uniform(0, 0.1)}
        elif end == "stumble":
            plan.deeds["stumble_at"] = draw.randrange(farthest)
        elif end in ("fault", "killed in a call"):
            plan.faults = fault_settings(
                self._directory, "any", draw.randint(1, 150), draw.choice([errno.EIO, errno.ENOSPC]),
                persistent=draw.random() < 0.5, kill=end == "killed in a call",
            )
        if end in ("nothing", "kill", "stumble") and draw.random() < 0.3:
            # A child that survives its parent rightly goes on with the parent's run, or is in the middle of its own.
            few = manner == "loop" or end == "kill"
            child = draw.choice(["exits", "outlives"] if few else ["exits", "outlives", "uses", "intrudes"])
            plan.deeds |= {"fork_at": draw.randrange(farthest), "child": child}
        return plan

    def _judge(self, plan: Plan, life: Life, tight: bool) -> None:
        for seen in plan.lanes:
            seen.add(life, plan.settings["durability"] == "disk")
        assert not life.timed_out, f"hung: {plan}"
        if life.killed or (plan.end == "SIGTERM" and life.code == -signal.SIGTERM):
            assert life.code == -signal.SIGTERM or plan.end in ("kill", "killed in a call"), f"killed itself: {plan}"
            self.done["kills"] += 1
            return
        assert life.code == 0, f"code {life.code}: {plan}"
        refused = tight or plan.end == "fault"
        if "value" in life.report:
            for seen, value in zip(plan.lanes, life.report["value"], strict=True):
                seen.end_with(value, "NotDurableWarning" not in life.report["warnings"])
            return
        error = life.report["error"]
        expected = error == NAMED.get(plan.end) or (refused and "ResumableError" in life.report["bases"])
        assert expected, f"{plan}\n{life.report['trace']}"
        if error in ("Stumble", "Preempted") and not refused:
            for seen in plan.lanes:     # a run that ends is committed before its lock is free
                seen.durable = seen.acked if seen.ran else seen.durable

    # ---- reports

    def _reported(self) -> dict[str, Any]:
        return {"label": self._number, "lanes": [(*seen.lane, seen.lane[0] in IN_LOOP) for seen in self._lanes]}

    def _judge_report(self, life: Life, known: list[int]) -> None:
        for seen, at_least, (seq, on_disk) in zip(self._lanes, known, life.value(), strict=True):
            if seen.unsure:
                continue
            if seq < at_least:
                raise Lost(f"a report says {seq} of lane {seen.lane}, acknowledged were {at_least}")
            assert max(seq, on_disk) <= seen.begun, f"a report says {seq}, {on_disk} on disk of lane {seen.lane}: {seen}"
            if not seen.after_cut:
                seen.durable = max(seen.durable, min(on_disk, seen.acked))

    # ---- other steps

    def _cut(self) -> None:
        """The power goes: another boot, and the journals' pages hold anything."""
        self._boot = self._random.randbytes(16).hex()
        segments = [path for path in sorted(self._directory.glob("runs/*/*.[0-9]")) if ".side." not in path.name]
        torn = [path for path in segments if self._random.random() < 0.5]
        for path in torn:
            if self._random.random() < 0.3:
                path.unlink()
                continue
            data = bytearray(path.read_bytes())
            for _ in range(self._random.randint(1, 6)):
                at = self._random.choice([0, *range(0, len(data), 4096)])
                size = self._random.choice([512, 4096])
                data[at : at + size] = self._random.choice([bytes(size), self._random.randbytes(size)])
            path.write_bytes(data)
        for seen in self._lanes:
            seen.cut()
        self.done["cuts"] += 1
        self._story.append(f"  power cut, {len(torn)} segments torn")

    def _clear(self) -> None:
        seen = self._random.choice(self._lanes)
        kill_after = self._random.choice([None, self._random.uniform(0, 0.02)])
        self._story.append(f"  clear lane {seen.lane[0]} {kill_after or ''}")
        life = self._call(0, "clear", label=self._number, lane=seen.lane, in_loop=seen.lane[0] in IN_LOOP, kill_after=kill_after)
        if life.killed:
            seen.unsure = True
        else:
            life.value()
            seen.forget()

    def _repair(self) -> None:
        if not (self._directory / "log" / "data.mdb").exists():
            return
        copy = self._place / f"copy {len(self._story)}"
        kill_after = self._random.choice([None, self._random.uniform(0, 0.02)])
        self._story.append(f"  repair {kill_after or ''}")
        life = self._call(0, "repair", target=str(copy), kill_after=kill_after)
        if not copy.exists():
            assert life.killed, life.report
            return
        shutil.rmtree(self._directory)
        self._directory = copy
        for seen in self._lanes:
            if not seen.after_cut:
                seen.durable = seen.acked

    def _check(self) -> None:
        """Nothing is damaged, and each run is where it was seen to be."""
        if any(seen.after_cut for seen in self._lanes) or not (self._directory / "log" / "data.mdb").exists():
            return
        self._story.append("  check")
        assert self._call(0, "check").value() == []
        self._judge_report(self._call(0, "report", **self._reported()), [seen.acked for seen in self._lanes])

    def _squeeze(self) -> None:
        """The disk has little room for a while."""
        found = os.statvfs(self._place)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        _mount(self._place, f"remount,size={used + self._random.randrange(600 << 10)}")
        try:
            self._live(tight=True)
        finally:
            _mount(self._place, f"remount,size={ROOM}")
        self.done["full_disks"] += 1


def _mount(place: Path, options: str) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "resumable-test", place], capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def _own_disk(place: Path) -> Iterator[bool]:
    """A file system of its own, if this user may have one."""
    mounted = _mount(place, f"size={ROOM},mode=700")
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def _no_disk() -> Iterator[bool]:
    yield False
