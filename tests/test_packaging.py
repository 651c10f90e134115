"""What is shipped: wheel and sdist, built as a user's pip builds them, and the wheel at work far from the source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/resumable"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the source tree is not here"),
]

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache", ".hypothesis", ".resumable"
)


def pip(*arguments: str, python: str = sys.executable) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a copy of the tree, built by the backend that pyproject.toml names, in an isolated environment."""
    where = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, where / "tree", ignore=LEFT_OUT)
    backend = where / "backend"
    pip("install", "--target", str(backend), "setuptools>=77", "cython>=3.1,<4")
    code = "import setuptools.build_meta as backend; print(backend.build_sdist('..'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=where / "tree", capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(backend)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return where / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the sdist in its own isolated build."""
    where = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--wheel-dir", str(where), str(sdist))
    return next(where.glob("*.whl"))


def python_files() -> set[str]:
    return {f"resumable/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*.py")}


def test_the_sdist_is_complete(sdist: Path) -> None:
    """The sdist holds all that a build and the tests need, and nothing that was built."""
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    wanted = {f"src/_fastlog/{path.name}" for path in (ROOT / "src/_fastlog").iterdir()}
    wanted |= {f"src/{name}" for name in python_files()}
    wanted |= {"setup.py", "pyproject.toml", "src/_fastlog.pyx", "src/resumable/_fastlog.pyi", "src/resumable/py.typed"}
    wanted |= {"README.md", "CHANGELOG.md", "LICENSE", "Makefile", ".ci/run", "docs/internals.md"}
    wanted |= {"tests/twin.py", "tests/typing/wrong.py", "examples/demo.py", "benchmarks/README.md"}
    assert sorted(wanted - names) == []
    assert [name for name in names if name.endswith((".so", ".pyc", "_fastlog.c"))] == []


def test_the_wheel_is_complete(wheel: Path) -> None:
    """The wheel holds every module, the compiled one, its stub, py.typed and the licence, and no build sources."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name.startswith("resumable_jobs-")
    assert sorted(python_files() - names) == []
    assert {"resumable/_fastlog.pyi", "resumable/py.typed"} <= names
    assert len([name for name in names if name.startswith("resumable/_fastlog.") and name.endswith(".so")]) == 1
    assert [name for name in names if name.endswith((".pyx", ".pxi", ".c", ".h"))] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"resumable", wheel.name.split("-cp")[0] + ".dist-info"}


SMOKE = """
import sys
from pathlib import Path
import resumable
from resumable import Driver, checkpoint

def job(n, *, state=0):
    while state < n:
        state += 1
        yield checkpoint(state, result=str(state))
        if state == 5 and sys.argv[1] == "crash":
            raise RuntimeError("a crash")
    return state

assert "site-packages" in resumable.__file__, resumable.__file__
with Driver("state") as driver:
    assert driver.run(job, 9, name="smoke") == 9
    assert list(driver.results("smoke")) == [str(n) for n in range(1, 10)]
    assert driver.info("smoke").resumed == 1
    assert driver.run(job, 3) == 3
"""


def test_the_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """In a new environment, with the source away, the installed wheel runs a job, fails and resumes."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    pip("install", str(wheel), python=str(python))
    (tmp_path / "smoke.py").write_text(SMOKE)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for how, code in (("crash", 1), ("resume", 0)):
        command = [str(python), "-W", "error", "smoke.py", how]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
