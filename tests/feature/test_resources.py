"""Injected resources: a Driver's factories fill the parameters that a job marks, and nothing of it is stored."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import pickle
import signal
import sqlite3
import sys
import threading

import pytest
from injecting import Closable, closables, events, job

from resumable import Driver, checkpoint, resource
from resumable.errors import (
    NotDurableWarning,
    NoValueError,
    ReconnectError,
    ResourceNotGivenError,
    ResourceParameterError,
    RunLockedError,
    UnknownResourceError,
)

CANARY = "hunter2-c4nary"
pytestmark = pytest.mark.usefixtures("no_events")


# ---- what is filled


class Steps:
    def method(self, n, db=resource("db"), state=0):
        yield checkpoint(n)
        return db

    def __call__(self, n, *, db=resource("db"), state=0):
        yield checkpoint(n)
        return db


def keywords_only(*numbers, db=resource("db"), state=0):
    yield checkpoint(numbers)
    return db


def decorated_by(function):
    @functools.wraps(function)
    def wrapper(*args, **keywords):
        return function(*args, **keywords)

    return wrapper


renamed = functools.partial(job, db=resource("other"))
JOBS = [job, Steps().method, Steps(), keywords_only, functools.partial(job), decorated_by(job), renamed]


@pytest.mark.parametrize("form", range(len(JOBS)))
def test_every_form_of_job_is_filled(make, form):
    """Functions, methods, callable objects, partials and decorated functions get what the factory made, and it is closed."""
    driver = make(resources={**closables("db"), "other": Closable})
    assert isinstance(driver.run(JOBS[form], 3, name="a"), Closable)
    assert events == ["open db", "close db"]


def test_a_partial_may_mark_another_resource(make):
    """A mark that a partial binds takes the place of the job's own, and is no argument either."""
    driver = make(resources={"other": Closable})
    driver.run(renamed, 3)
    assert driver.info(renamed).name == driver.info(functools.partial(job, db=resource("other"))).name
    assert events == ["open db", "close db"]


def test_an_argument_of_the_call_wins(make):
    """What is given by position or bound by a partial is used, counts as an argument, and is not closed."""
    driver = make(resources=closables("db"))
    assert driver.run(job, 2, "by position") == "by position"
    assert driver.run(functools.partial(job, db="bound"), 2) == "bound"
    assert driver.run(functools.partial(job, 2, "bound by position")) == "bound by position"
    assert events == []
    assert len({info.name for info in driver.runs()}) == 3


def test_one_object_for_each_name_and_run(make):
    """Two parameters with one name share an object; another run gets another."""

    def twice(a=resource("db"), b=resource("db"), state=0):
        yield checkpoint(1)
        return a is b and a

    driver = make(resources=closables("db"))
    first, second = (driver.run(twice, name=name) for name in "ab")
    assert first
    assert first is not second
    assert events == ["open db", "close db"] * 2


async def stream(n, db=resource("db"), state=0):
    for i in range(state, n):
        yield checkpoint(i + 1)
    events.append(("streamed", type(db)))


async def request(n, db=resource("db"), state=0):
    await checkpoint(n)
    return db


def test_async_jobs_are_filled(make):
    """Async generators and coroutines get what the factory made, sync or async."""

    async def connect():
        await asyncio.sleep(0)
        return Closable()

    async def main():
        driver = make(resources={"db": connect})
        await driver.arun(stream, 2)
        assert isinstance(await driver.arun(request, 2), Closable)
        assert (await make(resources={"db": lambda: 5}).arun(request, 2, name="plain")) == 5

    asyncio.run(main())
    assert events == ["open db", ("streamed", Closable), "close db", "open db", "close db"]


def test_jobs_that_take_turns_have_their_own(make):
    """Interleaved jobs get a resource each, closed when that job ends, before it counts as finished."""
    driver = make(resources={"db": Closable})
    seen = []

    def turn(n, db=resource("db"), state=0):
        for i in range(n):
            seen.append((n, id(db), events.count("close db")))
            yield checkpoint(i)
        return id(db)

    ids = driver.interleave([functools.partial(turn, 1), functools.partial(turn, 3)])
    assert len(set(ids)) == 2
    assert [closed for n, _, closed in seen if n == 3] == [0, 1, 1]
    assert events == ["open db", "open db", "close db", "close db"]


def test_jobs_that_take_turns_are_closed_when_one_fails(make):
    """A failure of one interleaved job, also in its factory, closes the resources of all."""
    driver = make(resources={"db": Closable, "bad": lambda: 1 / 0})

    def fails(db=resource("db"), state=0):
        yield checkpoint(1)
        raise KeyError

    def never(bad=resource("bad"), state=0):
        yield checkpoint(1)

    for jobs in ([functools.partial(job, 3), fails], [functools.partial(job, 3), never]):
        with pytest.raises((KeyError, ZeroDivisionError)):
            driver.interleave(jobs)
        assert events.count("open db") == events.count("close db") > 0
    assert driver.failure(never).type == "ZeroDivisionError"
    assert driver.failure(fails).type == "KeyError"


