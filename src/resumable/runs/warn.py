"""Warnings at the user's line, not at ours."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from resumable.errors import ResumableWarning

_PACKAGE = str(Path(__file__).parent.parent)


def warn_user(message: str, category: type[ResumableWarning]) -> None:
    """Warn at the innermost frame that is not the package's own."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    warn_at(message, category, frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


def warn_at(message: str, category: type[ResumableWarning], file: str, line: int, names: dict[str, object]) -> None:
    """Warn at a line that is known."""
    registry = names.setdefault("__warningregistry__", {})
    assert isinstance(registry, dict)
    module = str(names.get("__name__", "<unknown>"))
    warnings.warn_explicit(message, category, file, line, module=module, registry=registry)
