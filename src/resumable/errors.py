"""Everything the package raises or warns on purpose.

A class stands for who is at fault and what can be done. The message reads "what happened: why (what to do next)" and is
made where the error is raised; the facts in it are attributes too, for programs. Every one of them survives pickling,
because failures are stored and cross processes.
"""

from __future__ import annotations

from typing import Any


def _rebuild(cls: type[BaseException], message: str, fields: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, message)
    BaseException.__init__(error, message)
    for name, value in fields.items():
        setattr(error, name, value)
    return error


class ResumableError(Exception):
    """Base of all errors of this package. Keyword arguments become attributes."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self._names = tuple(fields)
        for name, value in fields.items():
            # Not through __dict__: OSError keeps `errno` elsewhere.
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in self._names}
        return _rebuild, (type(self), str(self), {**self.__dict__, **fields})

    def __str__(self) -> str:
        # OSError and KeyError have a wording of their own; ours is the message.
        return str(self.args[0]) if self.args else ""


class ResumableWarning(UserWarning):
    """Base of all warnings of this package."""


# ---- the job


class NotAJobError(ResumableError, TypeError):
    """What was given to the driver is no job: it makes no generator, async generator or coroutine. Field: job."""


class StateParameterError(ResumableError, TypeError):
    """The job has no parameter `state`, or one without a default, or arguments that would bind it. Field: job."""


class AsyncJobError(ResumableError, TypeError):
    """An async job was given to `run`, or a plain one where only an async one can go. Field: job."""


class RunningLoopError(ResumableError, RuntimeError):
    """`run` was called inside a running event loop, which it would block; use `await driver.arun(...)`."""


class NotACheckpointError(ResumableError, TypeError):
    """The job yielded something else than `checkpoint(...)`. Fields: run, seq, value_type, where."""


class DriverKeywordError(ResumableError, TypeError):
    """A keyword is the job's own, or nobody's: keywords go to the driver. Fields: job, keyword."""


class UnknownResourceError(ResumableError, LookupError):
    """A job marks a resource that its Driver does not have. Fields: job, parameter, resource, known."""


class ResourceParameterError(ResumableError, TypeError):
    """A parameter marked with `resource(...)` cannot be filled. Fields: job, parameter, resource."""


class ResourceNotGivenError(ResumableError, TypeError):
    """A `resource(...)` default was used as if it were the resource: the job was called without a Driver. Field: resource."""


class WrongArgumentsError(ResumableError, TypeError):
    """The arguments do not fit the job that was to be measured. Field: reason."""


class UnyieldedCheckpointWarning(ResumableWarning):
    """A checkpoint was made inside a run and never yielded, so nothing was saved."""


class NotDurableWarning(ResumableWarning):
    """The run is finished and safe from kill -9, but the disk did not take it: a power cut may undo its end."""


# ---- which run


class RunNameError(ResumableError, ValueError):
    """A run's name is empty, too long or not a string. Field: name."""


class UnstableArgumentError(ResumableError, TypeError):
    """An argument has no digest that is equal in every process, so the run needs `name=`. Fields: path, type_name."""


class ChangedArgumentsError(ResumableError, ValueError):
    """The run was started with other arguments. Fields: run, recorded, given."""


class ChangedItemsError(ResumableError, ValueError):
    """A loop's items are not those it was begun with. Fields: run, index (the first that is known to differ)."""


class DuplicateKeyError(ResumableError, ValueError):
    """Two items of one loop have the same key. Fields: run, key (as text), index (of the second), first (None if not known)."""


class ItemsConsumerError(ResumableError, TypeError):
    """What goes over a loop's items would count or pair them wrongly after a resume. Field: consumer."""


class WorkerStartError(ResumableError, RuntimeError):
    """A worker process of a map could not take its first item. Field: exitcode (None if it has told why)."""


class WorkerDiedError(ResumableError, RuntimeError):
    """Several worker processes, one after the other, have died over one item of a map. Fields: index, exitcode."""


class WorkerError(ResumableError, RuntimeError):
    """An item failed in a worker process, with an exception that no other process can be given. Fields: index, type_name."""


class BrokenExecutorError(ResumableError, RuntimeError):
    """The executor that was given to a map takes no more items; what is done is saved. Field: run."""


