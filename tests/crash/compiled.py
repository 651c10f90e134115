"""C programs of the crash tests, compiled once and kept by their content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def cache_directory() -> Path:
    """Where compiled programs are kept: ours alone, so that nobody can put a program there."""
    path = Path(tempfile.gettempdir()) / f"resumable-tests-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user")
    return path


def put_bugs(folder: Path, plants: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Put bugs into the files of a folder: by a file's name, what of it becomes what."""
    for name, changes in plants.items():
        text = (folder / name).read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{name} has no single {old!r}: plant the bug where the code is now"
            text = text.replace(old, new)
        (folder / name).write_text(text)


def compile_c(source: Path, *flags: str) -> Path:
    """Compile `source` with gcc, warnings being errors, unless that was done before."""
    key = hashlib.sha256(source.read_bytes() + "\0".join(flags).encode()).hexdigest()[:16]
    made = cache_directory() / f"{source.stem}-{key}"
    if not made.exists():
        gcc = shutil.which("gcc") or "cc"
        # Renamed into place, so that another test process never starts half a file.
        unfinished = made.with_suffix(f".{os.getpid()}")
        subprocess.run([gcc, "-O2", "-Wall", "-Wextra", "-Werror", *flags, "-o", unfinished, source], check=True)
        unfinished.rename(made)
    return made
