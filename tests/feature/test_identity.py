"""Which run a call means: the same arguments find it from any process, other ones do not."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from dataclasses import dataclass, field

import pytest

from resumable import Driver, checkpoint
from resumable.errors import ChangedArgumentsError, OtherArgumentsWarning, UnstableArgumentError

failing = True


def job(*numbers, state=0):
    yield checkpoint(state + 1)
    if failing:
        raise KeyError
    return state, numbers


def crash(driver, what, *args, **keywords):
    global failing
    failing = True
    with pytest.raises(KeyError):
        driver.run(what, *args, **keywords)
    failing = False


@dataclass
class Counter:
    start: int

    def run(self, n, state=0):
        yield from job(n, state=state)
        return self.start, state

    def __call__(self, n, state=0):
        return self.run(n, state)

    @classmethod
    def of_class(cls, n, state=0):
        return job(n, state=state)

    @staticmethod
    def static(n, state=0):
        return job(n, state=state)


def closure(n):
    def inner(m, state=0):
        yield from job(n, m, state=state)
        return n, state

    return inner


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **keywords):
        return function(*args, **keywords)

    return wrapper


@decorated
def wrapped(n, state=0):
    yield from job(n, state=state)
    return state


KINDS = {
    "function": (lambda: job, 7),
    "method": (lambda: Counter(3).run, 7),
    "callable object": (lambda: Counter(3), 7),
    "class method": (lambda: Counter.of_class, 7),
    "static method": (lambda: Counter.static, 7),
    "partial": (lambda: functools.partial(job, 1, 2), 7),
    "partial of a method": (lambda: functools.partial(Counter(3).run, n=7),),
    "closure": (lambda: closure(5), 7),
    "decorated": (lambda: wrapped, 7),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arguments_find_the_run(driver, kind):
    """A job of any kind, made anew with equal values, goes on with the unfinished run."""
    make, *args = KINDS[kind]
    crash(driver, make(), *args)
    driver.run(make(), *args)
    (info,) = driver.runs()
    assert (info.status, info.seq, info.resumed) == ("finished", 2, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (functools.partial(job, 1), functools.partial(job, 2)),
        (Counter(1).run, Counter(2).run),
        (Counter(1), Counter(2)),
        (closure(1), closure(2)),
    ],
    ids=["partial", "method", "callable object", "closure"],
)
def test_what_is_bound_tells_runs_apart(driver, one, other):
    """A partial's arguments, a method's self and closure cells belong to the run's identity."""
    crash(driver, one, 7)
    with pytest.warns(OtherArgumentsWarning):
        driver.run(other, 7)
    assert len({info.name for info in driver.runs()}) == 2


def test_other_arguments_warn_at_the_users_line(driver):
    """A new run beside an unfinished one of the same job warns with both arguments, where `run` was called."""
    crash(driver, job, 1, "first")
    line = inspect.currentframe().f_lineno + 2
    with pytest.warns(OtherArgumentsWarning) as caught:
        driver.run(job, 1, "second")
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, line)
    assert "'first'" in str(warning.message)
    assert "'second'" in str(warning.message)
    assert "driver.clear(" in str(warning.message)


def test_other_arguments_do_not_warn_without_need(driver):
    """No warning when the other run is finished, has the same arguments, or this one has run before."""
    global failing
    failing = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driver.run(job, 1)
        driver.run(job, 2)
        crash(driver, job, 3)
        driver.run(job, 1)
        driver.run(job, 4, name="named")
        driver.run(job, 3)
        driver.run(job, 4, name="other")


@dataclass(frozen=True)
class Where:
    """A driver that a job may be given."""

    driver: Driver = field(compare=False)


def run_in(where, *args):
    where.driver.run(*args)


def test_a_running_run_is_no_forgotten_one(driver):
    """While a run goes on, another of the same job starts beside it without a warning."""

    def outer(n, run, state=0):
        yield checkpoint(n)
        if n:
            run(outer, n - 1, run)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driver.run(outer, 2, run_in.__get__(Where(driver)))
    assert [info.status for info in driver.runs()] == ["finished"] * 3


def test_changed_arguments_under_a_name_raise(driver):
    """Under one name, other arguments raise an error with both values, and nothing is lost."""
    crash(driver, job, 1, name="job")
    with pytest.raises(ChangedArgumentsError) as caught:
        driver.run(job, 22, name="job")
    assert (caught.value.recorded, caught.value.given) == ("1", "22")
    for part in ("(1)", "(22)", 'on_change="continue"', 'on_change="restart"', "name="):
        assert part in str(caught.value)
    assert driver.run(job, 1, name="job") == (1, (1,))


