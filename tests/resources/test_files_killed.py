"""Files in the state of a job that is really killed, through a Driver, until it comes to its end."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from file_jobs import LINES, OPENERS


@pytest.mark.crash
@pytest.mark.parametrize(
    ("kind", "kills"), [("text", 50), ("csv", 50), ("binary", 5), ("unbuffered", 5), ("gzip", 20), ("bz2", 10), ("xz", 10)]
)
def test_a_copy_that_is_killed_again_and_again_is_the_same(tmp_path: Path, kind: str, kills: int) -> None:
    """A job that holds a file it reads and one it writes ends with the same lines, however often it is killed."""
    rng = random.Random(kind)
    source, target = tmp_path / "source", tmp_path / "target"
    if kind == "csv":
        text = "é,b\r\n" + "".join(f'{n},"{"x" * (n * 7 % 90)}\n,{n}"\r\n' for n in range(LINES))
    else:
        text = "".join(f"{n} é {'x' * (n * 7 % 90)}\n" for n in range(LINES))
    as_bytes = OPENERS["binary" if kind in ("csv", "text") else kind]
    with as_bytes(str(source), "w") as file:
        file.write(text.encode())
    script, *paths = map(str, (Path(__file__).with_name("file_jobs.py"), tmp_path / "home", source, target))
    command = [sys.executable, script, kind, *paths]
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randint(0, LINES // kills)):
                process.stdout.readline()
            process.kill()
            process.stdout.read()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with as_bytes(str(target), "r") as file:
        assert file.read().decode() == text