class UnmarkedItemsWarning(ResumableWarning):
    """Nobody can tell when an item of this loop is done, so that none is marked."""


class ItemAnswerError(ResumableError, ValueError):
    """`on_error` gave something else than "retry", "skip", "dead_letter" or "fail". Field: answer."""


class OutputError(ResumableError, RuntimeError):
    """Bytes would not be in an output file once for each item, or the file is not the one that was written. Fields: path, run."""


class UnclosedOutputWarning(ResumableWarning):
    """An output file without a loop was never closed, so that nothing was written to it."""


class TransactionError(ResumableError, RuntimeError):
    """A loop and the database that its items are committed to do not fit together. Fields: run, database, log (items done)."""


class OtherArgumentsWarning(ResumableWarning):
    """An unfinished run of the same job has other arguments: this call starts another run beside it."""


class VersionError(ResumableError, ValueError):
    """The saved state has a version that this job cannot take. Fields: run, recorded, given."""


class RunNotFoundError(ResumableError, LookupError):
    """No such run in this state directory. Fields: run, directory."""


class StateGoneError(ResumableError, LookupError):
    """The checkpoint asked for is outside the retention window. Fields: run, seq, first, last."""


class NoValueError(ResumableError, LookupError):
    """The finished run's return value could not be saved, so it cannot be given back. Fields: run, reason."""


# ---- concurrency


class RunLockedError(ResumableError, RuntimeError):
    """The run is held by somebody else, or by this very job. Fields: run, pid, host, since."""


class ForkedError(ResumableError, RuntimeError):
    """A run in progress was used in a forked child. Field: run."""


class DriverClosedError(ResumableError, RuntimeError):
    """The driver is closed. Field: directory."""


class Preempted(SystemExit):
    """The job stopped at a checkpoint because the machine asked for it; exit code 75: run it again.

    It derives from SystemExit, so that `except Exception` in user code does not swallow it and an unhandled one ends
    the process with code 75 (EX_TEMPFAIL).
    """

    def __init__(self, run: str = "", seq: int = 0, signal: int = 0) -> None:
        super().__init__(75)
        self.run, self.seq, self.signal = run, seq, signal

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run, self.seq, self.signal)


# ---- values


class UnsavableStateError(ResumableError, TypeError):
    """A value cannot be saved; nothing was published. Fields: path (`state["conn"].pool[0]`), type_name, reason."""


class LiveResourceError(UnsavableStateError):
    """A value stands for something alive that cannot be rebuilt; the message says what to keep instead."""


class SecretError(UnsavableStateError):
    """A live resource's description holds a secret that nothing can give back on resume. Fields: path, key."""


class UndecodableStateError(ResumableError, ValueError):
    """Saved bytes cannot be read back as a value. Fields: run, seq, reason."""


class ReconnectError(ResumableError, RuntimeError):
    """A live resource could not be rebuilt; the checkpoint is as it was. Fields: path, type_name, metadata."""


class PluginError(ResumableError, ImportError):
    """A plugin that brings reconnectors cannot be loaded. Fields: plugin, package."""


# ---- where bytes live


class StorageError(ResumableError, OSError):
    """The state directory could not be read or written. Fields: path, and errno where there is one."""


class DamagedLogError(StorageError):
    """Stored bytes fail their checksum. Fields: path, run, intact (last checkpoint known good), reason."""


class NewerFormatError(StorageError):
    """Written by a newer version of the package. Fields: path, found, supported."""


class UnsafeDirectoryError(StorageError):
    """The state directory belongs to, or can be written by, somebody else. Fields: path, owner, mode."""


class NetworkFileSystemError(StorageError):
    """The state directory is on a network file system, where locks and maps cannot be trusted. Fields: path, kind."""


class DiskFullError(StorageError):
    """No space is left where the state directory is; everything acknowledged is kept. Fields: path, errno."""


class ReadOnlyError(StorageError):
    """The state directory cannot be written. Fields: path, errno."""


class SyncFailedError(StorageError):
    """The disk refused a sync; that file is not trusted any more. Fields: path, errno."""


class SharedPidError(StorageError):
    """Another container with this process's pid has the log open on the same volume. Fields: path."""
