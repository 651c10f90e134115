"""Damage to the log's file and to side files, read by the library in a process of its own.

LMDB has no checksums for the pages of its trees, and follows what stands in them: a damaged one may end or hang the process
that reads it. That is counted here. What is read is never wrong.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import damaging
import jobs
import pytest
from figures import Figures, share
from harness import Server, scratch

pytestmark = pytest.mark.crash

TASKS = ("plots", "damaging")
LOG = "log/data.mdb"
FLIPS = ("tree bit", "bit")
OTHERS = ("cut", "zeros", "stale", "doubled", "swapped")
# So many damages of each kind to a file in CI, and in full.
SAMPLE, FULL = 25, 20_000
# A process reads so many copies, one after another.
BATCH = 25


def damage(
    server: Server, base: Path, file: str, kind: str, seed: int, right: list[Any], plant: str | None = None
) -> tuple[Counter[str], list[Any]]:
    """Damage a file in many ways, one at a time: how reading it ended, and what was wrong."""
    count = max(SAMPLE, int(FULL * share()))
    possible = len(damaging.damages((base / "d" / file).read_bytes(), kind))
    count = min(count, possible)
    ends: Counter[str] = Counter()
    wrong: list[Any] = []
    first = 0
    while first < count:
        stop = min(first + BATCH, count)
        life = server.live(
            "try_damages", base=str(base), file=file, kind=kind, seed=seed, count=count, first=first, stop=stop, right=right,
            timeout=20, plant=plant,
        )  # fmt: skip
        told = [value for what, value in life.list() if what == jobs.ACK]
        ends["as written"] += told.count(damaging.AS_WRITTEN)
        ends["named error"] += told.count(damaging.NAMED)
        ends["wrong"] += told.count(damaging.WRONG)
        if life.code:
            ends["LMDB hung" if life.timed_out else f"LMDB died of signal {-life.code}"] += 1
            first += len(told) + 1
        else:
            wrong += life.value()
            first = stop
    return ends, wrong


def said(ends: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in ends.most_common() if times)


def test_damaged_log(seed: int, figures: Figures) -> None:
    """No flipped bit, cut or exchanged block of the log's file makes the library read what was not written."""
    with Server(*TASKS) as server, scratch() as place:
        right = server.live("make", base=str(place)).value()
        for kinds, row in ((FLIPS, "B1"), (OTHERS, "B2")):
            for kind in kinds:
                ends, wrong = damage(server, place, LOG, kind, seed, right)
                unit = {"flips" if row == "B1" else "damages": ends.total()}
                figures(row, f"log, {kind} ({said(ends)})", wrong=ends["wrong"], **unit)
                assert not ends["wrong"], wrong[:3]


def test_damaged_side_files(seed: int, figures: Figures) -> None:
    """No flipped bit, cut or exchanged block of a side file makes the library give a state that was not saved."""
    with Server(*TASKS) as server, scratch() as place:
        right = server.live("make", base=str(place)).value()
        root = place / "d"
        file = str(min(root.glob("runs/*/*.side.*")).relative_to(root))
        for kinds, row in ((("bit",), "B1"), (OTHERS, "B2")):
            for kind in kinds:
                ends, wrong = damage(server, place, file, kind, seed, right)
                unit = {"flips" if row == "B1" else "damages": ends.total()}
                figures(row, f"side file, {kind} ({said(ends)})", wrong=ends["wrong"], **unit)
                assert set(ends) <= {"as written", "named error", "wrong"}, ends
                assert not ends["wrong"], wrong[:3]


def test_control_no_checksums(seed: int) -> None:
    """A library that takes every checksum of the log's values for right is found out."""
    with Server(*TASKS) as server, scratch() as place:
        right = server.live("make", base=str(place)).value()
        ends, _ = damage(server, place, LOG, "bit", seed, right, plant="believe the log")
        assert ends["wrong"]
