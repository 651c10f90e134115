"""Run the peers, each in a process of its own, and compare them with resumable: `python -m benchmarks.peers --help`."""

from __future__ import annotations

import argparse
import json
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from . import LEVELS, Peer, __path__

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


def peer_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


def measured(name: str, level: str, n: int, limit: float, directory: Path) -> Row:
    """One run in a new process and a new directory; whatever goes wrong there becomes a row with the reason."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".peers-") as fresh:
        command = [sys.executable, "-m", "benchmarks.peers._measure", name, level, str(n), str(limit), fresh]
        try:
            done = subprocess.run(
                command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=3 * limit + 60
            )
        except subprocess.TimeoutExpired as late:
            return {"status": "failed", "reason": f"no answer within {late.timeout:.0f} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"status": "failed", "reason": last[0]}
    return cast(Row, json.loads(done.stdout.splitlines()[-1]))


def best_of(repeat: int, name: str, level: str, n: int, limit: float, directory: Path) -> Row:
    """The fastest of the runs with the largest peak; a run that met the time limit is not repeated."""
    rows: list[Row] = []
    while len(rows) < repeat and all(row.get("n") == n for row in rows):
        rows.append(measured(name, level, n, limit, directory))
    if rows[-1]["status"] != "ok":
        return rows[-1]
    best = min(rows, key=lambda row: row["us"])
    return best | {"peak_mb": max(row["peak_mb"] for row in rows), "all_us": [row["us"] for row in rows]}


def compared(rows: list[Row]) -> Iterator[Row]:
    """The rows with their ratio to resumable at the same level, resumable first, then by cost."""
    ours = {row["durability"]: row.get("us") for row in rows if row["peer"] == "resumable"}
    for row in sorted(rows, key=lambda row: (row["peer"] != "resumable", row.get("us", float("inf")))):
        base = ours.get(row["durability"])
        yield row | {"ratio": row["us"] / base if base and "us" in row else None}


def table(rows: list[Row]) -> Iterator[str]:
    for level, promise in LEVELS.items():
        yield f"\n{level}: {promise}"
        yield f"{'peer':<12}{'us/checkpoint':>14}{'ratio':>9}{'peak MB':>9}{'n':>9}  how (versions)"
        for row in rows:
            if row["durability"] != level:
                continue
            if row["status"] != "ok":
                yield f"{row['name']:<12}  {row['status']}: {row['reason']}"
                continue
            ratio = f"{row['ratio']:.1f}" if row["ratio"] else "-"
            numbers = f"{row['us']:>14.2f}{ratio:>9}{row['peak_mb']:>9.1f}{row['n']:>9}"
            yield f"{row['name']:<12}{numbers}  {row['how']} ({row['versions']})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which (default: all): {', '.join(peer_names())}")
    parser.add_argument("--n", type=int, default=10_000, help="checkpoints to save (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=10, help="seconds a run may take (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="runs to take the best of (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="do they run at all: 50 checkpoints, once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON line per row")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to save; a real disk (default: here)")
    args = parser.parse_args()
    if unknown := set(args.names) - set(peer_names()):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    if args.smoke:
        args.n, args.repeat = 50, 1
    return args


def main() -> None:
    args = arguments()
    rows: list[Row] = []
    for name in args.names or peer_names():
        peer = cast(Peer, import_module(f"{__package__}.{name}"))
        for level, how in peer.DURABILITY.items():
            print(f"{peer.NAME}: {how}", file=sys.stderr)
            about = {"peer": name, "name": peer.NAME, "durability": level, "how": how}
            rows.append(about | best_of(args.repeat, name, level, args.n, args.limit, args.directory.resolve()))
    rows = list(compared(rows))
    print("\n".join(table(rows)))
    if args.json:
        args.json.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
