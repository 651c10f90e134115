"""save_every and checkpoints of several tasks of one coroutine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, checkpoint


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_each_checkpoint_is_due_or_not_when_it_is_taken(state_dir: Path, durability: Any) -> None:
    """With save_every=2 every second checkpoint is saved, also when others are taken before it is waited for."""

    async def job(state: int = 0) -> None:
        first, second, third, fourth = (checkpoint(n).__await__() for n in range(1, 5))
        for each in (fourth, first, third, second):
            await Wrapped(each)

    class Wrapped:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __await__(self) -> Any:
            return (yield from self.inner)

    with Driver(state_dir, durability=durability, save_every=2, rng=True) as driver:
        asyncio.run(driver.arun(job, name="job"))
        assert [record.state for record in driver.history("job")] == [4, 2]
