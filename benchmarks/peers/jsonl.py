"""One JSON line appended and flushed per checkpoint."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TextIO

from . import states

NAME = "jsonl"
DURABILITY = {"process": "json.dumps, append, flush"}


def version() -> str:
    return f"Python {platform.python_version()}"


def setup(directory: Path, level: str) -> TextIO:
    return open(directory / "states.jsonl", "a", encoding="utf-8")


def run(file: TextIO, n: int, level: str) -> None:
    for state in states(n):
        file.write(json.dumps(state) + "\n")
        file.flush()
