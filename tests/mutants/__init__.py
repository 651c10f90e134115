"""Mutants: small changes of the real write path that make it wrong, and the tests that must notice each of them.

`make mutants` puts one after another into a copy of the tree and runs the tests that are named for it; one that they let
pass is a gap in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class DoesNotApply(Exception):
    """The source has not exactly one place like one that a mutant changes."""


@dataclass(frozen=True)
class Mutant:
    """One wrong version. `killers` are tests, below tests/.

    `changes` are by file, below src/, in the manner of diff: lines that begin with "-" go, with "+" come, with a space stay;
    a line "@@" stands between two places.
    """

    name: str
    breaks: str
    killers: Sequence[str]
    changes: Mapping[str, str]

    @property
    def compiled(self) -> bool:
        """Whether the extension has to be built anew."""
        return any(file.startswith("_fastlog") for file in self.changes)

    def apply(self, source: Path) -> None:
        """Change the files of a copy of src/. Raises DoesNotApply; then the mutant has to follow the code."""
        for file, change in self.changes.items():
            text = "\n" + (source / file).read_text()
            for old, new in _places(change):
                if text.count(old) != 1:
                    raise DoesNotApply(f"{self.name}: {file} has {text.count(old)} places like this, not one:{old}")
                text = text.replace(old, new)
            (source / file).write_text(text.removeprefix("\n"))


def _places(change: str) -> Iterator[tuple[str, str]]:
    """Old and new text of each place, whole lines with the ends of those before them."""
    for place in change.strip("\n").split("\n@@\n"):
        lines = place.split("\n")
        old = [line[1:] for line in lines if line[0] in "- "]
        new = [line[1:] for line in lines if line[0] in "+ "]
        yield "\n" + "\n".join(old) + "\n", "".join(f"\n{line}" for line in new) + "\n"
