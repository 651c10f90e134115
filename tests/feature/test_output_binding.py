"""To which loop an output file belongs, what becomes of one without a loop, and what is refused."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import resumable
from resumable import Driver, OutputError, OutputFile, UnclosedOutputWarning, csv_writer
from resumable.work import parts


class Gone(Exception):
    """Stands for a crash of the body."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


def write_all(driver: Driver, file: OutputFile, items: Iterable[int], at: int = -1, name: str = "loop") -> None:
    """A loop whose items write themselves and a newline, and that fails at one of them."""
    for item in driver.items(list(items), name=name):
        file.write(f"{item}\n")
        if item == at:
            raise Gone


# ---- loops in loops


def test_a_file_of_an_inner_loop(driver: Driver, tmp_path: Path) -> None:
    """A file that is opened inside an item belongs to the inner loop, and is there once however often that fails."""
    failed = set()
    while len(failed) < 9:
        try:
            with resumable.open(tmp_path / "outer") as outer:
                for one in driver.items(range(3), name="outer"):
                    with resumable.open(tmp_path / f"inner {one}") as inner:
                        for two in driver.items(range(3), name=f"inner {one}"):
                            inner.write(f"{one} {two}\n")
                            if (one, two) not in failed:
                                failed.add((one, two))
                                raise Gone
                        inner.write("foot\n")
                    outer.write(f"{one}\n")
        except Gone:
            pass
    assert (tmp_path / "outer").read_text() == "0\n1\n"
    for one in range(2):
        assert (tmp_path / f"inner {one}").read_text() == f"{one} 0\n{one} 1\n{one} 2\nfoot\n"


def test_an_outer_file_in_an_inner_loop(driver: Driver, path: Path) -> None:
    """What an inner loop's item would write to the outer loop's file is refused, and may be written behind the inner loop."""
    with resumable.open(path) as file:
        for one in driver.items(range(2), name="outer"):
            for two in driver.items(range(2), name=f"inner {one}"):
                with pytest.raises(OutputError, match=r"another loop than 'inner \d'.*open it inside the outer") as caught:
                    file.write(str(two))
            file.write(f"{one}\n")
    assert (caught.value.path, caught.value.run) == (str(path), "outer")
    assert path.read_text() == "0\n1\n"


def test_a_second_loop_over_one_file(driver: Driver, path: Path) -> None:
    """A file belongs to one loop: a second one is refused at its first line."""
    with resumable.open(path) as file:
        write_all(driver, file, range(3))
        with pytest.raises(OutputError, match="belongs to another loop than 'second'"):
            write_all(driver, file, range(3), name="second")
    assert path.read_text() == "0\n1\n2\n"


def test_a_map(driver: Driver, tmp_path: Path) -> None:
    """A function for each item writes whole files of its own, and none that others write; its results go to a file behind it."""

    def double(item: int) -> int:
        with resumable.open(tmp_path / str(item)) as own:
            own.write(str(item))
        with pytest.raises(OutputError, match="give back what is to be written"):
            file.write(str(item))
        return 2 * item

    with resumable.open(tmp_path / "all") as file:
        file.write("head ")
        for result in driver.map(double, range(3), name="map"):
            file.write(f"{result} ")
    assert (tmp_path / "all").read_text() == "head 0 2 4 "
    assert [(tmp_path / str(item)).read_text() for item in range(3)] == ["0", "1", "2"]


# ---- without a loop


def leave(path: Path, mode: Any) -> None:
    """Write into a file, and leave it by an exception."""
    with resumable.open(path, mode) as file:
        file.write("never")
        raise Gone


@pytest.mark.parametrize("mode", ["w", "x", "a"])
def test_a_file_without_a_loop(path: Path, mode: Any) -> None:
    """It takes its place when it is closed, whole and with the rights that it had; an exception leaves what was there."""
    if mode != "x":
        path.write_text("old ")
        path.chmod(0o640)
    with pytest.raises(Gone):
        leave(path, mode)
    assert path.exists() == (mode != "x")
    with resumable.open(path, mode) as file:
        file.write("new" * 100_000)
        assert not path.exists() or path.read_text() == "old "
    assert path.read_text() == ("old " if mode == "a" else "") + "new" * 100_000
    if mode != "x":
        assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(path.parent) == [path.name]


def test_a_file_within_an_item(driver: Driver, tmp_path: Path) -> None:
    """Opened and closed inside an item, a file is there whole, or as it was if the item failed; the item may write it again."""
    for _ in range(2):
        try:
            for item in driver.items(range(3), name="loop"):
                with resumable.open(tmp_path / str(item)) as file:
                    file.write(f"{item}" * 10)
                    if item == 1 and not (tmp_path / "failed").exists():
                        (tmp_path / "failed").touch()
                        raise Gone
        except Gone:
            assert not (tmp_path / "1").exists()
    assert [(tmp_path / str(item)).read_text() for item in range(3)] == ["0" * 10, "1" * 10, "2" * 10]


