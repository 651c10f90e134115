"""Batches: a script of several jobs whose second one crashed does not run its first one again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from resumable._fastlog import decode_plain, encode_plain
from resumable.runs.identity import check_name
from resumable.runs.settings import BatchMark
from resumable.storage.home import Home
from resumable.storage.records import batch_key, digest16

current_batch: ContextVar[BatchMark | None] = ContextVar("the batch that runs belong to", default=None)


@contextmanager
def batch(home: Home, name: str) -> Iterator[None]:
    """Until this block has ended without an exception, runs that finish inside it give back their value when called again.

    The log holds (name, how often it was begun, whether that one is open): written and on disk before anything inside runs.
    Raises RunNameError, RunLockedError when another process is inside the same batch, StorageError.
    """
    key = batch_key(digest16(check_name(name)))
    lock = home.folder(f"batch-{digest16(name).hex()[:24]}").acquire(f"batch {name}")
    try:
        stored = home.store.get(key)
        _, count, is_open = decode_plain(stored) if stored is not None else (name, 0, False)
        if not is_open:
            count += 1
            home.writer.commit([(key, bytes(encode_plain((name, count, True))))])
        token = current_batch.set((name, count))
        try:
            yield
        finally:
            current_batch.reset(token)
        home.writer.commit([(key, bytes(encode_plain((name, count, False))))])
    finally:
        lock.remove_and_release()
