"""System calls that fail or come up short: once, and from then on."""

from __future__ import annotations

import errno
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fault_jobs
import jobs
import pytest
from figures import Figures, chosen
from harness import Ledger, Life, Server, fault_settings, scratch, spread
from test_syscall_kill import check_rerun, leave_killed, told

pytestmark = pytest.mark.crash

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EROFS)
SHORT = 0       # in place of an errno: half of the bytes are taken
SYNCS_AND_WRITES = frozenset(
    ("write", "pwrite", "fsync", "fdatasync", "msync", "ftruncate", "fallocate", "posix_fallocate")
)
# Made of each scene in CI, chosen by the seed: failures of syncs and writes, and of other calls.
SAMPLE, SAMPLE_OF_OTHERS = 9, 3


class Fault(NamedTuple):
    """The `nth` call of kind `op`, "any" for all kinds together, fails; if `persistent`, so do all of them after it."""

    op: str
    nth: int
    errno: int
    persistent: bool

    def settings(self, place: Path) -> dict[str, str]:
        found = fault_settings(place, self.op, self.nth, self.errno or errno.ENOSPC, persistent=self.persistent)
        return found | {"FAULT_SHORT": str(int(self.errno == SHORT))}


class Scene(NamedTuple):
    """What is under way when a call fails: a task; `resumed`, in the life after a kill, not in the first."""

    task: str
    args: dict[str, Any]
    resumed: bool = False

    @property
    def name(self) -> str:
        said = [self.task, *map(str, self.args.values()), "resumed" if self.resumed else ""]
        return " ".join(word for word in said if word not in ("", "False")).replace("True", "in threads")


STORIES = [
    Scene(task, {"durability": durability}, resumed)
    for task in ("story", "story by pwrite") for durability in ("process", "disk") for resumed in (False, True)
    if task == "story" or durability == "process"
]  # fmt: skip
SEVERAL = [Scene("several", {"durability": durability, "threads": threads})
           for durability, threads in (("process", False), ("disk", False), ("disk", True))]  # fmt: skip


def every_fault(calls: Sequence[str]) -> list[Fault]:
    """All that can fail: each call alone, and from it on those of its kind, or all."""
    found = []
    for at, op in enumerate(calls):
        for number in ERRORS:
            found += [Fault("any", at + 1, number, False), Fault("any", at + 1, number, True)]
            found.append(Fault(op, calls[:at].count(op) + 1, number, True))
        if op in ("write", "pwrite"):
            found += [Fault("any", at + 1, SHORT, False), Fault(op, calls[:at].count(op) + 1, SHORT, True)]
    return found


def picked(faults: Sequence[Fault], calls: Sequence[str], seed: str) -> list[Fault]:
    """All of them, or for CI a sample: syncs and writes are what breaks most."""
    heavy = [fault for fault in faults if (calls[fault.nth - 1] if fault.op == "any" else fault.op) in SYNCS_AND_WRITES]
    others = [fault for fault in faults if fault not in set(heavy)]
    return [*chosen(heavy, SAMPLE, seed), *chosen(others, SAMPLE_OF_OTHERS, seed)]


def check_end(life: Life, case: object) -> str:
    """A faulty life ends with an error of ours, or as ever; gives back which."""
    assert not life.timed_out, f"{case}: hung"
    assert life.code == 0, f"{case}: code {life.code}"
    if "value" in life.report:
        return "NotDurableWarning" if "NotDurableWarning" in life.report["warnings"] else "none"
    assert "ResumableError" in life.report["bases"], f"{case}: {life.report['trace']}"
    return str(life.report["error"])


Check = Callable[[list[Ledger], Life, Life], None]


def fail_all(
    scene: Scene, faults: Sequence[Fault], before: tuple[Path, Ledger] | None, check: Check, plant: str | None = None
) -> Counter[str]:
    """Have the scene meet each of the faults, then be done again undisturbed; how it ended, counted."""
    ends: Counter[str] = Counter()

    def work(server: Server, fault: Fault) -> None:
        what = f"{fault} of {scene.name}"
        with scratch() as place:
            ledgers = [Ledger() for _ in range(fault_jobs.SEVERAL)]
            args = {**scene.args, "directory": str(place / "d")}
            again = args if scene.task == "several" else args | {"whole": False}
            if before is not None:
                shutil.copytree(before[0], place / "d")
                ledgers[0] = Ledger(before[1].acked, before[1].begun)
            first = server.live(
                scene.task, faults=fault.settings(place), plant=plant, **(args if before is None else again)
            )
            ends[check_end(first, what)] += 1
            second = server.live(scene.task, **again)
            try:
                check(ledgers, first, second)
            except AssertionError as error:
                raise AssertionError(f"{what}: {error}\nthe first life: {first.report}") from error

    spread(faults, work, "fault_jobs", shim=True)
    return ends


