"""Count the words of every Python source file of the standard library. Kill it (kill -9), run it again: it goes on.

    python examples/wordcount.py [STATE_DIRECTORY]
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import TypedDict

from resumable import Driver, Job, Results, checkpoint

NAME = "words of the standard library"


class Progress(TypedDict):
    """What the job must know to go on: small, because it is saved after every file. The counts are results."""

    files: int
    lines: int
    words: int


START = Progress(files=0, lines=0, words=0)


def sources() -> list[str]:
    """Every Python source file of the standard library, in a fixed order."""
    library = Path(sysconfig.get_path("stdlib"))
    return sorted(str(path) for path in library.rglob("*.py") if "site-packages" not in path.parts)


def read(path: str) -> str:
    return Path(path).read_bytes().decode("utf-8", "replace")


def count_words(paths: list[str], *, state: Progress = START) -> Job[Progress, int]:
    """One checkpoint a file, with the file's counts as a result: the state stays small however many words there are."""
    for path in paths[state["files"] :]:
        text = read(path)
        counts = Counter(re.findall(r"\w+", text))
        state = Progress(
            files=state["files"] + 1,
            lines=state["lines"] + text.count("\n"),
            words=state["words"] + counts.total(),
        )
        yield checkpoint(state, result=dict(counts))
    return state["words"]


def total(results: Results) -> Counter[str]:
    counts: Counter[str] = Counter()
    for of_one_file in results:
        counts.update(of_one_file)
    return counts


def main() -> None:
    with Driver(sys.argv[1] if len(sys.argv) > 1 else None) as driver:
        words = driver.run(count_words, sources(), name=NAME, once=True)
        common = total(driver.results(NAME)).most_common(5)
    print(f"{words:,} words; the most common: {', '.join(f'{word} ({count:,})' for word, count in common)}")


if __name__ == "__main__":
    main()
