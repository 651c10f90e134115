"""Files that loops write: to which loop a file belongs, what of it is there after a failure, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import resumable
from resumable import (
    Driver,
    LiveResourceError,
    RunLockedError,
    UnmarkedItemsWarning,
    checkpoint,
    csv_writer,
    jsonl_writer,
)


class Fall(Exception):
    """Stands for a crash of the body."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


stop: dict[str, int] = {}       # a global: what a function's closure holds is part of its run's identity


def line(number: int) -> str:
    return f"{number}: " + "x" * (number * 37 % 300) + "\n"


def until_it_is_done(body: Callable[[int], object], count: int) -> None:
    """Call a body that is to fail at each of `count` places, once at each, and then not any more."""
    for at in range(count):
        with pytest.raises(Fall):
            body(at)
    body(-1)


# ---- what is in the file


@pytest.mark.parametrize("mode", ["w", "x", "a"])
def test_each_line_is_there_once(driver: Driver, path: Path, mode: Any) -> None:
    """A loop that fails at each item in turn, before and after it writes, leaves the file of one that did not."""
    before = "old\n" if mode == "a" else ""
    if mode == "a":
        path.write_text(before)
    elif mode == "w":
        path.write_text("to go" * 1000)

    def body(at: int) -> None:
        with resumable.open(path, mode) as file:
            file.write("head\n")
            for item in driver.items(range(40), name="loop"):
                if 2 * item == at:
                    raise Fall
                file.write(line(item))
                if 2 * item + 1 == at:
                    raise Fall
            file.write("foot\n")

    until_it_is_done(body, 80)
    assert path.read_text() == before + "head\n" + "".join(map(line, range(40))) + "foot\n"


def test_a_file_shows_what_is_done(driver: Driver, path: Path) -> None:
    """When a loop is left, the file has what the items wrote that are done, and nothing of the one at hand."""
    with resumable.open(path) as file:
        for item in driver.items(range(10), name="loop"):
            file.write(line(item))
            if item == 5:
                break
        assert path.read_text() == "".join(map(line, range(5)))
        file.write("so far\n")
    assert path.read_text() == "".join(map(line, range(5))) + "so far\n"
    with resumable.open(path) as file:
        for item in driver.items(range(10), name="loop"):
            file.write(line(item))
    assert path.read_text() == "".join(map(line, range(10)))


def test_nothing_is_touched_before_an_item_is_done(driver: Driver, path: Path) -> None:
    """An old file stands as it was when the first item fails, and when the call itself is refused."""
    path.write_text("old")

    def body() -> None:
        with resumable.open(path, "w") as file:
            file.write("head\n")
            for _ in driver.items(range(3), name="loop"):
                file.write("new")
                raise Fall

    with pytest.raises(Fall):
        body()
    assert path.read_text() == "old"
    for _ in driver.items(range(3), name="held"):
        with resumable.open(path, "w"), pytest.raises(RunLockedError):
            for _ in driver.items(range(3), name="held"):
                pass
        break
    assert path.read_text() == "old"


def test_a_finished_loop_leaves_its_file(driver: Driver, path: Path) -> None:
    """With `once` a finished loop's file stays as it is, header and footer included; without, it begins anew."""
    for once, expected in ((False, "head0foot"), (True, "head0foot"), (False, "head0foot")):
        with resumable.open(path) as file:
            file.write("head")
            for item in driver.items(range(1), name="loop", once=once):
                file.write(str(item))
            file.write("foot")
        assert path.read_text() == expected


def test_no_items(driver: Driver, path: Path) -> None:
    """A loop over nothing makes the file, with what was written around it."""
    with resumable.open(path) as file:
        file.write("head\n")
        for _ in driver.items([], name="none"):
            pass
        file.write("foot\n")
    assert path.read_text() == "head\nfoot\n"