def calls_made(server: Server, scene: Scene, place: Path) -> list[str]:
    whole = {} if scene.task == "several" or not scene.resumed else {"whole": False}
    counts = place.parent / f"{place.name}.counts"
    faults = fault_settings(place, counts=counts)
    server.live(scene.task, directory=str(place), faults=faults, **scene.args, **whole).value()
    lines = counts.read_text().splitlines()
    counts.unlink()
    return [line.split(" ")[1] for line in lines]


def fail_story(
    scene: Scene, choose: Callable[[list[str]], Sequence[Fault]], plant: str | None = None
) -> tuple[Counter[str], int, int]:
    """Have calls of a story fail: how it ended, how many failures there were, of how many calls."""
    with Server("fault_jobs", shim=True) as server, scratch() as left, scratch() as copy:
        right = told(server)
        before = (left / "d", leave_killed(server, left / "d")) if scene.resumed else None
        if before is not None:
            shutil.copytree(before[0], copy / "d")
        calls = calls_made(server, scene, copy / "d")
        faults = choose(calls)
        ends = fail_all(
            scene, faults, before, lambda ledgers, first, second: check_rerun(ledgers[0], first, second, right), plant
        )
    return ends, len(faults), len(calls)


def of_one(life: Life, which: int) -> Life:
    """What a life of several jobs told about one of them."""
    mask = (1 << fault_jobs.JOB_SHIFT) - 1
    mine = [
        what << 56 | value & mask for what, value in life.list()
        if what in (jobs.START, jobs.BEGIN, jobs.ACK) and value >> fault_jobs.JOB_SHIFT == which
    ]
    return Life(array("Q", mine))


def check_several(ledgers: list[Ledger], first: Life, second: Life, right: list[Any]) -> None:
    """No job of them lost anything, and all come out right."""
    for which, ledger in enumerate(ledgers):
        ledger.add(of_one(first, which), jobs)
        again = of_one(second, which)
        if first.last(jobs.END) is None:
            ledger.add(again, jobs)
            assert len(again.events) or ledger.begun == fault_jobs.SEVERAL_ITEMS, f"job {which} finished without its items"
    assert second.value() == right


def told_how(ends: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in ends.most_common())


@pytest.mark.parametrize("scene", STORIES, ids=lambda scene: scene.name)
def test_every_call_fails(scene: Scene, seed: int, figures: Figures) -> None:
    """Whichever calls fail or come up short, the run ends well or with a named error, and nothing acknowledged is lost."""
    ends, made, calls = fail_story(scene, lambda calls: picked(every_fault(calls), calls, f"{seed} {scene.name}"))
    figures("F1", f"{scene.name}, {calls} calls ({told_how(ends)})", failures=made)


@pytest.mark.parametrize("scene", SEVERAL, ids=lambda scene: scene.name)
def test_several_jobs(scene: Scene, seed: int, figures: Figures) -> None:
    """Calls that fail under several jobs in one directory cost none of them anything acknowledged."""
    with Server("fault_jobs", shim=True) as server, scratch() as place:
        calls = calls_made(server, scene, place / "d")
        right = server.live("several", directory=str(place / "e"), **scene.args).value()
    faults = picked(every_fault(calls), calls, f"{seed} {scene.name}")
    ends = fail_all(scene, faults, None, lambda *lives: check_several(*lives, right))
    figures("F1", f"{scene.name}, {len(calls)} calls ({told_how(ends)})", failures=len(faults))


def test_control_errors_swallowed() -> None:
    """A writer that takes no notice of a failing commit is found out."""

    def commits(calls: list[str]) -> list[Fault]:
        return [Fault("fdatasync", nth + 1, errno.EIO, True) for nth in range(calls.count("fdatasync"))]

    with pytest.raises(AssertionError, match=r"journal of run 1|began again"):
        fail_story(STORIES[0], commits, plant="swallow faults")
