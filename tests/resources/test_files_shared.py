"""Open files that something else has a hand on, and places that are hard to tell."""

from __future__ import annotations

import codecs
import gc
import io
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from holding import resume, save

from resumable.errors import LiveResourceError, ReconnectError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


# ---- other hands


def test_a_file_that_others_append_to_is_refused(path: Path) -> None:
    """A log that another process appends to is refused, as a resume would cut off its lines; a subprocess's output is not."""
    with open(path, "a") as file:
        file.write("mine\n")
        save(file)
        file.flush()
        subprocess.run(["echo", "a child's"], stdout=file, check=True)
        with resume(save(file)) as back:
            assert path.read_text() == "mine\na child's\n"
            subprocess.run(["sh", "-c", f"echo other >> {path}"], check=True)
            with pytest.raises(LiveResourceError, match="appends to it"):
                save(back)
    assert path.read_text() == "mine\na child's\nother\n"


def test_two_open_files_that_write_to_one_are_refused(path: Path) -> None:
    """A second object that writes to the same file is refused, also through a hard link or a symlink; a reader is not."""
    hard, soft = path.with_name("hard"), path.with_name("soft")
    with open(path, "w") as file:
        save(file)
        os.link(path, hard)
        soft.symlink_to(path)
        for name in (path, hard, soft):
            with open(name, "r+") as other, pytest.raises(LiveResourceError, match="another open file writes"):
                save(other)
        with open(soft) as reader, resume(save(reader)) as back:
            assert back.read() == ""
        save(file)
    with open(path, "r+") as other:
        save(other)


def test_two_layers_of_one_file_are_refused(path: Path) -> None:
    """A state with both a text file and its buffer cannot come back as one file, and says so."""
    with open(path, "w") as file, pytest.raises(LiveResourceError, match="keep one of both"):
        save([file, file.buffer])


def test_what_a_failed_run_left_open_does_not_write_later(path: Path) -> None:
    """In one process an object of the run that failed cannot flush its buffer into the file that was resumed."""
    left = open(path, "w")  # noqa: SIM115 - it is left
    left.write("kept\n")
    encoded = save(left)
    left.write("lost\n")
    with resume(encoded) as back:
        back.write("on\n")
        assert left.closed
        del left
        gc.collect()
    assert path.read_text() == "kept\non\n"


@pytest.mark.parametrize("change", ["renamed", "replaced", "deleted"])
def test_a_file_that_is_moved_while_open_is_refused(path: Path, change: str) -> None:
    """A file that no longer stands under its path is refused at the next checkpoint, not at the resume."""
    with open(path, "w") as file:
        save(file)
        path.rename(path.with_name("other")) if change != "deleted" else path.unlink()
        if change == "replaced":
            path.write_text("")
        with pytest.raises(LiveResourceError, match="while open"):
            save(file)


def test_nothing_is_cut_when_a_check_fails(path: Path) -> None:
    """A file that cannot be taken up keeps all its bytes, also where only its decoder finds out."""
    with open(path, "w+", encoding="utf-8-sig") as file:
        file.write("é" * 100)
        encoded = save(file)
        file.write("tail")
    content = path.read_bytes()
    path.rename(path.with_name("other"))
    path.write_bytes(content)
    with pytest.raises(ReconnectError, match="replaced"):
        resume(encoded)
    assert path.read_bytes() == content


def test_a_start_rewritten_in_an_update_mode_is_no_error(path: Path) -> None:
    """With "+" the job may go back and rewrite the file's first bytes; what it reads then is never stale."""
    with open(path, "w+b") as file:
        file.write(b"HEAD" * 40)
        file.seek(0)
        file.write(b"head")
        encoded = save(file)
        file.write(b"past")
        file.seek(0, os.SEEK_END)
        file.write(b"lost")
    with resume(encoded) as back:
        assert (back.tell(), back.read(8)) == (4, b"pastHEAD")
        back.seek(0, os.SEEK_END)
        assert back.tell() == 160


def test_a_sparse_file_of_more_than_4_gb_comes_back(path: Path) -> None:
    """Positions and lengths above 32 bits are exact, and nothing of such a file is read."""
    with open(path, "wb") as file:
        file.seek(5 << 30)
        file.write(b"end")
        encoded = save(file)
        file.write(b"lost")
    with resume(encoded) as back:
        assert back.tell() == path.stat().st_size == (5 << 30) + 3
    path.unlink()


def test_a_file_that_may_not_be_read_is_written_on(path: Path) -> None:
    """A write-only file of another's comes back without its first bytes compared."""
    code = (
        "import os, sys\n"
        "from resumable.values.codec import Codec\n"
        "import resumable.values.handlers.files\n"
        "os.setuid(65534)\n"
        "c = Codec(); f = open(sys.argv[1], 'a'); f.write('x' * 100); e = c.encode(f); f.write('lost'); f.close()\n"
        "with c.decode(*e) as f: f.write('y')\n"
    )
    if os.getuid():
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory() as directory:
        other = Path(directory, "file")
        other.touch(mode=0o622)
        os.chmod(other, 0o622)
        os.chmod(directory, 0o777)
        subprocess.run([sys.executable, "-W", "ignore", "-c", code, other], check=True)
        assert other.read_text() == "x" * 100 + "y"