def test_a_decorated_function(driver: Driver, path: Path) -> None:
    """In a decorated function what is written behind the loop, or before `break`, is there once when that has returned."""

    @resumable.loop(driver=driver, name="decorated")
    def export(items: Any) -> None:
        at = stop["at"]
        with resumable.open(path) as file:
            file.write("head\n")
            for item in items:
                file.write(line(item))
                if item == at:
                    raise Fall
                if item == 20:
                    break
            file.write("foot\n")
            if at == 21:
                raise Fall

    for at in (0, 5, 15, 20, 21):
        stop["at"] = at
        with pytest.raises(Fall):
            export(range(30))
    stop["at"] = -1
    export(range(30))
    assert path.read_text() == "head\n" + "".join(map(line, range(21))) + "foot\n"


def test_two_files_and_a_state(driver: Driver, tmp_path: Path) -> None:
    """Several files, `items.state` and results are all as far as the loop is."""

    def body(at: int) -> None:
        items = driver.items(range(50), name="loop")
        with resumable.open(tmp_path / "a") as a, resumable.open(tmp_path / "b", "wb") as b:
            state = items.state(total=0)
            for item in items:
                a.write(line(item))
                b.write(bytes([item]) * item)
                state.total += item
                if item % 3 == 0:
                    items.record(item)
                if item == at:
                    raise Fall
                a.writelines(["+", "\n"])
            assert state.total == sum(range(50))

    until_it_is_done(body, 50)
    assert (tmp_path / "a").read_text() == "".join(line(item) + "+\n" for item in range(50))
    assert (tmp_path / "b").read_bytes() == b"".join(bytes([item]) * item for item in range(50))
    assert list(driver.results("loop")) == list(range(0, 50, 3))


@pytest.mark.parametrize("sparing", [1, 7])
def test_batches_and_rare_marks(make: Callable[..., Driver], path: Path, sparing: int) -> None:
    """The bytes of a batch are there together, and with `save_every` those of all items since the last mark that was saved."""
    driver = make(save_every=sparing)

    def body(at: int) -> None:
        with resumable.open(path) as file:
            for batch in driver.items(range(50), name="loop").batches(3):
                for item in batch:
                    file.write(line(item))
                    if item == at:
                        raise Fall

    for at in range(0, 50, 4):
        with pytest.raises(Fall):
            body(at)
    body(-1)
    assert path.read_text() == "".join(map(line, range(50)))


def test_large_items(driver: Driver, path: Path) -> None:
    """Items that write more than a record can hold are there once."""

    def body(at: int) -> None:
        with resumable.open(path) as file:
            for item in driver.items(range(6), name="loop"):
                file.write(str(item) * 3_000_000)
                if item == at:
                    raise Fall

    until_it_is_done(body, 6)
    assert path.read_text() == "".join(str(item) * 3_000_000 for item in range(6))


def test_a_restart_begins_the_file_anew(driver: Driver, path: Path) -> None:
    """With other items and on_change="restart" the file is that of the new items, its header included."""
    for items, at in ((range(9), 5), (range(20, 29), -1)):
        try:
            with resumable.open(path) as file:
                file.write("head\n")
                for item in driver.items(items, name="loop", on_change="restart"):
                    file.write(line(item))
                    if item == at:
                        raise Fall
        except Fall:
            pass
    assert path.read_text() == "head\n" + "".join(map(line, range(20, 29)))


def test_an_unmarked_loop(driver: Driver, path: Path) -> None:
    """What a consumer writes that marks nothing is in the file at its end, as a whole."""
    with resumable.open(path) as file, pytest.warns(UnmarkedItemsWarning):
        list(map(file.write, map(line, driver.items(range(5), name="loop"))))
    assert path.read_text() == "".join(map(line, range(5)))


