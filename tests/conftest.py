"""One seed for the whole run: printed at the top, RESUMABLE_SEED replays it, hypothesis included."""

from __future__ import annotations

import gc
import os
import secrets

import pytest
from hypothesis import settings

settings.register_profile("resumable", deadline=None, database=None)
settings.load_profile("resumable")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Through the environment, so that workers of pytest-xdist and started programs have it too.
    seed = os.environ.setdefault("RESUMABLE_SEED", str(secrets.randbelow(1 << 32)))
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = seed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Last those that import whole frameworks: forks and collections take ten times as long in a process that has them.
    items.sort(key=lambda item: "resources" in item.path.parts)


def pytest_collection_finish() -> None:
    # Thousands of tests, and what they import, stay to the end: whoever asks for a collection, or for the referrers of an object,
    # would go through all of that.
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    return f"RESUMABLE_SEED={os.environ['RESUMABLE_SEED']}"


@pytest.fixture(scope="session")
def seed() -> int:
    """What every random choice of a test derives from."""
    return int(os.environ["RESUMABLE_SEED"])
