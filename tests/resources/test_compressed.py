"""gzip, bz2 and xz files: read, written, and text files over them; each really opened."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import os
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from holding import resume, save

from resumable.errors import LiveResourceError, ReconnectError

MODULES = [pytest.param(module, id=module.__name__) for module in (gzip, bz2, lzma)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


class MyGzipFile(gzip.GzipFile):
    pass


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("mode", ["wb", "wt", "ab", "xt"])
def test_a_written_file_goes_on_at_its_checkpoint(path: Path, module: Any, mode: str) -> None:
    """What was written before each checkpoint is there once, what came after it is gone, over several resumes."""
    expected = ""
    if mode == "ab":
        with module.open(path, "wt", encoding="utf-8") as file:
            file.write(expected := "before\n")
    text = {"encoding": "utf-8", "newline": ""} if mode[1] == "t" else {}
    make: Any = str if text else str.encode
    file = module.open(path, mode, **text)
    encoded = save(file)
    for n in range(12):
        if n % 4 == 1:
            file.write(make("lost\n" * 5000))
            file.flush()
            file = resume(encoded)
        file.write(make(f"row {n} é\r\n"))
        expected += f"row {n} é\r\n"
        encoded = save(file)
    file.close()
    with module.open(path, "rt", encoding="utf-8", newline="") as back:
        assert back.read() == expected


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("how", ["readline", "iterate", "text"])
def test_a_read_file_goes_on_exactly(path: Path, module: Any, how: str) -> None:
    """At any line, what is read after resuming is what was left."""
    lines = [f"{n} é {'x' * (n * 31 % 700)}\n" for n in range(200)]
    with module.open(path, "wt", encoding="utf-8") as file:
        file.writelines(lines)
    with module.open(path, "rt" if how == "text" else "rb", **({"encoding": "utf-8"} if how == "text" else {})) as file:
        for n in range(200):
            line = next(file) if how == "iterate" else file.readline()
            assert line == (lines[n] if how == "text" else lines[n].encode())
            if n % 23 == 0:
                with resume(save(file)) as back:
                    assert back.tell() == file.tell()
                    left = back.read()
                    assert left == "".join(lines[n + 1 :]) if how == "text" else left.decode() == "".join(lines[n + 1 :])


@pytest.mark.parametrize("module", MODULES)
def test_inside_a_loop_over_text_the_error_says_what_to_write(path: Path, module: Any) -> None:
    """`for line in gzip.open(path, "rt")` is refused with the loop to write instead, and goes on itself."""
    with module.open(path, "wt") as file:
        file.write("a\nb\n")
    with module.open(path, "rt") as file:
        lines = []
        for line in file:
            lines.append(line)
            with pytest.raises(LiveResourceError, match=r"readline\(\)"):
                save(file)
        assert lines == ["a\n", "b\n"]


@pytest.mark.parametrize("module", MODULES)
def test_an_idle_checkpoint_does_not_grow_the_file(path: Path, module: Any) -> None:
    """Checkpoints with nothing written between them leave the file as it is."""
    with module.open(path, "wb") as file:
        file.write(b"x")
        save(file)
        size = path.stat().st_size
        save(file)
        assert path.stat().st_size == size
        with resume(save(file)) as back:
            save(back)  # gzip: with the header of the next member
            size = path.stat().st_size
            save(back)
            assert path.stat().st_size == size


@pytest.mark.parametrize(("module", "tool"), [(gzip, "gzip"), (bz2, "bzip2"), (lzma, "xz")])
def test_what_was_resumed_is_read_by_the_usual_tools(path: Path, module: Any, tool: str) -> None:
    """A file that was written over two resumes is one that gzip, bzip2 and xz decompress without complaint."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    file = module.open(path, "wb")
    for n in range(3):
        file.write(b"%d\n" % n)
        file = resume(save(file))
    file.close()
    with open(path, "rb") as raw:
        assert subprocess.run([tool, "-dc"], stdin=raw, capture_output=True, check=True).stdout == b"0\n1\n2\n"


