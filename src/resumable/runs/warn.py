"""Warnings at the user's line, not at ours."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from resumable.errors import ResumableWarning

# The event loop stands between `asyncio.run(driver.arun(...))` and us.
_NOT_THE_USERS = (str(Path(__file__).parent.parent) + os.sep, os.path.dirname(os.__file__) + os.sep + "asyncio" + os.sep)


def warn_user(message: str, category: type[ResumableWarning]) -> None:
    """Warn at the innermost frame that is neither the package's own nor the event loop's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    warn_at(message, category, frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


def warn_at(message: str, category: type[ResumableWarning], file: str, line: int, names: dict[str, object]) -> None:
    """Warn at a line that is known."""
    registry = names.setdefault("__warningregistry__", {})
    assert isinstance(registry, dict)
    module = str(names.get("__name__", "<unknown>"))
    warnings.warn_explicit(message, category, file, line, module=module, registry=registry)