# ---- when it is filled


def test_a_finished_value_is_given_back_without_a_resource(make):
    """once= and a batch that answer with a finished run's value call no factory; fresh= does."""
    driver = make(resources={"db": Closable})

    def value(db=resource("db"), state=0):
        yield checkpoint(1)
        return 7

    with driver.batch("nightly"):
        assert [driver.run(value, name="a"), driver.run(value, name="a")] == [7, 7]
    assert [driver.run(value, once=True), driver.run(value, once=True)] == [7, 7]
    assert events.count("open db") == 2
    driver.run(value, fresh=True)
    assert events.count("open db") == events.count("close db") == 3


def test_a_locked_run_calls_no_factory(make):
    """The lock comes first: a run that somebody holds opens no second connection."""
    driver = make(resources={"db": Closable})

    def nested(db=resource("db"), state=0):
        with pytest.raises(RunLockedError):
            driver.run(nested, name="a")
        yield checkpoint(1)

    driver.run(nested, name="a")
    assert events == ["open db", "close db"]


def test_resources_of_no_job_are_not_made(make):
    """A factory whose resource the job does not mark is never called."""
    driver = make(resources={"db": Closable, "unused": lambda: 1 / 0})
    driver.run(job, 1)
    assert events == ["open db", "close db"]


@pytest.mark.parametrize(("resources", "has"), [(None, "has no resources"), ({"log": print, "cache": dict}, "'cache', 'log'")])
def test_an_unknown_resource_is_refused_before_anything_is_made(state_dir, resources, has):
    """A mark that the Driver has no factory for is an error that names job, mark and ways out; no directory is made."""
    with Driver(state_dir, resources=resources) as driver:
        with pytest.raises(UnknownResourceError, match=r"resource\('db'\).*pass the argument") as caught:
            driver.run(job, 1)
        assert has in str(caught.value)
        assert (caught.value.parameter, caught.value.resource) == ("db", "db")
        assert caught.value.job.endswith(":job")
        with pytest.raises(UnknownResourceError):
            asyncio.run(driver.arun(request, 1))
        with pytest.raises(UnknownResourceError):
            driver.interleave([functools.partial(job, 1)])
    assert not state_dir.exists()


def marked_by_position(n, db=resource("db"), /, state=0):
    yield checkpoint(n)


def marked_state(state=resource("db")):
    yield checkpoint(state)


@pytest.mark.parametrize("wrong", [functools.partial(marked_by_position, 1), marked_state])
def test_marks_that_cannot_be_filled_are_refused(state_dir, wrong):
    """A mark on a positional-only parameter, or on `state`, is an error before anything is made."""
    with Driver(state_dir, resources={"db": Closable}) as driver, pytest.raises(ResourceParameterError, match="marked"):
        driver.run(wrong)
    assert not state_dir.exists()
    assert events == []


def test_a_positional_only_mark_that_is_given_is_fine(make):
    """Who gives the argument may mark what the Driver could not fill."""
    make(resources={"db": Closable}).run(marked_by_position, 1, "mine")
    assert events == []


class ReadyMade:
    def __call__(self):
        raise AssertionError

    def __enter__(self):
        raise AssertionError


@pytest.mark.parametrize("wrong", [[("db", print)], {"db": 5}, {1: print}, {"db": contextlib.nullcontext()}, {"db": ReadyMade()}])
def test_wrong_resources_are_refused_when_the_driver_is_made(wrong):
    """`resources` is a mapping of names to factories; anything else, also a ready connection, is a TypeError at once."""
    with pytest.raises(TypeError, match="resources"):
        Driver(resources=wrong)
    with pytest.raises(TypeError, match="resources"), contextlib.closing(sqlite3.connect(":memory:")) as connection:
        Driver(resources={"db": connection})
    with pytest.raises(TypeError, match="name"):
        resource(5)


# ---- without a driver

def enters_at_once(it):
    with it:
        pass


async def awaits(it):
    await it


async def enters(it):
    async with it:
        pass


async def iterates(it):
    async for _ in it:
        pass


USES = {
    "attribute": lambda db: db.execute,
    "setting": lambda db: setattr(db, "x", 1),
    "deleting": lambda db: delattr(db, "x"),
    "call": lambda db: db(),
    "iteration": list,
    "item": lambda db: db[0],
    "with": enters_at_once,
    "truth": bool,
    "length": len,
    "sum": lambda db: db + 1,
    "sum from the right": lambda db: 1 + db,
    "order": lambda db: db < 1,
    "in": lambda db: 1 in db,
    "int": int,
    "await": lambda db: asyncio.run(awaits(db)),
    "async with": lambda db: asyncio.run(enters(db)),
    "async for": lambda db: asyncio.run(iterates(db)),
}


