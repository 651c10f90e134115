"""The comparison with peers: rows that can be trusted, for what ran and for what did not."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

STAND_IN = """
import contextlib, time
checkpoint = dict
class Driver(contextlib.nullcontext):
    def __init__(self, path, durability):
        super().__init__(self)
        self.pause = 0.002 if durability == "disk" else 0
    def runs(self):
        return []
    def run(self, job, *args):
        for state in job(*args):
            time.sleep(self.pause)
"""


def run_peers(tmp_path: Path, *names: str, python: str = sys.executable) -> tuple[str, list[dict[str, Any]]]:
    """The printed table and the JSON lines."""
    lines = tmp_path / "rows.jsonl"
    options = ["--smoke", "--json", str(lines), "--directory", str(tmp_path)]
    command = [python, "-m", "benchmarks.peers", *options, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout, [json.loads(line) for line in lines.read_text().splitlines()]


def test_each_peer_gives_a_json_line_per_level(tmp_path: Path) -> None:
    """Every peer and level that ran is one JSON line with its cost, its memory and how many it saved."""
    printed, rows = run_peers(tmp_path, "jsonl", "os_write")
    levels = {(row["peer"], row["durability"]) for row in rows}
    assert levels == {("jsonl", "process"), ("os_write", "process"), ("os_write", "disk")}
    for row in rows:
        assert (row["status"], row["n"]) == ("ok", 50)
        assert row["us"] > 0
        assert row["peak_mb"] > 1
        assert row["ratio"] is None, "there is no ratio without resumable"
        assert f"{row['us']:.2f}" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"], "the stores are gone"


def test_a_missing_peer_is_reported(tmp_path: Path) -> None:
    """A peer that is not installed has a row that says so, in the table and in the JSON."""
    venv.create(tmp_path / "bare")
    printed, rows = run_peers(tmp_path, "diskcache", "jsonl", python=str(tmp_path / "bare" / "bin" / "python"))
    status = {row["peer"]: row["status"] for row in rows}
    assert status == {"jsonl": "ok", "diskcache": "not installed"}
    assert "diskcache     not installed: No package metadata was found for diskcache" in printed


def test_the_ratio_is_to_resumable_at_the_same_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio divides by what resumable costs at that level, never by the other level's cost."""
    (tmp_path / "resumable.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _, rows = run_peers(tmp_path, "os_write", "resumable")
    ours = {row["durability"]: row["us"] for row in rows if row["peer"] == "resumable"}
    assert ours["disk"] > 1000 > ours["process"]
    assert [row["ratio"] for row in rows] == [row["us"] / ours[row["durability"]] for row in rows]


def test_a_slow_peer_reports_the_n_it_reached(tmp_path: Path) -> None:
    """A run that meets the time limit says how many it saved, and its store holds that many."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.peers._measure",
        "jsonl",
        "process",
        "1000000000",
        "0.1",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    with open(tmp_path / "states.jsonl") as saved:
        assert json.loads(done.stdout)["n"] == sum(1 for _ in saved)


@pytest.mark.parametrize("failure", ["raise RuntimeError('no luck')", "import os; os.kill(os.getpid(), 9)"])
def test_a_failing_peer_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    """A peer that raises or dies has a row with the reason, and the others still run."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "resumable.py").write_text(failure)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    printed, rows = run_peers(tmp_path, "resumable", "jsonl")
    reasons = {row["reason"] for row in rows if row["peer"] == "resumable" and row["status"] == "failed"}
    assert reasons in ({"RuntimeError: no luck"}, {"exit code -9"})
    assert any(row["peer"] == "jsonl" and row["status"] == "ok" for row in rows)
    assert reasons.pop() in printed
