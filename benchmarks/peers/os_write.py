"""One system call per checkpoint: the floor of everything that does not map its file."""

from __future__ import annotations

import os
import pickle
import platform
from io import FileIO
from pathlib import Path

from . import states

NAME = "os.write"
DURABILITY = {"process": "pickle, os.write to the end", "disk": "pickle, os.write to the end, os.fdatasync"}


def version() -> str:
    return f"Python {platform.python_version()}"


def setup(directory: Path, level: str) -> FileIO:
    return open(directory / "states.bin", "ab", buffering=0)


def run(file: FileIO, n: int, level: str) -> None:
    fd = file.fileno()
    for state in states(n):
        os.write(fd, pickle.dumps(state))
        if level == "disk":
            os.fdatasync(fd)