@pytest.mark.parametrize("use", USES)
def test_using_a_mark_says_to_pass_the_resource(use):
    """Whatever a job that was called without a Driver does with its mark, the error says to pass the resource."""
    with pytest.raises(ResourceNotGivenError, match="pass the resource") as caught:
        USES[use](resource("db"))
    assert caught.value.resource == "db"


def test_a_mark_is_harmless_as_a_default():
    """A job can be called with the resource, inspected and pickled with its marks."""
    assert [made.state for made in job(2, "mine")] == [1, 2]
    assert "db=resource('db')" in str(inspect.signature(job))
    assert inspect.signature(job) == inspect.signature(job)
    assert repr(pickle.loads(pickle.dumps(resource("db")))) == "resource('db')"


# ---- nothing of it is stored


class Session:
    """A resource with a secret that pickle would take along."""

    def __init__(self):
        self.password = CANARY
        self.count = 0

    def __repr__(self):
        return f"Session({self.password})"


def stored(directory):
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


broken = True


def in_state(db=resource("db"), token=resource("token"), state=None):
    done, held = state or (0, db)
    assert held is db
    for i in range(done, 3):
        if i == 2 and broken:
            raise KeyError(i)
        yield checkpoint((i + 1, [db, db][0]), result={"used": db})
    return db


def test_nothing_of_a_resource_is_stored(disk, state_dir):
    """Neither the state, the results, the value, the arguments nor the failure of a job holds anything of its resources."""
    driver = Driver(state_dir, resources={"db": Session, "token": lambda: CANARY})
    with driver, pytest.raises(KeyError):
        driver.run(in_state)
    locals_ = disk.failure(in_state).locals
    assert locals_["db"].shown == "<resource 'db'>"
    assert (locals_["token"].type_name, locals_["token"].shown) == ("str", "<resource 'token'>")
    assert disk.info(in_state).status == "failed"
    assert disk.state(in_state)[1].description == {"name": "db"}
    assert [result["used"].type_name for result in disk.results(in_state)] == ["resumable.resource"] * 2
    assert CANARY.encode() not in stored(state_dir)


def returns_it(db=resource("db"), state=0):
    yield checkpoint(1)
    return [db]


def test_a_resource_that_is_returned_is_not_stored(state_dir):
    """What a job returns is kept without its resource: a later call is told that there is no value, and why."""
    with Driver(state_dir, resources={"db": Session}) as driver:
        with pytest.warns(NotDurableWarning, match=r"return value\[0\].*has closed it"):
            assert type(driver.run(returns_it, once=True)[0]) is Session
        with pytest.raises(NoValueError, match="has closed it"):
            driver.run(returns_it, once=True)
    assert CANARY.encode() not in stored(state_dir)


def test_a_number_as_a_resource_hides_no_local(disk, state_dir):
    """Python has each small number once: a resource that is one is not taken for the locals that are equal to it."""
    with Driver(state_dir, resources={"db": lambda: 2}) as driver, pytest.raises(KeyError):
        driver.run(failing_once, 3)
    assert disk.failure(failing_once).locals["i"] == 2


def test_another_resource_is_the_same_run(state_dir):
    """A resource is no argument: a run goes on with what another factory makes."""
    with Driver(state_dir, resources={"db": Session}) as driver, pytest.raises(KeyError):
        driver.run(failing_once, 3)
    with Driver(state_dir, resources={"db": dict}) as driver:
        assert driver.run(failing_once, 3) == (2, dict)


def failing_once(n, db=resource("db"), state=0):
    begun = state
    for i in range(state, n):
        if i == 2 and not isinstance(db, dict):
            raise KeyError(i)
        yield checkpoint(i + 1)
    return begun, type(db)


class Unlike:
    """No handler, and pickle cannot take it."""

    def __reduce__(self):
        raise AssertionError("taken apart")


def holds(db=resource("db"), state=None):
    held, done, other = state or (db, 0, Session())
    assert held is db
    assert type(other) is Session
    assert other is not db
    for i in range(done, 4):
        events.append(i)
        if events == [0, 1, 2]:
            raise KeyError
        yield checkpoint((db, i + 1, other))


async def holds_too(db=resource("db"), state=None):
    for made in holds(db, state=state):
        yield made


@pytest.mark.parametrize("factory", [Session, Unlike, threading.Lock, functools.partial(sqlite3.connect, ":memory:")])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["run", "arun"])
def test_a_resource_in_a_state_is_kept_by_name(state_dir, factory, asynchronous):
    """A state that holds an injected resource gets the one of its new life; another object of its type is not taken for it."""
    with Driver(state_dir, resources={"db": factory}) as driver:
        for _ in range(2):
            with contextlib.suppress(KeyError):
                asyncio.run(driver.arun(holds_too)) if asynchronous else driver.run(holds)
    assert events == [0, 1, 2, 2, 3]


