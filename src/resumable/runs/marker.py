"""`resource(name)`: what stands as the default of a job's parameter that the Driver fills when a run starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from resumable.errors import ResourceNotGivenError

# Operators are looked up in the class, past `__getattr__`. Comparing is left alone: `inspect` compares defaults.
_USES: Final = """
    call iter next reversed len length_hint contains getitem setitem delitem enter exit aenter aexit await aiter anext
    bool int float complex index bytes fspath add radd iadd sub rsub mul rmul matmul truediv rtruediv floordiv mod divmod
    pow lshift rshift and or xor neg pos abs invert lt le gt ge
"""


class Marker:
    """A parameter's default before the Driver has filled it. Using it as if it were the resource raises an error."""

    __slots__ = ("resource_name",)

    resource_name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "resource_name", name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # somebody asks what kind of object this is
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise _not_given(self)

    def __setattr__(self, name: str, value: object) -> None:
        raise _not_given(self)

    def __delattr__(self, name: str) -> None:
        raise _not_given(self)

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return resource, (self.resource_name,)  # a job defined in a function is pickled with its defaults

    def __repr__(self) -> str:
        return f"resource({self.resource_name!r})"


def _not_given(marker: Marker) -> ResourceNotGivenError:
    return ResourceNotGivenError(
        f"{marker!r} stands for a resource that the job was not given: only a Driver fills it in (run the job by a Driver "
        f"that has resources={{{marker.resource_name!r}: ...}}, or pass the resource when you call the job yourself)",
        resource=marker.resource_name,
    )


def _refuse(self: Marker, *args: object) -> Any:
    raise _not_given(self)


for _use in _USES.split():
    setattr(Marker, f"__{_use}__", _refuse)


def resource(name: str) -> Any:
    """The default of a job's parameter that a Driver fills: `def job(paths, db: Connection = resource("db"), state=0)`.

    When a run starts, the parameter is given what the factory made that stands under `name` in the Driver's `resources`;
    it is closed when the run ends or stops. Nothing of it is stored. A call that gives the argument itself has its way.
    """
    if not isinstance(name, str):
        raise TypeError(f"resource takes the name of one of the Driver's resources, a str, not {name!r}")
    return Marker(name)
