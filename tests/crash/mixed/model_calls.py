"""What calls of `run` do in a world, in plain Python: the scripts of the model."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import product
from typing import Any

from model import FAILED, Event, Expected, Life, Plan, Returned, Saved, Script, Seen, World, key_of, shown
from model_jobs import ACK, CALL, DONE, END, RAISED, START, exact, make

KILLED = {"killed": "by its own plan"}
ERRORS = {"fail": "KeyError", "interrupt": "KeyboardInterrupt", "exit": "SystemExit", "cancel": "CancelledError"}


def ways(world: World, request: dict[str, Any]) -> list[Expected]:
    """Every way in which this request may go in this world, undisturbed."""
    batch = request["batch"]
    mark, begin = None, Expected()
    if batch is not None:
        count, is_open = world.batches.get(batch, (0, False))
        mark = batch, count if is_open else count + 1
        begin.script.append(Event("batch", batch, (mark[1], True)))
    found = [begin]
    for plan in request["plans"]:
        found = [more for way in found for more in _one_more(world, way, plan, request["driver"], mark)]
    for way in found:
        if way.outcomes and way.outcomes[-1] == KILLED:
            continue
        failed = any("error" in outcome for outcome in way.outcomes)
        if mark is not None and not failed and not request["abort"]:
            way.script.append(Event("batch", mark[0], (mark[1], False)))
        way.script.append((DONE, 0))
    return found


def _one_more(
    world: World, way: Expected, plan: Plan, driver: dict[str, Any], mark: tuple[str, int] | None
) -> Iterator[Expected]:
    if way.outcomes and (way.outcomes[-1] == KILLED or (mark is not None and "error" in way.outcomes[-1])):
        yield way       # nothing comes behind a kill, nor in a batch behind what raises
        return
    for script, outcome in _calls(world.after(way.events()), plan, driver, mark):
        yield Expected([*way.script, (CALL, plan["call"]), *script], [*way.outcomes, outcome])


def _calls(
    before: World, plan: Plan, driver: dict[str, Any], mark: tuple[str, int] | None
) -> Iterator[tuple[Script, dict[str, str]]]:
    """Every way in which one call may go: a power cut leaves open what comes back, and a kill who was told."""
    run = before.newest(key_of(plan))
    perhaps = len(run.perhaps) + 1 if run is not None and run.boot != before.boot else 1
    for revealed in range(perhaps):
        settle = Event("settle", key_of(plan), (revealed,))
        settled = before.after([settle])
        found = settled.newest(key_of(plan))
        finished = found is not None and found.seen().status == "finished"
        untold = {key_of(plan) in before.untold}
        if found is not None and finished and found.boot != before.boot:
            untold = {True, False}      # a power cut may bring back the journal, or take what is left of it
        for told_nobody in untold:
            script, outcome = Call(settled, plan, driver, mark, told_nobody and finished).go()
            yield [settle, *script], outcome


# ---- taking turns


def turns(world: World, request: dict[str, Any]) -> list[Expected]:
    """Every way in which these calls may go that take turns."""
    plans, driver = request["plans"], request["driver"]
    return [_in_turns(plans, calls) for calls in product(*(list(_calls(world, plan, driver, None)) for plan in plans))]


def _in_turns(plans: list[Plan], calls: tuple[tuple[Script, dict[str, str]], ...]) -> Expected:
    way, values = Expected([(CALL, 0)]), [outcome.get("value", "") for _, outcome in calls]
    going: dict[str, tuple[Iterator[Script], dict[str, str]]] = {}
    for plan, (script, outcome) in zip(plans, calls, strict=True):
        starts = next((at for at, step in enumerate(script) if not isinstance(step, Event)), len(script))
        way.script += script[:starts]
        if script[starts][0] == START:      # type: ignore[index]
            going[key_of(plan)] = iter(_parts(script[starts:])), outcome
        elif "error" in outcome:
            return _all_stop(way, going, outcome)
    while going:
        for key, (parts, outcome) in list(going.items()):
            way.script += next(parts)
            if not (rest := list(parts)):
                del going[key]
                if "error" in outcome:
                    return _all_stop(way, going, outcome)
            else:
                going[key] = iter(rest), outcome
    way.script += [(END, 0), (DONE, 0)]
    way.outcomes.append({"value": "; ".join(values)})
    return way


def _parts(script: Script) -> list[Script]:
    """What is done in each turn: up to what is told behind the checkpoint."""
    parts: list[Script] = [[]]
    for step in script:
        if not isinstance(step, Event) and step[0] == ACK:
            parts.append([])
        if isinstance(step, Event) or step[0] in (START, ACK):
            parts[-1].append(step)
    return parts


def _all_stop(way: Expected, going: dict[str, Any], outcome: dict[str, str]) -> Expected:
    way.script += [*(Event("durable", key) for key in going), (RAISED, 0), (DONE, 0)]
    way.outcomes.append(outcome)
    return way


class Call:
    """One call of `run` in a world whose run was just settled."""

    def __init__(
        self, world: World, plan: Plan, driver: dict[str, Any], mark: tuple[str, int] | None, untold: bool
    ) -> None:
        self.plan, self.key, self.mark, self.untold = plan, key_of(plan), mark, untold
        self.keywords = plan["keywords"]
        self.disk = driver.get("durability") == "disk"
        self.every, self.keep = driver.get("save_every", 1), driver.get("keep_states", 1000)
        self.keep_runs = driver.get("keep_runs", 20)
        self.run = world.newest(self.key)
        self.seen = self.run.seen() if self.run is not None else None
        self.locked = self.key in world.held
        self.script: Script = []

    def go(self) -> tuple[Script, dict[str, str]]:
        """The script behind the settling, and what comes of the call."""
        if self.locked:
            return self._raises("RunLockedError")
        unfinished = self.seen is not None and self.seen.status in ("interrupted", "failed")
        changed = self._is_changed()
        if unfinished and not self.keywords.get("fresh"):
            way = self.keywords.get("on_change", "error")
            if not changed or way == "continue":
                return self._goes_on()
            if way == "error":
                return self._raises("ChangedArgumentsError")
        if unfinished:
            self._do("abandon")
        elif self.seen is not None and self.seen.value is not None and not self.keywords.get("fresh"):
            answer = self._answer(self.seen.value, changed)
            if answer is not None:
                return answer
        return self._work(None, 0, None)

    def _is_changed(self) -> bool:
        return self.seen is not None and self.seen.life is not None and self.seen.life.arguments != shown(self.plan)

    def _answer(self, returned: Returned, changed: bool) -> tuple[Script, dict[str, str]] | None:
        """A finished run's value, if that is what is asked for."""
        assert self.seen is not None
        assert self.seen.life is not None
        meant = self.keywords.get("once") or (self.mark is not None and self.seen.life.batch == self.mark)
        if not meant and not (self.untold and returned.value is not None and not changed):
            return None
        way = self.keywords.get("on_change", "error")
        if changed and way == "restart":
            return None
        if changed and way == "error":
            return self._raises("ChangedArgumentsError")
        if returned.value is None:
            return self._raises("NoValueError")
        self.script.append((END, self.plan["call"]))
        return self.script, {"value": returned.value}

    def _raises(self, error: str) -> tuple[Script, dict[str, str]]:
        self.script.append((RAISED, self.plan["call"]))
        return self.script, {"error": error}

    def _do(self, what: str, *data: Any) -> None:
        self.script.append(Event(what, self.key, data))

    def _goes_on(self) -> tuple[Script, dict[str, str]]:
        seen = self.seen
        assert seen is not None
        old, new = seen.state_version, self.keywords.get("version")
        if not seen.states:
            return self._work(None, 0, seen)
        if new != old and (new is None or new < (old or 0) or (new > (old or 0) and not self.plan["migrate"])):
            return self._raises("VersionError")
        state = seen.states[-1].state
        for version in range(old or 0, new or 0):
            state = f"list(int {version}, {state})"
        return self._work(state, seen.states[-1].i, seen)

    def _work(self, state: str | None, i: int, resumed: Seen | None) -> tuple[Script, dict[str, str]]:
        plan, call = self.plan, self.plan["call"]
        last = resumed.life if resumed is not None else None
        batch = self.mark or (last.batch if last is not None else None)
        life = Life(shown(plan), self.keywords.get("version"), batch, self.keep, self.disk)
        self._do("happens", life) if last is not None else self._do("begin", f"model_jobs:{plan['job']}", life)
        self._do("durable") if self.disk else None
        self.script.append((START, call << 32 | _sign(state if state is not None else "NoneType None")))
        skipped = 0
        for at, (kind, result, aside) in enumerate(plan["steps"]):
            i += 1
            skipped += result is None
            if result is not None or skipped == self.every:
                skipped = skipped if result is not None else 0
                kept = exact(("result", make(result, i, plan["mark"]))) if result is not None else None
                self._do("happens", Saved(i, exact(make(kind, i, plan["mark"])), kind == "large", kept))
                self._do("durable") if self.disk else None
            self.script.append((ACK, call << 32 | at))
            self._do("durable") if aside == "sync" else None
        return self._ends(i)

    def _ends(self, i: int) -> tuple[Script, dict[str, str]]:
        end = self.plan["end"]
        if end == "kill":
            return self.script, KILLED
        if end != "return":
            self._do("happens", FAILED) if end == "fail" else None
            self._do("durable")
            return self._raises(ERRORS[end])
        value: str | None = exact(None)
        if self.plan["job"] != "ywork":
            kind = self.plan["value"]
            value = None if kind == "unsavable" else exact(("value", make(kind, i, self.plan["mark"])))
        self._do("happens", Returned(value))
        self._do("durable")
        self._do("prune", self.keep_runs)
        self._do("told")
        self.script.append((END, self.plan["call"]))
        return self.script, {"value": value or "unsavable"}


def _sign(shown: str) -> int:
    """As `model_jobs.sign`, of what is shown already."""
    return zlib.crc32(shown.encode())
