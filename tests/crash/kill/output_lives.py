"""Lives of a loop that writes files, killed at moments that are counted: `python output_lives.py PLACE SEED PLANT KILLS...`.

Each number is a story: a life that is killed at its so-manieth moment, then lives that are killed at moments that the seed
draws, then one that is not. Prints for each which files were wrong at its end, and how many moments the first life had. Moments
are before, between and after an item's lines, and around everything that is done to a file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import resumable
from resumable import Driver
from resumable.values import outputs
from resumable.work import output_files, output_places, output_records

ITEMS = 60
NEVER = 1 << 40
_left = NEVER


def moment() -> None:
    """One that the process may be killed at."""
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), 9)


def watched(whole: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with moments before and behind it."""

    def between(*args: Any, **kwargs: Any) -> Any:
        moment()
        try:
            return whole(*args, **kwargs)
        finally:
            moment()

    return between


def watch() -> None:
    """The compiled part calls `_begin` before it touches a file, and what `noting` gave between a write and its record."""
    for name in ("_begin", "_take_up", "_complete", "_stand_still", "_end"):
        setattr(output_records.RecordedFile, name, watched(getattr(output_records.RecordedFile, name)))
    for name in ("ftruncate", "replace", "open"):
        setattr(os, name, watched(getattr(os, name)))
    noting = outputs.noting
    outputs.noting = lambda path: watched(noting(path))


def line(item: int) -> str:
    return f"{item}: " + "-" * (item * 53 % 211) + "\n"


def life(place: Path) -> None:
    """Write all files, from where the life before was."""
    with Driver(place / "state") as driver:
        with (
            resumable.open(place / "lines") as lines, resumable.csv_writer(place / "rows.csv", header=["n", "text"]) as rows,
            resumable.jsonl_writer(place / "values.jsonl") as values, resumable.open(place / "raw", "ab") as raw,
        ):
            lines.write("begin\n")
            for item in driver.items(range(ITEMS), name="life", once=True):
                moment()
                lines.write(line(item))
                moment()
                rows.writerow({"n": item, "text": "é" * (item % 7)})
                values.write([item, {"even": item % 2 == 0}])
                moment()
                raw.write(bytes([item]) * (item * 31 % 997))
                if item % 20 == 0:
                    with resumable.open(place / f"whole {item}") as whole:
                        whole.write(str(item) * item)
                moment()
            lines.write("end\n")


# ---- planted bugs


def _cut_nothing() -> None:
    """What stands behind the last record stays."""
    os.ftruncate = lambda fd, size: None


def _write_at_once() -> None:
    """A file is written when the item writes."""
    whole = output_files.OutputFile._write

    def write(self: Any, data: Any) -> int:
        count = whole(self, data)
        if self.fd >= 0:
            self._spill()
        return count

    output_files.OutputFile._write = write  # type: ignore[method-assign]
    output_places.Text.copies_ascii = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment, misc]
    os.ftruncate = lambda fd, size: None


def _forget_what_is_held() -> None:
    """A resumed loop does not write again what the record holds."""
    whole = output_records.RecordedFile._take_up

    def take_up(self: Any, offset: int, inode: int, checked: int, checksum: int, held: bytes) -> None:
        whole(self, offset, inode, checked, checksum, b"")

    output_records.RecordedFile._take_up = take_up  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "cut nothing": _cut_nothing,
    "write at once": _write_at_once,
    "forget what is held": _forget_what_is_held,
}


# ---- lives


def forked(place: Path, at: int) -> tuple[bool, int]:
    """A life in a process of its own: whether it was killed, and how many moments it had if not."""
    global _left
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _left = at
            life(place)
            os.write(writing, str(at - _left).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading) as told:
        moments = told.read()
    _, status = os.waitpid(pid, 0)
    if status not in (0, 9):
        raise SystemExit(f"a life ended with status {status}")
    return status == 9, int(moments or 0)


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir()) if path.is_file()}


def begin(place: Path) -> None:
    """A place as it is before the first life: with an old file, and one to append to."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "lines").write_text("old\n" * 5000)
    (place / "raw").write_bytes(b"before")


def main(where: str, seed: str, plant: str, *kills: str) -> None:
    """See above."""
    place, draw = Path(where) / "place", random.Random(seed)
    PLANTS[plant]()
    watch()
    begin(place)
    _, moments = forked(place, NEVER)
    right = files(place)
    for kill in map(int, kills):
        begin(place)
        going, count = forked(place, kill)[0], 0
        while going:
            count += 1
            going, _ = forked(place, draw.randrange(1, moments) if draw.random() < 0.5 and count < 9 else NEVER)
        found = files(place)
        wrong = [name for name in {*right, *found} if right.get(name) != found.get(name)]
        print(json.dumps({"kill": kill, "kills": count, "moments": moments, "wrong": wrong}), flush=True)
    if not kills:
        print(json.dumps({"kill": 0, "kills": 0, "moments": moments, "wrong": []}))


if __name__ == "__main__":
    main(*sys.argv[1:])
