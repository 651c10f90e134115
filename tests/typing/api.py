"""Right calls, as users write them: checked by mypy --strict and pyright, never run."""

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Literal, assert_type

import resumable
from resumable import (
    AsyncJob,
    Checkpoint,
    DeadLetter,
    Driver,
    Failure,
    Items,
    Job,
    LoopState,
    Measurement,
    ProgressInfo,
    Reconnector,
    Results,
    RunInfo,
    SeenKeys,
    StateRecord,
    checkpoint,
    driver,
    idempotent,
    measure,
    register_reconnector,
    resource,
    skip_if_exists,
)
from resumable.backoff import constant, exponential


def totals(paths: Sequence[str], *, state: tuple[int, float] = (0, 0.0)) -> Job[tuple[int, float], float]:
    done, total = state
    for path in paths[done:]:
        done, total = done + 1, total + len(path)
        yield checkpoint((done, total), result=path)
    return total


def positional(paths: list[str], limit: int = 10, state: int | None = None) -> Job[int | None, str]:
    yield checkpoint(state)
    yield checkpoint()
    return paths[limit]


def bare(state: int = 0) -> Job[int, None]:
    yield checkpoint(state + 1)


class Steps:
    def method(self, count: int, state: int = 0) -> Job[int, bytes]:
        yield checkpoint(state)
        return bytes(count)

    def __call__(self, count: int, *, state: int = 0) -> Job[int, bytes]:
        yield checkpoint(state)
        return bytes(count)


async def stream(url: str, *, state: int = 0) -> AsyncJob[int]:
    yield checkpoint(state)


async def request(url: str, state: int = 0) -> float:
    await checkpoint(state)
    return 1.0


d = Driver("state", durability="disk", sync_every=0.5, save_every=2, keep_states=None, rng=True, preempt=True)

assert_type(d.run(totals, ["a"]), float)
assert_type(d.run(totals, ("a", "b"), name="prices", fresh=True), float)
assert_type(d.run(positional, ["a"]), str)
assert_type(d.run(positional, ["a"], 3), str)
assert_type(d.run(positional, ["a"], 3, once=True, on_change="continue"), str)
assert_type(driver.run(Steps().method, 3), bytes)
assert_type(driver.run(Steps(), 3), bytes)
d.run(bare, version=2, migrate={1: lambda old: old + 1})
d.run(partial(totals, ["a"]))
d.run(partial(positional, limit=3), ["a"])
assert_type(d.interleave([bare, bare]), list[None])


async def main() -> None:
    await d.arun(stream, "http://example.org")
    assert_type(await d.arun(request, "http://example.org", name="one"), float)


with d.batch("nightly"):
    d.run(bare)

assert_type(d.runs(), list[RunInfo])
assert_type(d.info("prices"), RunInfo)
assert_type(d.info(totals, run=3).seq, int)
assert_type(d.history(totals), list[StateRecord])
assert_type(d.results("prices"), Results)
assert_type(d.failure("prices"), Failure | None)
assert_type(d.clear(totals), int)
assert_type(measure((1, "a")), Measurement)



def made(number: int, text: str) -> None:
    assert_type(checkpoint((number, text)), Checkpoint[tuple[int, str]])


assert_type(checkpoint(), Checkpoint[None])
assert_type([each.state for each in bare()], list[int])


class Connection:
    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def close(self) -> None: ...


def connect() -> Connection:
    return Connection("db")


async def connect_in_loop() -> Connection:
    return Connection("db")


@contextmanager
def connected() -> Generator[Connection, None, None]:
    yield Connection("db")


@asynccontextmanager
async def connected_in_loop() -> AsyncGenerator[Connection, None]:
    yield Connection("db")


def rows(paths: list[str], db: Connection = resource("db"), state: int = 0) -> Job[int, str]:
    yield checkpoint(state)
    return db.dsn


def rows_by_keyword(paths: list[str], *, db: Connection = resource("db"), state: int = 0) -> Job[int, str]:
    yield checkpoint(state)
    return db.dsn


async def rows_in_loop(paths: list[str], db: Connection = resource("db"), state: int = 0) -> AsyncJob[int]:
    yield checkpoint(state)


async def row_in_loop(path: str, db: Connection = resource("db"), state: int = 0) -> bytes:
    await checkpoint(state)
    return b""


