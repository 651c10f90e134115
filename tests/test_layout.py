"""The house plan: which file may import which, and how long files and functions may be.

The floors are those of docs/internals.md. Imports inside functions and under TYPE_CHECKING count, and so do those of
the compiled module's parts.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

# Floors from the top down; names that stand beside each other do not know each other, except on the ground.
FLOORS = [{"__init__", "__main__"}, {"tools", "ext", "testing"}, {"work"}, {"runs"}, {"storage", "values"}]
GROUND = {"errors", "clock", "version", "backoff", "_fastlog"}

pytestmark = pytest.mark.skipif(not SRC.exists(), reason="the source tree is not here")


def floor(name: str) -> int:
    return next((number for number, names in enumerate(FLOORS) if name in names), len(FLOORS))


def sources(root: Path) -> dict[str, Path]:
    """Every file that is imported or included, by its module path below `resumable`: "runs.driver", "_fastlog"."""
    package = root / "resumable"
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts if parts == ("__init__",) or parts[-1] != "__init__" else parts[:-1])] = path
    return found


def compiled(root: Path) -> list[Path]:
    return [root / "_fastlog.pyx", *sorted((root / "_fastlog").glob("*.pxi"))]


@functools.cache
def parsed(text: str) -> tuple[list[ast.Import | ast.ImportFrom], list[tuple[str, int]]]:
    """The imports of a Python file, and the names and lengths of its functions; kept, as most copies below are alike."""
    nodes = list(ast.walk(ast.parse(text)))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return imports, [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]


def imported(path: Path, module: str) -> Iterator[str]:
    """What a Python file imports from the package: dotted paths below `resumable`, "" for the package itself."""
    package = module.split(".") if path.name == "__init__.py" and module != "__init__" else module.split(".")[:-1]
    for node in parsed(path.read_text())[0]:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join(["resumable", *above, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        yield from (name.partition(".")[2] for name in names if name.split(".")[0] == "resumable")


def imported_by_compiled(path: Path) -> Iterator[str]:
    """The same for a part of the compiled module, whose language `ast` does not read."""
    for line in path.read_text().splitlines():
        found = re.match(r"\s*(?:from +resumable\b\.?([\w.]*) +c?import +(\w+)|c?import +resumable\.([\w.]+))", line)
        if found:
            yield found[3] or f"{found[1]}.{found[2]}".lstrip(".")


def imports(root: Path) -> dict[str, set[str]]:
    """Which file imports which, by module path; what is no file of the package is the name of something inside one."""
    known = {*sources(root), "_fastlog"}

    def file_of(name: str) -> str:
        parts = name.split(".")
        while parts and ".".join(parts) not in known:
            parts.pop()
        return ".".join(parts) or (name if floor(name.partition(".")[0]) < len(FLOORS) else "__init__")

    graph = {module: {file_of(name) for name in imported(path, module)} for module, path in sources(root).items()}
    graph["_fastlog"] = {file_of(name) for path in compiled(root) for name in imported_by_compiled(path)}
    return graph


def misplaced(root: Path) -> list[str]:
    """Imports that go up, or across to a neighbour."""
    found = []
    for module, targets in imports(root).items():
        here = module.partition(".")[0]
        for target in targets:
            there = target.partition(".")[0]
            together = here == there or {here, there} <= GROUND
            if not together and floor(there) <= floor(here):
                found.append(f"{module} imports {target}")
    return sorted(found)


def cycles(root: Path) -> list[str]:
    try:
        TopologicalSorter(imports(root)).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Names and lengths of a file's functions, those of the compiled parts by their indentation."""
    text = path.read_text()
    if path.suffix == ".py":
        yield from parsed(text)[1]
        return
    lines = text.splitlines()
    for number, line in enumerate(lines):
        found = re.match(r"( *)(?:cp?)?def (?!extern|class|enum|struct|packed)[^=]*?(\w+)\(", line)
        if found:
            inside = re.compile(rf" {{{len(found[1]) + 1},}}\S|\s*$| *\) *.*:$")
            end = number + 1
            while end < len(lines) and inside.match(lines[end]):
                end += 1
            yield found[2], len("\n".join(lines[number:end]).rstrip().splitlines())