# ---- places


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030", "gbk", "big5", "euc_jp", "shift_jis", "utf-7", "iso2022_kr"])
@pytest.mark.parametrize("newline", [None, "", "\n"])
def test_any_way_of_reading_is_exact_or_refused(path: Path, encoding: str, newline: str | None) -> None:
    """After any mixture of read, readline and the loop, resuming reads what was left, or the error names readline()."""
    rng = random.Random(f"{encoding}{newline}")
    sign = "가" if encoding == "iso2022_kr" else "語"
    text = "".join(f"{n}{sign}{'-' * rng.randrange(90)}" + rng.choice(["\r", "\n", "\r\n"]) for n in range(500))
    path.write_bytes(text.encode(encoding))
    ways: list[Callable[[Any], str]] = [next, lambda it: it.readline(), lambda it: it.read(rng.randrange(1, 200))]
    with open(path, encoding=encoding, newline=newline) as file:
        whole = file.read()
        file.seek(0)
        seen = saved = 0
        for _ in range(60):
            for _ in range(rng.randrange(1, 6)):
                part = rng.choice(ways)(file)
                assert whole.startswith(part, seen)
                seen += len(part)
            try:
                with resume(save(file)) as back:
                    assert back.read() == whole[seen:]
                saved += 1
            except LiveResourceError as error:
                assert "readline()" in error.reason  # noqa: PT017 - either outcome is right
                assert encoding not in ("utf-8", "utf-16")
                break
        assert saved > 3 or encoding in ("iso2022_kr", "utf-7")


def test_a_setting_that_looks_like_text_is_told_from_it(path: Path) -> None:
    """Decoded text that equals a newline setting is not taken for one."""
    path.write_bytes(b"\n")
    for newline in (None, "\n"):
        with open(path, newline=newline) as file:
            file.read(1)
            with resume(save(file)) as back:
                back.seek(0)
                path.write_bytes(b"\n\r\n")
                assert back.read() == ("\n\n" if newline is None else "\n\r\n")
                path.write_bytes(b"\n")


def test_text_that_its_encoder_holds_back_is_refused(path: Path) -> None:
    """In the middle of a shift sequence a new encoder would write other text: refused, and fine at the end of the line."""
    with open(path, "w", encoding="hz") as file:
        file.write("中")
        with pytest.raises(LiveResourceError, match="end of a line"):
            save(file)
        file.write("\n")
        with resume(save(file)) as back:
            back.write("b文\n")
    assert path.read_text(encoding="hz") == "中\nb文\n"


# ---- what is no file on disk


def test_what_has_no_path_is_refused_with_advice(path: Path) -> None:
    """Temporary files, files of codecs, detached layers and devices are refused with what to keep instead."""
    with tempfile.TemporaryFile() as file, pytest.raises(LiveResourceError, match="temporary"):
        save(file)
    with tempfile.NamedTemporaryFile() as file, pytest.raises(LiveResourceError, match="keep its path"):
        save(file)
    with codecs.open(str(path), "w", "utf-8") as file, pytest.raises(LiveResourceError, match=r"open\(\)"):
        save(file)
    with open(os.devnull, "w") as file, pytest.raises(LiveResourceError, match="device"):
        save(file)
    text = open(path)  # noqa: SIM115 - its buffer is closed
    with text.detach() as buffer, resume(save(buffer)) as back:
        assert back.read() == b""
        with pytest.raises(LiveResourceError, match="detached"):
            save(text)


class MyText(io.StringIO):
    label = ""


def test_files_in_memory_come_back_whole() -> None:
    """StringIO and BytesIO keep content, position, newline setting, class and attributes."""
    text = MyText("a\r\nb", newline="")
    text.label = "mine"
    text.seek(1)
    back = resume(save(text))
    assert (type(back), back.label, back.tell(), back.getvalue()) == (MyText, "mine", 1, "a\r\nb")
    back.seek(0, os.SEEK_END)
    back.write("\n")
    assert back.getvalue() == "a\r\nb\n"
    data = io.BytesIO(b"abc")
    data.seek(2)
    back = resume(save(data))
    back.write(b"XY")
    assert back.getvalue() == b"abXY"


def test_the_buffer_of_a_standard_stream_is_the_process_s(path: Path) -> None:
    """sys.stdout.buffer in a state is the new process's."""
    code = (
        "import sys; from resumable.values.codec import Codec; c = Codec()\n"
        f"e = c.encode(sys.stdout.buffer); sys.stdout = open({str(path)!r}, 'w'); assert c.decode(*e) is sys.stdout.buffer\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