def test_a_gzip_file_that_was_never_resumed_can_be_read(path: Path) -> None:
    """After a kill all data up to the last checkpoint can be decompressed."""
    with gzip.open(path, "wb") as file:
        file.write(b"kept")
        save(file)
        assert zlib.decompressobj(31).decompress(path.read_bytes()) == b"kept"


def test_a_level_and_a_time_of_gzip_are_kept(path: Path) -> None:
    """mtime=0 and the fastest level hold for the member that begins on resume."""
    file = gzip.GzipFile(path, "wb", compresslevel=1, mtime=0)
    file.write(b"x")
    first = path.stat().st_size
    with resume(save(file)) as back:
        back.write(b"y")
    second = path.read_bytes().rindex(b"\x1f\x8b\x08")
    assert second > first
    assert path.read_bytes()[second + 4 : second + 9] == b"\0\0\0\0\x04"


def test_level_of_bz2_and_check_and_dictionary_of_xz_are_kept(path: Path) -> None:
    """Later streams, before and after resuming, have the settings of the first."""
    file: Any = bz2.BZ2File(path, "wb", compresslevel=3)
    file.write(b"x")
    with resume(save(file)) as back:
        back.write(b"y")
    assert path.read_bytes().count(b"BZh3") == 2
    file = lzma.LZMAFile(path, "wb", check=lzma.CHECK_CRC32, preset=0)  # noqa: SIM115 - resuming closes it
    for data in (b"x", b"y"):
        file.write(data)
        save(file)
    with resume(save(file)) as back:
        back.write(b"z")
    header = path.read_bytes()[:17]
    assert header[7] == lzma.CHECK_CRC32
    assert path.read_bytes().count(header) == 3


def test_what_cannot_be_taken_up_is_refused(path: Path) -> None:
    """Other lzma formats and filters, file objects of one's own, subclasses, second marks and closed files are refused."""
    for settings in ({"format": lzma.FORMAT_ALONE}, {"filters": [{"id": lzma.FILTER_DELTA}, {"id": lzma.FILTER_LZMA2}]}):
        with lzma.open(path, "wb", **settings) as file:
            file.write(b"abc")
            with pytest.raises(LiveResourceError, match="FORMAT_XZ"):
                save(file)
            file.write(b"def")
        with lzma.open(path) as file:
            assert file.read() == b"abcdef"
    with gzip.GzipFile(fileobj=io.BytesIO(), mode="wb") as file, pytest.raises(LiveResourceError, match="another file object"):
        save(file)
    with MyGzipFile(path, "wb") as file, pytest.raises(LiveResourceError, match="class of its own"):
        save(file)
    with bz2.open(path, "wt", encoding="utf-16") as file, pytest.raises(LiveResourceError, match="byte order mark"):
        save(file)
    with pytest.raises(LiveResourceError, match="closed"):
        save(file.buffer)


@pytest.mark.parametrize("module", MODULES)
def test_a_file_that_is_not_what_it_was_is_an_error(path: Path, module: Any) -> None:
    """A file that shrank, vanished or has other bytes is a ReconnectError, and is left as it is."""
    with module.open(path, "wb") as file:
        file.write(os.urandom(200))
        encoded = save(file)
    content = path.read_bytes()
    path.write_bytes(content[:60])
    with pytest.raises(ReconnectError, match="shrank"):
        resume(encoded)
    path.write_bytes(b"other" * 200)
    with pytest.raises(ReconnectError, match="other bytes"):
        resume(encoded)
    assert path.read_bytes() == b"other" * 200
    path.unlink()
    with pytest.raises(ReconnectError, match="No such file"):
        resume(encoded)
    assert not path.exists()


@pytest.mark.parametrize("module", MODULES)
def test_what_a_failed_run_left_open_does_not_write_later(path: Path, module: Any) -> None:
    """In one process an object of the run that failed cannot put its trailer into the file that was resumed."""
    left = module.open(path, "wb")
    left.write(b"kept ")
    encoded = save(left)
    left.write(b"lost" * 1000)
    with resume(encoded) as back:
        back.write(b"on")
        del left
        gc.collect()
    with module.open(path) as file:
        assert file.read() == b"kept on"
