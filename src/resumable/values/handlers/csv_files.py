"""What `csv_reader` and `csv_writer` give: CSV files that states may hold, which those of the csv module cannot be.

Kept: all that files.py keeps of the file, the format, the header, and the number of lines read. The place is exact at
each row, also inside `for row in reader` and after a quoted field of several lines. A row that was written before the
checkpoint is there once, one written after it is not; the header is written once, when the file is begun.

Not kept: a dialect's class; its settings are. As with `open`, mode "w" begins the file anew when the job does; a resumed
job goes on in it, whatever the mode was. A new writer's file is an Output, as a loop may come that writes it; it becomes an
ordinary one when a state is to hold it.

Cost: about 13 µs for a file being written or read; a row costs 0.1 µs more than the csv module's.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Self

from resumable._fastlog import Output
from resumable.values.handlers import files
from resumable.values.registry import Handler, alive

_FORMAT: Final = (
    "delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting", "skipinitialspace", "strict",
)
_settings: Final = attrgetter(*_FORMAT)
_USUAL: Final = _settings(csv.reader(()).dialect)
_Row = Sequence[Any] | Mapping[str, Any]


class _CsvFile:
    """What a CsvWriter and a CsvReader have in common: their file, which `with` closes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self._file.name)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return bool(self._file.closed)

    def close(self) -> None:
        """Close the file; what is not written yet is written first."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)


def _is_new(file: object) -> bool:
    """Whether it is yet to be known if a state is to hold the file or a loop writes it, or a loop does."""
    return isinstance(file, Output)


class CsvWriter(_CsvFile):
    """What `csv_writer` returns. header: the names of the columns, if there are any."""

    def __init__(self, file: Any, header: Sequence[str] | None, fmtparams: Mapping[str, Any]) -> None:
        super().__init__(file)
        self.header: Final = list(header) if header is not None else None
        self._fmtparams = fmtparams
        self._writer = csv.writer(file, **fmtparams)

    def become_plain(self) -> None:
        """A state is to hold it. Raises LiveResourceError if a loop writes it."""
        if _is_new(self._file):
            self._file = self._file.as_plain()
            self._writer = csv.writer(self._file, **self._fmtparams)

    def writerow(self, row: _Row) -> None:
        """Write one row: a sequence, or with a header a mapping too, whose missing columns are empty."""
        self._writer.writerow(self._ordered(row) if isinstance(row, Mapping) else row)

    def writerows(self, rows: Iterable[_Row]) -> None:
        """Write rows, each as `writerow` does."""
        for row in rows:
            self.writerow(row)

    def flush(self) -> None:
        """Hand to the kernel what was written. A checkpoint does it by itself."""
        self._file.flush()

    def __repr__(self) -> str:
        return f"<CsvWriter {self.name!r}>"

    def _ordered(self, row: Mapping[str, Any]) -> list[Any]:
        if self.header is None:
            raise TypeError("a row that is a mapping needs csv_writer(..., header=[...]), which orders its columns")
        if not row.keys() <= set(self.header):
            extra = ", ".join(repr(name) for name in row if name not in self.header)
            raise ValueError(f"the row has columns that are not in the header: {extra}")
        return [row.get(name, "") for name in self.header]


class CsvReader(_CsvFile):
    """What `csv_reader` returns: an iterator of rows. header: the names of the columns, if the first row has them."""

    def __init__(self, file: Any, header: bool | Sequence[str], fmtparams: Mapping[str, Any], line_num: int = 0) -> None:
        super().__init__(file)
        # readline, as a file that is iterated cannot tell its place; a reader asks for no line before it needs it.
        self._reader = csv.reader(iter(file.readline, ""), **fmtparams)
        self._lines_before = line_num
        self.header: Final = next(self._reader, None) if header is True else list(header) if header else None

    @property
    def line_num(self) -> int:
        """How many lines were read so far; more than rows, if fields have several."""
        return self._lines_before + self._reader.line_num

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        row = next(self._reader)
        return row if self.header is None else self._named(row)

    def __repr__(self) -> str:
        return f"<CsvReader {self.name!r}, line {self.line_num}>"

    def _named(self, row: list[str]) -> dict[str, str]:
        while not row:  # an empty line is no row
            row = next(self._reader)
        assert self.header is not None
        if len(row) != len(self.header):
            raise ValueError(f"{self.name}, line {self.line_num}: {len(row)} fields, and the header has {len(self.header)}")
        return dict(zip(self.header, row, strict=True))


def csv_reader(
    path: str | os.PathLike[str], *, header: bool | Sequence[str] = False, encoding: str = "utf-8", **fmtparams: Any
) -> CsvReader:
    """The rows of a CSV file, as an iterator that a state may hold: after a crash it goes on with the next row.

    Rows are lists of str. With `header=True` the first row has the names of the columns, and rows are dicts; names may
    be given too, for a file without. A dict's row must have as many fields as the header, else ValueError; empty lines
    are passed over. Other keywords are those of `csv.reader`. Raises OSError.
    """
    if isinstance(header, str):
        raise TypeError(f"header must be True or a list of names, not {header!r}")
    file = open(path, encoding=encoding, newline="")  # noqa: SIM115 - it stays open
    try:
        return CsvReader(file, header, fmtparams)
    except BaseException:
        file.close()
        raise


def check_header(path: str | os.PathLike[str], header: list[str], encoding: str, fmtparams: Mapping[str, Any]) -> None:
    """Raises ValueError if the file begins with another one."""
    with open(path, encoding=encoding, newline="") as file:
        there = next(csv.reader(file, **fmtparams), [])
    if there != [str(name) for name in header]:
        raise ValueError(f"{os.fspath(path)} begins with the header {there!r}, not {header!r} (write to another file)")


# ---- the handler


def _extract(it: CsvWriter | CsvReader) -> dict[str, Any]:
    if type(it) not in (CsvWriter, CsvReader):
        raise alive(it, "it is of a class of its own (register_reconnector for that class)")
    if isinstance(it, CsvWriter):
        it.become_plain()
    settings = _settings(it._writer.dialect if isinstance(it, CsvWriter) else it._reader.dialect)
    return {
        "file": files.describe(it._file, it),
        "header": it.header,
        "format": None if settings == _USUAL else settings,
        "line_num": it.line_num if isinstance(it, CsvReader) else None,
    }


def _identify(it: CsvWriter | CsvReader) -> dict[str, Any]:
    file = it._file
    if _is_new(file):       # it stays what it is: this may be an argument of a loop's function
        found = {"path": os.path.abspath(file.name), "mode": file.mode, "encoding": file.encoding}
    else:
        found = files.identify(file)
    return {**found, "header": it.header}


def _reconnect(description: dict[str, Any]) -> CsvWriter | CsvReader:
    file, header, line_num = files.reconnect(description["file"]), description["header"], description["line_num"]
    fmtparams = dict(zip(_FORMAT, description["format"] or _USUAL, strict=True))
    if line_num is not None:
        return CsvReader(file, header or False, fmtparams, line_num)
    writer = CsvWriter(file, header, fmtparams)
    files.taken_up(file, writer)
    return writer


HANDLERS: Final = {
    key: Handler(key, _extract, _reconnect, _identify, may_hold_secrets=False)
    for key in (f"{__name__}:CsvWriter", f"{__name__}:CsvReader")
}
