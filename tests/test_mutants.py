"""The mutants still fit the source and the tests, and their trial tells a mutant that is killed from one that is not.

That each is killed is shown by `make mutants`, which takes minutes.
"""

from __future__ import annotations

import ast
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mutants import DoesNotApply, Mutant
from mutants.catalogue import MUTANTS
from mutants.trial import TREE, Tree, try_mutant

HARMLESS = Mutant(
    "a comment is another",
    "nothing",
    ["unit/test_lock.py::test_release_frees_it_and_may_be_repeated"],
    {
        "resumable/storage/lock.py": """
-the file only says who holds it, for messages. POSIX (fcntl) locks are never used: any close of the file drops them.
+the file only says who holds it, for messages.
"""
    },
)
UNLOCKED = replace(
    HARMLESS,
    name="the lock is not taken",
    changes={
        "resumable/storage/lock.py": """
-                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""
    },
)


def sources_of(mutant: Mutant, place: Path) -> Path:
    """Copies of the files that a mutant changes."""
    for file in mutant.changes:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TREE / "src" / file, place / file)
    return place


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits(mutant: Mutant, tmp_path: Path) -> None:
    """The text that a mutant changes stands in the source exactly once, and the tests that are to kill it are there."""
    mutant.apply(sources_of(mutant, tmp_path))
    for file in mutant.changes:
        assert (tmp_path / file).read_text() != (TREE / "src" / file).read_text()
    assert mutant.killers
    for killer in mutant.killers:
        file, _, test = killer.partition("::")
        defined = {node.name for node in ast.parse((TREE / "tests" / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert test.partition("[")[0] in defined, killer


@pytest.mark.parametrize("text", ["README.md", "docs/reliability.md"])
def test_their_number_is_told(text: str) -> None:
    """What tells readers how many wrong versions there are tells the right number."""
    assert f" {len(MUTANTS)} wrong versions" in (TREE / text).read_text()


def test_mutants_are_told_apart() -> None:
    """No two mutants have one name, or make one change."""
    assert len({mutant.name for mutant in MUTANTS}) == len({str(mutant.changes) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("change", ["-not there\n+at all\n", "-        try:\n+        if True:\n"], ids=["none", "several"])
def test_a_mutant_that_does_not_fit_is_told(change: str, tmp_path: Path) -> None:
    """A mutant whose text stands in the source not at all, or more than once, is an error and never skipped."""
    mutant = replace(HARMLESS, changes={"resumable/storage/lock.py": change})
    with pytest.raises(DoesNotApply, match=r"resumable/storage/lock\.py has"):
        mutant.apply(sources_of(mutant, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "killed"), [(HARMLESS, False), (UNLOCKED, True), (replace(UNLOCKED, killers=["unit/test_gone.py"]), False)],
    ids=["harmless", "wrong", "without a test"],
)  # fmt: skip
def test_a_trial_tells_what_is_killed(mutant: Mutant, killed: bool, tmp_path: Path) -> None:
    """A mutant counts as killed when a test that was run fails, and in no other case."""
    outcome = try_mutant(mutant, Tree.copy(TREE, tmp_path / "sound"))
    assert (outcome.killer is not None) == killed, outcome.output
    assert ("NOT KILLED" in outcome.line()) != killed
