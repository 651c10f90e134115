"""What the crash tests share."""

from __future__ import annotations

from typing import Any

import pytest
from figures import Figures


@pytest.fixture
def figures(seed: int, capsys: pytest.CaptureFixture[str]) -> Figures:
    """Says what the test did; see Figures."""

    def show(line: str) -> Any:
        with capsys.disabled():
            print(line)

    return Figures(seed, show)
