"""Long work that survives anything.

A job is a generator that yields `checkpoint(state)`; a `Driver` keeps every state; after a crash, the same call goes on.
"""

from resumable._fastlog import Checkpoint, checkpoint
from resumable.runs.driver import Driver
from resumable.version import VERSION as __version__

driver = Driver()
