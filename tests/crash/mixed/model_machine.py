"""A hypothesis state machine that does anything to a directory, in processes that anything may happen to.

After each rule another process tells everything about every run, and that must be what the model says.
"""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar

import model_jobs
from harness import Life, Server, fault_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from model import Event, Expected, World, key_of
from model_calls import turns, ways
from model_cut import cut_power, in_log
from model_lives import Held, Verdict
from model_reports import Wrong, after_cut, contradiction, key_of_report

from resumable.runs.identity import folder_name

Ways = Callable[[World, dict[str, Any]], list[Expected]]
NAMES = ("a", "b/ü", None)
SYNC_NEVER = 3600.0

steps = st.lists(
    st.tuples(
        st.sampled_from(["int", "int", "plain", "object", "large"]),
        st.sampled_from([None, None, "int", "object", "large"]),
        st.sampled_from([None, None, None, "sync", "fork", "second"]),
    ),
    max_size=4,
)
versions = st.sampled_from([None, None, None, 0, 1, 2, 3])
keywords = st.fixed_dictionaries(
    {},
    optional={
        "on_change": st.sampled_from(["continue", "restart"]),
        "fresh": st.just(True),
        "version": versions.filter(lambda version: version is not None),
    },
).flatmap(lambda given: st.just(given) if "fresh" in given else st.sampled_from([given, given, {**given, "once": True}]))
plans = st.fixed_dictionaries({
    "name": st.sampled_from(NAMES),
    "tag": st.sampled_from([1, 1, 1, 2]),
    "job": st.sampled_from(["work", "work", "work", "awork", "ywork"]),
    "steps": steps,
    "end": st.sampled_from(["return", "return", "fail", "interrupt", "exit", "cancel", "kill", "kill"]),
    "value": st.sampled_from(["int", "plain", "object", "large", "unsavable"]),
    "keywords": keywords,
    "migrate": st.booleans(),
})  # fmt: skip
scripts = st.lists(plans, min_size=1, max_size=3)
batches = st.sampled_from(["night", "a"])
drivers = st.fixed_dictionaries(
    {"sync_every": st.just(SYNC_NEVER)},
    optional={
        "durability": st.just("disk"), "save_every": st.sampled_from([2, 3]), "keep_states": st.sampled_from([1, 2, 5]),
        "keep_runs": st.sampled_from([1, 2]), "rng": st.just(True),
    },
)  # fmt: skip
faults = st.one_of(
    st.fixed_dictionaries({"nth": st.integers(1, 120), "kill": st.just(True)}),
    st.fixed_dictionaries(
        {"nth": st.integers(1, 120), "errno": st.sampled_from([errno.EIO, errno.ENOSPC]), "persistent": st.booleans()}
    ),
)


