"""Errors and warnings as values: what survives being copied, pickled and sent to another process."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys

import pytest

from resumable import errors
from resumable.errors import Preempted, ResumableError, ResumableWarning, StorageError

CLASSES = [
    value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__
]
ERRORS = [cls for cls in CLASSES if issubclass(cls, ResumableError)]
WARNINGS = [cls for cls in CLASSES if issubclass(cls, ResumableWarning)]

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": lambda error, n=n: pickle.loads(pickle.dumps(error, n)) for n in PROTOCOLS},
}


def test_every_class_is_an_error_a_warning_or_the_stop() -> None:
    """The module holds errors, warnings and Preempted, and nothing that would escape the tests below."""
    assert {*ERRORS, *WARNINGS, Preempted} == set(CLASSES)
    assert len(ERRORS) > 20
    assert WARNINGS


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_errors_survive_copying(cls: type[ResumableError], how: str) -> None:
    """Type, message, fields, notes and the builtin base of every error class survive copying and pickling."""
    error = cls("what: why (what next)", run="nightly", seq=7, path="a/b", errno=28)
    error.add_note("a note")
    again = COPIES[how](error)
    assert type(again) is cls
    assert str(again) == "what: why (what next)"
    assert again.args == ("what: why (what next)",)
    assert (again.run, again.seq, again.path, again.errno) == ("nightly", 7, "a/b", 28)
    assert again.__notes__ == ["a note"]


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("cls", WARNINGS, ids=lambda cls: cls.__name__)
def test_warnings_survive_copying(cls: type[ResumableWarning], how: str) -> None:
    """Type and message of every warning class survive copying and pickling."""
    again = COPIES[how](cls("what: why"))
    assert (type(again), str(again)) == (cls, "what: why")


@pytest.mark.parametrize("how", COPIES)
def test_a_preemption_survives_copying(how: str) -> None:
    """Preempted keeps run, checkpoint, signal and exit code."""
    again = COPIES[how](Preempted("nightly", 7, 15))
    assert (type(again), again.run, again.seq, again.signal, again.code) == (Preempted, "nightly", 7, 15, 75)


def test_preempted_ends_the_process_with_75() -> None:
    """Preempted is a SystemExit: `except Exception` lets it pass, and unhandled it ends the process with code 75."""
    assert issubclass(Preempted, SystemExit)
    assert not issubclass(Preempted, Exception)
    code = "from resumable import Preempted\ntry: raise Preempted('r', 1, 15)\nexcept Exception: pass"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (75, "")


def test_a_storage_error_is_an_oserror_with_its_number() -> None:
    """Storage errors can be caught as OSError; the message is ours, errno is a field."""
    error = StorageError("the disk is full: nothing was lost (free some space)", path="x", errno=28)
    assert isinstance(error, OSError)
    assert (str(error), error.errno, error.path) == ("the disk is full: nothing was lost (free some space)", 28, "x")


def test_every_class_says_what_it_stands_for() -> None:
    """Every class has one documentation of its own."""
    assert [cls.__name__ for cls in CLASSES if not cls.__doc__] == []
    assert len({cls.__doc__ for cls in CLASSES}) == len(CLASSES)
