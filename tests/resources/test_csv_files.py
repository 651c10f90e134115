"""`csv_reader` and `csv_writer`: CSV files that states may hold."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from holding import resume, save

from resumable import csv_reader, csv_writer
from resumable.errors import LiveResourceError, ReconnectError
from resumable.values.handlers.csv_files import CsvWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.csv"


def rows_of(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("mode", ["w", "x", "a"])
def test_header_and_rows_are_there_once(path: Path, mode: Any) -> None:
    """The header is written once and no row twice, over several resumes and in every mode."""
    writer = csv_writer(path, header=["n", "naïve"], mode=mode)
    for n in range(9):
        encoded = save(writer)
        if n % 3 == 2:
            writer.writerow(["lost", "x" * 10_000])
            writer.flush()
            writer = resume(encoded)
        writer.writerow([n, "a\nb"] if n % 2 else {"naïve": "ü,"})
    writer.close()
    assert rows_of(path) == [["n", "naïve"], *([str(n), "a\nb"] if n % 2 else ["", "ü,"] for n in range(9))]


def test_a_killed_beginning_begins_again(path: Path) -> None:
    """A job that is started again before its first checkpoint writes a new file; with "a" the header is not repeated."""
    with csv_writer(path, header=["n"]) as writer:
        writer.writerow([1])
    with csv_writer(path, header=["n"]) as writer:
        writer.writerows([[2], {"n": 3}])
    assert rows_of(path) == [["n"], ["2"], ["3"]]
    with csv_writer(path, header=["n"], mode="a") as writer:
        writer.writerow([4])
    assert rows_of(path) == [["n"], ["2"], ["3"], ["4"]]
    with pytest.raises(FileExistsError), csv_writer(path, mode="x"):
        pass


def test_wrong_columns_are_refused(path: Path) -> None:
    """Another header than the file's, a mapping without a header, and unknown columns are errors, and nothing is written."""
    with csv_writer(path, header=["n"]) as writer:
        with pytest.raises(ValueError, match="not in the header: 'm'"):
            writer.writerow({"n": 1, "m": 2})
    with pytest.raises(ValueError, match="begins with the header"), csv_writer(path, header=["m"], mode="a"):
        pass
    with pytest.raises(TypeError, match="list of names"):
        csv_writer(path, header="n")
    with pytest.raises(ValueError, match="mode"):
        csv_writer(path, mode="r+")  # type: ignore[arg-type]
    with csv_writer(path, mode="a") as writer, pytest.raises(TypeError, match="header="):
        writer.writerow({"n": 1})
    assert rows_of(path) == [["n"]]


@pytest.mark.parametrize("header", [False, True])
def test_the_place_is_exact_at_each_row(path: Path, header: bool) -> None:
    """Inside `for row in reader`, also behind fields of several lines, what is read after resuming is what was left."""
    with csv_writer(path, header=["n", "text"]) as writer:
        writer.writerows([n, "é\r\n" * (n % 4) + "x" * (n * 37 % 300)] for n in range(300))
    with csv_reader(path, header=header) as reader:
        rows = list(reader)
    assert len(rows) == 301 - header
    with csv_reader(path, header=header) as reader:
        for n, row in enumerate(reader):
            assert row == rows[n]
            if n % 17 == 0:
                with resume(save(reader)) as back:
                    assert (back.line_num, back.header) == (reader.line_num, reader.header)
                    assert list(back) == rows[n + 1 :]


def test_rows_are_named(path: Path) -> None:
    """With a header rows are dicts, empty lines are passed over, and a row of another length is an error with its line."""
    path.write_text("a,b\n1,2\n\n3,4,5\n6,7\n")
    with csv_reader(path, header=True) as reader:
        assert next(reader) == {"a": "1", "b": "2"}
        with pytest.raises(ValueError, match=r"line 4: 3 fields, and the header has 2"):
            next(reader)
        assert next(reader) == {"a": "6", "b": "7"}
    with csv_reader(path, header=["x", "y"]) as reader:
        assert next(reader) == {"x": "a", "y": "b"}


def test_format_and_encoding_are_kept(path: Path) -> None:
    """Delimiter, quoting, ends of lines and encoding are the same after resuming."""
    settings: dict[str, Any] = {"delimiter": ";", "quoting": csv.QUOTE_ALL, "lineterminator": "\n", "encoding": "latin-1"}
    writer = csv_writer(path, **settings)
    writer.writerow([1, "é"])
    with resume(save(writer)) as back:
        back.writerow([2, "ü"])
    assert path.read_bytes() == '"1";"é"\n"2";"ü"\n'.encode("latin-1")
    with csv_reader(path, **settings) as reader:
        next(reader)
        with resume(save(reader)) as back:
            assert next(back) == ["2", "ü"]


def test_refusals_lead_here(path: Path) -> None:
    """The csv module's own objects are refused with the names of these, and so are closed and derived ones."""
    for other in (csv.reader([]), csv.DictReader([])):
        with pytest.raises(LiveResourceError, match=r"resumable\.csv_reader"):
            save(other)
    with csv_writer(path) as writer:
        with pytest.raises(LiveResourceError, match=r"csv_writer"):
            save(writer._writer)
    with pytest.raises(LiveResourceError, match="closed"):
        save(writer)
    with type("Mine", (CsvWriter,), {})(open(path, "w"), None, {}) as mine:
        with pytest.raises(LiveResourceError, match="class of its own"):
            save(mine)


def test_a_shrunken_file_is_an_error(path: Path) -> None:
    """A CSV file shorter than at the checkpoint is a ReconnectError."""
    with csv_writer(path, header=["n"]) as writer:
        encoded = save(writer)
    path.write_text("n")
    with pytest.raises(ReconnectError, match="shrank"):
        resume(encoded)


@pytest.mark.parametrize(
    "wrong",
    [{"delimiter": "long"}, {"quoting": 99}, {"encoding": "no-such"}, {"header": ["é"], "encoding": "ascii"}],
    ids=str,
)
def test_wrong_arguments_do_not_empty_a_file(path: Path, wrong: dict[str, Any]) -> None:
    """Arguments that no CSV file can be written with are an error that leaves the old file as it was."""
    path.write_text("old\n")
    with pytest.raises((TypeError, LookupError, ValueError)):
        csv_writer(path, **wrong)
    assert path.read_text() == "old\n"