@pytest.mark.parametrize("mode", ["a", "x"])
def test_what_an_item_would_write_twice(driver: Driver, path: Path, mode: Any) -> None:
    """A file that an item appends to, or makes, would be another one when the item is repeated: refused, with what to write."""
    for _ in driver.items(range(3), name="loop"):
        file = resumable.open(path, mode)
        file.write("twice")
        with pytest.raises(OutputError, match='open it with "w", or before the loop'):
            file.close()
        assert not path.exists()


def test_a_file_that_stays_open(driver: Driver, path: Path) -> None:
    """A file that is opened inside an item and still open when that is done stops the loop before the item is marked."""
    opened = []

    def body(error: type[Exception] | None) -> None:
        for _ in driver.items(range(3), name="loop"):
            opened.append(resumable.open(path))
            opened[-1].write("lost")
            if error is not None:
                raise error

    for _ in range(2):
        with pytest.raises(OutputError, match=r"inside item 0 of loop 'loop' and is still open.*close it there"):
            body(None)
        with pytest.raises(Gone):       # left open by an exception, it is in nobody's way
            body(Gone)
    assert driver.info("loop").seq == 0
    with pytest.raises(ValueError, match="closed"):
        opened[0].write("later")
    assert not path.exists()


def test_a_file_that_is_never_closed(path: Path) -> None:
    """A file without a loop that is dropped open warns that nothing of it was written."""
    file = resumable.open(path)
    file.write("lost")
    parts.stop_waiting(file)
    dropped = [file]
    del file
    with pytest.warns(UnclosedOutputWarning, match="never closed"):
        dropped.clear()
    assert not path.exists()


LEFT_OPEN = """
import resumable
driver = Driver(STATE)
footed = resumable.open("footed")
for item in driver.items(range(3), name="loop"):
    footed.write(f"{item} ")
footed.write("foot")
if sys.argv[2] == "lost":
    lost = resumable.open("lost")
    lost.write("lost")
"""