@pytest.mark.parametrize("bound", [False, True], ids=["argument", "keyword"])
@pytest.mark.parametrize(
    ("one", "other"), [(list(range(1000)), list(range(1001))), ("x" * 999 + "y", "x" * 1000), (7 << 9000, 5 << 9000)],
    ids=["list", "str", "int"],
)
def test_long_arguments_are_told_apart(driver, one, other, bound):
    """Arguments that are shown in part and look the same have different digests beside them."""
    crash(driver, functools.partial(job, one) if bound else job, *([] if bound else [one]), name="job")
    with pytest.raises(ChangedArgumentsError) as caught:
        driver.run(functools.partial(job, other) if bound else job, *([] if bound else [other]), name="job")
    assert caught.value.recorded != caught.value.given
    assert len(re.findall(r"\(shown in part, digest [0-9a-f]{8}\)", str(caught.value))) == 2


def test_recorded_arguments_show_no_secrets(driver):
    """An argument under a secret's name is masked, given by keyword or by position; others still tell two calls apart."""

    def login(user, password, token="", *, secret=None, state=0):
        yield checkpoint(1)
        raise RuntimeError("stopped")

    for number, (job, args) in enumerate((
        (functools.partial(login, password="hunter2-1", secret="hunter2-2"), ("me",)),
        (functools.partial(login, "me", "hunter2-1"), ("hunter2-2",)),
        (login, ("me", "hunter2-1", "hunter2-2")),
    )):
        name = f"way {number}"
        with pytest.raises(RuntimeError):
            driver.run(job, *args, name=name)
        with pytest.raises(ChangedArgumentsError) as caught:
            driver.run(login, "me", "hunter2-3", name=name)
        assert "me" in caught.value.recorded
        assert "hunter2" not in str(caught.value)
        assert caught.value.recorded.count("***") == 2
        assert re.search(r"digest \w{8}", caught.value.recorded)


def test_on_change_continue_adopts_the_new_arguments(driver):
    """on_change="continue" goes on with the new arguments, and from then on they are the run's."""
    global failing
    crash(driver, job, 1, name="job")
    failing = True
    with pytest.raises(KeyError):
        driver.run(job, 2, name="job", on_change="continue")
    failing = False
    with pytest.raises(ChangedArgumentsError):
        driver.run(job, 1, name="job")
    assert driver.run(job, 2, name="job") == (2, (2,))


def test_on_change_restart_begins_anew(driver):
    """on_change="restart" begins another run and leaves the old one readable as abandoned."""
    crash(driver, job, 1, name="job")
    assert driver.run(job, 2, name="job", on_change="restart") == (0, (2,))
    assert [info.status for info in driver.runs()] == ["finished", "abandoned"]
    assert driver.state("job", run=1) == 1


def test_on_change_restart_with_equal_arguments_goes_on(driver):
    """on_change="restart" changes nothing when the arguments are the same."""
    crash(driver, job, 1, name="job")
    assert driver.run(job, 1, name="job", on_change="restart") == (1, (1,))


def test_an_unstable_argument_needs_a_name(driver):
    """A value without a stable digest raises, naming its place; with a name the job runs."""
    global failing
    failing = False
    with pytest.raises(UnstableArgumentError, match=r"args\[1\].*name="):
        driver.run(job, 1, iter([1]))
    assert driver.runs() == []
    assert driver.run(job, 1, iter([1]), name="job")[0] == 0


IN_MAIN = """
from dataclasses import dataclass
@dataclass
class Config:
    values: dict
def job(config, *, flags, state=0):
    yield checkpoint(state + 1)
    if not state:
        os._exit(3)
    return sorted(flags), state
d = Driver(STATE)
flags = set(sys.argv[2].split(","))
print(d.run(partial(job, flags=flags), Config(dict(a={1.5: "x"}, b=None))))
print(d.runs()[0].name.partition("@")[0])
"""


def test_another_process_finds_the_run(script):
    """Equal sets, dicts and instances give the same run in a process with another hash seed and another order."""
    assert script(IN_MAIN, "a,b,c,d", env={"PYTHONHASHSEED": "1"})[0] == 3
    code, out, _ = script(IN_MAIN, "d,c,b,a", env={"PYTHONHASHSEED": "2"})
    assert (code, out) == (0, "(['a', 'b', 'c', 'd'], 1)\nscript.py:job")


def test_two_jobs_under_one_name_are_one_run(driver):
    """A name is the identity: a renamed job goes on where it stood."""

    def before(state=0):
        yield checkpoint(41)
        raise KeyError

    def after(state=0):
        return state
        yield

    with pytest.raises(KeyError):
        driver.run(before, name="job")
    assert driver.run(after, name="job") == 41
