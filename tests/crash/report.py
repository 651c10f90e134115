"""Adds up what torture runs did: report.md and report.json beside the kept lines. `report.py LINES.jsonl`"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from figures import ROWS


def added_up(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """For each row: the sums of its counts, what went wrong, how long it took, and on which commits."""
    rows = {}
    for key, row in ROWS.items():
        mine = [line for line in lines if line["row"] == key]
        counts: Counter[str] = Counter()
        for line in mine:
            counts.update(line["counts"])
        done = counts[row.unit.replace(" ", "_")]
        rows[key] = {
            "what": row.what, "unit": row.unit, "full": row.full, "done": done, "counts": dict(counts),
            "wrong": sum(line["wrong"] for line in mine), "runs": len(mine),
            "seconds": round(sum(line["seconds"] for line in mine)), "commits": sorted({line["commit"] for line in mine}),
            "seeds": sorted({line["seed"] for line in mine}),
        }  # fmt: skip
    return rows


def as_markdown(rows: dict[str, Any]) -> str:
    """A table of them."""
    table = [
        "# What the torture runs did", "",
        "Made by `make torture` from the lines beside it, of which each names its commit and its seed.", "",
        "| | what | figure to reach | done | | wrong | hours | runs |", "|---|---|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for key, row in rows.items():
        full, part = "all", ""
        if row["full"] is not None:
            full, part = f"{row['full']:,} {row['unit']}", f"{row['done'] / row['full']:.0%}"
        table.append(
            f"| {key} | {row['what']} | {full} | {row['done']:,.0f} {row['unit']} | {part} | {row['wrong']} "
            f"| {row['seconds'] / 3600:.2f} | {row['runs']} |"
        )
    return "\n".join(table) + "\n"


def main(path: Path) -> None:
    rows = added_up([json.loads(line) for line in path.read_text().splitlines()])
    (path.parent / "report.json").write_text(json.dumps(rows, indent=1) + "\n")
    (path.parent / "report.md").write_text(as_markdown(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
