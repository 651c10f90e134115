"""No secret of a live resource, and none that a failure meets, is anywhere in the state directory.

Every built-in handler and every way to fail is walked with a canary: a secret that a search of every file, in whatever
form, must not find. What a job puts into its own state as text is its own: that the search finds it is the control.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from canary import SECRET, all_bytes, forms, found_in
from canary_cases import CASES, Case, Scene

import resumable
from resumable import Driver, checkpoint
from resumable.errors import ReconnectError, ResumableError, SecretError
from resumable.values import known_secrets, secrets
from resumable.values.handlers import BUILT_IN
from resumable.values.secrets import MASK


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    known_secrets._met.clear()
    yield
    known_secrets._met.clear()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has the secret, as programs have their secrets."""
    monkeypatch.setenv("APP_SECRET", SECRET)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(params=["process", "disk"])
def driver(request: pytest.FixtureRequest, directory: Path) -> Iterator[Driver]:
    """A Driver, after whose test nothing is found: neither while it is open nor when everything is written."""
    with Driver(directory, durability=request.param) as driver:
        yield driver
        assert list(found_in(directory)) == []
    assert list(found_in(directory)) == []


# ---- the search


@pytest.mark.parametrize("form", forms())
def test_the_search_finds_what_is_there(form: str, directory: Path) -> None:
    """A canary that a job puts into its own state is found in every form, while it runs and after."""

    def job(*, state: Any = None) -> Any:
        yield checkpoint(forms()[form])
        assert any(place.endswith(f": {form}") for place in found_in(directory))

    with Driver(directory, keep_runs=1) as driver:
        driver.run(job)
    assert any(place.endswith(f": {form}") for place in found_in(directory))


# ---- handlers


def test_every_handler_is_walked() -> None:
    """Each type in the table of built-in handlers has a case here: a new handler needs one."""
    assert set(CASES) == set(BUILT_IN)


def sync_job(resource: Any, *, state: Any = None) -> Any:
    yield checkpoint({"deep": [resource], "again": resource})
    raise RuntimeError(f"cannot go on with {resource!r}: {SECRET} was refused")


async def async_job(resource: Any, *, state: Any = None) -> Any:
    yield checkpoint({"deep": [resource], "again": resource})
    raise RuntimeError(f"cannot go on with {resource!r}: {SECRET} was refused")


def walk(case: Case, driver: Driver, scene: Scene) -> BaseException:
    """What ends a job that holds the case's resource in its arguments, its state and its failure."""

    async def in_loop() -> None:
        async with contextlib.AsyncExitStack() as closing:
            resource = case.make(scene)
            if inspect.isawaitable(resource):
                resource = await resource
            closing.push_async_callback(closed, resource)
            await driver.arun(async_job, resource, name="walk")

    async def closed(resource: Any) -> None:
        # Not `getattr(it, "aclose", ...)`: a database of pymongo has a collection of every name.
        close = "aclose" if hasattr(type(resource), "aclose") else case.close or ""
        done = getattr(type(resource), close, lambda it: None)(resource)
        if inspect.isawaitable(done):
            await done

    def plainly() -> None:
        resource = case.make(scene)
        try:
            driver.run(sync_job, resource, name="walk")
        finally:
            getattr(type(resource), case.close or "", lambda it: None)(resource)

    with pytest.raises((RuntimeError, ResumableError)) as caught:
        asyncio.run(in_loop()) if case.in_loop else plainly()
    return caught.value


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        yield Scene(request, tmp_path, stack, SECRET)


@pytest.mark.parametrize("key", sorted(CASES))
@pytest.mark.usefixtures("known")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_no_handler_writes_a_secret(key: str, driver: Driver, directory: Path, scene: Scene) -> None:
    """A resource with a secret in it is stored with the name of the environment variable alone, and nowhere else."""
    case = CASES[key]
    error = walk(case, driver, scene)
    if case.refused:
        assert isinstance(error, resumable.LiveResourceError), error
    else:
        assert "cannot go on" in str(error), error
    assert (b"env:APP_SECRET" in all_bytes(directory)) == case.secret


@pytest.mark.parametrize("key", sorted(key for key, case in CASES.items() if case.secret))
def test_no_handler_writes_a_secret_from_nowhere(key: str, driver: Driver, scene: Scene) -> None:
    """The same resource is refused by name where nothing could give the secret back, and not even its failure has it."""
    assert isinstance(walk(CASES[key], driver, scene), SecretError)


# ---- failures


@dataclass
class Login:
    user: str
    password: str


@dataclass
class Settings:
    values: dict[str, Any]


