"""Rebuilding live resources while a state is decoded: retries, event loops, stand-ins, and what a failure says."""

from __future__ import annotations

import asyncio
import copy
import gc
import io
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from resumable.errors import ReconnectError
from resumable.values import rebuild as module
from resumable.values.codec import Codec
from resumable.values.rebuild import StoredResource, stored
from resumable.values.registry import Registry


class Link:
    """Something live: a name, and how often it was used."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.uses = 0

    def use(self) -> int:
        self.uses += 1
        return self.uses

    def __len__(self) -> int:
        return len(self.name)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.name += " closed"


class OutageError(Exception):
    """What a library raises while its server is away."""


@dataclass
class Pool:
    links: list[Link]


@dataclass
class Picky:
    """Refuses to be made without the true thing."""

    link: Link

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not isinstance(state["link"], Link):
            raise TypeError("no link")
        self.__dict__.update(state)


def name_of(link: Link) -> dict[str, Any]:
    return {"name": link.name, "url": "tcp://me:secretive@host/"} if link.name == "url" else {"name": link.name}


class Server:
    """Makes links, after being away for some calls."""

    def __init__(self, away: int = 0, error: Callable[[], Exception] = OutageError) -> None:
        self.calls = 0
        self.made: list[Link] = []
        self._away, self._error = away, error

    def link(self, description: dict[str, Any]) -> Link:
        self.calls += 1
        if self.calls <= self._away:
            raise self._error()
        self.made.append(Link(description["name"]))
        return self.made[-1]

    async def link_in_loop(self, description: dict[str, Any]) -> Link:
        await asyncio.sleep(0)
        return self.link(description)


def codec_for(reconnect: Callable[[Any], Any], **options: Any) -> Codec:
    registry = Registry()
    registry.register(Link, name_of, reconnect, **options)
    return Codec(registry=registry)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each pause between two tries, in seconds; nobody waits for them."""
    found: list[float] = []

    async def at_once(seconds: float, sleep: Any = asyncio.sleep) -> None:
        found.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.time, "sleep", found.append)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    return found


STATE = {"pool": Pool([Link("one"), Link("two")]), "n": 1}


# ---- tries


def test_an_outage_is_waited_for(pauses: list[float]) -> None:
    """A rebuild that fails for a reason that may pass is tried again, with pauses that double."""
    server = Server(away=4)
    codec = codec_for(server.link)
    assert codec.decode(*codec.encode(Link("one"))).name == "one"
    assert server.calls == 5
    assert pauses == [0.1, 0.2, 0.4, 0.8]


@pytest.mark.parametrize("tries", [1, 3])
def test_the_last_try_ends_in_an_error(tries: int) -> None:
    """After `max_attempts` tries the error is raised, with the library's own as its cause."""
    server = Server(away=99)
    codec = codec_for(server.link, max_attempts=tries)
    with pytest.raises(ReconnectError) as caught:
        codec.decode(*codec.encode(Link("one")))
    assert server.calls == tries
    assert isinstance(caught.value.__cause__, OutageError)


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, ValueError, TypeError, LookupError])
def test_what_will_not_pass_is_not_tried_again(error: Callable[[], Exception]) -> None:
    """A file that is gone or a wrong description fails at once, in both ways of decoding."""
    server = Server(away=1, error=error)
    codec = codec_for(server.link)
    with pytest.raises(ReconnectError):
        codec.decode(*codec.encode(Link("one")))
    server.calls = 0
    with pytest.raises(ReconnectError):
        asyncio.run(codec.decode_in_loop(*codec.encode(Link("one"))))
    assert server.calls == 1


def test_an_interrupt_is_not_an_outage() -> None:
    """Ctrl-C during a rebuild comes out as it is, at once."""
    server = Server(away=1, error=KeyboardInterrupt)  # type: ignore[arg-type]
    codec = codec_for(server.link)
    with pytest.raises(KeyboardInterrupt):
        codec.decode(*codec.encode(Link("one")))
    assert server.calls == 1


# ---- what an error says


