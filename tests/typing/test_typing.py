"""What type checkers say of the public names, and of the compiled module's stub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = ("api.py", "wrong.py")


def marked() -> set[tuple[str, int]]:
    lines = (HERE / "wrong.py").read_text().splitlines()
    return {("wrong.py", number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def checker(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Where there is no source beside the tests these paths name nothing, and the installed package is checked.
    source = str(ROOT / "src")
    environ = os.environ | {"MYPYPATH": source, "PYTHONPATH": source, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=HERE, check=False, env=environ
    )


def by_mypy() -> set[tuple[str, int]]:
    done = checker("mypy", "--strict", "--config-file", "mypy.ini", "--no-error-summary", *FILES)
    found = re.findall(r"^(\w+\.py):(\d+): error", done.stdout, re.MULTILINE)
    assert found or done.returncode == 0, done.stdout + done.stderr
    return {(file, int(line)) for file, line in found}


def by_pyright() -> set[tuple[str, int]]:
    done = checker("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", "pyrightconfig.json", *FILES)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    return {
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1)
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    }


@pytest.mark.parametrize("errors", [by_mypy, by_pyright])
def test_exactly_the_wrong_lines_are_errors(errors) -> None:
    """Right calls pass the checker, and each wrong, missing, extra or unknown argument is an error."""
    assert errors() == marked()


def test_the_stub_matches_the_compiled_module() -> None:
    """`_fastlog.pyi` and the module that was built have the same names and signatures."""
    done = checker(
        "mypy.stubtest", "resumable._fastlog", "--mypy-config-file", "mypy.ini", "--allowlist",
        "stubtest_allowlist.txt",
    )
    assert done.returncode == 0, done.stdout + done.stderr