def test_failed_attempts(driver: Driver, path: Path) -> None:
    """What an attempt has written that failed is dropped, in a loop that is left by it and in one that goes on."""

    def body(at: int) -> None:
        with resumable.open(path) as file:
            file.write("head\n")
            items = driver.items(range(30), name="loop", max_attempts=3)
            for item in items:
                if item % 5 == 2:
                    file.write("of the item\n")
                with items.attempt():
                    file.write(line(item))
                    tried.append(item)
                    if item % 7 == 0 and tried.count(item) < 3:
                        raise Fall
                    if item == 11:
                        raise Fall
                if item == at:
                    raise KeyboardInterrupt

    tried: list[int] = []
    for at in (0, 7, 20):
        with pytest.raises(KeyboardInterrupt):
            body(at)
    body(-1)
    assert path.read_text() == "head\n" + "".join(
        ("of the item\n" if item % 5 == 2 else "") + line(item) for item in range(30) if item != 11
    )
    assert [letter.index for letter in driver.dead_letters("loop")] == [11]


def test_done_again(driver: Driver, path: Path) -> None:
    """Dead letters that are done again write behind what is there, and what stands behind the loop is there once."""
    for stays in (True, False):
        with resumable.open(path) as file:
            file.write("head ")
            items = driver.items(range(5), name="loop", max_attempts=1)
            for item in items:
                with items.attempt():
                    file.write(f"{item} ")
                    if item == 2 and stays:
                        raise Fall
            file.write("foot")
        if stays:
            assert path.read_text() == "head 0 1 3 4 foot"
            assert driver.retry_dead_letters("loop") == 1
    assert path.read_text() == "head 0 1 3 4 2 foot"


def test_async_items(driver: Driver, path: Path) -> None:
    """In an async function, too, each item's bytes are there once."""

    async def source() -> Any:
        for number in range(30):
            await asyncio.sleep(0)
            yield number

    async def body(at: int) -> None:
        with resumable.open(path) as file:
            async for item in driver.items(source(), name="loop"):
                file.write(line(item))
                if item == at:
                    raise Fall

    until_it_is_done(lambda at: asyncio.run(body(at)), 30)
    assert path.read_text() == "".join(map(line, range(30)))


# ---- text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig", "latin-1", "utf-32-be"])
@pytest.mark.parametrize("newline", [None, "", "\r\n"])
def test_encodings(driver: Driver, path: Path, encoding: str, newline: str | None) -> None:
    """Whatever the encoding and the ends of lines, the file is what the builtin `open` writes."""
    rows = ["plain\n", "é\n", "", "a\nb\n", "ÿ" * 500 + "\n"] * 4

    def body(at: int) -> None:
        with resumable.open(path, encoding=encoding, newline=newline) as file:
            for index, row in driver.items(list(enumerate(rows)), name="rows"):
                assert file.write(row) == len(row)
                if index == at:
                    raise Fall

    until_it_is_done(body, len(rows))
    with open(path.with_name("plain"), "w", encoding=encoding, newline=newline) as plain:
        plain.writelines(rows)
    assert path.read_bytes() == path.with_name("plain").read_bytes()


def test_append_writes_no_second_mark(driver: Driver, path: Path) -> None:
    """A file of UTF-16 that is appended to has its byte order mark at its beginning alone."""
    for name in ("a", "b"):
        with resumable.open(path, "a", encoding="utf-16") as file:
            for item in driver.items(range(2), name=name):
                file.write(str(item))
    assert path.read_bytes().decode("utf-16") == "0101"


def test_what_writes_into_files(driver: Driver, path: Path) -> None:
    """`print`, `json.dump` and `csv` write into it as into any file."""
    with resumable.open(path) as file:
        for item in driver.items([{"a": 1}], name="loop"):
            print(item, "é", file=file, flush=True)
            json.dump(item, file)
        assert (file.name, file.mode, file.encoding, file.closed) == (str(path), "w", "utf-8", False)
    assert file.closed
    assert path.read_text() == "{'a': 1} é\n" + '{"a": 1}'


