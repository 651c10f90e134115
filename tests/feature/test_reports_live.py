"""Reports that are made while the job goes on between any two reads of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, checkpoint
from resumable.storage.folder import DiskFolder

AT = 100


class Stepping:
    """A job in another thread that makes so many checkpoints after each segment that a report has read."""

    def __init__(self, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._turn = threading.Condition()
        self._done, self._limit = 0, AT
        whole = DiskFolder.image

        def image(folder: DiskFolder, number: int, slot: int, size: int = -1) -> bytes | None:
            data = whole(folder, number, slot, size)
            if size < 0:
                self.go_on(step)
            return data

        monkeypatch.setattr(DiskFolder, "image", image)

    def go_on(self, items: int) -> None:
        with self._turn:
            self._limit += items
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: self._done == self._limit, 30)

    def end(self) -> None:
        with self._turn:
            self._limit = 0
            self._turn.notify_all()

    def job(self, state: tuple[int, bytes] = (0, b"")) -> Any:
        while True:
            with self._turn:
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._done != self._limit, 30)
                if self._limit == 0:
                    return
            yield checkpoint((self._done + 1, bytes(40)), result=self._done)
            self._done += 1


@pytest.mark.parametrize("keep", [None, 50])
@pytest.mark.parametrize("step", [700, 1000, 1500, 3500])
def test_a_report_has_no_gaps(state_dir: Path, monkeypatch: pytest.MonkeyPatch, keep: int | None, step: int) -> None:
    """A history and results that are read while the job fills one segment after the other lack nothing in between."""
    stepping = Stepping(step, monkeypatch)
    with Driver(state_dir, keep_states=keep, sync_every=1000) as driver:
        thread = threading.Thread(target=driver.run, args=(stepping.job,), kwargs={"name": "job"})
        thread.start()
        try:
            stepping.go_on(1)
            sequence = [record.seq for record in driver.history("job")]
            results = list(driver.results("job"))
        finally:
            stepping.end()
            thread.join(30)
    assert sequence == list(range(sequence[0], sequence[-1] + 1))
    assert sequence[-1] > AT
    assert results == list(range(len(results)))
    assert len(results) > AT
