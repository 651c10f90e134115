"""The face of the package: its names, their home, and what importing it costs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import resumable
from resumable import errors
from resumable.values.handlers import BUILT_IN

# Extras, and what only some programs need: none of it may come with `import resumable`.
HEAVY = (
    "asyncio", "dill", "inspect", "multiprocessing", "numpy", "pandas", "pathlib", "pyarrow", "requests", "sqlite3", "ssl",
    "subprocess",
)  # fmt: skip


def test_all_is_sorted_and_every_name_is_there() -> None:
    """`__all__` is sorted, names nothing twice, and each of its names can be imported."""
    assert resumable.__all__ == sorted(set(resumable.__all__))
    assert [name for name in resumable.__all__ if not hasattr(resumable, name)] == []
    assert set(resumable.__all__) <= set(dir(resumable))


def test_every_error_is_public() -> None:
    """Whatever the package raises or warns on purpose can be caught by a public name."""
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    ours = {name for name, value in classes.items() if value.__module__ == errors.__name__}
    assert "ResumableError" in ours
    assert ours <= set(resumable.__all__)


def test_no_public_name_is_a_modules() -> None:
    """No public name equals a module's, so a late import can never put a module in its place."""
    modules = {module.name for module in pkgutil.iter_modules(resumable.__path__)} - {"__main__"}
    assert {"runs", "errors", "_fastlog"} <= modules
    assert not modules & set(resumable.__all__)
    for module in sorted(modules):
        importlib.import_module(f"resumable.{module}")
    assert [name for name in resumable.__all__ if inspect.ismodule(getattr(resumable, name))] == []


def test_a_wrong_name_says_so() -> None:
    """A name that is not there raises AttributeError with the module and the name."""
    with pytest.raises(AttributeError, match="module 'resumable' has no attribute 'chekpoint'"):
        getattr(resumable, "chekpoint")  # noqa: B009 - the point


def test_the_aliases_take_parameters_at_run_time() -> None:
    """`Job[S, R]` and `AsyncJob[S]` may stand in annotations that are evaluated."""
    assert resumable.Job[int, str].__args__ == (resumable.Checkpoint[int], None, str)
    assert resumable.AsyncJob[int].__args__ == (resumable.Checkpoint[int], None)


def test_the_version_is_the_distributions() -> None:
    """`__version__` is what pyproject.toml says."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == resumable.__version__


def fresh_process(code: str, directory: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str, directory: Path) -> set[str]:
    """Every module there is in a new process that ran the code."""
    return set(fresh_process(f"{code}\nimport sys\nprint(*sys.modules)", directory).split())


def test_importing_loads_little(tmp_path: Path) -> None:
    """`import resumable` loads at most lmdb from outside, only light parts of the standard library; no thread, no file."""
    check = "import threading, resumable; assert threading.active_count() == 1"
    brought = loaded(check, tmp_path) - loaded("import threading", tmp_path)
    assert sorted(brought & set(HEAVY)) == []
    outside = {name.partition(".")[0] for name in brought} - set(sys.stdlib_module_names)
    assert {name for name in outside if "cython" not in name} <= {"lmdb", "resumable"}
    assert list(tmp_path.iterdir()) == []


def test_states_without_resources_load_no_library(tmp_path: Path) -> None:
    """A run that fails, resumes and is reported loads no library of a live resource, and no handler, for states without any."""
    script = """
    import collections, contextlib, decimal
    from resumable import Driver, checkpoint
    def job(given, *, state=None):
        yield checkpoint({"n": 1})
        yield checkpoint([decimal.Decimal(1), collections.deque([2])], result=3)
        raise RuntimeError("stopped")
    with Driver("here") as driver:
        for life in range(2):
            with contextlib.suppress(RuntimeError):
                driver.run(job, [decimal.Decimal(1)], name="job")
        assert driver.state("job") and driver.failure("job")
    """
    brought = loaded(textwrap.dedent(script), tmp_path)
    libraries = {key.partition(":")[0].partition(".")[0] for key in BUILT_IN} - set(sys.stdlib_module_names)
    assert len(libraries) > 10
    assert sorted(brought & (libraries - {"resumable"} | {"sqlite3", "smtplib", "ssl", "socket", "gzip"})) == []
    assert {name for name in brought if ".handlers." in name} == {"resumable.values.handlers.refused"}


def test_making_a_driver_makes_nothing(tmp_path: Path) -> None:
    """Making Drivers, the default one included, creates no directory before the first run."""
    fresh_process("from resumable import Driver, driver; Driver(); Driver('here'); driver.path", tmp_path)
    assert list(tmp_path.iterdir()) == []
