"""A power cut, as a directory shows it: what was synced is there, and of the rest whatever the disk happened to have.

The log and the sync files are what is synced. A journal is not: each of its pages may be there, be what it was before, or be
torn. Side files are synced before the log, or a sync file, names them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import lmdb

from resumable.storage.records import RunRecord, key_run

PAGE = 4096
# By a run's folder and number: how many states and results are on disk for certain.
Floors = Callable[[str, int], tuple[int, int]]


def _pages(data: bytearray, choose: random.Random) -> None:
    for at in range(0, len(data), PAGE):
        if choose.random() < 0.5:
            data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))


def _tail(data: bytearray, choose: random.Random) -> None:
    end = len(bytes(data).rstrip(b"\0"))
    if end:
        data[max(0, end - choose.randrange(1, 400))] ^= 1 << choose.randrange(8)


def _bit(data: bytearray, choose: random.Random) -> None:
    if data:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def _cut(data: bytearray, choose: random.Random) -> None:
    del data[choose.randrange(len(data) + 1) :]


def _zeros(data: bytearray, choose: random.Random) -> None:
    data[:] = bytes(len(data))


def _head(data: bytearray, choose: random.Random) -> None:
    data[:PAGE] = choose.randbytes(PAGE)


TEARS = (_pages, _tail, _tail, _bit, _cut, _zeros, _head)


def cut_power(directory: Path, floors: Floors, choose: random.Random) -> None:
    """Leave the directory as a cut might."""
    for path in sorted(directory.glob("runs/*/*")):
        found = re.fullmatch(r"(\d+)\.(\d|side\.(result\.)?(\d+|return))", path.name)
        if found is None:
            continue
        if "side" in path.name:
            states, results = floors(path.parent.name, int(found[1]))
            if found[4] == "return" or int(found[4]) < (results if found[3] else states + 1):
                continue
        if choose.random() < 0.1:
            path.unlink()
        elif choose.random() < 0.6:
            data = bytearray(path.read_bytes())
            choose.choice(TEARS)(data, choose)
            path.write_bytes(data)


def in_log(directory: Path) -> dict[tuple[str, int], tuple[int, int]]:
    """How many states and results of each run the log has, by the name's digest as folders have it, and the run's number."""
    if not (directory / "log").exists():
        return {}
    with lmdb.open(str(directory / "log"), readonly=True, lock=False) as log, log.begin() as transaction:
        found = {}
        cursor = transaction.cursor()
        cursor.set_range(b"r")
        for key, value in cursor:
            if key[:1] == b"r":
                name, number = key_run(key)
                record = RunRecord.decode(bytes(value[4:]))
                found[name.hex()[:24], number] = record.seq, record.results
        return found
