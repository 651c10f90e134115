"""Ctrl-C while a run begins, and the next life of that run in the same process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from resumable import Driver, checkpoint
from resumable.runs import engine, live


@pytest.fixture
def _uncollected() -> Iterator[None]:
    """What is left of a life stays, as it may for a while."""
    gc.disable()
    yield
    gc.enable()


def count(total: int, state: int = 0) -> Any:
    for number in range(state, total):
        yield checkpoint(number + 1)
    return total


@pytest.mark.usefixtures("_uncollected")
def test_the_next_life_is_alone(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A life that Ctrl-C ended as it began hands nothing over beside the next one, which would not find its own in the log."""
    begun = live.logger.info

    def interrupted(*args: Any, **more: Any) -> None:
        monkeypatch.setattr(live.logger, "info", begun)
        raise KeyboardInterrupt

    for _ in range(3):
        monkeypatch.setattr(live.logger, "info", interrupted)
        with pytest.raises(KeyboardInterrupt):
            driver.run(count, 100_000, name="job")
    assert driver.run(count, 100_000, name="job") == 100_000
    driver.sync()


@pytest.mark.usefixtures("_uncollected")
def test_a_run_that_nobody_was_given_is_free(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that Ctrl-C kept from whoever had just begun it can be taken at once."""
    begin = engine.open_run

    def interrupted(*args: Any) -> None:
        begin(*args)
        monkeypatch.setattr(engine, "open_run", begin)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "open_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        driver.run(count, 100, name="job")
    assert driver.run(count, 100, name="job") == 100
