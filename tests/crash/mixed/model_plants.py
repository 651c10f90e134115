"""Planted bugs for the state machine's controls: what the public API says and does is a little wrong with each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jobs


def _mix_results() -> None:
    """Whatever run is asked for, the results are those of the first of that name."""
    from resumable.runs import reports

    whole = reports.result_key
    reports.result_key = lambda name, number, index=None: whole(name, 1, index)


def _ignore_arguments() -> None:
    """A run goes on with whatever arguments it is called."""
    from resumable.runs import engine

    whole = engine.identify
    engine.identify = lambda *args, **given: replace(whole(*args, **given), digest=None)


def _history_off_by_one() -> None:
    """A checkpoint in the history has the number of the one before it."""
    from resumable.runs import reports

    whole = reports.history
    reports.history = lambda view: [replace(record, seq=record.seq - 1) for record in whole(view)]


def _sync_nothing() -> None:
    """`durability="disk"` acknowledges what is not on disk."""
    from resumable.storage.disksync import DiskSync

    def put(self: DiskSync, *record: Any) -> None:
        pass

    DiskSync.put = put  # type: ignore[method-assign]


def _forget_migrations() -> None:
    """A state of an older version is taken as it is."""
    from resumable.runs import live

    live.migrated = lambda state, start, version, migrate: state


def _begin_batches_anew() -> None:
    """A batch that was left open is begun again."""
    from resumable.runs import batch

    whole = batch.decode_plain
    batch.decode_plain = lambda stored: (*whole(stored)[:2], False)


jobs.PLANTS |= {
    "mix results": _mix_results, "ignore arguments": _ignore_arguments, "history off by one": _history_off_by_one,
    "sync nothing": _sync_nothing, "forget migrations": _forget_migrations, "begin batches anew": _begin_batches_anew,
}  # fmt: skip
