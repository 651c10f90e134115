"""Wrong calls: mypy --strict and pyright must each find every line marked `# wrong`, and no other.

One mistake neither can see: an extra argument of just the type of a `state` that may also be given by position. The
driver refuses that when it is called (StateParameterError).
"""

from functools import partial

from resumable import AsyncJob, Driver, Job, checkpoint, driver, resource


def keyword(paths: list[str], *, state: int = 0) -> Job[int, str]:
    yield checkpoint("x")  # wrong
    yield state  # wrong
    return "x"


def positional(paths: list[str], state: int = 0) -> Job[int, str]:
    yield checkpoint(state)
    return 1  # wrong


def bare(*, state: int | None = None) -> Job[int | None, float]:
    yield checkpoint(state)
    return 1.0


def plain(paths: list[str], state: int = 0) -> list[int]:
    return [state]


class Steps:
    def method(self, count: int, state: int = 0) -> Job[int, bytes]:
        yield checkpoint(state)
        return b""


async def stream(url: str, *, state: int = 0) -> AsyncJob[int]:
    yield checkpoint(state)


async def request(url: str, *, state: int = 0) -> float:
    await checkpoint(state)
    return 1.0


def injected(count: int, db: dict[str, int] = resource("db"), state: int = 0) -> Job[int, int]:
    yield checkpoint(state)
    return db[count]  # wrong


d = Driver()

# A wrong argument.
d.run(keyword, "a")  # wrong
d.run(positional, 3)  # wrong
d.run(Steps().method, "x")  # wrong
d.run(partial(positional, 3))  # wrong

# A missing one.
d.run(keyword)  # wrong
d.run(positional)  # wrong
driver.run(Steps().method)  # wrong

# An extra one.
d.run(bare, 1)  # wrong
d.run(keyword, ["a"], 1)  # wrong
d.run(positional, ["a"], "x")  # wrong
d.run(positional, ["a"], 1, 2)  # wrong

# A resource.
d.run(injected)  # wrong
d.run(injected, 1, "x")  # wrong
d.run(injected, db={})  # wrong
resource(1)  # wrong
Driver(resources={"db": 5})  # wrong
Driver(resources={1: dict})  # wrong
Driver(resources={"db": len})  # wrong
d.register_reconnector(5)  # wrong

# Keywords.
driver.run(bare, unknown=1)  # wrong
d.run(keyword, paths=["a"])  # wrong
d.run(bare, name=1)  # wrong
d.run(bare, on_change="ignore")  # wrong
Driver(durability="none")  # wrong
Driver("state", "disk")  # wrong

# Not what `run` or `arun` takes.
d.run(plain, ["a"])  # wrong
d.run(stream, "a")  # wrong
d.run(request, "a")  # wrong
d.run(bare())  # wrong
number: int = d.run(bare)  # wrong


async def main() -> None:
    await d.arun(bare)  # wrong
    await d.arun(stream)  # wrong
    await d.arun(stream, 1)  # wrong
    await d.arun(request, "a", "b")  # wrong
    await d.arun(request, unknown=1)  # wrong
    text: str = await d.arun(request, "a")  # wrong
    print(text)


# A checkpoint cannot be changed.
checkpoint(1).state = 2  # wrong

# A loop has a name, and its items come from something.
driver.items([1, 2])  # wrong
driver.items(3, name="three")  # wrong

# So has a map, and its function takes one of its items.
driver.map(len, ["a"])  # wrong
driver.map(len, [1], name="ints")  # wrong

# Keys are hashable.
driver.seen("mails").mark([1])  # wrong
