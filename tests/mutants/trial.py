"""A copy of the tree, the extension built in it, and tests run against it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant

TREE = Path(__file__).parents[2]
LONGEST = 300  # seconds; a test that hangs has not found anything
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")


@dataclass(frozen=True)
class Tested:
    """How pytest ended: its exit code, None when it was ended for hanging; the tests that failed; what it said."""

    code: int | None
    failed: list[str]
    output: str
    seconds: float

    @property
    def summary(self) -> str:
        """Its last line: how many passed and so on."""
        return self.output.strip().splitlines()[-1].strip("= ") if self.output.strip() else "nothing said"

    @property
    def passed(self) -> bool:
        """All tests were run and passed; one that was skipped could kill nothing."""
        return self.code == 0 and "skipped" not in self.summary


@dataclass(frozen=True)
class Tree:
    """A copy of src/ and tests/ to be changed."""

    root: Path

    @classmethod
    def copy(cls, of: Path, to: Path) -> Tree:
        """A new copy in the directory `to`, with what `of` has built."""
        for name in ("src", "tests"):
            shutil.copytree(of / name, to / name, ignore=_LEFT_OUT)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(of / name, to / name)
        return cls(to)

    def build(self) -> None:
        """Build the extension from the sources as they are here, quickly rather than well."""
        source = self.root / "src"
        module = source / "resumable" / f"_fastlog{sysconfig.get_config_var('EXT_SUFFIX')}"
        cython = [sys.executable, "-m", "cython", "-3", "--module-name", "resumable._fastlog", "-o", "_fastlog.c"]
        flags = ["-O1", "-fno-strict-aliasing", "-shared", "-fPIC", "-w", "-I_fastlog", f"-I{sysconfig.get_path('include')}"]
        for command in ([*cython, "_fastlog.pyx"], ["cc", *flags, "-o", str(module), "_fastlog.c"]):
            done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        (source / "_fastlog.c").unlink()

    def test(self, tests: list[str], *options: str, longest: int = LONGEST) -> Tested:
        """Run tests, named below tests/, against this tree, for so many seconds at most."""
        environment = {
            **os.environ, "PYTHONPATH": f"{self.root / 'src'}:{self.root / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        for name in ("RESUMABLE_SHARE", "RESUMABLE_FIGURES"):
            environment.pop(name, None)
        command = [
            sys.executable, "-m", "pytest", "-q", "-rf", "--tb=short", "-p", "no:cacheprovider",
            f"--basetemp={self.root / 'tmp'}", *options, *(f"tests/{test}" for test in tests),
        ]  # fmt: skip
        began = time.monotonic()
        # Into a file: what a test leaves running would hold a pipe open. In a group of their own, to be ended with pytest.
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code: int | None = None
            try:
                code = process.wait(longest)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            said = output.read()
        failed = re.findall(r"^FAILED tests/(.+?)(?: - .*)?$", said, re.MULTILINE)
        return Tested(code, failed, said, time.monotonic() - began)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: the test that killed it, or None; `how` its tests ended."""

    mutant: Mutant
    killer: str | None
    how: str
    seconds: float
    output: str

    def line(self) -> str:
        """For whoever watches."""
        said = f"killed by {self.killer}" if self.killer else f"NOT KILLED: {self.how}"
        return f"{self.seconds:6.1f} s  {self.mutant.name}: {said}"


def try_mutant(mutant: Mutant, sound: Tree) -> Outcome:
    """Run the mutant's tests against a copy of the sound tree that has the mutant in it, until one fails."""
    began = time.monotonic()
    root = sound.root.parent / re.sub(r"\W+", "-", mutant.name)
    tree = Tree.copy(sound.root, root)
    try:
        mutant.apply(tree.root / "src")
        if mutant.compiled:
            tree.build()
        tested = tree.test(list(mutant.killers), "-x")
    finally:
        shutil.rmtree(root)
    # Exit code 1: tests ran and one failed. Others say that there was no test, or that pytest could not run it.
    killer = tested.failed[0] if tested.code == 1 and tested.failed else None
    how = "hangs" if tested.code is None else f"pytest ended with {tested.code}: {tested.summary}"
    return Outcome(mutant, killer, how, time.monotonic() - began, "\n".join(tested.output.splitlines()[-60:]))
