"""Digests of arguments: which run is meant, said in 16 bytes.

The promise: equal values give equal digests, in every process, on every machine. So nothing that differs between
processes is ever fed to the hash: no `repr`, `id`, `hash` or pickle bytes. What follows from it:

- numbers go in as exact ratios, so 1, 1.0, True, Decimal(1) and Fraction(1) are one value, as they are for `==`;
- what compares without order (dict, set) goes in as the sorted digests of its parts;
- a subclass goes in like the class whose `__eq__` it uses: IntEnum as int, a named tuple as tuple, OrderedDict as dict;
- classes and functions go in by name (the code may be fixed between crash and rerun), live resources by the description
  that the registry has for them;
- everything else compares by identity or by rules that cannot be known here, and is refused by name.

Types are found by name too ("numpy.ndarray"), so nothing has to be imported for values that nobody uses.
"""

from __future__ import annotations

import functools

from ..errors import UnstableArgumentError
from . import digest_code, digest_numpy, digest_plain
from .digester import Digester, Feeder, Unstable
from .excerpt import show
from .registry import Handler, Registry
from .secrets import mask_text

__all__ = ["digest", "show"]

_BY_NAME = digest_plain.BY_NAME | digest_code.BY_NAME | digest_numpy.BY_NAME


def digest(value: object, *, path: str, registry: Registry) -> bytes:
    """Sixteen bytes that are equal for equal values, in every process.

    `path` says where the value stands ("args[0]"). Raises UnstableArgumentError, with the path down to the culprit, for
    values that have no such digest.
    """
    cause: BaseException | None = None
    where, type_name = path, type(value).__qualname__
    try:
        return Digester(digest_plain.LEAVES, functools.partial(_feeder_for, registry)).apart(value)
    except Unstable as unstable:
        where += "".join(reversed(unstable.steps))
        type_name, why, cause = unstable.type_name, unstable.why, unstable.__cause__
    except RecursionError:
        why = "it is nested too deeply"
    except Exception as error:  # noqa: BLE001 - the value's own code: an attribute never set, a proxy without its object
        why, cause = f"looking at it raises {type(error).__name__}: {mask_text(str(error))}", error
    raise UnstableArgumentError(
        f"{where} ({type_name}) has no digest that is equal in every process: {why} "
        "(name the run yourself: name='...')",
        path=where,
        type_name=type_name,
    ) from cause


def _feeder_for(registry: Registry, cls: type) -> Feeder:
    """How values of this class go in: as the registry says, else like the class whose `__eq__` they use."""
    names = [_name(base) for base in cls.__mro__]
    if names[0] in _BY_NAME:  # before the registry, which refuses some that cannot be saved but can be told apart
        return _BY_NAME[names[0]]
    handler = registry.lookup(cls)
    if handler is not None:
        return functools.partial(_feed_resource, handler=handler)
    for family, feeder in digest_numpy.FAMILIES.items():
        if family in names:
            return feeder
    for base, name in zip(cls.__mro__, names, strict=True):
        if name in _BY_NAME:
            return _BY_NAME[name]
        if "__eq__" in vars(base):
            fields = digest_plain.compared_fields(base)
            return digest_code.feed_unknown if fields is None else digest_plain.feeder_of_fields(fields)
    raise AssertionError("object has an __eq__")


def _name(cls: type) -> str:
    """Top-level package and qualified name: what stays when a library moves a class between its files."""
    return f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}"


def _feed_resource(out: Digester, value: object, *, handler: Handler) -> None:
    try:
        description = handler.identity(value)
    except Exception as error:  # a handler may be the user's; a closed or refused resource ends here
        raise Unstable(value, f"describing it raises {type(error).__name__}: {mask_text(str(error))}") from error
    out.named(b"R", type(value))
    out.feed(description)
