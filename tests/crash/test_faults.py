"""System calls that fail: once, and from then on."""

from __future__ import annotations

import errno
from collections import Counter
from typing import NamedTuple

import pytest
from figures import Figures, chosen
from harness import Ledger, Life, Server, fault_settings, scratch, spread
from test_syscall_kill import calls_of, check_rerun, told

pytestmark = pytest.mark.crash

ERRORS = (errno.EIO, errno.ENOSPC)
# Failures of these, and of other calls: as many as can be made in CI, chosen by the seed.
SYNCS_AND_WRITES = frozenset(
    ("write", "pwrite", "fsync", "fdatasync", "msync", "ftruncate", "fallocate", "posix_fallocate")
)
SAMPLE, SAMPLE_OF_OTHERS = 300, 60


class Fault(NamedTuple):
    """The `nth` call of kind `op`, "any" for all kinds together, fails; if `persistent`, so do all of them after it."""

    op: str
    nth: int
    errno: int
    persistent: bool


def check_end(life: Life, case: object) -> str:
    """A faulty life ends with an error of ours, or as ever; gives back which."""
    assert not life.timed_out, f"{case}: hung"
    assert life.code == 0, f"{case}: code {life.code}"
    if "value" in life.report:
        return "NotDurableWarning" if "NotDurableWarning" in life.report["warnings"] else "none"
    assert "ResumableError" in life.report["bases"], f"{case}: {life.report['trace']}"
    return str(life.report["error"])


def fail_everywhere(
    durability: str, seed: int, always: frozenset[str] = SYNCS_AND_WRITES, sample: int = SAMPLE_OF_OTHERS,
    plant: str | None = None,
) -> tuple[Counter[str], int, int]:
    """Have calls of the story fail one by one: how the runs ended, and how many failures of how many were made."""
    with Server(shim=True) as server, scratch() as place:
        right = told(server)
        calls = calls_of(server, place, durability=durability)
    once = [Fault("any", nth, number, False) for nth in range(1, len(calls) + 1) for number in ERRORS]
    kinds = [Fault(op, calls[:at].count(op) + 1, number, True) for at, op in enumerate(calls) for number in ERRORS]
    every = [fault._replace(persistent=True) for fault in once]
    must = [fault for fault in once if calls[fault.nth - 1] in always]
    must += [fault for fault in kinds if fault.op in always]
    others = [fault for fault in (*once, *kinds, *every) if fault not in must]
    must, others = chosen(must, SAMPLE, seed), chosen(others, sample, seed)
    ends: Counter[str] = Counter()

    def work(server: Server, fault: Fault) -> None:
        what = f"{fault} of {durability}"
        with scratch() as place:
            ledger = Ledger()
            settings = fault_settings(place, *fault[:3], persistent=fault.persistent)
            first = server.live("story", directory=str(place), durability=durability, faults=settings, plant=plant)
            ends[check_end(first, what)] += 1
            second = server.live("story", directory=str(place), durability=durability, whole=False)
            try:
                check_rerun(ledger, first, second, right)
            except AssertionError as error:
                raise AssertionError(f"{what}: {error}\nthe first life: {first.report}") from error

    spread(must + others, work, shim=True)
    return ends, len(must + others), len(once + kinds + every)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_every_call_fails(durability: str, seed: int, figures: Figures) -> None:
    """Whichever calls fail, the run ends well or with a named error, and nothing acknowledged is lost."""
    ends, made, possible = fail_everywhere(durability, seed)
    how = ", ".join(f"{name} {count}" for name, count in ends.most_common())
    figures("F1", f"{durability}, of {possible} there are ({how})", failures=made)


def test_control_errors_swallowed(seed: int) -> None:
    """A writer that takes no notice of a failing commit is found out."""
    with pytest.raises(AssertionError, match=r"journal of run 1|began again"):
        fail_everywhere("process", seed, frozenset(["fdatasync"]), 0, plant="swallow faults")
