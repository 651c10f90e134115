"""A run by somebody who is not root, for test_directories.py."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from typing import Any

import jobs
from jobs import Job

from resumable import Driver, ResumableError, checkpoint
from resumable.storage import platform


class OnPurpose(Exception):
    """Ends the job."""


def three_more(state: int = 0) -> Job:
    for i in range(state, state + 3):
        yield checkpoint(i + 1)
    raise OnPurpose


def go_on(directory: str) -> dict[str, Any]:
    """Three checkpoints more; how far it came, or the error and its message."""
    try:
        with Driver(directory) as driver:
            with suppress(OnPurpose):
                driver.run(three_more, name="job")
            return {"went": driver.info("job").seq}
    except ResumableError as error:
        return {"error": type(error).__name__, "message": str(error)}


def run_as(user: int, directory: str, umask: str) -> dict[str, Any]:
    """The same as another user; root is given up for good."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    os.umask(int(umask, 8))
    return go_on(directory)


def _look_at_no_owner() -> None:
    """The state directory may be anybody's, and open to all."""
    platform._check_safe = lambda path: None


# Once as root, in the server: other users may not get at this checkout, and cannot import from it what comes late.
with tempfile.TemporaryDirectory() as _place:
    go_on(_place)

jobs.TASKS["run as"] = run_as
jobs.PLANTS["look at no owner"] = _look_at_no_owner
