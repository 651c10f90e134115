"""What a test makes known is forgotten after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resumable.values import known_secrets


@pytest.fixture(autouse=True)
def _no_known_secrets() -> Iterator[None]:
    """Secrets that one test met are not masked in the next one."""
    yield
    known_secrets._met.clear()
