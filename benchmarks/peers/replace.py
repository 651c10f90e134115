"""A pickle in a new file that takes the old one's name.

Without fsync this is still slow on ext4, which by default (auto_da_alloc) writes a file out when it replaces another:
182 us against 27 us where no file of that name was there.
"""

from __future__ import annotations

import os
import pickle
import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from . import states

NAME = "os.replace"
DURABILITY = {
    "process": "pickle to a new file, os.replace",
    "disk": "pickle to a new file, fsync, os.replace, fsync of the directory",
}


def version() -> str:
    return f"Python {platform.python_version()}"


def setup(directory: Path, level: str) -> AbstractContextManager[Path]:
    return nullcontext(directory)


def run(directory: Path, n: int, level: str) -> None:
    new, current = directory / "state.tmp", directory / "state"
    folder = os.open(directory, os.O_RDONLY)
    for state in states(n):
        with open(new, "wb") as file:
            pickle.dump(state, file)
            if level == "disk":
                file.flush()
                os.fsync(file.fileno())
        os.replace(new, current)
        if level == "disk":
            os.fsync(folder)
    os.close(folder)
