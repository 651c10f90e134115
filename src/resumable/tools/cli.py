"""The command line: what is in a state directory, what is intact there, a copy that can go on, what checkpoints cost.

    python -m resumable [DIR] [--json]
    python -m resumable check [DIR]
    python -m resumable repair DIR NEW_DIR
    python -m resumable measure MODULE:JOB [ARG ...] [--seconds S] [--limit N]

Exit codes: 0 fine, 1 damage found or failed, 2 wrong usage. Nothing is created where nothing is.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from resumable.errors import (
    AsyncJobError,
    NotAJobError,
    ResumableError,
    RunLockedError,
    StateParameterError,
    StorageError,
    WrongArgumentsError,
)
from resumable.runs.driver import Driver
from resumable.runs.reports import RunInfo
from resumable.tools.check import check_directory, is_state_directory
from resumable.tools.measure import measure_job
from resumable.tools.repair import repair

FINE, FAILED, USAGE = 0, 1, 2
_SHOWN_NAME = 60
_COLUMNS = ("name", "run", "status", "checkpoints", "on disk", "results", "updated")
_NUMBERS = ("run", "checkpoints", "on disk", "results")


class _UsageError(Exception):
    """What was asked for cannot be meant."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; gives back the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verb = given[0] if given else ""
    command = _VERBS.get(verb)
    try:
        return command(given[1:]) if command is not None else _runs(given)
    except _UsageError as error:
        print(f"resumable: {error}", file=sys.stderr)
        return USAGE
    except ResumableError as error:
        print(f"resumable: {error}", file=sys.stderr)
        return FAILED


def _parser(usage: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(usage=f"python -m resumable {usage}", description=description)


def _state_directory(given: str | None) -> Path:
    path = Path(Driver(given or None).path)
    if not is_state_directory(path):
        how = "" if given else " (name one, or set RESUMABLE_HOME)"
        raise _UsageError(f"{path} is no state directory{how}")
    return path


# ---- the runs


def _runs(arguments: list[str]) -> int:
    parser = _parser("[DIR] [--json]", "Print the runs in a state directory, the newest first.")
    parser.epilog = f"Other commands: {', '.join(_VERBS)}; each has --help. A directory called check is ./check here."
    parser.add_argument("directory", nargs="?", metavar="DIR", help="by default RESUMABLE_HOME, else .resumable")
    parser.add_argument("--json", action="store_true", help="as a JSON list, with all that is known of each run")
    options = parser.parse_args(arguments)
    path = _state_directory(options.directory)
    if not (path / "log" / "data.mdb").is_file():
        raise StorageError(f"{path} has lost its log (`python -m resumable check {path}` shows what is intact)")
    with Driver(path) as driver:
        found = driver.runs()
    if options.json:
        print(json.dumps([asdict(info) for info in found], default=_as_json, indent=1))
    else:
        print(_table(found) if found else f"no runs in {path}")
    return FINE


def _as_json(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _table(found: list[RunInfo]) -> str:
    rows = [_COLUMNS, *(_row(info) for info in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    align = [str.rjust if title in _NUMBERS else str.ljust for title in _COLUMNS]
    return "\n".join("  ".join(map(_aligned, align, row, widths)).rstrip() for row in rows)


def _aligned(align: Callable[[str, int], str], cell: str, width: int) -> str:
    return align(cell, width)


def _row(info: RunInfo) -> tuple[str, ...]:
    name = info.name if info.name.isprintable() else ascii(info.name)
    if len(name) > _SHOWN_NAME:
        name = name[: _SHOWN_NAME - 1] + "…"
    updated = info.updated.astimezone().strftime("%Y-%m-%d %H:%M:%S") if info.updated else ""
    return name, str(info.number), info.status, str(info.seq), str(info.on_disk), str(info.results), updated


# ---- check and repair


def _check(arguments: list[str]) -> int:
    parser = _parser("check [DIR]", "Read every byte of a state directory and say what is intact; nothing is changed.")
    parser.add_argument("directory", nargs="?", metavar="DIR", help="by default RESUMABLE_HOME, else .resumable")
    report = check_directory(_state_directory(parser.parse_args(arguments).directory))
    print(report)
    return FAILED if report.damaged else FINE


def _repair(arguments: list[str]) -> int:
    parser = _parser("repair DIR NEW_DIR", "Write a copy of a damaged state directory that can go on.")
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("copy", metavar="NEW_DIR", help="a directory that is empty or not there")
    options = parser.parse_args(arguments)
    new = Path(options.copy)
    if new.exists() and (not new.is_dir() or any(new.iterdir())):
        raise _UsageError(f"{new} is there and not empty (name a directory that is not there yet)")
    try:
        print(repair(_state_directory(options.directory), new))
    except RunLockedError as error:
        raise _UsageError(str(error)) from error
    return FINE


# ---- measure


def _measure(arguments: list[str]) -> int:
    parser = _parser(
        "measure MODULE:JOB [ARG ...] [--seconds S] [--limit N]",
        "Run a job once, in a throw-away state directory, and say what its checkpoints cost. Its own effects are real.",
    )
    parser.add_argument("job", metavar="MODULE:JOB")
    parser.add_argument("arguments", nargs="*", metavar="ARG", help="for the job: a Python literal, else a string")
    parser.add_argument("--seconds", type=float, default=5.0, help="stop the job after so long (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="stop the job after so many checkpoints")
    options = parser.parse_args(arguments)
    job = _find_job(options.job)
    try:
        cost = measure_job(job, tuple(map(_literal, options.arguments)), seconds=options.seconds, limit=options.limit)
    except (NotAJobError, StateParameterError, AsyncJobError, WrongArgumentsError) as error:
        raise _UsageError(str(error)) from error
    print(cost)
    return FINE


def _find_job(given: str) -> Callable[..., Any]:
    module, colon, name = given.partition(":")
    if not (module and colon and name):
        raise _UsageError(f"{given!r} names no job (write MODULE:JOB, as in mypackage.etl:totals)")
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise       # the module is there, and something that it imports is not
        raise _UsageError(f"there is no module {error.name!r} (is it installed, or in this directory?)") from error
    try:
        job = reduce(getattr, name.split("."), found)
    except AttributeError as error:
        raise _UsageError(f"{module} has no {name!r}") from error
    if not callable(job):
        raise _UsageError(f"{given} is a {type(job).__name__}, and a job is a function that yields checkpoint(state)")
    return job


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


_VERBS: dict[str, Callable[[list[str]], int]] = {"check": _check, "repair": _repair, "measure": _measure}
