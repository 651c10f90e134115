"""What reports say against what a world says they must."""

from __future__ import annotations

from typing import Any, ClassVar

from model import Run, World

Report = dict[str, Any]


class Wrong(AssertionError):
    """The library does not do what the model does. `told` has all there were: what depends on threads may not come again."""

    told: ClassVar[list[str]] = []

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.told.append(message)


def key_of_report(report: Report) -> str:
    """The model's key of a reported run: an unnamed one is told by its argument."""
    unnamed = report["name"].startswith("model_jobs:work@")
    return f"#{report['arguments']}" if unnamed else str(report["name"])


def by_run(reports: list[Report]) -> dict[tuple[str, int], Report]:
    found = {(key_of_report(report), report["number"]): report for report in reports}
    if len(found) != len(reports):
        raise Wrong(f"a run is reported twice: {[(report['name'], report['number']) for report in reports]}")
    return found


def expected_report(world: World, key: str, run: Run, until: int | None = None) -> Report:
    """All that is certain of a run's report, as its past up to `until` makes it."""
    seen = run.seen(until)
    assert seen.life is not None
    held = world.held.get(key) if run is world.newest(key) else None
    return {
        "number": run.number, "job": run.job, "status": "running" if held else seen.status, "pid": held[0] if held else None,
        "seq": seen.seq, "results": len(seen.results), "kept": seen.results, "arguments": seen.life.arguments,
        "version": seen.life.version, "resumed": seen.resumed, "state": seen.states[-1].state if seen.states else None,
        "failure": ["KeyError", "'planned'", seen.seq] if seen.failed else None,
    }  # fmt: skip


def difference(world: World, key: str, run: Run, report: Report, until: int | None = None) -> str | None:
    """What a report says otherwise than the run's past up to `until`; None when it fits."""
    expected = expected_report(world, key, run, until)
    for name, value in expected.items():
        if report[name] != value:
            return f"{key} run {run.number}: {name} is {report[name]}, not {value}"
    seen = run.seen(until)
    kept = dict(report["history"])
    if list(kept) != sorted(kept):
        return f"{key} run {run.number}: the history is {list(kept)}"
    for seq, state in kept.items():
        if not 1 <= seq <= seen.seq or seen.states[seq - 1].state != state:
            return f"{key} run {run.number}: checkpoint {seq} is {state}"
    missing = seen.promised() - set(kept)
    if missing:
        return f"{key} run {run.number}: checkpoints {sorted(missing)} of {seen.seq} are not kept"
    durable = run.seen(min(run.durable, len(run.past) if until is None else until)).seq
    if seen.life is not None and not seen.life.disk and seen.status == "interrupted":
        durable = 0     # a life that acknowledges without the disk does not know what another one put there
    if seen.life is not None and seen.life.disk and seen.status in ("interrupted", "running"):
        durable -= 1    # nobody but its own process knows whether the last one waits for its sync
    if not durable <= report["on_disk"] <= seen.seq:
        return f"{key} run {run.number}: on_disk is {report['on_disk']}, not from {durable} to {seen.seq}"
    return None


def contradiction(world: World, reports: list[Report]) -> str | None:
    """What the reports of a directory say otherwise than the world; None when they fit."""
    found = by_run(reports)
    for key, runs in world.runs.items():
        for run in runs:
            if not run.past:
                continue    # what a power cut took for now
            report = found.pop((key, run.number), None)
            if report is None:
                return f"{key} run {run.number} is not there"
            told = difference(world, key, run, report)
            if told is not None:
                return told
    return f"there are runs that should not be: {sorted(found)}" if found else None


def after_cut(world: World, reports: list[Report]) -> World | str:
    """The world in which the power was cut and the reports are true; or why there is none."""
    world = world.copy()
    found = by_run(reports)
    for key, runs in list(world.runs.items()):
        for run in list(runs):
            report = found.pop((key, run.number), None)
            if report is None and run.durable > 0:
                return f"{key} run {run.number} is gone, and was on disk"
            pasts = range(max(run.durable, 1), len(run.past) + 1) if report is not None else range(1)
            told = [difference(world, key, run, report, until) if report else None for until in pasts]
            if None not in told:
                return f"after a power cut no past fits: {told[-1] if told else 'none was possible'}"
            until = pasts[told.index(None)]
            run.past, run.perhaps = run.past[:until], run.past[until:] + run.perhaps
    world.cut()
    return world if not found else f"there are runs that should not be: {sorted(found)}"