@pytest.mark.parametrize("how", ["at once", "in a loop"])
def test_the_error_names_the_place(how: str) -> None:
    """It says where in the state the resource stands, what it is and what it was to be rebuilt from, secrets masked."""

    def second_fails(description: dict[str, Any]) -> Link:
        if description["name"] == "url":
            raise FileNotFoundError("gone")
        return Link("one")

    codec = codec_for(second_fails)
    state = {"n": 1, "pools": (Pool([Link("one")]), Pool([Link("one"), Link("url")]))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINK_PASSWORD", "secretive")
        encoded = codec.encode(state)
    decode = codec.decode if how == "at once" else lambda *it: asyncio.run(codec.decode_in_loop(*it))
    with pytest.raises(ReconnectError) as caught:
        decode(*encoded)
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.path == 'state["pools"][1].links[1]'
    assert error.type_name == f"{__name__}.Link"
    assert str(error).startswith('state["pools"][1].links[1] (test_rebuild.Link) could not be rebuilt')
    assert "secretive" not in str(error) + repr(error.metadata)


def test_a_place_that_cannot_be_found_is_left_out() -> None:
    """Objects that refuse to be made around a placeholder do not hide the error."""
    codec = codec_for(Server(away=9).link, max_attempts=1)
    with pytest.raises(ReconnectError, match=r"^a test_rebuild.Link could not") as caught:
        codec.decode(*codec.encode({"a": Picky(Link("one"))}))
    assert caught.value.path is None


def test_a_resource_without_a_reconnector_is_an_error() -> None:
    """A state from a program that registered a type is not taken up where nobody did."""
    encoded = codec_for(Server().link).encode(Link("one"))
    with pytest.raises(ReconnectError, match="no reconnector is registered for it"):
        Codec(registry=Registry()).decode(*encoded)


def test_the_bytes_alone_bring_nothing_back() -> None:
    """Unpickling a state past the codec is an error, not a resource of an unknown registry."""
    encoded = codec_for(Server().link).encode(Link("one"))
    with pytest.raises(ReconnectError, match="through a Driver alone"):
        pickle.loads(encoded.data)


class Door(Link):
    """A link that is closed."""

    closed = 0

    def close(self) -> None:
        type(self).closed += 1


class AsyncDoor(Link):
    """A link whose closing has to be awaited."""

    closed = 0

    async def close(self) -> None:
        await asyncio.sleep(0)
        type(self).closed += 1


@pytest.mark.parametrize("kind", [Door, AsyncDoor])
@pytest.mark.parametrize("how", ["at once", "in a loop"])
def test_what_was_rebuilt_for_nothing_is_closed(kind: Any, how: str) -> None:
    """If one resource of a state cannot be rebuilt, those that were are closed again."""

    def all_but_the_last(description: dict[str, Any]) -> Link:
        if description["name"] == "last":
            raise FileNotFoundError
        return kind(description["name"])

    codec = codec_for(all_but_the_last)
    encoded = codec.encode([Link("one"), Link("two"), Link("last")])
    decode = codec.decode if how == "at once" else lambda *it: asyncio.run(codec.decode_in_loop(*it))
    kind.closed = 0
    with pytest.raises(ReconnectError, match=r"^state\[2\]"):
        decode(*encoded)
    assert kind.closed == (0 if (kind, how) == (AsyncDoor, "at once") else 2)


def test_streams_of_the_process_are_not_closed() -> None:
    """If a resource of a state cannot be rebuilt, sys.stdout beside it stays open."""
    codec = codec_for(Server(away=99).link)
    kept = sys.stdout = io.TextIOWrapper(io.BytesIO())
    try:
        with pytest.raises(ReconnectError):
            codec.decode(*codec.encode([sys.stdout, sys.stdout.buffer, Link("last")]))
    finally:
        sys.stdout = sys.__stdout__
    assert not kept.closed


class Anything(Link):
    """Answers to every name with what cannot be called, nor asked whether it is true, as a database does."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name)

    def __call__(self) -> None:
        raise TypeError("not callable")

    def __bool__(self) -> bool:
        raise NotImplementedError


def test_what_answers_to_every_name_is_left() -> None:
    """A resource with attributes of any name keeps the error of another one as it is."""

    def all_but_the_last(description: dict[str, Any]) -> Link:
        if description["name"] == "last":
            raise FileNotFoundError
        return Anything(description["name"])

    codec = codec_for(all_but_the_last)
    with pytest.raises(ReconnectError, match=r"^state\[1\]"):
        codec.decode(*codec.encode([Link("one"), Link("last")]))


def test_a_second_cancel_leaves_nothing_unawaited(recwarn: pytest.WarningsRecorder) -> None:
    """Cancelled while what was rebuilt for nothing is closed, decoding ends at once and warns of nothing."""

    class Slow(Link):
        async def close(self) -> None:
            raise asyncio.CancelledError

    def all_but_the_last(description: dict[str, Any]) -> Link:
        if description["name"] == "last":
            raise FileNotFoundError
        return Slow(description["name"])

    codec = codec_for(all_but_the_last)
    encoded = codec.encode([Link("one"), Link("two"), Link("last")])
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(codec.decode_in_loop(*encoded))
    gc.collect()
    assert not recwarn.list


def test_a_resource_inside_a_description_is_shown_by_type() -> None:
    """An error shows of resources that another one holds their type alone: what their repr says is not ours to know."""

    class Telltale(Link):
        def __repr__(self) -> str:
            return "Link('secretive')"

    registry = Registry()
    registry.register(Telltale, name_of, lambda kept: Telltale(kept["name"]))
    registry.register(Pool, lambda pool: {"links": pool.links, "kind": Pool}, lambda kept: 1 / 0)
    codec = Codec(registry=registry)
    with pytest.raises(ReconnectError) as caught:
        codec.decode(*codec.encode(Pool([Telltale("one")])))
    assert "secretive" not in str(caught.value)
    assert caught.value.metadata == {"links": [f"<{__name__}.{Telltale.__qualname__}>"], "kind": "<Pool>"}
    pickle.dumps(caught.value)


# ---- in an event loop


def test_a_coroutine_is_awaited_in_a_loop() -> None:
    """Under arun a `reconnect` may be a coroutine function, several in one state, each awaited once."""
    server = Server()
    codec = codec_for(server.link_in_loop)
    state = asyncio.run(codec.decode_in_loop(*codec.encode([STATE, STATE["pool"]])))
    assert [link.name for link in state[1].links] == ["one", "two"]
    assert state[0]["pool"] is state[1]
    assert server.calls == 2


def test_a_coroutine_needs_a_loop() -> None:
    """Under run a `reconnect` that is a coroutine function is an error that names arun, and nothing is left unawaited."""
    codec = codec_for(Server().link_in_loop)
    with pytest.raises(ReconnectError, match="under `arun`"):
        codec.decode(*codec.encode(Link("one")))


def test_an_outage_is_waited_for_in_a_loop(pauses: list[float]) -> None:
    """Tries in a loop are as many, with the same pauses, whether the rebuild is a coroutine or not."""
    for name in ("link", "link_in_loop"):
        server = Server(away=4)
        codec = codec_for(getattr(server, name))
        assert len(asyncio.run(codec.decode_in_loop(*codec.encode(STATE)))["pool"].links) == 2
        assert server.calls == 6
        assert [pause for pause in pauses if pause] == [0.1, 0.2, 0.4, 0.8]
        pauses.clear()


def test_the_last_try_in_a_loop_ends_in_an_error() -> None:
    """In a loop too there are `max_attempts` tries, and the error has the place."""
    for name in ("link", "link_in_loop"):
        server = Server(away=99)
        codec = codec_for(getattr(server, name), max_attempts=3)
        with pytest.raises(ReconnectError) as caught:
            asyncio.run(codec.decode_in_loop(*codec.encode(STATE)))
        assert server.calls == 3
        assert caught.value.path == 'state["pool"].links[0]'


def test_objects_are_made_around_the_true_resource() -> None:
    """A class that wants the resource itself when it is made gets it, also if that had to be awaited."""
    codec = codec_for(Server().link_in_loop)
    assert asyncio.run(codec.decode_in_loop(*codec.encode(Picky(Link("one"))))).link.name == "one"


def test_others_go_on_while_a_rebuild_waits() -> None:
    """Waiting for a resource does not hold up the other tasks of the loop."""
    came = asyncio.Event()

    async def wait_for_the_other(description: dict[str, Any]) -> Link:
        await came.wait()
        return Link(description["name"])

    async def main() -> str:
        codec = codec_for(wait_for_the_other)
        async with asyncio.TaskGroup() as group:
            resumed = group.create_task(codec.decode_in_loop(*codec.encode(Link("one"))))
            group.create_task(asyncio.sleep(0)).add_done_callback(lambda _: came.set())
        return str(resumed.result().name)

    assert asyncio.run(main()) == "one"


# ---- stand-ins


def lazily(server: Server) -> Any:
    codec = codec_for(server.link, eager=False)
    return codec, codec.decode(*codec.encode(STATE))


def test_a_stand_in_is_rebuilt_when_it_is_used() -> None:
    """With eager=False nothing is rebuilt until the first use, then once, and isinstance holds before and after."""
    server = Server()
    _, state = lazily(server)
    link = state["pool"].links[0]
    assert isinstance(link, Link)
    assert "not rebuilt yet" in repr(link)
    assert server.calls == 0
    assert (link.use(), link.use(), link.name, len(link)) == (1, 2, "one", 3)
    link.name = "other"
    with link as entered:
        assert entered is server.made[0]
    assert server.made[0].name == "other closed"
    assert server.calls == 1
    assert isinstance(link, Link)


def test_a_stand_in_is_rebuilt_once_for_all_threads() -> None:
    """Threads that use a stand-in at once get one resource."""
    server = Server()
    slow = server.link

    def slowly(description: dict[str, Any]) -> Link:
        threading.Event().wait(0.05)
        return slow(description)

    codec = codec_for(slowly, eager=False)
    link = codec.decode(*codec.encode(Link("one")))
    threads = [threading.Thread(target=link.use) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.made[0].uses == 5


def test_an_unused_stand_in_is_saved_as_it_was() -> None:
    """A checkpoint with a stand-in that nobody used keeps its description, and one that was used the resource's."""
    server = Server()
    codec, state = lazily(server)
    first, second = state["pool"].links
    second.name = "changed"
    again = codec.decode(*codec.encode([first, first, second]))
    assert server.calls == 1
    assert again[0] is again[1]
    assert [link.name for link in again] == ["one", "one", "changed"]


def test_a_stand_in_that_fails_can_be_used_again() -> None:
    """A failing rebuild names the place in the state, and the next use tries anew."""
    server = Server(away=5)
    _, state = lazily(server)
    with pytest.raises(ReconnectError) as caught:
        state["pool"].links[1].use()
    assert caught.value.path == 'state["pool"].links[1]'
    assert state["pool"].links[1].use() == 1


def test_other_stand_ins_are_not_used_for_an_error() -> None:
    """The error of a stand-in names its own place, and leaves those alone that stand before it."""
    server = Server(away=5)
    _, state = lazily(server)
    first, second = state["pool"].links
    state["pool"].links[:] = [second, first]
    with pytest.raises(ReconnectError) as caught:
        second.use()
    assert caught.value.path == 'state["pool"].links[0]'
    state["pool"].links[:] = [first, second]
    server.calls = 0
    with pytest.raises(ReconnectError) as caught:
        second.use()
    assert caught.value.path == 'state["pool"].links[1]'
    assert server.calls == 5


# ---- reports


def test_a_report_rebuilds_nothing() -> None:
    """Reports show what a resource was saved as, secrets masked, and leave alone what a run may be using."""
    server = Server()
    codec = codec_for(server.link)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINK_PASSWORD", "secretive")
        encoded = codec.encode({"a": Link("url")})
    shown = codec.decode(*encoded, rebuild=stored)["a"]
    assert isinstance(shown, StoredResource)
    assert shown.type_name == "test_rebuild.Link"
    assert shown.description["name"] == "url"
    assert "secretive" not in repr(shown)
    assert server.calls == 0
    assert copy.deepcopy(shown) == shown


def test_pauses_are_bounded() -> None:
    """However many tries there are, no pause is longer than five seconds."""
    assert [module._pause(tried) for tried in (1, 7, 1000)] == [0.1, 5.0, 5.0]