class Client:
    """A resource of the user's own."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"<Client with {self.secret}>"


class Broken(Exception):
    def __init__(self, response: Any) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"server said {self.response}"


def in_message(*, state: int = 0) -> Any:
    yield checkpoint(1)
    raise RuntimeError(f"the server refused {SECRET}")


def in_arguments(*, state: int = 0) -> Any:
    yield checkpoint(1)
    raise OSError(13, SECRET, f"/run/{SECRET}")


def in_a_key(*, state: int = 0) -> Any:
    yield checkpoint(1)
    raise KeyError(SECRET)


def in_bytes(*, state: int = 0) -> Any:
    yield checkpoint(1)
    raise ValueError(SECRET.encode())


def in_utf_16(*, state: int = 0) -> Any:
    yield checkpoint(1)
    data = SECRET.encode("utf-16-le")
    raise ValueError(len(data))


def in_a_url(*, state: int = 0) -> Any:
    yield checkpoint(1)
    raise ConnectionError(f"postgresql://me:{quote(SECRET, safe='')}@host/db?x={quote(SECRET)}")


def in_basic_authorization(*, state: int = 0) -> Any:
    yield checkpoint(1)
    request = f"GET / HTTP/1.1\r\nX-Auth: {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
    raise ConnectionError(request)


def in_a_cause(*, state: int = 0) -> Any:
    yield checkpoint(1)
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise RuntimeError("no login") from error


def in_a_context(*, state: int = 0) -> Any:
    yield checkpoint(1)
    try:
        raise KeyError(SECRET)
    except KeyError:
        raise RuntimeError("no login")  # noqa: B904 - the context is the point


def in_a_group(*, state: int = 0) -> Any:
    yield checkpoint(1)
    raise ExceptionGroup("all", [ValueError(1), ExceptionGroup(SECRET, [ValueError(SECRET)])])


def in_a_note(*, state: int = 0) -> Any:
    yield checkpoint(1)
    error = RuntimeError("no login")
    error.add_note(f"sent {SECRET}")
    raise error


def in_an_own_message(*, state: int = 0) -> Any:
    yield checkpoint(1)
    raise Broken({"echo": SECRET})


def in_a_local(*, state: int = 0) -> Any:
    yield checkpoint(1)
    text = SECRET
    raise RuntimeError(len(text))


def in_containers(*, state: int = 0) -> Any:
    yield checkpoint(1)
    many = [{"a": (SECRET,)}, {SECRET}, {SECRET: 1}, SECRET.encode(), bytearray(SECRET.encode()), {"b": [f"<{SECRET}>"] * 3}]
    raise RuntimeError(len(many))


def in_a_dict_under_its_name(*, state: int = 0) -> Any:
    yield checkpoint(1)
    config = {"host": "h", "password": SECRET, "headers": {"Authorization": f"Bearer {SECRET}"}}
    raise RuntimeError(len(config))


def in_dataclasses(*, state: int = 0) -> Any:
    yield checkpoint(1)
    login, settings = Login("me", SECRET), Settings({"x": [SECRET]})
    raise RuntimeError(f"{login.user}{len(settings.values)}")


def in_a_repr(*, state: int = 0) -> Any:
    yield checkpoint(1)
    client, clients = Client(SECRET), [Client(SECRET)]
    raise RuntimeError(id(client) + id(clients))


def in_long_texts(*, state: int = 0) -> Any:
    yield checkpoint(1)
    text, data = f"{SECRET}, " * 20_000, f"{SECRET}, ".encode() * 20_000
    raise RuntimeError(text[: 10**6] + str(len(data)))


def in_an_exception_held(*, state: int = 0) -> Any:
    yield checkpoint(1)
    held = ValueError(SECRET)
    raise RuntimeError(id(held))


FAILURES = [
    in_message, in_arguments, in_a_key, in_bytes, in_utf_16, in_a_url, in_basic_authorization, in_a_cause, in_a_context,
    in_a_group, in_a_note, in_an_own_message, in_a_local, in_containers, in_a_dict_under_its_name, in_dataclasses, in_a_repr,
    in_long_texts, in_an_exception_held,
]  # fmt: skip


WAYS = [("process", "run"), ("disk", "run"), ("process", "arun"), ("process", "interleave"), ("process", "batch")]


@pytest.mark.parametrize("job", FAILURES, ids=lambda it: it.__name__)
@pytest.mark.parametrize(("driver", "how"), WAYS, indirect=["driver"])
@pytest.mark.usefixtures("known")
def test_no_failure_writes_a_known_secret(job: Callable[..., Any], how: str, driver: Driver) -> None:
    """However a job fails with a secret of the environment at hand, the failure that is kept does not have it."""

    async def in_loop(*, state: int = 0) -> Any:
        yield checkpoint(1)
        local = [SECRET]
        for made in job():
            local += [SECRET]
            yield made

    def in_batch() -> None:
        with driver.batch("nightly"):
            driver.run(job, name="failing")

    ways: dict[str, Callable[[], Any]] = {
        "run": lambda: driver.run(job, name="failing"),
        "arun": lambda: asyncio.run(driver.arun(in_loop, name="failing")),
        "interleave": lambda: driver.interleave([job]),
        "batch": in_batch,
    }
    with pytest.raises(Exception):  # noqa: B017 - of many types
        ways[how]()
    failure = driver.failure(job if how == "interleave" else "failing")
    assert failure is not None
    assert MASK in f"{failure.message}{failure.traceback}{failure.locals!r}"


def in_a_login_url(*, state: int = 0) -> Any:
    yield checkpoint(1)
    url = f"redis://:{quote(SECRET, safe='')}@host"
    raise ConnectionError(f"no answer from {url}, postgresql://me:{SECRET}@host and password={SECRET}")


@pytest.mark.parametrize("job", [in_a_login_url, in_a_dict_under_its_name], ids=lambda it: it.__name__)
def test_no_failure_writes_a_secret_that_its_place_tells(job: Callable[..., Any], driver: Driver) -> None:
    """What nobody knows is masked in the passwords of URLs and under the names of secrets."""
    with pytest.raises((RuntimeError, ConnectionError)):
        driver.run(job, name="failing")


SOURCE = """
from resumable import checkpoint