class Machine(RuleBasedStateMachine):
    """`worlds` are all that may be true. `plant` is a bug that every process has."""

    servers: ClassVar[tuple[Server, Server]]
    plant: ClassVar[str | None] = None
    done: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")
        self.place = Path(tempfile.mkdtemp(prefix="resumable-", dir=shm if os.access(shm, os.W_OK) else None))
        self.directory = self.place / "d"
        self.worlds = [World()]
        self.mark = 0
        self.boot = 0
        self.held: Held | None = None
        self.names: dict[str, str] = {}

    def teardown(self) -> None:
        if self.held is not None:
            self.held.end("kill")
        rmtree(self.place)

    # ---- rules

    called = Bundle("called")

    @rule(target=called, plan=plans, driver=drivers)
    def run(self, plan: dict[str, Any], driver: dict[str, Any]) -> str:
        self._request([plan], driver)
        return key_of(plan)

    @rule(target=called, plan=plans, driver=drivers, fault=faults)
    def run_with_a_fault(self, plan: dict[str, Any], driver: dict[str, Any], fault: dict[str, Any]) -> str:
        self._request([plan], driver, fault=fault)
        return key_of(plan)

    @rule(given=scripts, batch=batches, driver=drivers, abort=st.booleans())
    def batch(self, given: list[dict[str, Any]], batch: str, driver: dict[str, Any], abort: bool) -> None:
        self._request(given, driver, batch=batch, abort=abort)

    @rule(given=scripts, batch=batches, nth=st.integers(1, 250))
    def batch_killed(self, given: list[dict[str, Any]], batch: str, nth: int) -> None:
        self._request(given, {}, batch=batch, fault={"nth": nth, "kill": True})

    @rule(pair=st.tuples(plans, plans), driver=drivers, nth=st.none() | st.integers(1, 200))
    def take_turns(self, pair: tuple[dict[str, Any], dict[str, Any]], driver: dict[str, Any], nth: int | None) -> None:
        given = [
            plan | {
                "name": None, "tag": tag, "bound": True, "keywords": {}, "end": "return" if plan["end"] == "return" else "fail",
            }
            for tag, plan in enumerate(pair, 1)
        ]  # fmt: skip
        self._request(given, driver, fault={"nth": nth, "kill": True} if nth else None, task="turns")

    @rule(key=called, tag=st.sampled_from([1, 1, 2]))
    def ask_for_the_value(self, key: str, tag: int) -> None:
        name, tag = (None, int(key[1:])) if key.startswith("#") else (key, tag)
        plan = {
            "name": name, "tag": tag, "job": "work", "steps": [], "end": "fail", "value": "int", "keywords": {"once": True},
            "migrate": False,
        }  # fmt: skip
        self._request([plan], {})

    @rule(key=called, nth=st.none() | st.integers(1, 40))
    def clear(self, key: str, nth: int | None) -> None:
        called = self.names.get(key)
        if called is None:
            return
        fault = fault_settings(self.directory, nth=nth, kill=True) if nth else None
        life = self._live("clear", name=called, faults=fault)
        if self._is_held(key):
            if not life.killed and life.report.get("error") != "RunLockedError":
                raise Wrong(f"a running run was cleared: {life.report}")
            return
        if life.killed:
            self._half_cleared(key, called)
        else:
            numbers = {len(world.runs.get(key, [])) for world in self.worlds}
            perhaps = any(run.boot != world.boot for world in self.worlds for run in world.runs.get(key, []))
            count = self._value(life)
            if count not in numbers and not perhaps:
                raise Wrong(f"clear said {count}, of {numbers}")
            self._be(self._cleared(key))

    def _cleared(self, key: str) -> list[World]:
        return [world.after([Event("clear", key, (counts,))]) for world in self.worlds for counts in (True, False)]

    def _half_cleared(self, key: str, called: str) -> None:
        """A kill came in between: the runs are as they were, or over; and clearing them again ends it."""
        left = self._value(self._live("statuses", name=called))
        reports = self._live("reports").report.get("value")     # parts of them may be gone
        untouched = [world for world in self.worlds if reports is not None and contradiction(world, reports) is None]
        if left and untouched:
            self._be(untouched)
            return
        if not {"finished", "abandoned"}.issuperset(left):
            raise Wrong(f"half cleared: {left}")
        self._value(self._live("clear", name=called))
        self._be(self._cleared(key))

    @precondition(lambda self: self.held is None)
    @rule(plan=plans, driver=drivers, at=st.integers(0, 3))
    def hold(self, plan: dict[str, Any], driver: dict[str, Any], at: int) -> None:
        """A run goes on in another process while the next rules are done."""
        given = [step for step in plan["steps"] if step[2] != "sync"] or [("int", None, None)]
        at = min(at, len(given) - 1)
        given[at] = (*given[at][:2], "hold")
        plan = self._planned(plan | {"steps": given}, 0)
        request = {"plans": [plan], "driver": driver, "batch": None, "abort": False}
        note = (model_jobs.ACK, at)
        held = Held(self._live, request, note, self.place / "leave")
        if not held.waits():
            self._judge(request, held.life)
            return
        self.held = held
        found = []
        for world in self.worlds:
            for way in ways(world, request):
                if note in way.notes():
                    done, rest = way.divided(note)
                    found.append(world.after(done))
                    found[-1].held[key_of(plan)] = held.pid, rest
        self._be(found, ["it went on, and should not have"])

    @precondition(lambda self: self.held is not None)
    @rule(how=st.sampled_from(["go on", "go on", "kill"]))
    def release(self, how: str) -> None:
        assert self.held is not None
        held, self.held = self.held, None
        held.end(how)
        found, told = [], []
        for world in self.worlds:
            ((key, (_, rest)),) = world.held.items()
            world = world.copy()
            del world.held[key]
            verdict = Verdict(rest, held.life, failing=False)
            told.append(verdict.wrong)
            found += [world.after(events) for events in verdict.events]
        self._be(found, told)

    @precondition(lambda self: self.held is None)
    @rule(seed=st.integers(0, 1 << 32))
    def power_cut(self, seed: int) -> None:
        cut_power(self.directory, self._floors, random.Random(seed))
        self.boot += 1
        reports = self._value(self._live("reports"))
        found = [after_cut(world, reports) for world in self.worlds]
        worlds = [world for world in found if isinstance(world, World)]
        if not worlds:
            raise Wrong("; ".join(sorted({str(told) for told in found})))
        self._be(worlds)

    # ---- after each rule

    @invariant()
    def reports_are_true(self) -> None:
        self.done["steps"] += 1
        reports = self._value(self._live("reports"))
        told = [contradiction(world, reports) for world in self.worlds]
        self._be([world for world, wrong in zip(self.worlds, told, strict=True) if wrong is None], told)
        for report in reports:
            key = key_of_report(report)
            for world in self.worlds:
                world.believe(key, report["number"], report["on_disk"])
            if self.names.setdefault(key, report["name"]) != report["name"]:
                raise Wrong(f"{key} was {self.names[key]}, and is {report['name']}")

    # ---- how it is done

    def _floors(self, folder: str, number: int) -> tuple[int, int]:
        """How many states and results of a run are on disk for certain, so that no side file of theirs can be torn."""
        logged = in_log(self.directory).get((folder.rpartition("-")[2], number), (0, 0))
        for world in self.worlds:
            for key, runs in world.runs.items():
                if folder == folder_name(self.names.get(key, key)):
                    for run in runs:
                        seen = run.seen(run.durable)
                        if run.number == number:
                            logged = max(logged[0], seen.seq), max(logged[1], len(seen.results))
        return logged

    def _is_held(self, key: str) -> bool:
        return any(key in world.held for world in self.worlds)

    def _planned(self, plan: dict[str, Any], call: int, *, plain: bool = False) -> dict[str, Any]:
        self.mark += 1
        given = plan | {"call": call, "mark": self.mark, "directory": str(self.directory), "leave": str(self.place / "leave")}
        given["migrate"] = plan["migrate"] and "version" in plan["keywords"]
        if plan["name"] is None:
            given["job"] = "work"       # others would be runs of another job
        if given["job"] != "work" or plain:
            given["steps"] = [(*step[:2], None if step[2] in ("fork", "second") else step[2]) for step in plan["steps"]]
        return given

    def _request(
        self, given: list[dict[str, Any]], driver: dict[str, Any], *, batch: str | None = None, abort: bool = False,
        fault: dict[str, Any] | None = None, task: str = "calls",
    ) -> None:
        request = {
            "plans": [self._planned(plan, call, plain=fault is not None or task == "turns") for call, plan in enumerate(given)],
            "driver": driver, "batch": batch, "abort": abort,
        }  # fmt: skip
        settings = fault_settings(self.directory, **fault) if fault else None
        life = self._live(task, faults=settings, **request)
        self._judge(request, life, failing="errno" in (fault or {}), going=turns if task == "turns" else ways)

    def _value(self, life: Life) -> Any:
        if "value" not in life.report:
            raise Wrong(f"it gave nothing back: {life.code} {life.report.get('trace')}")
        return life.report["value"]

    def _live(self, task: str, *, server: int = 0, timeout: float = 20, **given: Any) -> Life:
        self.done["processes"] += 1
        return self.servers[server].live(
            task, directory=str(self.directory), boot=self.boot, plant=self.plant, timeout=timeout, **given
        )

    def _judge(self, request: dict[str, Any], life: Life, *, failing: bool = False, going: Ways = ways) -> None:
        """Which worlds may be true now that this life was seen."""
        found: list[World] = []
        told: list[str | None] = []
        for world in self.worlds:
            for way in going(world, request):
                verdict = Verdict(way, life, failing=failing)
                told.append(verdict.wrong)
                found += [world.after(events) for events in verdict.events]
        self._be(found, told)
        self.done["kills"] += life.killed

    def _be(self, worlds: list[World], told: list[str | None] | None = None) -> None:
        different: list[World] = []
        for world in worlds:
            if world not in different:
                different.append(world)
        if not different:
            raise Wrong("; ".join(sorted({wrong for wrong in told or [] if wrong})) or "no world is left")
        if len(different) > 200:
            raise Wrong("the model knows too little")
        self.worlds = different
