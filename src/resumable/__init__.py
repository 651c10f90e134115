"""Long work that survives anything.

A job is a generator that yields `checkpoint(state)`; a `Driver` keeps every state; after a crash the same call goes on.
"""

import sys
from collections.abc import AsyncGenerator, Generator
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from resumable._fastlog import Checkpoint, checkpoint
from resumable.errors import (
    AsyncJobError,
    BrokenExecutorError,
    ChangedArgumentsError,
    ChangedItemsError,
    DamagedLogError,
    DiskFullError,
    DriverClosedError,
    DriverKeywordError,
    DuplicateKeyError,
    ForkedError,
    ItemAnswerError,
    ItemsConsumerError,
    LiveResourceError,
    NetworkFileSystemError,
    NewerFormatError,
    NotACheckpointError,
    NotAJobError,
    NotDurableWarning,
    NoValueError,
    OtherArgumentsWarning,
    OutputError,
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
    TransactionError,
    UnclosedOutputWarning,
    UndecodableStateError,
    UnknownResourceError,
    UnmarkedItemsWarning,
    UnsafeDirectoryError,
    UnsavableStateError,
    UnstableArgumentError,
    UnyieldedCheckpointWarning,
    VersionError,
    WorkerDiedError,
    WorkerError,
    WorkerStartError,
    WrongArgumentsError,
)
from resumable.runs.marker import resource
from resumable.version import VERSION as __version__  # noqa: N811 - its usual name
from resumable.work.driver import Driver
from resumable.work.driver import default as driver

if TYPE_CHECKING:
    from resumable.runs.failure import Failure
    from resumable.runs.progress import ProgressInfo
    from resumable.runs.reports import Results, RunInfo, StateRecord
    from resumable.tools.measure import Measurement, measure
    from resumable.values.dead_letter import DeadLetter
    from resumable.values.excerpt import NotKept
    from resumable.values.handlers.csv_files import csv_reader
    from resumable.values.rebuild import StoredResource
    from resumable.values.registry import Reconnector, reconnectors, register_reconnector
    from resumable.values.secrets import SecretRef, register_secret_resolver
    from resumable.work.decorated import LoopRecord
    from resumable.work.decorator import LoopFunction, loop, save, saved
    from resumable.work.idempotency import idempotent, skip_if_exists
    from resumable.work.items import Items, LoopState
    from resumable.work.output_files import OutputFile, open
    from resumable.work.row_writers import csv_writer, jsonl_writer
    from resumable.work.seen import SeenKeys

__all__ = [
    "AsyncJob",
    "AsyncJobError",
    "BrokenExecutorError",
    "ChangedArgumentsError",
    "ChangedItemsError",
    "Checkpoint",
    "DamagedLogError",
    "DeadLetter",
    "DiskFullError",
    "Driver",
    "DriverClosedError",
    "DriverKeywordError",
    "DuplicateKeyError",
    "Failure",
    "ForkedError",
    "ItemAnswerError",
    "Items",
    "ItemsConsumerError",
    "Job",
    "LiveResourceError",
    "LoopFunction",
    "LoopRecord",
    "LoopState",
    "Measurement",
    "NetworkFileSystemError",
    "NewerFormatError",
    "NoValueError",
    "NotACheckpointError",
    "NotAJobError",
    "NotDurableWarning",
    "NotKept",
    "OtherArgumentsWarning",
    "OutputError",
    "OutputFile",
    "PluginError",
    "Preempted",
    "ProgressInfo",
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
    "SeenKeys",
    "SharedPidError",
    "StateGoneError",
    "StateParameterError",
    "StateRecord",
    "StorageError",
    "StoredResource",
    "SyncFailedError",
    "TransactionError",
    "UnclosedOutputWarning",
    "UndecodableStateError",
    "UnknownResourceError",
    "UnmarkedItemsWarning",
    "UnsafeDirectoryError",
    "UnsavableStateError",
    "UnstableArgumentError",
    "UnyieldedCheckpointWarning",
    "VersionError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerStartError",
    "WrongArgumentsError",
    "__version__",
    "checkpoint",
    "csv_reader",
    "csv_writer",
    "driver",
    "idempotent",
    "jsonl_writer",
    "loop",
    "measure",
    "open",
    "reconnectors",
    "register_reconnector",
    "register_secret_resolver",
    "resource",
    "save",
    "saved",
    "skip_if_exists",
]

S = TypeVar("S")
R = TypeVar("R")

# For annotations: `def job(paths: list[str], state: int = 0) -> Job[int, str]`.
Job = Generator[Checkpoint[S], None, R]
AsyncJob = AsyncGenerator[Checkpoint[S], None]

# What comes when it is asked for, and from where: a program that only runs jobs has it loaded at its first run, or never.
_LATE = {
    "DeadLetter": "resumable.values.dead_letter",
    "Failure": "resumable.runs.failure",
    "Items": "resumable.work.items",
    "LoopFunction": "resumable.work.decorator",
    "LoopRecord": "resumable.work.decorated",
    "LoopState": "resumable.work.items",
    "Measurement": "resumable.tools.measure",
    "NotKept": "resumable.values.excerpt",
    "OutputFile": "resumable.work.output_files",
    "ProgressInfo": "resumable.runs.progress",
    "Results": "resumable.runs.reports",
    "RunInfo": "resumable.runs.reports",
    "Reconnector": "resumable.values.registry",
    "SecretRef": "resumable.values.secrets",
    "SeenKeys": "resumable.work.seen",
    "StateRecord": "resumable.runs.reports",
    "StoredResource": "resumable.values.rebuild",
    "csv_reader": "resumable.values.handlers.csv_files",
    "csv_writer": "resumable.work.row_writers",
    "idempotent": "resumable.work.idempotency",
    "jsonl_writer": "resumable.work.row_writers",
    "loop": "resumable.work.decorator",
    "measure": "resumable.tools.measure",
    "open": "resumable.work.output_files",
    "reconnectors": "resumable.values.registry",
    "register_reconnector": "resumable.values.registry",
    "register_secret_resolver": "resumable.values.secrets",
    "save": "resumable.work.decorator",
    "saved": "resumable.work.decorator",
    "skip_if_exists": "resumable.work.idempotency",
}


class _Package(ModuleType):
    """The package; said to be no decorator where `@resumable` is written."""

    def __call__(self, *args: object, **kwargs: object) -> None:
        raise TypeError("resumable is a package: write `@resumable.loop` above a function with a `for`")


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