def job(*, state=0):
    yield checkpoint(1)
    open_it(password="LITERAL")

def open_it(**login):
    key = "LITERAL"; raise RuntimeError(len(key))
"""


def test_literals_in_source_lines(tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a traceback's source lines a literal is masked by the name before it, or when known; another one stands as it is."""
    (tmp_path / "literal_job.py").write_text(SOURCE.replace("LITERAL", SECRET))
    monkeypatch.syspath_prepend(str(tmp_path))
    import literal_job

    with Driver(directory) as driver:
        with pytest.raises(RuntimeError):
            driver.run(literal_job.job, name="failing")
        failure = driver.failure("failing")
        assert failure is not None
        assert f'password="{MASK}"' in failure.traceback
        assert f'key = "{SECRET}"' in failure.traceback
        driver.clear("failing")
        monkeypatch.setenv("APP_SECRET", SECRET)
        with pytest.raises(RuntimeError):
            driver.run(literal_job.job, name="known")
        known_failure = driver.failure("known")
        assert known_failure is not None
        assert SECRET not in known_failure.traceback


# ---- resources that fail


class Session:
    """A resource that keeps a secret where nobody sees it."""

    def __init__(self, login: Any) -> None:
        self.login = login


def a_session_job(session: Any, *, state: Any = None) -> Any:
    yield checkpoint({"session": session})
    raise RuntimeError("stopped")


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("error", [ValueError, OSError, ResumableError, resumable.LiveResourceError])
def test_a_failing_extract_writes_no_secret(error: type[Exception], driver: Driver) -> None:
    """What an extract raises, an error of the library's own kind included, is kept without the secret."""

    def extract(session: Session) -> Any:
        raise error(f"cannot describe {session.login}")

    driver.register_reconnector(Session, extract, Session)
    with pytest.raises(ResumableError):
        driver.run(a_session_job, Session(SECRET), name="failing")
    assert driver.failure("failing") is not None


@pytest.mark.parametrize("kind", [ConnectionError, ValueError, LookupError])
def test_a_failing_reconnect_writes_no_secret(
    kind: type[Exception], driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reconnect raises with the secret that was resolved for it, and the error's metadata, are kept without it."""
    monkeypatch.setenv("PLAINLY", SECRET)  # by its name no secret: known as it was met

    def reconnect(login: Any) -> Any:
        raise kind(f"{login['password']} is no password of {login}")

    driver.register_reconnector(Session, lambda session: session.login, reconnect, max_attempts=1)
    url = f"redis://:{quote(SECRET, safe='')}@host"
    login = {"user": "me", "password": SECRET, "url": url, "env": resumable.SecretRef("env:PLAINLY")}
    session = Session(login)
    with pytest.raises(RuntimeError, match="stopped"):
        driver.run(a_session_job, session, name="failing")
    known_secrets._met.clear()
    with pytest.raises(ReconnectError) as caught:
        driver.run(a_session_job, session, name="failing")
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__dict__)