def test_files_that_are_open_at_the_end(script: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """When a program ends, the file of a finished loop gets its footer; one without a loop is told of."""
    assert script(LEFT_OPEN, "kept") == (0, "", "")
    assert (tmp_path / "footed").read_text() == "0 1 2 foot"
    _, _, errors = script(LEFT_OPEN, "lost")
    assert "UnclosedOutputWarning" in errors
    assert not (tmp_path / "lost").exists()


# ---- who may write


def test_another_thread(driver: Driver, path: Path) -> None:
    """What another thread would write belongs to no item: refused, in a loop and before it."""
    found: list[str] = []

    def elsewhere() -> None:
        for data in ("ascii", "é"):
            try:
                file.write(data)
            except OutputError as error:
                found.append(str(error))

    def run() -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    with resumable.open(path) as file:
        run()
        for item in driver.items(range(2), name="loop"):
            run()
            file.write(str(item))
    assert path.read_text() == "01"
    assert len(found) == 6
    assert all("in another thread" in error for error in found)


def test_a_loop_in_another_thread(driver: Driver, path: Path) -> None:
    """A file and its loop may be in a thread of their own."""

    def run() -> None:
        with resumable.open(path) as file:
            write_all(driver, file, range(3))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert path.read_text() == "0\n1\n2\n"


def test_a_file_that_its_loop_did_not_see(driver: Driver, path: Path) -> None:
    """A file that was opened in a task which does not know of the loop is refused at the first line that an item writes."""
    opened: list[OutputFile] = []

    async def opening() -> None:
        opened.append(resumable.open(path))

    async def both() -> None:
        await asyncio.create_task(opening())
        write_all(driver, opened[0], range(2))

    with pytest.raises(OutputError, match=r"did not see it.*before the loop"):
        asyncio.run(both())
    opened[0].close()
    assert path.read_text() == ""


def test_a_file_that_is_opened_late(driver: Driver, path: Path) -> None:
    """A file may be opened between `items.state` and the loop, also in an inner loop, and may be written there."""
    for at in (1, -1):
        try:
            for _ in driver.items(range(1), name="outer"):
                items = driver.items(range(9), name="loop")
                items.state(total=0)
                with resumable.open(path) as file:
                    file.write("head\n")
                    for item in items:
                        file.write(f"{item}\n")
                        if item == at:
                            raise Gone
        except Gone:
            pass
    assert path.read_text() == "head\n" + "".join(f"{item}\n" for item in range(9))


def test_tasks_side_by_side(driver: Driver, tmp_path: Path) -> None:
    """Tasks that run at once have each their own loop and file."""

    async def body(name: str) -> None:
        with resumable.open(tmp_path / name) as file:
            async for item in driver.items(source(), name=name):
                await asyncio.sleep(0)
                file.write(f"{name}{item}")

    async def source() -> Any:
        for item in range(20):
            yield item

    async def side_by_side() -> None:
        await asyncio.gather(*(body(name) for name in "abc"))

    asyncio.run(side_by_side())
    assert [(tmp_path / name).read_text() for name in "abc"] == ["".join(f"{n}{i}" for i in range(20)) for n in "abc"]


def test_two_files_on_one_path(driver: Driver, path: Path) -> None:
    """A path that is open already is refused, under another name too, but not one of a loop that is over."""
    with resumable.open(path) as file:
        with pytest.raises(OutputError, match="is open already"):
            resumable.open(path.parent / "." / path.name)
        path.with_name("link").symlink_to(path)
        with pytest.raises(OutputError, match="is open already"):
            csv_writer(path.with_name("link"))
        write_all(driver, file, range(2))
        with resumable.open(path) as other:
            write_all(driver, other, range(3))
        with pytest.raises(ValueError, match="closed"):
            file.write("foot")
    assert path.read_text() == "0\n1\n2\n"


# ---- which file


def test_wrong_places(tmp_path: Path) -> None:
    """A directory, a missing one, a device and a wrong mode are told when the file is opened."""
    for wrong, error in (
        (tmp_path, IsADirectoryError), (tmp_path / "no" / "such", FileNotFoundError), (Path("/dev/null"), OutputError),
    ):
        with pytest.raises(error):
            resumable.open(wrong)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        resumable.open(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="mode"):
        resumable.open(tmp_path / "new", "r+")  # type: ignore[arg-type]
    with pytest.raises(LookupError):
        resumable.open(tmp_path / "new", encoding="no such")
    with pytest.raises(ValueError, match="newline"):
        resumable.open(tmp_path / "new", newline="x")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "is gone, and had"),
    "shorter": (lambda path: os.truncate(path, 100), "has 100 bytes, and had"),
    "another": (lambda path: path.write_bytes(path.read_bytes()[::-1]), "is another file"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed(driver: Driver, path: Path, change: str) -> None:
    """A file that is not as it was left is an error when the loop goes on, and so is a new one; put back, the loop goes on."""
    meddle, message = CHANGES[change]
    with pytest.raises(Gone), resumable.open(path) as file:
        write_all(driver, file, range(2000), at=1000)
    whole = path.read_bytes()
    meddle(path)
    with pytest.raises(OutputError, match=message) as caught, resumable.open(path) as file:
        write_all(driver, file, range(2000))
    assert (caught.value.path, caught.value.run) == (str(path), "loop")
    with pytest.raises(OutputError, match="is new to loop"), resumable.open(path.with_name("other")) as file:
        write_all(driver, file, range(2000))
    assert not path.with_name("other").exists()
    path.unlink(missing_ok=True)
    path.write_bytes(whole)         # another inode, the same bytes
    with resumable.open(path) as file:
        write_all(driver, file, range(2000))
    assert path.read_text() == "".join(f"{item}\n" for item in range(2000))


@pytest.mark.parametrize("how", ["append", "remove"])
def test_a_file_that_others_touch(driver: Driver, path: Path, how: str) -> None:
    """Somebody else's bytes in the file, or its removal, stop the loop; once it is as it was, it goes on."""

    def body(meddling: bool) -> None:
        with resumable.open(path) as file:
            for item in driver.items(range(1000), name="loop"):
                file.write(f"{item}\n")
                if meddling and item == 500:
                    path.rename(path.with_name("aside"))
                    if how == "append":
                        path.with_name("aside").rename(path)
                        with open(path, "a") as other:
                            other.write("foreign")

    with pytest.raises(OutputError, match="somebody else writes" if how == "append" else "removed or replaced"):
        body(True)
    if how == "remove":
        path.with_name("aside").rename(path)
    body(False)
    assert path.read_text() == "".join(f"{item}\n" for item in range(1000))


def test_a_file_that_is_there_already(driver: Driver, path: Path) -> None:
    """With "x" a file that stands there before the loop begins is a FileExistsError, and stays as it is."""
    path.write_text("old")
    with pytest.raises(FileExistsError), resumable.open(path, "x") as file:
        write_all(driver, file, range(2))
    with pytest.raises(FileExistsError), resumable.open(path, "x") as file:
        file.write("new")
    assert (path.read_text(), os.listdir(path.parent).count(path.name)) == ("old", 1)


def test_a_file_that_somebody_made_meanwhile(driver: Driver, path: Path) -> None:
    """With "x" a file that appears where the loop has written none yet is not written over."""
    with pytest.raises(Gone), resumable.open(path, "x") as file:
        write_all(driver, file, range(3), at=1)
    path.unlink(missing_ok=True)
    path.write_text("foreign")
    with pytest.raises(OutputError), resumable.open(path, "x") as file:
        write_all(driver, file, range(3))
    assert path.read_text() == "foreign"
