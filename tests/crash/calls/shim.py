"""Running a program with system calls that fail, come up short, or never return: the Python end of fault_shim.c.

Count first, then go through all of them:

    calls = count_calls(argv, under=directory)                      # [Call(pid, op, path), ...]
    for nth in range(1, len(calls) + 1):
        done = run_with_faults(argv, nth=nth, kill=True, under=directory)

A "call" is one of OPS, whichever of its variants libc offers (`open` is also openat, `pwrite` also pwrite64). Calls of
forked children count with their parent's; a child that execs starts to count anew.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from errno import EIO
from pathlib import Path
from typing import NamedTuple

from compiled import compile_c

OPS = (
    "open", "write", "pwrite", "fsync", "fdatasync", "msync", "ftruncate", "fallocate", "posix_fallocate",
    "rename", "unlink", "mkdir", "rmdir", "mmap", "flock",
)  # fmt: skip
ANY = "any"


class Call(NamedTuple):
    """A call that the shim counted."""

    pid: int
    op: str
    path: str


def shim_path() -> Path:
    """The shared library, compiled when it is not yet."""
    return compile_c(Path(__file__).parent / "fault_shim.c", "-shared", "-fPIC", "-ldl")


def run_with_faults(
    argv: Sequence[str | Path],
    op: str = ANY,
    nth: int = 1,
    errno: int = EIO,
    *,
    persistent: bool = False,
    kill: bool = False,
    short: bool = False,
    under: Path | None = None,
    counts: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` to its end with the `nth` call (from 1; 0: none) of kind `op` failing with `errno`.

    persistent  that call and every one of the kind after it
    kill        SIGKILL just before the call instead (return code -9, unless there were fewer calls)
    short       write and pwrite take half of their bytes instead of failing
    under       only calls on files below this directory are seen (msync has no file: all of them are)
    counts      a file that the calls seen are appended to, as `count_calls` reads them
    env         variables in place of this process's own
    """
    if op not in (*OPS, ANY):
        raise ValueError(f"no such kind of call: {op!r}")
    faults = {
        "LD_PRELOAD": str(shim_path()),
        "FAULT_OP": op,
        "FAULT_NTH": str(nth),
        "FAULT_ERRNO": str(errno),
        "FAULT_FROM": str(int(persistent)),
        "FAULT_KILL": str(int(kill)),
        "FAULT_SHORT": str(int(short)),
    }
    if under is not None:
        # The shim compares with what the kernel calls the file.
        faults["FAULT_UNDER"] = str(under.resolve())
    if counts is not None:
        faults["FAULT_COUNTS"] = str(counts)
    return subprocess.run(
        argv,
        env={**(os.environ if env is None else env), **faults},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def count_calls(
    argv: Sequence[str | Path], op: str = ANY, *, under: Path | None = None, env: Mapping[str, str] | None = None
) -> list[Call]:
    """The calls of kind `op` that an undisturbed run of `argv` makes, in order. Raises when it does not end well."""
    with tempfile.TemporaryDirectory() as directory:
        counts = Path(directory) / "counts"
        run_with_faults(argv, op, 0, under=under, counts=counts, env=env).check_returncode()
        calls = []
        for line in counts.read_text().splitlines():
            pid, kind, path = line.split(" ", 2)
            calls.append(Call(int(pid), kind, path))
        return calls