def test_a_failing_resolver_writes_no_secret(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that fails with the secret in its message, when saving or when resuming, is kept without it."""
    monkeypatch.setattr(secrets, "_resolvers", {})
    names = ["kept"]

    def find(secret: str, key: str) -> str | None:
        if not names:
            raise OSError(f"the vault does not know {secret}")
        return names.pop()

    def resolve(name: str) -> str:
        raise OSError(f"the vault says password={SECRET}")

    resumable.register_secret_resolver("vault", find=find, resolve=resolve)
    driver.register_reconnector(Session, lambda session: {"password": session.login}, Session, max_attempts=1)
    with pytest.raises(RuntimeError, match="stopped"):
        driver.run(a_session_job, Session(SECRET), name="failing")
    with pytest.raises(ReconnectError):
        driver.run(a_session_job, Session(SECRET), name="failing")
    with pytest.raises(SecretError):
        driver.run(a_session_job, Session(SECRET), name="other")


class Unsavable:
    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __reduce__(self) -> Any:
        raise ValueError(f"no way to save {self.secret}")


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("state", [
    lambda: {SECRET: (n for n in ())}, lambda: {"a": Unsavable(SECRET)}, lambda: {"a": [lambda: 1, Unsavable(SECRET)]},
], ids=["in its place", "in its error", "in dill"])  # fmt: skip
def test_an_unsavable_state_writes_no_secret(state: Callable[[], Any], driver: Driver) -> None:
    """A state, a result or a return value that cannot be saved is told without the secret in it, in both picklers."""
    kept = state()

    def saves(*, state: Any = None) -> Any:
        yield checkpoint(kept)

    def results(*, state: Any = None) -> Any:
        yield checkpoint(1, result=kept)

    def returns(*, state: Any = None) -> Any:
        yield checkpoint(1)
        return kept

    for job in (saves, results):
        with pytest.raises(ResumableError):
            driver.run(job, name=job.__name__)
    with pytest.warns(resumable.NotDurableWarning, match="cannot give this value back"):
        driver.run(returns, name="returns", once=True)


# ---- arguments, logs


def login_job(user: str, password: str, extra: Any = None, *, token: str = "", state: int = 0) -> Any:
    yield checkpoint(1)
    raise RuntimeError("stopped")


@pytest.mark.parametrize("how", ["name", "known"])
def test_recorded_arguments_have_no_secret(how: str, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded of arguments, and told when others are given, has none that its parameter or the process tells."""
    told = {"login": {"password": SECRET}, "url": f"https://me:{quote(SECRET, safe='')}@host", "at": Login("me", SECRET)}
    if how == "known":
        monkeypatch.setenv("APP_SECRET", SECRET)
        told |= {SECRET: [SECRET], "data": SECRET.encode(), "who": Login(SECRET, "")}
    job = functools.partial(login_job, token=SECRET)
    with pytest.raises(RuntimeError):
        driver.run(job, "me", SECRET, told, name="failing")
    with pytest.raises(resumable.ChangedArgumentsError) as changed:
        driver.run(login_job, "you", SECRET, told, name="failing")
    assert SECRET not in f"{changed.value}{changed.value.__dict__}"
    assert SECRET not in driver.info("failing").arguments


@pytest.mark.usefixtures("known")
def test_a_warning_of_other_arguments_has_no_secret(driver: Driver) -> None:
    """The warning that an unfinished run has other arguments shows them without the secret, and so does what is kept."""

    def job(who: Any, *, state: int = 0) -> Any:
        yield checkpoint(1)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        driver.run(job, [SECRET, 1])
    with pytest.warns(resumable.OtherArgumentsWarning) as warned, pytest.raises(RuntimeError):
        driver.run(job, [SECRET, 2])
    assert SECRET not in str(warned[0].message)


@pytest.mark.usefixtures("known")
def test_a_log_in_the_directory_has_no_secret(driver: Driver, directory: Path) -> None:
    """What the package logs about jobs that fail with a secret may be written beside the state."""
    logger = logging.getLogger("resumable")
    level = logger.level
    directory.mkdir(exist_ok=True)
    with contextlib.closing(logging.FileHandler(directory / "resumable.log")) as handler:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            for job in (in_message, in_a_repr):
                with pytest.raises(RuntimeError):
                    driver.run(job)
                with pytest.raises(RuntimeError):
                    driver.run(job)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
    assert "ended with RuntimeError" in (directory / "resumable.log").read_text()
