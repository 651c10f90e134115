"""The comparison of loops prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_both_tables_are_printed(tmp_path: Path) -> None:
    """Each way to write a loop has its cost at each size, and safe-state its ratio, or the reason why it has none."""
    command = [sys.executable, "-m", "benchmarks.loops", "--smoke", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    for name in ("driver.items", "the same with progress", "@resumable.loop"):
        assert re.search(rf"^{re.escape(name)} +-?[\d.,]+ +-?[\d.,]+$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^ratio +[\d,]+ +[\d,]+$|^safe-state is not installed", done.stdout, re.MULTILINE), done.stdout
    assert not list(tmp_path.iterdir())
