"""Rows into output files: CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Self

from resumable.values.handlers.csv_files import CsvWriter, check_header
from resumable.work.output_files import OutputFile
from resumable.work.output_places import Text

_Mode = Literal["w", "x", "a"]


def _check(path: object, mode: str) -> None:
    if hasattr(path, "write"):
        raise TypeError(f"rows go to a path, which is opened here, not to an open file ({path!r})")
    if mode not in ("w", "x", "a"):
        raise ValueError(f'mode must be "w", "x" or "a", not {mode!r}')


def csv_writer(
    path: str | os.PathLike[str],
    *,
    header: Sequence[str] | None = None,
    mode: _Mode = "w",
    encoding: str = "utf-8",
    **fmtparams: Any,
) -> CsvWriter:
    """A CSV file to write rows to, for a loop, or for a state to hold: after a crash it goes on behind the last row that counts.

    In a loop it is a file like that of `resumable.open`: opened before it, each item's rows are there once. In a job it may stand
    in a state, and goes on behind the last checkpoint's row.

    The header is written once. `mode` is that of `open` where the loop or the job begins: "w" begins a new file and takes the
    place of an old one, "x" raises FileExistsError instead, "a" goes on with it, and its header must be the same; that is told
    when the first item is asked for, at the first checkpoint with it, or when it is closed. Other keywords are those of
    `csv.writer`. Raises OSError, ValueError, OutputError.
    """
    _check(path, mode)
    if isinstance(header, str):
        raise TypeError(f"header must be a list of names, not {header!r}")
    names = list(header) if header is not None else None
    # What is wrong in the arguments is found before there is a file.
    first = io.StringIO()
    csv.writer(first, **fmtparams).writerow(names or ())
    first.getvalue().encode(encoding)

    def opening(size: int) -> str:
        if names is not None and size:
            check_header(path, names, encoding, fmtparams)
        return "" if names is None or size else first.getvalue()

    file = OutputFile(path, mode, Text(encoding, "strict", ""), opening=opening, in_states=True)
    return CsvWriter(file, names, fmtparams)


class JsonLinesWriter:
    """What `jsonl_writer` returns."""

    def __init__(self, file: OutputFile, default: Callable[[Any], Any] | None) -> None:
        self._file = file
        self._encode: Final = json.JSONEncoder(ensure_ascii=False, default=default).encode

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self._file.name)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._file.closed

    def write(self, value: object) -> None:
        """Write one value as a line. Raises TypeError for what JSON cannot hold; then nothing is written."""
        self._file.write(self._encode(value) + "\n")

    def close(self) -> None:
        """Close the file, as that of `resumable.open`."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._file.__exit__(*exception)

    def __repr__(self) -> str:
        return f"<JsonLinesWriter {self.name!r}>"


def jsonl_writer(
    path: str | os.PathLike[str], *, mode: _Mode = "w", default: Callable[[Any], Any] | None = None,
) -> JsonLinesWriter:
    """A file of JSON lines, UTF-8, for a loop to write: `.write(value)`, each item's lines once, as `resumable.open` says.

    default: makes what JSON can hold of what it cannot, as for `json.dumps`. Raises what `resumable.open` does.
    """
    _check(path, mode)
    return JsonLinesWriter(OutputFile(path, mode, Text("utf-8", "strict", "\n")), default)
