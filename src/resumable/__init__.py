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
    PluginError,
    Preempted,
    ReadOnlyError,
    ReconnectError,
    ResourceNotGivenError,
    ResourceParameterError,
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
    UnknownResourceError,
    UnsafeDirectoryError,
    UnsavableStateError,
    UnstableArgumentError,
    UnyieldedCheckpointWarning,
    VersionError,
    WrongArgumentsError,
)
from resumable.runs.driver import Driver
from resumable.runs.marker import resource
from resumable.version import VERSION as __version__  # noqa: N811 - its usual name

if TYPE_CHECKING:
    from resumable.runs.failure import Failure, NotKept
    from resumable.runs.reports import Results, RunInfo, StateRecord
    from resumable.tools.measure import Measurement, measure
    from resumable.values.handlers.csv_files import csv_reader, csv_writer
    from resumable.values.rebuild import StoredResource
    from resumable.values.registry import Reconnector, reconnectors, register_reconnector
    from resumable.values.secrets import SecretRef, register_secret_resolver

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
    "PluginError",
    "Preempted",
    "ReadOnlyError",
    "ReconnectError",
    "Reconnector",
    "ResourceNotGivenError",
    "ResourceParameterError",
    "Results",
    "ResumableError",
    "ResumableWarning",
    "RunInfo",
    "RunLockedError",
    "RunNameError",
    "RunNotFoundError",
    "RunningLoopError",
    "SecretError",
    "SecretRef",
    "SharedPidError",
    "StateGoneError",
    "StateParameterError",
    "StateRecord",
    "StorageError",
    "StoredResource",
    "SyncFailedError",
    "UndecodableStateError",
    "UnknownResourceError",
    "UnsafeDirectoryError",
    "UnsavableStateError",
    "UnstableArgumentError",
    "UnyieldedCheckpointWarning",
    "VersionError",
    "WrongArgumentsError",
    "__version__",
    "checkpoint",
    "csv_reader",
    "csv_writer",
    "driver",
    "measure",
    "reconnectors",
    "register_reconnector",
    "register_secret_resolver",
    "resource",
]

S = TypeVar("S")
R = TypeVar("R")

# For annotations: `def job(paths: list[str], state: int = 0) -> Job[int, str]`.
Job = Generator[Checkpoint[S], None, R]
AsyncJob = AsyncGenerator[Checkpoint[S], None]

driver = Driver()
"""The default Driver: `RESUMABLE_HOME`, else `.resumable` in the working directory; made at its first run."""


# What comes when it is asked for, and from where: a program that only runs jobs has it loaded at its first run, or never.
_LATE = {
    "Failure": "resumable.runs.failure",
    "Measurement": "resumable.tools.measure",
    "NotKept": "resumable.runs.failure",
    "Results": "resumable.runs.reports",
    "RunInfo": "resumable.runs.reports",
    "Reconnector": "resumable.values.registry",
    "SecretRef": "resumable.values.secrets",
    "StateRecord": "resumable.runs.reports",
    "StoredResource": "resumable.values.rebuild",
    "csv_reader": "resumable.values.handlers.csv_files",
    "csv_writer": "resumable.values.handlers.csv_files",
    "measure": "resumable.tools.measure",
    "reconnectors": "resumable.values.registry",
    "register_reconnector": "resumable.values.registry",
    "register_secret_resolver": "resumable.values.secrets",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
