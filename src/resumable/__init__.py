"""Long work that survives anything.

A job is a generator that yields `checkpoint(state)`; a `Driver` keeps every state; after a crash the same call goes on.
"""

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from resumable._fastlog import Checkpoint, checkpoint
from resumable.errors import (
    AsyncJobError,
    ChangedArgumentsError,
    DamagedLogError,
    DiskFullError,
    DriverClosedError,
    DriverKeywordError,
    ForkedError,
    LiveResourceError,
    NetworkFileSystemError,
    NewerFormatError,
    NotACheckpointError,
    NotAJobError,
    NotDurableWarning,
    NoValueError,
    OtherArgumentsWarning,
    Preempted,
    ReadOnlyError,
    ReconnectError,
    ResumableError,
    ResumableWarning,
    RunLockedError,
    RunNameError,
    RunningLoopError,
    RunNotFoundError,
    SecretError,
    SharedPidError,
    StateGoneError,
    StateParameterError,
    StorageError,
    SyncFailedError,
    UndecodableStateError,
    UnsafeDirectoryError,
    UnsavableStateError,
    UnstableArgumentError,
    UnyieldedCheckpointWarning,
    VersionError,
    WrongArgumentsError,
)
from resumable.runs.driver import Driver
from resumable.runs.failure import Failure, NotKept
from resumable.runs.reports import Results, RunInfo, StateRecord
from resumable.values.registry import register_reconnector
from resumable.version import VERSION as __version__  # noqa: N811 - its usual name

if TYPE_CHECKING:
    from resumable.tools.measure import Measurement, measure

__all__ = [
    "AsyncJob",
    "AsyncJobError",
    "ChangedArgumentsError",
    "Checkpoint",
    "DamagedLogError",
    "DiskFullError",
    "Driver",
    "DriverClosedError",
    "DriverKeywordError",
    "Failure",
    "ForkedError",
    "Job",
    "LiveResourceError",
    "Measurement",
    "NetworkFileSystemError",
    "NewerFormatError",
    "NoValueError",
    "NotACheckpointError",
    "NotAJobError",
    "NotDurableWarning",
    "NotKept",
    "OtherArgumentsWarning",
    "Preempted",
    "ReadOnlyError",
    "ReconnectError",
    "Results",
    "ResumableError",
    "ResumableWarning",
    "RunInfo",
    "RunLockedError",
    "RunNameError",
    "RunNotFoundError",
    "RunningLoopError",
    "SecretError",
    "SharedPidError",
    "StateGoneError",
    "StateParameterError",
    "StateRecord",
    "StorageError",
    "SyncFailedError",
    "UndecodableStateError",
    "UnsafeDirectoryError",
    "UnsavableStateError",
    "UnstableArgumentError",
    "UnyieldedCheckpointWarning",
    "VersionError",
    "WrongArgumentsError",
    "__version__",
    "checkpoint",
    "driver",
    "measure",
    "register_reconnector",
]

S = TypeVar("S")
R = TypeVar("R")

# For annotations: `def job(paths: list[str], state: int = 0) -> Job[int, str]`.
Job = Generator[Checkpoint[S], None, R]
AsyncJob = AsyncGenerator[Checkpoint[S], None]

driver = Driver()
"""The default Driver: `RESUMABLE_HOME`, else `.resumable` in the working directory; made at its first run."""


_LATE = ("Measurement", "measure")


def __getattr__(name: str) -> Any:
    # A tool that few programs call: it comes when it is asked for.
    if name in _LATE:
        from resumable.tools import measure

        return getattr(measure, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_LATE]
