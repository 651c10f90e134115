"""Makes valid state directories that hold hostile bytes: with the library's own writers, so that every checksum is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, checkpoint
from resumable._fastlog import Journal
from resumable.runs import saving
from resumable.runs.identity import folder_name
from resumable.storage.home import open_home
from resumable.storage.records import FAILURE, RunRecord, digest16, run_key
from resumable.values.codec import Codec, Encoded

PLAIN, PICKLE, DILL = 0, 1, 2
LARGE = 300_000  # bytes: such a state goes to a side file
SMALL = 40_000  # such a record fits behind the others in a first segment


class Planted:
    """Stands for hostile bytes in a state; it is encoded as them."""

    def __init__(self, tier: int, data: bytes) -> None:
        self.encoded = Encoded(tier, data, ())


@contextmanager
def planting() -> Iterator[None]:
    """Inside this block the codec puts a Planted's bytes where it would put an encoding."""
    usual = Codec.encode

    def encode(self: Codec, value: Any, *, root: str = "state") -> Encoded:
        return value.encoded if type(value) is Planted else usual(self, value, root=root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Codec, "encode", encode)
        # The compiled loop has a pickler of its own, which is not to see them either.
        patch.setattr(saving, "state_pickler", lambda registry: None)
        yield


class Stop(Exception):
    """Ends a job."""


def in_state(planted: Planted, state: Any = 0) -> Any:
    yield checkpoint(planted)
    raise Stop


def in_earlier_state(planted: Planted, state: Any = 0) -> Any:
    yield checkpoint(planted)
    yield checkpoint(2)
    raise Stop


def in_result(planted: Planted, state: Any = 0) -> Any:
    yield checkpoint(1, result=planted)
    raise Stop


def in_value(planted: Planted, state: Any = 0) -> Any:
    yield checkpoint(1)
    return planted


def nowhere(planted: Planted, state: Any = 0) -> Any:
    yield checkpoint(1)
    raise Stop


PLACES: dict[str, Callable[..., Any]] = {
    "state": in_state, "earlier state": in_earlier_state, "result": in_result, "value": in_value, "logged state": in_state,
    "side file": in_state, "meta": nowhere, "failure": nowhere, "logged failure": nowhere,
}  # fmt: skip


def plant(directory: Path, place: str, tier: int, data: bytes, name: str) -> None:
    """A run of that name with hostile bytes in that place."""
    made = Planted(tier, data.ljust(LARGE, b"\0") if place == "side file" else data)
    with planting(), Driver(directory) as driver:
        with suppress(Stop):
            driver.run(job_with(PLACES[place], made), name=name)
    if place in ("logged state", "meta", "logged failure"):
        _only_in_log(directory, name, place, data)
    elif place == "failure":
        _in_journal(directory, name, data)


def job_with(job: Callable[..., Any], planted: Planted) -> Callable[..., Any]:
    """The job without arguments: they would be compared."""

    def bound(state: Any = 0) -> Any:
        return job(planted, state)

    return bound


def _only_in_log(directory: Path, name: str, place: str, data: bytes) -> None:
    """As after a restart of the machine: the journal is gone, the log is the truth."""
    home = open_home(directory)
    key = run_key(digest16(name), 1)
    record = RunRecord.decode(home.store.get(key) or b"")
    change: dict[str, Any] = {"meta": {"meta": data}, "logged failure": {"failure": data}}.get(place, {})
    home.store.commit([(key, replace(record, boot=b"x" * 16, **change).encode())], [])
    home.folder(folder_name(name)).discard(1)
    home.close()


def _in_journal(directory: Path, name: str, data: bytes) -> None:
    """One more record behind the run's last one."""
    home = open_home(directory)
    folder = home.folder(folder_name(name))
    for _, segment in folder.segments(1):
        segment.load()
        _, _, tail, _ = segment.ends()
        journal = Journal()
        journal.attach(segment, tail, 1)
        journal.append(FAILURE, 0, data[:SMALL])
        segment.close()
    home.close()
