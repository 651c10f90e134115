"""Forgetting runs: log entries, journals and side files of one name, under its lock."""

from __future__ import annotations

from resumable.runs.identity import folder_name
from resumable.storage.home import Home
from resumable.storage.records import digest16, result_key, run_key, state_key


def forget(home: Home, name: str) -> int:
    """Remove every run of this name; gives back how many there were. Raises RunLockedError, StorageError."""
    name16 = digest16(name)
    folder = home.folder(folder_name(name))
    lock = folder.acquire(name)
    try:
        numbers = {int.from_bytes(key[-4:], "big") for key, _ in home.store.scan(run_key(name16))} | set(folder.numbers())
        doomed: list[bytes] = []
        for number in numbers:
            doomed += [run_key(name16, number), *(key for key, _ in home.store.scan(state_key(name16, number)))]
            doomed += [key for key, _ in home.store.scan(result_key(name16, number))]
        # The journals first: a kill in between leaves runs that are in the log, never journals that bring them back.
        for number in numbers:
            folder.discard(number)
            folder.remove_sides(folder.sides(number))
        if doomed:
            home.writer.commit([], doomed)
    finally:
        lock.remove_and_release()
    return len(numbers)
