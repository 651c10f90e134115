"""Key files: what of a loop's keys verifies, and a copy that the loop can go on with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from resumable._fastlog import decode_plain, keys_header, last_key, lost_key, lost_keys
from resumable.storage.folder import DiskFolder
from resumable.storage.keys import ENTRY, HEADER, SMALLEST, keys_name
from resumable.storage.platform import create_file, fsync_directory, pwrite_all
from resumable.storage.records import SIDE, TIER_MASK, StateEntry


def damage_of_keys(folder: DiskFolder | None, number: int, salt: bytes, last: StateEntry | None) -> Iterator[str]:
    """What is wrong with a run's keys, as of its last state."""
    done = _done_at(last)
    if done == 0:
        return
    data = _bytes_of(folder.path / keys_name(number)) if folder is not None else None
    if data is None:
        yield "its key file is gone"
        return
    done = last_key(data, salt) if done is None else done
    if data[:HEADER] != keys_header(salt):
        yield "the header of its key file is damaged"
    if lost := lost_keys(data, salt, done):
        yield f"{len(lost)} of {done} keys are lost from its key file, the first at place {lost[0]}"


def copy_keys(folder: Path, target: Path, number: int, salt: bytes, last: StateEntry) -> Iterator[str]:
    """Copy a run's keys into another folder; tells what was lost. The items of lost keys are done again."""
    done = _done_at(last)
    if done == 0:
        return
    path = folder / keys_name(number)
    data = _bytes_of(path) or b""
    # What stands behind the last key that counts is nobody's, so more may be filled in than were lost.
    count = done if done is not None else max(last.seq, len(data) // ENTRY)
    lost = lost_keys(data, salt, count)
    target.mkdir(0o700, exist_ok=True)
    fd = create_file(target, path.name, max(SMALLEST, HEADER + count * ENTRY, len(data)))
    try:
        pwrite_all(fd, data, 0)
        pwrite_all(fd, keys_header(salt), 0)
        for place in lost:
            pwrite_all(fd, lost_key(salt, place), HEADER + place * ENTRY)
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_directory(target)
    fsync_directory(target.parent)
    if done is None:
        yield "how many keys it had is in a pickled state; items whose keys are not there are done again"
    elif lost:
        yield f"{len(lost)} of {done} keys are lost: their items are done again"


def _done_at(last: StateEntry | None) -> int | None:
    """How many items were done at this state; None when it is pickled."""
    if last is None:
        return 0
    if last.flags & (SIDE | TIER_MASK):
        return None
    state = decode_plain(last.payload)
    return int(state[0] if isinstance(state, tuple) else state)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
