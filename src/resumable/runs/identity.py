"""Which run is meant: what a job is called, what is bound to it, and how it takes its state."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resumable.errors import DriverKeywordError, NotAJobError, RunNameError, StateParameterError, UnstableArgumentError
from resumable.runs.marker import Marker
from resumable.storage.records import digest16
from resumable.values.excerpt import cut, show
from resumable.values.fingerprint import digest
from resumable.values.registry import Registry

LONGEST_NAME = 10_000
_SHOWN = 400
_NO_STATE = inspect.signature(lambda *, state=None: None)     # of what takes its state in another way


@dataclass(frozen=True, slots=True)
class Identity:
    """A job with what is bound to it, and the run it means.

    `name` is the run's, `job` the code's ("module:qualname"). `digest` tells the bound values apart; None when the run has
    a name of its own and a value has no digest. `shown` is for messages, secrets masked. `marked` maps the parameters that
    the Driver is to fill to the names of its resources. `body` is where a loop's `for` stands, which is no function of its own.
    """

    name: str
    job: str
    digest: bytes | None
    shown: str
    named: bool
    function: Callable[..., Any]
    signature: inspect.Signature
    marked: dict[str, str]
    body: types.CodeType | None = None

    @property
    def name16(self) -> bytes:
        return digest16(self.name)

    @property
    def folder(self) -> str:
        return folder_name(self.name)

    @property
    def code(self) -> types.CodeType | None:
        """The job's own code object, for telling its frame in a traceback."""
        return self.body or getattr(self.function, "__code__", None)

    @property
    def code_digest(self) -> str:
        """Tells whether the job's own code is what it was; not what it calls, nor where it stands in its file."""
        return _code_digest(self.code) if self.code is not None else ""


def job8(job: str) -> str:
    """What the folders of a job's runs begin with, those that were not given a name."""
    return digest16(job).hex()[:8]


def folder_name(name: str) -> str:
    """The folder of a run. It follows from the name alone: whatever job takes a name, its lock and journal are the same."""
    return f"{job8(name.rpartition('@')[0] or name)}-{digest16(name).hex()[:24]}"


@dataclass(frozen=True, slots=True)
class _Bound:
    """What a job carries with it: a partial's arguments, a method's `self`, closure cells."""

    function: Callable[..., Any]
    values: tuple[tuple[str, Any], ...]


def identify(
    job: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any], *, name: str | None, registry: Registry,
    given: set[str],
) -> Identity:
    """Say which run `job(*args)` means. `keywords` are those the driver does not know, `given` those it was given.

    Raises NotAJobError, StateParameterError, DriverKeywordError, TypeError (arguments that do not fit), RunNameError,
    UnstableArgumentError.
    """
    if not callable(job):
        raise NotAJobError(
            f"{type(job).__name__} is no job: a job is a function that yields checkpoint(state) "
            f"(pass the function itself, not what it returns)", job=repr(type(job)),
        )
    bound = _unbind(job)
    label = _label(bound.function)
    signature = _signature(job, label)
    _check_keywords(label, signature, keywords, given)
    _check_arguments(label, signature, args)
    values = (*bound.values, *((f"args[{i}]", value) for i, value in enumerate(args)))
    chosen, known = _chosen(label, values, name, registry)
    shown = _shown(values, known, _positional(bound))
    marked = _marked(signature, args)
    return Identity(chosen, label, known, shown, name is not None, bound.function, signature, marked)


def identify_loop(
    function: Callable[..., Any], given: dict[str, Any], *, name: str | None, registry: Registry, body: types.CodeType,
) -> Identity:
    """Say which run is meant by a loop in this function, called with these arguments beside its items.

    What the function closes over tells runs apart that have no name; it may change as the loop's body does its work.
    Raises RunNameError, UnstableArgumentError.
    """
    bound = _unbind(function)
    label, values = _label(bound.function), (*(() if name is not None else bound.values), *given.items())
    chosen, known = _chosen(label, values, name, registry)
    shown = _shown(values, known, iter(()))
    return Identity(chosen, label, known, shown, name is not None, bound.function, _NO_STATE, {}, body)


def _chosen(
    label: str, values: tuple[tuple[str, Any], ...], name: str | None, registry: Registry
) -> tuple[str, bytes | None]:
    """The run's name, and what tells the bound values apart."""
    try:
        known = _digest(values, registry)
    except UnstableArgumentError:
        if name is None:
            raise
        known = None
    return check_name(name) if name is not None else label if not values else f"{label}@{(known or b'').hex()[:12]}", known


def _shown(values: tuple[tuple[str, Any], ...], known: bytes | None, names: Iterator[str]) -> str:
    """The bound values for messages; what is shown in part has its digest beside it, lest two that differ look the same.

    `names`: the parameters that the values without a name of their own go to, for a name can tell a secret.
    """
    parts = []
    for path, value in values:
        name = next(names, "") if path.startswith(("partial[", "args[")) else path
        parts.append(show(value, name=name) if path.startswith("args[") else f"{path}={show(value, name=name)}")
    shown = ", ".join(parts)
    if len(shown) <= _SHOWN and not any(sign in shown for sign in ("...", " bits>", "***")):
        return shown
    return cut(shown, _SHOWN) + (f" (shown in part, digest {known.hex()[:8]})" if known is not None else "")


