"""The rows of the torture plan: how much of each is done here, and a kept line of JSON for what was done.

RESUMABLE_SHARE=0.1 does a tenth of the rows that are drawn at random, and the whole of those that can be gone through;
without it the short forms are done, which fit into CI. RESUMABLE_FIGURES names the file that lines are appended to.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import resumable

HERE = Path(__file__).parent
_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """What is done, counted in `unit`, and how many of it are the full figure (None: all that there are)."""

    what: str
    unit: str
    full: int | None = None


ROWS = {
    "K1": Row("SIGKILL after every instruction of the compiled code, and before every system call", "boundaries", 1_000_000),
    "K2": Row("SIGKILL at random instants of real jobs, also while resuming and twice", "kills", 100_000),
    "P1": Row("power cuts of a virtual machine: ext4 ordered and writeback, xfs, btrfs", "cuts", 10_000),
    "P2": Row("disks as they were between two flushes, sectors lost and torn", "states", 100_000),
    "F1": Row("system calls that fail or come up short, once and from then on", "failures"),
    "F2": Row("a sync that fails, then succeeds, then the power is cut", "sync points"),
    "D1": Row("full disks of every size: tmpfs, ext4, xfs, btrfs", "disks", 2_000),
    "B1": Row("every bit of journal, header, bitset, log and side file", "flips", 400_000),
    "B2": Row("every truncation; every block zeroed, doubled, swapped or stale", "damages"),
    "Z1": Row("decodes and opens of mutated bytes under ASan and UBSan", "decodes", 1_000_000_000),
    "Z2": Row("hostile pickles and memory bombs", "inputs"),
    "Y1": Row("KeyboardInterrupt at every opcode, MemoryError at every allocation", "points"),
    "Y2": Row("the fork matrix", "cells"),
    "L1": Row("two starters of one run at once", "races", 1_000),
    "R1": Row("directories that are not writable, not ours, or open to others", "directories"),
    "W1": Row("SIGKILL of a script that downloads 500 files from a server that fails at random", "kills", 200),
    "M1": Row("the public API against a model in plain Python, faults as rules", "steps", 100_000),
    "S1": Row("everything mixed at random", "seconds", 3_600),
}


def share() -> float:
    """Which part of the full figures is to be done; 0 stands for the short forms."""
    return float(os.environ.get("RESUMABLE_SHARE") or 0)


def amount(row: str, short: int) -> int:
    """How many of a row's units to do here."""
    full = ROWS[row].full
    assert full is not None, f"{row} has no number: it is gone through"
    return math.ceil(full * share()) or short


def chosen(cases: Sequence[_T], short: int, seed: int | str) -> Sequence[_T]:
    """All the cases, or as many as fit into CI."""
    return cases if share() else random.Random(seed).sample(cases, min(short, len(cases)))


class Figures:
    """Says what a test did: a line for the reader, and one for the report."""

    def __init__(self, seed: int, show: Any) -> None:
        self._seed, self._show, self._began = seed, show, time.monotonic()

    def __call__(self, row: str, said: str = "", *, wrong: int = 0, **counts: float) -> None:
        """`counts` hold the row's unit, spaces as underscores, and whatever else is worth a sum; `wrong`: promises broken."""
        unit = ROWS[row].unit.replace(" ", "_")
        assert unit in counts, f"{row} counts {unit}"
        seconds = round(time.monotonic() - self._began, 1)
        numbers = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
        self._show(f"\n{row}: {numbers}, {wrong} wrong; {said + '; ' if said else ''}seed {self._seed}, {seconds} s")
        if path := os.environ.get("RESUMABLE_FIGURES"):
            line = {
                "row": row, "counts": counts, "wrong": wrong, "said": said, "seed": self._seed, "seconds": seconds,
                **_about(),
            }  # fmt: skip
            with open(path, "a") as lines:
                lines.write(json.dumps(line) + "\n")


def _about() -> dict[str, str]:
    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()

    return {
        "commit": (git("rev-parse", "--short=12", "HEAD") or "none") + ("+" if git("status", "--porcelain", "-uno") else ""),
        "version": resumable.__version__, "python": sys.version.split()[0], "system": platform.release(),
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }  # fmt: skip
