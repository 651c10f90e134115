"""A run whose results go to the log while most of its states are out of the window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resumable import DamagedLogError, Driver, checkpoint
from resumable._fastlog import encode_plain
from resumable.storage.lmdb_log import LmdbStore
from resumable.storage.records import digest16, result_key, state_key
from resumable.tools.check import check_directory
from resumable.tools.repair import repair

LIFE = """
def job(state=0):
    for i in range(state, 100):
        yield checkpoint(i + 1, result=i) if i % 3 == 0 else checkpoint(i + 1)
    driver.sync()
    kill()
driver = Driver(STATE, keep_states=5, sync_every=1000)
driver.run(job, name="job")
"""


def test_a_copy_goes_on_from_the_last_state(script: Callable[..., tuple[int, str, str]], state_dir: Path, tmp_path: Path) -> None:
    """States that came with results leave no gaps in the log, between which a copy would put others and lose the last."""
    assert script(LIFE)[0] == -9
    repair(state_dir, tmp_path / "copy")
    with Driver(tmp_path / "copy") as driver:
        assert driver.info("job").seq == 100
        assert driver.state("job") == 100
        assert [record.seq for record in driver.history("job")][-5:] == [96, 97, 98, 99, 100]
        assert list(driver.results("job")) == list(range(0, 100, 3))


@pytest.mark.parametrize("forged", [[(0, b"result")], ([b"result"], b"\0\0"), ([b"result"], "x"), 7])
def test_a_chunk_that_is_none_is_damage(state_dir: Path, forged: Any) -> None:
    """What stands for results or states in the log and is none is told by `check`, which goes on, and when it is read."""

    def job(state: int = 0) -> Iterator[Any]:
        yield checkpoint(1, result="result")

    with Driver(state_dir) as driver:
        driver.run(job, name="job")
        name, number = digest16("job"), driver.info("job").number
    with closing(LmdbStore(state_dir / "log")) as store:
        store.commit([(result_key(name, number, 0), encode_plain(forged)), (state_key(name, number, 1), encode_plain([3]))], [])
    report = check_directory(state_dir)
    assert [found.where for found in report.findings if "does not decode" in found.what] == ["the log", "the log"]
    with Driver(state_dir) as driver, pytest.raises(DamagedLogError):
        list(driver.results("job"))