def test_a_class_as_a_resource_stays_a_class_in_states(make):
    """Objects of a class that is injected are saved as they always are, and read without the resource."""
    driver = make(resources={"db": lambda: Session})

    def uses(db=resource("db"), state=None):
        yield checkpoint((db(), db))

    driver.run(uses)
    made, cls = driver.state(uses)
    assert (type(made), cls) == (Session, Session)


def test_a_job_that_lost_its_mark_is_told(make, monkeypatch):
    """A state with a resource's name, for a job that marks it no more, is an error that says to mark it."""
    driver = make(resources={"db": Session, "token": list})
    with pytest.raises(KeyError):
        driver.run(in_state, name="a")

    def unmarked(state=None):
        yield checkpoint(state)

    def marks_another(token=resource("token"), state=None):
        yield checkpoint(state)

    for later in (unmarked, marks_another):
        with pytest.raises(ReconnectError, match=r"state\[1\].*mark one: `= resource\('db'\)`"):
            driver.run(later, name="a")
    monkeypatch.setattr(sys.modules[__name__], "broken", False)
    assert driver.run(in_state, name="a").count == 0


KILLED = """
import sqlite3
from resumable import resource

def job(path, n, db=resource("db"), token=resource("token"), state=None):
    held, done = state or (db, 0)
    assert held is db and not db.in_transaction
    for i in range(done, n):
        db.execute("INSERT INTO items VALUES (?, ?)", (i, done))
        db.commit()
        yield checkpoint((db, i + 1))
        if i in (3, 7) and i > done:
            kill()
    return db.execute("SELECT count(*), count(DISTINCT life) FROM items").fetchone()

def connect():
    print("connected", flush=True)
    return sqlite3.connect(PATH)

PATH = sys.argv[2]
with Driver(STATE, resources={"db": connect, "token": lambda: "hunter2-c4nary"}) as d:
    print(d.run(job, "x", 10))
"""


def test_a_killed_run_gets_its_resource_anew(script, state_dir, tmp_path):
    """After each kill -9 the factory makes the resource again, and the state that held it goes on with it."""
    path = tmp_path / "items.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE items (n INTEGER PRIMARY KEY, life INTEGER)")
    lives = [script(KILLED, path) for _ in range(3)]
    assert [code for code, _, _ in lives] == [-signal.SIGKILL, -signal.SIGKILL, 0], lives
    assert [out for _, out, _ in lives] == ["connected", "connected", "connected\n(10, 3)"]
    assert CANARY.encode() not in stored(state_dir)


def test_measuring_a_job_with_marks_says_how(script, tmp_path):
    """`python -m resumable measure` of a job whose marks only a Driver can fill is wrong usage, with a way out."""
    (tmp_path / "marked.py").write_text(
        "from resumable import checkpoint, resource\n\ndef job(n, db=resource('db'), state=0):\n"
        "    yield checkpoint(n)\n\ndef whole(n, state=0):\n    yield from job(n, db=1, state=state)\n"
    )
    body = "from resumable.tools.cli import main\nsys.exit(main(['measure', *sys.argv[2:]]))"
    code, _, err = script(body, "marked:job", 3)
    assert (code, "only a Driver of your own" in err) == (2, True), err
    assert script(body, "marked:whole", 3)[0] == 0
    assert script(body, "marked:job", 3, "given")[0] == 0


# ---- a registry of the Driver's own


class Link:
    def __init__(self, host):
        self.host = host


def linked(state=None):
    link, done = state or (Link("a"), 0)
    for i in range(done, 2):
        yield checkpoint((link, i + 1))
        if link.host == "a":
            raise KeyError
    return link.host


@pytest.mark.parametrize("before", [0, 1], ids=["before the first run", "after it"])
def test_a_reconnector_of_the_drivers_own(state_dir, before):
    """A type registered with a Driver, before its first run or after, is rebuilt by that Driver's reconnect and no other's."""
    with Driver(state_dir) as driver, Driver(state_dir) as other:
        if before:
            driver.run(job, 1, 5)
        driver.register_reconnector(Link, lambda link: link.host, lambda host: Link(host + "b"))
        with pytest.raises(KeyError):
            driver.run(linked)
        assert driver.state(linked)[0].description == "a"
        with pytest.raises(ReconnectError, match="no reconnector is registered"):
            other.run(linked)
        assert driver.run(linked) == "ab"
        mine, others = ([it.type_name for it in each.reconnectors()] for each in (driver, other))
        assert set(mine) - set(others) == {f"{__name__}.Link"}
