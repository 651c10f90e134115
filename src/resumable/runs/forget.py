"""Forgetting runs: log entries, journals and side files of one name, under its lock."""

from __future__ import annotations

from dataclasses import replace

from resumable._fastlog import encode_plain, scan
from resumable.runs.identity import folder_name
from resumable.storage.folder import Folder
from resumable.storage.home import Home
from resumable.storage.records import (
    ABANDONED,
    META,
    RunRecord,
    cleared_key,
    cleared_up_to,
    digest16,
    key_run,
    run_key,
)
from resumable.storage.recovery import run_keys, run_record


def forget(home: Home, name: str) -> int:
    """Remove every run of this name; gives back how many there were. Raises RunLockedError, StorageError."""
    name16 = digest16(name)
    folder = home.folder(folder_name(name))
    lock = folder.acquire(name)
    try:
        numbers = {key_run(key)[1] for key, _ in home.store.scan(run_key(name16))} | set(folder.numbers())
        doomed = [key for number in numbers for key in run_keys(home.store, name16, number)]
        # First the log says that they are over, so that a kill or a full disk halfway leaves no part of one that would be
        # taken for the run; then journals and side files go, and last what the log has.
        over = [entry for number in sorted(numbers) for entry in _over(home, folder, name16, number)]
        # A sync file may still hold it, and a power cut may bring back files that were removed: those are not runs then.
        highest = max([cleared_up_to(home.store, name16), *numbers])
        if numbers:
            home.writer.commit([*over, (cleared_key(name16), bytes(encode_plain(highest)))])
        for number in numbers:
            folder.discard(number)
            folder.remove_sides(folder.sides(number))
        if doomed:
            home.writer.commit([], doomed)
    finally:
        lock.remove_and_release()
    return len(numbers)


def _over(home: Home, folder: Folder, name16: bytes, number: int) -> list[tuple[bytes, bytes]]:
    record = run_record(home.store, name16, number)
    if record is None:
        heads = [records[0] for _, image in folder.images(number) if (records := scan(image)[0])]
        if not heads or heads[0][2] != META:
            return []
        record = RunRecord(number, ABANDONED, 0, 0, (0, 0), b"", 0, heads[0][4])
    return [(run_key(name16, number), replace(record, status=ABANDONED).encode())]
