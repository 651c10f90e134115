"""A run whose results go to the log while most of its states are out of the window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from resumable import Driver
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