def _positional(bound: _Bound) -> Iterator[str]:
    """The names of the parameters that a call fills by position, after `self`."""
    code = getattr(bound.function, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    return iter(names[1:] if any(path == "self" for path, _ in bound.values) else names)


def name_of(job: str | Callable[..., Any]) -> tuple[str, bool]:
    """(name, whether it is a run's whole name) for reports: a name as given, or what a job's runs are called."""
    if isinstance(job, str):
        return check_name(job), True
    if not callable(job):
        raise RunNameError(f"a run is told by its name, a str, or by its job, not by {type(job).__name__}", name=repr(job))
    bound = _unbind(job)
    label = _label(bound.function)
    return label, not bound.values


def check_name(name: object) -> str:
    """The name of a run or batch. Raises RunNameError."""
    if not isinstance(name, str):
        raise RunNameError(f"a run's name is a str, not {type(name).__name__}", name=repr(name))
    if not name or len(name) > LONGEST_NAME:
        raise RunNameError(
            f"a run's name has 1 to {LONGEST_NAME} characters, this one has {len(name)} (any characters will do)",
            name=name[:100],
        )
    return name


def _code_digest(code: types.CodeType) -> str:
    parts = [code.co_code.hex(), *code.co_names]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            parts.append(_code_digest(constant))
        else:
            parts.append(repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant))
    return digest16("\n".join(parts)).hex()


def _unbind(job: Callable[..., Any]) -> _Bound:
    values: list[tuple[str, Any]] = []
    while True:
        if isinstance(job, functools.partial):
            values += [(f"partial[{i}]", value) for i, value in enumerate(job.args)]
            values += sorted(item for item in job.keywords.items() if type(item[1]) is not Marker)
            job = job.func
        elif inspect.ismethod(job):
            if not isinstance(job.__self__, type):
                values.append(("self", job.__self__))
            job = job.__func__
        elif hasattr(job, "__wrapped__"):
            job = job.__wrapped__
        elif not isinstance(job, types.FunctionType | types.BuiltinFunctionType) and not inspect.isroutine(job) and (
            not isinstance(job, type)
        ):
            values.append(("self", job))
            job = type(job).__call__
        else:
            break
    values += [
        (cell, content.cell_contents)
        for cell, content in zip(_free(job), getattr(job, "__closure__", None) or (), strict=False)
        if _filled(content) and content.cell_contents is not job
    ]
    return _Bound(job, tuple(values))


def _free(job: Callable[..., Any]) -> tuple[str, ...]:
    code = getattr(job, "__code__", None)
    return code.co_freevars if code is not None else ()


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell has no contents to read
    except ValueError:
        return False
    return True


def _label(function: Callable[..., Any]) -> str:
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{_module(function)}:{qualname}"


def _module(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None) or "?"
    if module not in ("__main__", "__mp_main__"):
        return module
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        # A notebook, a REPL, `-c`: nothing but the marker tells them apart.
        return "<notebook>" if "ipykernel" in sys.modules else "<interactive>"
    path = Path(file)
    return path.name if path.name != "__main__.py" else f"{path.parent.name}/{path.name}"


def _signature(job: Callable[..., Any], label: str) -> inspect.Signature:
    try:
        signature = inspect.signature(job)
    except (TypeError, ValueError) as error:
        raise NotAJobError(f"{label} is no job: its parameters cannot be read ({error})", job=label) from error
    state = signature.parameters.get("state")
    if state is None or state.kind in (state.VAR_POSITIONAL, state.VAR_KEYWORD):
        raise StateParameterError(
            f"{label} has no parameter `state` (write `def {label.rpartition(':')[2]}(..., state=None)`: the last "
            f"checkpoint's state comes in there)", job=label,
        )
    if state.kind == state.POSITIONAL_ONLY:
        raise StateParameterError(f"{label}: the parameter `state` must be one that takes a keyword", job=label)
    if state.default is state.empty:
        raise StateParameterError(
            f"{label}: the parameter `state` needs a default, the state of a run that has not begun (`state=None`)", job=label,
        )
    return signature


def _marked(signature: inspect.Signature, args: tuple[Any, ...]) -> dict[str, str]:
    found = {
        name: parameter.default.resource_name
        for name, parameter in signature.parameters.items() if type(parameter.default) is Marker
    }
    if found:
        for given in signature.bind_partial(*args).arguments:
            found.pop(given, None)
    return found


def _check_keywords(label: str, signature: inspect.Signature, keywords: dict[str, Any], given: set[str]) -> None:
    short = label.rpartition(":")[2]
    for keyword in (*keywords, *given):
        parameter = signature.parameters.get(keyword)
        takes_any = any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())
        if keyword in given and (parameter is None or parameter.kind == parameter.POSITIONAL_ONLY):
            continue
        whose = "also a parameter of the job" if keyword in given else (
            "the job's" if parameter is not None or takes_any else "neither the driver's nor the job's"
        )
        raise DriverKeywordError(
            f"{keyword}= is {whose}; keywords go to the driver "
            f"(bind the job's own: run(functools.partial({short}, {keyword}=...), ...))", job=label, keyword=keyword,
        )


def _check_arguments(label: str, signature: inspect.Signature, args: tuple[Any, ...]) -> None:
    bound = signature.bind_partial(*args)
    if "state" in bound.arguments:
        raise StateParameterError(
            f"{label}: argument {list(bound.arguments).index('state') + 1} of the call would become `state`, which the driver "
            f"gives (make `state` keyword-only, or drop the argument)", job=label,
        )
    signature.bind(*args)


def _digest(values: tuple[tuple[str, Any], ...], registry: Registry) -> bytes:
    whole = hashlib.blake2b(digest_size=16)
    for path, value in values:
        whole.update(digest(path, path=path, registry=registry))
        whole.update(digest(value, path=path, registry=registry))
    return whole.digest()
