"""Injected resources: made by the Driver's factories when a run starts, closed in reverse order when it ends or stops.

Nothing of them is stored. A state that holds one keeps its name, and the next life gets there what its own factory makes.
One way serves `run` and `arun`: a coroutine, which `run` steps through at once, as nothing in it waits there.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from types import FunctionType, ModuleType, TracebackType
from typing import Any, Final

from resumable._fastlog import fork_count
from resumable.errors import ResourceParameterError, UnknownResourceError
from resumable.runs.identity import Identity
from resumable.values.rebuild import method_of, not_marked
from resumable.values.registry import INJECTED, Handler, Registry, alive
from resumable.values.secrets import mask_text

Factories = Mapping[str, Callable[[], Any]]
_Close = Callable[[BaseException | None], Awaitable[None]]

_not_ours: Final[list[object]] = []  # what a forked child has of its parent: kept, as a generator that is dropped cleans up


def check_marks(identity: Identity, factories: Factories) -> None:
    """See that each parameter marked with `resource(...)` can be filled. Raises UnknownResourceError, ResourceParameterError."""
    for parameter, name in identity.marked.items():
        facts = {"job": identity.job, "parameter": parameter, "resource": name}
        kind = identity.signature.parameters[parameter].kind
        if parameter == "state" or kind == inspect.Parameter.POSITIONAL_ONLY:
            why = "is what was saved last" if parameter == "state" else "is given by position only, so the Driver cannot fill it"
            raise ResourceParameterError(
                f"{identity.job}: the parameter `{parameter}` is marked resource({name!r}), but {why} (mark one that takes a "
                f"keyword)", **facts,
            )
        if name not in factories:
            known = sorted(factories)
            has = f"has only {', '.join(map(repr, known))}" if known else "has no resources"
            raise UnknownResourceError(
                f"{identity.job}: the parameter `{parameter}` is marked resource({name!r}), and this Driver {has} (name its "
                f"factory: Driver(resources={{{name!r}: ...}}), or pass the argument)", known=known, **facts,
            )


class Resources:
    """What one run was given, by parameter; a context manager, async under `arun`."""

    def __init__(self, identity: Identity, factories: Factories, inject: Callable[[Mapping[str, Any]], None]) -> None:
        """`inject` is told what there is, by name."""
        self._identity = identity
        self._factories = factories
        self._inject = inject
        self._in_loop = False
        self._closes: list[tuple[str, _Close]] = []
        self._forks = fork_count()

    def __enter__(self) -> dict[str, Any]:
        given: dict[str, Any] = _at_once(self._open())
        return given

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        _at_once(self._close(error))

    async def __aenter__(self) -> dict[str, Any]:
        self._in_loop = True
        return await self._open()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close(error)

    async def _open(self) -> dict[str, Any]:
        """The keywords for the job."""
        try:
            made = {name: await self._make(name) for name in dict.fromkeys(self._identity.marked.values())}
            self._inject(made)
        except BaseException as error:
            await self._close(error)
            raise
        return {parameter: made[name] for parameter, name in self._identity.marked.items()}

    async def _make(self, name: str) -> Any:
        try:
            made = self._factories[name]()
            if inspect.isawaitable(made) and not _has(made, "__aenter__"):  # some pools can be awaited or entered
                if not self._in_loop:
                    if inspect.iscoroutine(made):
                        made.close()
                    raise self._refusal(name, "its factory is async: use `await driver.arun(...)`")
                made = await made
            if inspect.isgenerator(made) or inspect.isasyncgen(made):
                raise self._refusal(name, "its factory yields: decorate that with contextlib.contextmanager")
            return await self._entered(name, made)
        except Exception as error:
            _note(error, f"resumable: making the resource {name!r} raised this")
            raise

    async def _entered(self, name: str, made: Any) -> Any:
        """The resource, entered if it is a context manager; from here on it is known how it is closed."""
        close = self._close_of(name, made)
        if not _is_manager(made):
            if close is not None:
                self._closes.append((name, lambda error: close()))
            return made
        if self._in_loop and _has(made, "__aenter__"):
            value = await type(made).__aenter__(made)
            leave = type(made).__aexit__
        elif _has(made, "__enter__"):
            value = type(made).__enter__(made)
            leave = type(made).__exit__
        else:
            raise self._refusal(name, "it needs an event loop: use `await driver.arun(...)`")

        async def exit_and_close(error: BaseException | None) -> None:
            try:
                await _finished(leave(made, *_details(error)))
            finally:
                if value is made and close is not None:
                    # Leaving a connection only commits or rolls back in some libraries. In others it closes, and to
                    # close twice is an error there; that what counted went well, leaving it has said.
                    with suppress(Exception):
                        await close()

        self._closes.append((name, exit_and_close))
        return value

    def _close_of(self, name: str, made: Any) -> Callable[[], Awaitable[None]] | None:
        """How a resource is closed that has a method for it."""
        if isinstance(made, type | ModuleType):
            return None
        close, aclose = method_of(made, "close"), method_of(made, "aclose")
        if self._in_loop:
            close = aclose or close
        elif inspect.iscoroutinefunction(close) or (close is None and aclose is not None):
            raise self._refusal(name, "closing it needs an event loop: use `await driver.arun(...)`")
        return (lambda: _finished(close())) if close is not None else None

    async def _close(self, error: BaseException | None) -> None:
        """Close what was made, in reverse order, each one whatever the others raise. Never stops `error`, but may outrank it."""
        if self._forks != fork_count():
            _not_ours.append(self._closes)
            self._closes = []
            return
        counts = error
        while self._closes:
            name, close = self._closes.pop()
            try:
                await close(counts)
            except BaseException as trouble:  # noqa: BLE001 - the others are closed first
                if trouble is counts:
                    continue
                said = f"resumable: closing the resource {name!r} raised"
                if counts is None or (isinstance(counts, Exception) and not isinstance(trouble, Exception)):
                    _note(trouble, f"{said} this, so the run is not finished")
                    counts = trouble
                else:
                    _note(counts, f"{said} {type(trouble).__name__}: {mask_text(str(trouble))}")
        if counts is not None and counts is not error:
            raise counts

    def _refusal(self, name: str, why: str) -> ResourceParameterError:
        job = self._identity.job
        parameter = next(parameter for parameter, wanted in self._identity.marked.items() if wanted == name)
        return ResourceParameterError(
            f"{job}: the parameter `{parameter}` cannot be given resource({name!r}): {why}", job=job, parameter=parameter,
            resource=name,
        )


def _has(value: object, method: str) -> bool:
    return hasattr(type(value), method)


def _is_manager(value: object) -> bool:
    """Whether a `with` belongs around a resource. To hold a lock while the job runs is not what a lock is given for."""
    lock_like = hasattr(value, "acquire") and not (hasattr(value, "close") or hasattr(value, "aclose"))
    return (_has(value, "__enter__") or _has(value, "__aenter__")) and not lock_like


def _details(error: BaseException | None) -> tuple[Any, Any, Any]:
    return (type(error), error, error.__traceback__) if error is not None else (None, None, None)


async def _finished(answer: Any) -> None:
    if inspect.isawaitable(answer):
        await answer


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("closing a resource has to wait for an event loop: use `await driver.arun(...)`")


def _note(error: BaseException, text: str) -> None:
    with suppress(Exception):  # a class may have its own add_note, or __notes__ of another kind
        error.add_note(text)


class InjectedRegistry(Registry):
    """The registry of a run that was given resources: where a state holds one of them, its name is stored.

    over: they are closed; what the job returns cannot hold them.
    """

    def __init__(self, parent: Registry, by_name: Mapping[str, Any]) -> None:
        super().__init__(parent)
        self.by_name = by_name
        self.over = False
        self._above = parent
        # Classes and functions go by reference anyway, and are met in the pickle of each of their objects.
        named = {name: value for name, value in by_name.items() if not isinstance(value, type | FunctionType)}
        self._names = {id(value): name for name, value in named.items()}
        self._types = {type(value) for value in named.values()}

    def lookup(self, cls: type[Any]) -> Handler | None:
        # Not through a memory of types: of these types one object is a reference, and another is not.
        return self._above.lookup(cls) if cls in self._types else super().lookup(cls)

    def handler_of(self, value: Any) -> Handler | None:
        return self._by_reference() if id(value) in self._names else self.lookup(type(value))

    def handler_named(self, key: str) -> Handler | None:
        return self._by_reference() if key == INJECTED else super().handler_named(key)

    def _by_reference(self) -> Handler:
        return Handler(INJECTED, self._reference, self._again)

    def forget(self) -> None:
        """Let the resources go now, not when the collector comes by."""
        self.by_name, self._names = {}, {}

    def _reference(self, value: Any) -> dict[str, str]:
        if self.over:
            raise alive(value, "the Driver gave it for this run and has closed it (return what is read from it)")
        return {"name": self._names[id(value)]}

    def _again(self, reference: dict[str, str]) -> Any:
        if reference["name"] not in self.by_name:
            raise not_marked(reference["name"])
        return self.by_name[reference["name"]]
