"""What the tests of injected resources share: resources that note when they are opened and closed, and a job for them."""

from __future__ import annotations

import functools
from typing import Any

from resumable import checkpoint, resource

# What happened in a test so far; the fixture `no_events` empties it before.
events: list[Any] = []


class Closable:
    def __init__(self, name="db"):
        self.name = name
        events.append(f"open {name}")

    def close(self):
        events.append(f"close {self.name}")


def closables(*names):
    """Factories for `Driver(resources=...)`."""
    return {name: functools.partial(Closable, name) for name in names}


def job(n, db=resource("db"), state=0):
    for i in range(state, n):
        yield checkpoint(i + 1)
    return db
