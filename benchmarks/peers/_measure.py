"""One measurement in a process of its own: print one JSON line."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, cast

from . import Peer, feed, states


def peak_mb() -> float:
    """This program's own peak; ru_maxrss would start from the size of the process that forked it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def loop_seconds(n: int) -> float:
    """The same loop with nothing saved, best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for _ in states(n):
            pass
        best = min(best, time.perf_counter() - start)
    return best


def stop(number: int, frame: object) -> None:
    feed.stopped = True


def measure(peer: Peer, level: str, n: int, limit: float, directory: Path) -> dict[str, Any]:
    """Save up to `n` states in at most about `limit` seconds."""
    try:
        versions = peer.version()
    except PackageNotFoundError as missing:
        return {"status": "not installed", "reason": str(missing)}
    signal.signal(signal.SIGALRM, stop)
    with peer.setup(directory, level) as opened:
        signal.setitimer(signal.ITIMER_REAL, limit)
        start = time.perf_counter()
        peer.run(opened, n, level)
        seconds = time.perf_counter() - start
        signal.setitimer(signal.ITIMER_REAL, 0)
    saved, peak = feed.made, peak_mb()
    feed.stopped = False
    us = (seconds - loop_seconds(saved)) / saved * 1e6
    return {"status": "ok", "n": saved, "us": us, "peak_mb": peak, "versions": versions}


if __name__ == "__main__":
    name, level, n, limit, directory = sys.argv[1:]
    peer = cast(Peer, import_module(f"{__package__}.{name}"))
    print(json.dumps(measure(peer, level, int(n), float(limit), Path(directory))))