def too_long(root: Path) -> list[str]:
    found = []
    for path in [*sources(root).values(), *compiled(root)]:
        lines = len(path.read_text().splitlines())
        if lines > LONGEST_FILE:
            found.append(f"{path.relative_to(root)} has {lines} lines")
        found += [
            f"{path.relative_to(root)}: {name} has {length} lines"
            for name, length in function_lengths(path)
            if length > LONGEST_FUNCTION
        ]
    return sorted(found)


def homeless(root: Path) -> list[str]:
    """Files and folders of the package that no floor names."""
    named = GROUND.union(*FLOORS)
    return sorted({module.partition(".")[0] for module in sources(root)} - named)


CHECKS = [misplaced, cycles, too_long, homeless]


@pytest.mark.parametrize("check", CHECKS)
def test_the_house_plan_holds(check) -> None:
    """Imports go down only, in no circle; files and functions are short; every file has its floor."""
    assert check(SRC) == []


PLANTED = {
    "up": (misplaced, "resumable/values/codec.py", "import resumable.runs.live\n"),
    "the face": (misplaced, "resumable/runs/live.py", "from resumable import Driver\n"),
    "across": (misplaced, "resumable/storage/side.py", "from resumable.values import codec\n"),
    "across, the other way": (misplaced, "resumable/values/codec.py", "from resumable.storage.side import side_name\n"),
    "in a function": (misplaced, "resumable/storage/side.py", "def f():\n    from resumable.runs import live\n"),
    "in a method": (misplaced, "resumable/clock.py", "class C:\n    def f(self):\n        import resumable.storage\n"),
    "for types only": (misplaced, "resumable/clock.py", "if TYPE_CHECKING:\n    from resumable.runs import live\n"),
    "relative": (misplaced, "resumable/values/codec.py", "from ..runs import live\n"),
    "relative, of a package": (misplaced, "resumable/values/__init__.py", "from ..storage import side\n"),
    "in a compiled part": (misplaced, "_fastlog/job.pxi", "def f():\n    from resumable.runs.live import LiveRun\n"),
    "in the compiled module": (misplaced, "_fastlog.pyx", "import resumable.values\n"),
    "a circle": (cycles, "resumable/runs/settings.py", "def f():\n    from resumable.runs.driver import Driver\n"),
    "a circle on the ground": (cycles, "resumable/errors.py", "from resumable._fastlog import checkpoint\n"),
    "a long file": (too_long, "resumable/clock.py", "x = 1\n" * LONGEST_FILE),
    "a long function": (too_long, "resumable/clock.py", "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION),
    "a long compiled file": (too_long, "_fastlog/bitset.pxi", "# x\n" * LONGEST_FILE),
    "a long compiled function": (too_long, "_fastlog.pyx", "cdef int f() except -1:\n" + "    x\n" * LONGEST_FUNCTION),
    "a file without a floor": (homeless, "resumable/stray.py", "x = 1\n"),
}


@pytest.mark.parametrize("violation", PLANTED)
def test_violations_are_caught(violation: str, tmp_path: Path) -> None:
    """Each kind of violation, planted in a copy of the source, is found, and so the green run above means something."""
    check, file, text = PLANTED[violation]
    root = tmp_path / "src"
    shutil.copytree(SRC, root, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
    before = check(root)
    path = root / file
    path.write_text((path.read_text() if path.exists() else "") + "\n" + text)
    assert set(check(root)) - set(before)


def test_every_part_of_the_compiled_module_is_seen() -> None:
    """The parts that `_fastlog.pyx` includes are those that are checked."""
    included = re.findall(r'^include "(.+)"', (SRC / "_fastlog.pyx").read_text(), re.MULTILINE)
    assert sorted(included) == [str(path.relative_to(SRC)) for path in compiled(SRC)[1:]]


def test_no_two_test_files_have_one_name() -> None:
    """All tests can be run at once: pytest imports a test file under its name alone."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names))