def test_wrong_types(driver: Driver, path: Path) -> None:
    """Bytes for text and text for bytes are a TypeError, what cannot be encoded a UnicodeError, and nothing of it is written."""
    with resumable.open(path, encoding="ascii") as file, resumable.open(path.with_name("b"), "wb") as raw:
        for _ in driver.items(range(2), name="loop"):
            file.write("1")
            with pytest.raises(TypeError):
                file.write(b"2")
            with pytest.raises(UnicodeEncodeError):
                file.write("é")
            with pytest.raises(TypeError):
                raw.write("3")
            assert raw.write(memoryview(b"45")) == 2
    assert (path.read_text(), path.with_name("b").read_text()) == ("11", "4545")
    with pytest.raises(ValueError, match="closed"):
        file.write("late")


# ---- rows


def test_csv_rows_are_there_once(driver: Driver, path: Path) -> None:
    """A CSV file written in a loop has its header and each row once, also with "a" on an old one."""

    def body(at: int) -> None:
        with csv_writer(path, header=["n", "naïve"], mode="a") as writer:
            for item in driver.items(range(60), name="loop"):
                writer.writerow({"naïve": "ü, x" * 5, "n": item} if item % 2 else [item, "a\nb"])
                if item == at:
                    raise Fall

    until_it_is_done(body, 60)
    rows = ['{},"{}"\r\n'.format(n, "ü, x" * 5 if n % 2 else "a\nb") for n in range(60)]
    assert path.read_bytes().decode() == "n,naïve\r\n" + "".join(rows)
    with pytest.raises(ValueError, match="begins with the header"), csv_writer(path, header=["m"], mode="a"):
        for _ in driver.items(range(60), name="other"):
            pass


def test_a_csv_file_of_a_loop_is_no_state(driver: Driver, path: Path) -> None:
    """A state cannot hold what a loop writes, and says so."""

    def body() -> None:
        with csv_writer(path) as writer:
            items = driver.items(range(2), name="loop")
            items.state(writer=writer)
            for item in items:
                writer.writerow([item])

    with pytest.raises(LiveResourceError, match="a loop writes it"):
        body()


def test_a_csv_file_in_a_job(driver: Driver, path: Path) -> None:
    """In a job that holds no file in its state a writer does not keep all rows in memory."""

    def job(state: int = 0) -> Iterator[Any]:
        with csv_writer(path, header=["n"]) as writer:
            for item in range(10_000):
                writer.writerow([f"{item:30}"])
            assert path.stat().st_size > 100_000
            yield checkpoint(1)

    driver.run(job, name="job")
    assert len(path.read_text().splitlines()) == 10_001


def test_json_lines(driver: Driver, path: Path) -> None:
    """Each item's values are one line each, once; what JSON cannot hold is refused with nothing written."""

    def body(at: int) -> None:
        with jsonl_writer(path, default=str) as writer:
            for item in driver.items(range(40), name="loop"):
                writer.write({"n": item, "text": "é\n" * 9, "path": Path("x")})
                if item == at:
                    raise Fall

    until_it_is_done(body, 40)
    with open(path, encoding="utf-8") as file:
        assert [json.loads(row) for row in file] == [{"n": n, "text": "é\n" * 9, "path": "x"} for n in range(40)]
    with jsonl_writer(path) as writer, pytest.raises(TypeError):
        writer.write({1, 2})
    assert (writer.closed, writer.name, path.read_text()) == (True, str(path), "")
    with pytest.raises(ValueError, match="mode"):
        jsonl_writer(path, mode="wb")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [csv_writer, jsonl_writer])
def test_rows_go_to_a_path(path: Path, make: Any) -> None:
    """Whoever gives an open file for rows is told that it is opened for him, and the file stays as it is."""
    with open(path, "w") as file:
        with pytest.raises(TypeError, match="opened here"):
            make(file)
        file.write("mine")
    assert path.read_text() == "mine"
