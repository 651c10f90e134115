"""Open files: read, written and appended to; each really opened."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from holding import resume, save

from resumable.errors import LiveResourceError, ReconnectError
from resumable.values.codec import Codec


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


# ---- files that are written


@pytest.mark.parametrize("mode", ["w", "x", "a", "r+", "w+", "x+", "a+"])
@pytest.mark.parametrize("kind", ["text", "binary", "unbuffered"])
def test_a_written_file_is_cut_to_its_checkpoint(path: Path, mode: str, kind: str) -> None:
    """What was written before the checkpoint is there once; what came after it is gone; nothing is emptied."""
    start = b"" if mode[0] in "wx" else b"before\n"
    if mode[0] != "x":
        path.write_bytes(b"before\n")
    make: Any = (lambda text: text) if kind == "text" else str.encode
    with open(path, mode if kind == "text" else f"{mode}b", buffering=0 if kind == "unbuffered" else -1) as file:
        file.seek(0, os.SEEK_END)
        file.write(make("kept\n"))
        encoded, can = save(file), (file.readable(), file.writable())
        file.write(make("lost and much longer\n"))
    with resume(encoded) as back:
        assert type(back) is type(file)
        assert path.read_bytes() == start + b"kept\n"
        assert back.tell() == len(start) + 5
        assert (back.readable(), back.writable()) == can
        if kind == "text":
            assert back.mode == mode
        back.write(make("again\n"))
    assert path.read_bytes() == start + b"kept\nagain\n"


def test_a_killed_writer_goes_on(path: Path) -> None:
    """After kill -9 between two checkpoints the file is as if nothing had happened after the last one."""
    code = (
        "import sys, os, signal\n"
        "from resumable.values.codec import Codec\n"
        "path, c = sys.argv[1], Codec()\n"
        "f = open(path, 'w')\n"
        "for n in range(5):\n"
        "    print(n, file=f)\n"
        "    if n < 3:\n"
        "        open(path + '.state', 'wb').write(c.encode(f).data)\n"
        "f.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], check=False)
    assert path.read_text() == "0\n1\n2\n3\n4\n"
    with Codec().decode(1, Path(f"{path}.state").read_bytes()) as file:
        print("three", file=file)
    assert path.read_text() == "0\n1\n2\nthree\n"


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("mode", ["w", "r", "r+", "a"])
def test_newline_is_kept(path: Path, newline: str | None, mode: str) -> None:
    """A text file translates newlines after resuming as it did before, which no attribute of it tells."""
    path.write_bytes(b"a\nb\r\nc\rd\n" * 3)
    with open(path, mode, newline=newline) as file, open(path, mode, newline=newline) as expected:
        if mode in ("r", "r+"):
            assert file.readline() == expected.readline()
        with resume(save(file)) as back:
            if mode in ("r", "r+"):
                assert back.read() == expected.read()
            else:
                back.write("x\n")
                back.flush()
                assert path.read_bytes().endswith(b"x" + (newline or "\n").encode())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252", "shift_jis", "iso2022_jp", "gbk"])
def test_encodings_are_kept(path: Path, encoding: str) -> None:
    """Encoding and error handling come back, and a byte order mark is not written twice."""
    text = {"shift_jis": "ASCII", "iso2022_jp": "語\n", "gbk": "語"}.get(encoding, "äöü")
    with open(path, "w", encoding=encoding, errors="replace") as file:
        file.write(text)
        encoded = save(file)
    with resume(encoded) as back:
        assert (back.encoding, back.errors) == (encoding, "replace")
        back.write(f"{text}\n")
    assert path.read_text(encoding=encoding) == f"{text}{text}\n"


def test_line_buffering_and_write_through_are_kept(path: Path) -> None:
    """A log that is flushed by the line is so after resuming."""
    with open(path, "w", buffering=1) as file, resume(save(file)) as back:
        assert back.line_buffering
        back.write("line\n")
        assert path.read_text() == "line\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_standard_streams_are_those_of_the_process(name: str) -> None:
    """sys.stdout in a state is the new process's."""
    code = (
        "import sys; from resumable.values.codec import Codec; c = Codec()\n"
        f"e = c.encode([sys.{name}]); sys.{name} = other = open('/dev/null'); assert c.decode(*e) == [other]\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


# ---- files that are read


@pytest.mark.parametrize("how", ["iterate", "readline", "read", "binary", "unbuffered"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("length", [3, 200, 20_000])
def test_a_read_file_goes_on_exactly(path: Path, how: str, newline: bytes, length: int) -> None:
    """At any line of any length, what is read after resuming is what was left, and saving changes nothing."""
    path.write_bytes(b"".join(b"%d %s\xc3\xa4%s" % (n, b"x" * (n * 37 % length), newline) for n in range(120)))
    binary = how in ("binary", "unbuffered")
    with open(path, "rb" if binary else "r", 0 if how == "unbuffered" else -1) as file:
        lines = file.readlines()
        file.seek(0)
        for n in range(len(lines)):
            if how in ("iterate", "binary", "unbuffered"):
                assert next(file) == lines[n]
            elif how == "readline":
                assert file.readline() == lines[n]
            else:
                assert file.read(len(lines[n])) == lines[n]
            if n % 7 == 0:
                with resume(save(file)) as back:
                    assert back.readlines() == lines[n + 1 :]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "shift_jis"])
@pytest.mark.parametrize("newline", [None, "", "\n"])
@pytest.mark.parametrize("ends", [["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"], ["\r", "\r\n", "\n"]])
def test_iterating_is_exact_or_refused(path: Path, encoding: str, newline: str | None, ends: list[str]) -> None:
    """Inside `for line in file` the place is exact with any newlines, or for a few encodings the error says what to write."""
    sign = {"shift_jis": "語", "iso2022_jp": "語", "gbk": "語", "hz": "语"}.get(encoding, "é")
    text = "".join(f"{n}{sign}{'-' * (n * 31 % 90)}{ends[n % len(ends)]}" for n in range(900))
    path.write_bytes(text.encode(encoding))
    with open(path, encoding=encoding, newline=newline) as file:
        lines = file.readlines()
        file.seek(0)
        for n, line in enumerate(file):
            assert line == lines[n]
            if n % 97 == 5:
                try:
                    encoded = save(file)
                except LiveResourceError as error:
                    assert "readline()" in error.reason  # noqa: PT017 - either outcome is right
                    assert encoding in ("iso2022_jp", "hz")
                    return
                with resume(encoded) as back:
                    assert back.readlines() == lines[n + 1 :]


def test_equal_lines_do_not_mislead(path: Path) -> None:
    """In a file of equal lines the place inside the loop is exact too, also after a large read."""
    path.write_text("x\n" * 60_000)
    with open(path) as file:
        file.read(30_001)
        for n, _ in enumerate(file):
            if n % 5000 == 0:
                with resume(save(file)) as back:
                    assert len(back.read()) == 120_000 - 30_002 - 2 * n


def test_an_iterated_file_can_go_on_itself(path: Path) -> None:
    """Saving inside `for line in file` neither skips nor repeats a line for the job that goes on."""
    path.write_text("".join(f"line {n}\n" for n in range(3000)))
    with open(path) as file:
        seen = []
        for line in file:
            seen.append(line)
            save(file)
    assert seen == [f"line {n}\n" for n in range(3000)]


# ---- files that are not what they were


def test_a_shrunken_file_is_an_error(path: Path) -> None:
    """A file shorter than at the checkpoint is a ReconnectError that says so, and is left as it is."""
    with open(path, "w") as file:
        file.write("0123456789")
        encoded = save(file)
    os.truncate(path, 4)
    with pytest.raises(ReconnectError, match=r"shrank: it has 4 bytes and had 10"):
        resume(encoded)
    assert path.read_text() == "0123"


def test_a_vanished_file_is_an_error(path: Path) -> None:
    """A file that is gone is a ReconnectError with its path, and is not made anew, empty."""
    with open(path, "w") as file:
        encoded = save(file)
    path.unlink()
    with pytest.raises(ReconnectError, match="No such file") as caught:
        resume(encoded)
    assert caught.value.metadata["path"] == str(path)
    assert not path.exists()


@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_replaced_file_is_an_error(path: Path, mode: str) -> None:
    """Another file under the same path, also one with the same inode, is a ReconnectError and is left as it is."""
    path.write_text("a" * 100)
    with open(path, "r" if mode == "r" else "a") as file:
        encoded = save(file)
    path.write_text("b" * 200)  # the same inode
    with pytest.raises(ReconnectError, match="other bytes"):
        resume(encoded)
    other = path.with_suffix(".new")
    other.write_text("a" * 100)
    other.replace(path)
    with pytest.raises(ReconnectError, match="replaced by another file"):
        resume(encoded)
    assert path.read_text() == "a" * 100


def test_a_growing_input_is_no_error(path: Path) -> None:
    """A log that grew since the checkpoint is read on."""
    path.write_text("1\n2\n")
    with open(path) as file:
        file.readline()
        encoded = save(file)
    path.write_text("1\n2\n3\n")
    with resume(encoded) as back:
        assert back.read() == "2\n3\n"


def test_a_relative_path_is_kept_absolute(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file opened by a relative path is found from another working directory."""
    monkeypatch.chdir(path.parent)
    with open("file", "w") as file:
        file.write("x")
        encoded = save(file)
    monkeypatch.chdir("/")
    with resume(encoded) as back:
        assert back.tell() == 1


def test_files_without_a_place_are_refused(path: Path) -> None:
    """Pipes, closed and deleted files, and layers over something else are refused with what to keep."""
    read_end, write_end = os.pipe()
    with open(read_end) as pipe, open(write_end, "w"), pytest.raises(LiveResourceError, match="no position"):
        save(pipe)
    with open(path, "w") as file, open(os.dup(file.fileno()), "w") as bare:
        with pytest.raises(LiveResourceError, match="descriptor"):
            save(bare)
        path.unlink()
        with pytest.raises(LiveResourceError, match="deleted"):
            save(file)
    with pytest.raises(LiveResourceError, match="closed"):
        save(file)
    with pytest.raises(LiveResourceError, match="BytesIO"):
        save(io.TextIOWrapper(io.BytesIO()))


@pytest.mark.parametrize("value", [io.StringIO("a\nb"), io.BytesIO(b"ab")])
def test_files_in_memory_are_values(value: Any) -> None:
    """StringIO and BytesIO are saved whole, with their position."""
    value.read(1)
    assert resume(save(value)).read() == value.read()


def test_files_are_not_kept_open_by_the_handler(path: Path) -> None:
    """What the handler remembers of a file goes with the file."""
    from resumable.values.handlers import files

    with open(path, "w") as file:
        file.write("x" * 100)
        save(file)
    with open(path, "rb", buffering=0) as raw:
        save(raw)
    assert {file, raw} <= set(files._seen)
    del file, raw
    gc.collect()
    assert str(path) not in [seen.path for seen in files._seen.values()]