class WithResource:
    def method(self, count: int, db: Connection = resource("db"), state: int = 0) -> Job[int, bytes]:
        yield checkpoint(state)
        return bytes(count)


injecting = Driver(resources={"db": connect})
Driver(resources={"db": connect_in_loop, "cm": connected, "acm": connected_in_loop})
assert_type(injecting.run(rows, ["a"]), str)
assert_type(injecting.run(rows, ["a"], Connection("mine")), str)
assert_type(injecting.run(rows_by_keyword, ["a"], name="a", once=True), str)
assert_type(injecting.run(WithResource().method, 3), bytes)
injecting.run(partial(rows, db=Connection("mine")), ["a"])
assert_type([made.state for made in rows(["a"], Connection("mine"))], list[int])


async def in_loop() -> None:
    await injecting.arun(rows_in_loop, ["a"])
    assert_type(await injecting.arun(row_in_loop, "a"), bytes)


def dsn_of(connection: Connection) -> str:
    return connection.dsn


register_reconnector(Connection, extract=dsn_of, reconnect=Connection)
injecting.register_reconnector(Connection, extract=dsn_of, reconnect=Connection, eager=False)
assert_type(injecting.reconnectors(), list[Reconnector])


def wider(job: Checkpoint[object]) -> Any:
    return job.state


wider(checkpoint(1))


pairs = driver.items([(1, "a"), (2, "b")], name="pairs", once=True, on_change="continue")


def size(name: str) -> int:
    return len(name)


async def fetch(url: str) -> bytes:
    return url.encode()


assert_type(driver.map(size, ["a"], name="sizes", executor=2, max_attempts=3), Sequence[int])
assert_type(driver.map(fetch, ["u"], name="pages", concurrency=4), Sequence[bytes])
sizes = driver.map_unordered(size, ["a"], name="sizes", on_error=lambda item, error, attempt: "skip")
assert_type(next(sizes), int)


async def fetched() -> None:
    assert_type(await driver.amap(fetch, ["u"], name="pages"), Sequence[bytes])
    async for page in driver.amap_unordered(fetch, ["u"], name="pages"):
        assert_type(page, bytes)


shown = driver.items([1], name="shown", progress=lambda info: print(info.eta), verbose=True)
assert_type(shown.progress(), ProgressInfo)
assert_type(shown.progress().rate, float | None)
assert_type(pairs, Items[tuple[int, str]])
with pairs.state(total=0) as carried:
    assert_type(carried, LoopState)
    for number, text in pairs:
        carried.total += number
        pairs.record(text)
for batch in pairs.batches(2):
    assert_type(batch, list[tuple[int, str]])
assert_type(pairs.total, int | None)


def decide(item: tuple[int, str], error: Exception, attempt: int) -> Literal["retry", "skip"]:
    return "skip" if attempt > 1 else "retry"


tried = driver.items([(1, "a")], name="tried", max_attempts=3, on_error=decide, backoff=exponential(1, longest=60))
for number, _ in tried:
    with tried.attempt():
        assert_type(number, int)


async def tried_in_loop() -> None:
    for _ in tried:
        async with tried.attempt():
            pass


assert_type(driver.dead_letters("tried", run=1), list[DeadLetter])
assert_type(driver.dead_letters("tried")[0].attempts, int)
assert_type(driver.retry_dead_letters("tried"), int)
assert_type(constant(1)(1), float)

with resumable.open("lines.txt", "a", newline="\n") as lines, resumable.csv_writer("rows.csv", header=["n"]) as sheet:
    for place in driver.items(range(3), name="files"):
        written: int = lines.write(f"{place}\n")
        print(place, file=lines)
        sheet.writerow({"n": place})
raw: resumable.OutputFile = resumable.open("raw", "wb")
resumable.jsonl_writer("values.jsonl", default=str).write({"n": 1})

with driver.transaction(Connection(""), Connection("")):
    assert_type(pairs.idempotency_key(), str)
with driver.seen("mails") as seen:
    assert_type(seen, SeenKeys)
    seen.mark(("a", 1))
    assert_type("a" in seen, bool)


def downloaded(path: str, size: int) -> bytes | None: ...


@idempotent(check=downloaded)
def download(path: str, size: int) -> bytes:
    return path.encode() * size


assert_type(download("a", size=2), bytes)
assert_type(skip_if_exists("a"), bool)
