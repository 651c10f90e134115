"""Live resources in the states of real runs: what comes back to the job, and what reports show of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import resumable
from resumable import Driver, ReconnectError, StoredResource, checkpoint


class Crash(Exception):
    """Ends a job in the middle."""


def write_lines(path: Path, n: int, stop: int, state: Any = None) -> Iterator[Any]:
    """Writes the numbers up to n; the file is in the state."""
    done, file = state or (0, path.open("w"))
    with file:
        while done < n:
            file.write(f"{done}\n")
            done += 1
            yield checkpoint((done, file))
            if done == stop:
                file.write("after the checkpoint\n")
                file.flush()
                raise Crash


def lines(n: int) -> str:
    return "".join(f"{i}\n" for i in range(n))


def test_a_file_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    """Lines written after the last checkpoint do not appear twice, however often the job stops."""
    path = tmp_path / "out"
    with Driver(tmp_path / "state") as driver:
        for stop in (3, 4, 7):
            with pytest.raises(Crash):
                driver.run(write_lines, path, 10, stop, name="w", on_change="continue")
        driver.run(write_lines, path, 10, 99, name="w", on_change="continue")
    assert path.read_text() == lines(10)


def test_reports_leave_a_running_jobs_file_alone(tmp_path: Path) -> None:
    """While a job runs, every report on it shows its open file as a StoredResource and does not open, cut or move it."""
    path = tmp_path / "out"
    seen: list[Any] = []

    def job(state: Any = None) -> Iterator[Any]:
        with path.open("w") as file:
            file.write("saved")
            yield checkpoint({"file": file}, result=file)
            file.write(", and more")
            file.flush()
            with Driver(tmp_path / "state") as other:
                seen.extend([other.state("w"), other.history("w")[-1].state, other.results("w")[0]])
                seen.append(other.failure("w"))
            assert path.read_text() == "saved, and more"

    with Driver(tmp_path / "state") as driver:
        driver.run(job, name="w")
    shown = seen[0]["file"]
    assert isinstance(shown, StoredResource)
    assert shown.type_name == "_io.TextIOWrapper"
    assert shown.description["path"] == str(path)
    assert seen[1:3] == [{"file": shown}, shown]


def test_an_unavailable_resource_leaves_the_checkpoint(tmp_path: Path) -> None:
    """If a database is gone the run says so, by place and path, each time, and goes on once it is back."""
    path, aside = tmp_path / "a.db", tmp_path / "aside.db"

    def job(state: Any = None) -> Iterator[Any]:
        if state is None:
            with closing(sqlite3.connect(path)) as connection:
                yield checkpoint({"n": 1, "db": connection})
                raise Crash
        state["db"].close()
        return state["n"]

    with Driver(tmp_path / "state") as driver:
        with pytest.raises(Crash):
            driver.run(job, name="w")
        path.rename(aside)
        for _ in range(2):
            with pytest.raises(ReconnectError, match=r'state\["db"\].*a.db') as caught:
                driver.run(job, name="w")
            assert "run 'w' is safe at checkpoint 1" in "".join(caught.value.__notes__)
        aside.rename(path)
        assert driver.run(job, name="w") == 1


class Feed:
    """A live thing that can only be made inside a loop."""

    def __init__(self, at: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.at = at


async def reopen(description: int) -> Feed:
    await asyncio.sleep(0)
    return Feed(description)


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> None:
    from resumable.values import registry

    fresh = registry.Registry()
    fresh.register(Feed, lambda feed: feed.at, reopen)
    monkeypatch.setattr(registry.GLOBAL, "_handlers", fresh._handlers)
    registry.GLOBAL._forget()


@pytest.mark.usefixtures("feeds")
@pytest.mark.parametrize("how", ["generator", "coroutine"])
def test_a_coroutine_reconnects_under_arun(tmp_path: Path, how: str) -> None:
    """Async jobs get resources that a coroutine rebuilt in their own loop."""

    async def generator(out: list[Any], state: Any = None) -> AsyncIterator[Any]:
        feed = state or Feed(0)
        assert feed.loop is asyncio.get_running_loop()
        feed.at += 1
        yield checkpoint(feed)
        if feed.at < 3:
            raise Crash
        out.append(feed.at)

    async def coroutine(out: list[Any], state: Any = None) -> None:
        feed = state or Feed(0)
        assert feed.loop is asyncio.get_running_loop()
        feed.at += 1
        await checkpoint(feed)
        if feed.at < 3:
            raise Crash
        out.append(feed.at)

    out: list[Any] = []
    job: Any = generator if how == "generator" else coroutine
    with Driver(tmp_path) as driver:
        for _ in range(2):
            with pytest.raises(Crash):
                asyncio.run(driver.arun(job, out, name="w"))
        asyncio.run(driver.arun(job, out, name="w"))
    assert out == [3]


@pytest.mark.usefixtures("feeds")
def test_a_coroutine_cannot_reconnect_under_run(tmp_path: Path) -> None:
    """A plain job that holds what only a coroutine can rebuild is told to use arun, and its checkpoint stays."""

    def job(state: Any = None) -> Iterator[Any]:
        assert state is None
        yield checkpoint([asyncio.run(reopen(1))])
        raise Crash

    with Driver(tmp_path) as driver:
        with pytest.raises(Crash):
            driver.run(job, name="w")
        with pytest.raises(ReconnectError, match=r"state\[0\].*under `arun`"):
            driver.run(job, name="w")
        assert driver.info("w").seq == 1


def test_two_references_come_back_as_one(tmp_path: Path) -> None:
    """A connection that stands in a state twice is one connection after resuming."""

    def job(state: Any = None) -> Iterator[Any]:
        if state is None:
            connection = sqlite3.connect(tmp_path / "a.db")
            yield checkpoint([connection, {"again": connection}])
            connection.close()
            raise Crash
        first, second = state[0], state[1]["again"]
        first.close()
        return first is second

    with Driver(tmp_path / "state") as driver:
        with pytest.raises(Crash):
            driver.run(job, name="w")
        assert driver.run(job, name="w") is True


def test_the_public_list_says_what_is_covered() -> None:
    """`resumable.reconnectors()` names the seed's four types."""
    names = {it.type_name for it in resumable.reconnectors()}
    assert {"sqlite3.Connection", "socket.socket", "requests.sessions.Session", "_io.TextIOWrapper"} <= names


def test_a_finished_runs_file_is_not_cut(tmp_path: Path) -> None:
    """A value that holds an open file is given back as it was; if the file has grown since, it is an error, not cut."""
    path = tmp_path / "out"

    def job(state: Any = None) -> Iterator[Any]:
        file = path.open("w")
        file.write("finished\n")
        yield checkpoint(1)
        return file

    with Driver(tmp_path / "state") as driver:
        driver.run(job, name="w", once=True).close()
        driver.run(job, name="w", once=True).close()
        assert path.read_text() == "finished\n"
        with path.open("a") as other:
            other.write("later\n")
        with pytest.raises(ReconnectError, match="grew"):
            driver.run(job, name="w", once=True)
    assert path.read_text() == "finished\nlater\n"
