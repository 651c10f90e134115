"""The clock of the package: one place to ask for the time, so that tests can put another in its place."""

from __future__ import annotations

import time

time_ns = time.time_ns
monotonic = time.monotonic
