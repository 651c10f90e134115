"""Feeders for classes and functions: by name, for their code may be fixed between crash and rerun."""

from __future__ import annotations

import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any

from .digest_plain import facts, feed_set
from .digester import Digester, Feeder, Unstable


def feed_class(out: Digester, value: type) -> None:
    out.named(b"C", value)


def feed_module(out: Digester, value: ModuleType) -> None:
    out.text(b"m", value.__name__)


def feed_function(out: Digester, value: FunctionType) -> None:
    """By name, with what it closes over. All lambdas of one place share a name, so theirs is their code."""
    out.named(b"f", value)
    if value.__name__ == "<lambda>":
        _feed_code(out, value.__code__)
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        out.text(b".", name)
        try:
            content = cell.cell_contents
        except ValueError:  # not bound yet
            out.token(b"_")
        else:
            out.part(content, f".{name}")


def _feed_code(out: Digester, code: CodeType) -> None:
    out.token(b"=", code.co_code)
    out.feed(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _feed_code(out, constant)
        else:
            out.feed(constant)


def feed_builtin(out: Digester, value: Any) -> None:
    """A builtin function, or a builtin's bound method: what it is called on, and its name."""
    if value.__self__ is None or isinstance(value.__self__, ModuleType):
        out.named(b"f", value)
    else:
        out.text(b"B", value.__name__)
        out.part(value.__self__, ".__self__")


def feed_descriptor(out: Digester, value: Any) -> None:
    out.named(b"y", value.__objclass__)
    out.text(b".", value.__name__)


def feed_union(out: Digester, value: Any) -> None:
    out.token(b"|")
    feed_set(out, value.__args__)


def feed_reduced(out: Digester, value: Any) -> None:
    """operator.itemgetter and its like tell what they are made of in `__reduce__`: a class and its arguments."""
    out.token(b"O")
    out.feed(value.__reduce__())


def feed_unknown(out: Digester, value: Any) -> None:
    """Something that can be found again under its own name (a ufunc, a cached function), or nothing we know."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str) and _found(module, name) is value):
        raise Unstable(value, "it is equal to itself alone, or by rules that are not known here")
    out.named(b"f", value)


def _found(module: str, name: str) -> object:
    found: object = sys.modules.get(module)
    for step in name.split("."):
        found = getattr(found, step, None)
    return found


BY_NAME: dict[str, Feeder] = {
    "builtins.type": feed_class,
    "builtins.module": feed_module,
    "builtins.function": feed_function,
    "builtins.method": facts(b"B", "__func__", "__self__"),
    "builtins.builtin_function_or_method": feed_builtin,
    "builtins.method-wrapper": feed_builtin,
    "builtins.method_descriptor": feed_descriptor,
    "builtins.wrapper_descriptor": feed_descriptor,
    "builtins.classmethod_descriptor": feed_descriptor,
    "types.GenericAlias": facts(b"G", "__origin__", "__args__"),
    "types.UnionType": feed_union,
    "typing.Union": feed_union,
    "functools.partial": facts(b"A", "func", "args", "keywords"),
    "operator.itemgetter": feed_reduced,
    "operator.attrgetter": feed_reduced,
    "operator.methodcaller": feed_reduced,
}
