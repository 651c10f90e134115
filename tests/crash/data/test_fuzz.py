"""Fuzzing: the library's own compiled code under ASan and UBSan reads bytes that were damaged on purpose.

A process decodes or opens a slice of the inputs; its exit code and its one line of output are the verdict. An input is told by
the seed and its number: `fuzz_process.py decode SEED NUMBER 1 PLACE` does it again.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from figures import ROWS, Figures, amount, share
from fuzz_build import HERE, environment, package, sanitized

pytestmark = pytest.mark.crash

# What one process does: long enough to pay for its start, short enough to show how far it got.
SLICE = {"decode": 2_000_000, "open": 20_000}
OPENS = 10_000_000  # the full figure beside the row's own
SHORT = {"decode": 100_000, "open": 1_500}


class Found(AssertionError):
    """The process that fuzzed was ended, or ended itself."""


def fuzz(place: Path, what: str, seed: int, first: int, count: int, plant: int = 0) -> Counter[str]:
    """What a process counted that did these inputs. Raises Found."""
    at = place / f"at-{what}"
    at.write_bytes(bytes(8))
    command = [sys.executable, HERE / "fuzz_process.py", what, *map(str, (seed, first, count)), at]
    done = subprocess.run(
        command, env=environment(place) | {"FUZZ_PLANT": str(plant)}, capture_output=True, text=True, check=False, timeout=7200
    )
    if done.returncode or done.stderr:
        number = int.from_bytes(at.read_bytes(), "little")
        raise Found(f"{what}, seed {seed}, input {number}: exit code {done.returncode}\n{done.stderr[-6000:]}")
    return Counter(json.loads(done.stdout))


def fuzz_in_slices(place: Path, what: str, seed: int, count: int, plant: int = 0) -> Counter[str]:
    """The same for any number of inputs."""
    counted: Counter[str] = Counter()
    for first in range(0, count, SLICE[what]):
        counted += fuzz(place, what, seed, first, min(SLICE[what], count - first), plant)
    return counted


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where the library is under the sanitizers, as it is and with planted bugs to choose from."""
    clean, planted = sanitized(planted=False), sanitized(planted=True)
    return package(tmp_path_factory.mktemp("clean"), clean), package(tmp_path_factory.mktemp("planted"), planted)


@pytest.fixture(scope="module")
def clean(places: tuple[Path, Path]) -> Path:
    """The library as it is."""
    return places[0]


@pytest.fixture(scope="module")
def planted(places: tuple[Path, Path]) -> Path:
    """The library with planted bugs."""
    return places[1]


def test_damaged_encodings(clean: Path, seed: int, figures: Figures) -> None:
    """No bytes make the plain decoder crash, read beyond them or ask for much memory, and what it accepts is saved the same."""
    count = amount("Z1", SHORT["decode"])
    found = fuzz_in_slices(clean, "decode", seed, count)
    assert found["accepted"] > count // 50, "a fuzzer whose inputs are all refused at once tells little"
    figures("Z1", "plain decoder", decodes=found["decodes"], accepted=found["accepted"])


def test_damaged_files(clean: Path, seed: int, figures: Figures) -> None:
    """No damage makes the opening of a file crash, read beyond it or ask for too much memory, and its errors have names."""
    count = math.ceil(OPENS * share()) or SHORT["open"]
    found = fuzz_in_slices(clean, "open", seed, count)
    named = sum(found[name] for name in found if name.endswith("Error") and not name.startswith("forged"))
    assert named
    assert found["reported"]
    figures("Z1", f"whole files; {ROWS['Z1'].unit} of them apart", decodes=0, opens=found["opens"], refused_by_name=named)


@pytest.mark.parametrize(
    ("plant", "report"),
    [
        (1, "use-after-poison|unknown-crash"), (2, "signed integer overflow"), (3, "bytes at once|MemoryError|OverflowError"),
        (4, "came back as"),
    ],
    ids=["overread", "overflow", "allocation", "wrong value"],
)
def test_planted_bugs_are_found(plant: int, report: str, planted: Path, seed: int) -> None:
    """The same fuzzer finds a read beyond the input, a signed overflow, memory that nothing bounds and a value that changed."""
    with pytest.raises(Found, match=report):
        fuzz_in_slices(planted, "decode", seed, SLICE["decode"], plant)


def test_an_input_comes_again(clean: Path, planted: Path, seed: int) -> None:
    """The seed and the number that a failure names make the same failure again, alone."""
    with pytest.raises(Found) as first:
        fuzz(planted, "decode", seed, 0, SLICE["decode"], plant=1)
    number = int(str(first.value).partition("input ")[2].partition(":")[0])
    with pytest.raises(Found, match=f"input {number}:"):
        fuzz(planted, "decode", seed, number, 1, plant=1)
    fuzz(clean, "decode", seed, number, 1)
