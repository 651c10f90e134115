"""What the crash tests share."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from figures import Figures
from places import FOLDERS

sys.path[:0] = map(str, FOLDERS)


@pytest.fixture
def figures(seed: int, capsys: pytest.CaptureFixture[str]) -> Figures:
    """Says what the test did; see Figures."""

    def show(line: str) -> Any:
        with capsys.disabled():
            print(line)

    return Figures(seed, show)
