"""What a process does with a log while others open it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import jobs

from resumable.storage.lmdb_log import LmdbStore

KEY = b"key"


def swap(directory: str, value: int) -> int:
    """Commit a value; the one that was there, 0 for none."""
    with closing(LmdbStore(Path(directory) / "log")) as store:
        earlier = int(store.get(KEY) or 0)
        store.commit([(KEY, str(value).encode())], [])
        return earlier


def _open_together() -> None:
    """The log is opened while another process does."""
    import contextlib

    import resumable.storage.lmdb_log

    resumable.storage.lmdb_log.exclusively = contextlib.nullcontext  # type: ignore[assignment]


jobs.TASKS["swap"] = swap
jobs.PLANTS["open together"] = _open_together
