"""What is kept of an exception that ended a run: enough to understand it a week later, on another machine.

`freeze` makes a plain-encodable dict of it, `Failure.thaw` reads that back. Freezing looks at the user's objects, whose
code may do anything; whatever it does, the exception under way stays the one that counts. Secrets are masked.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import CodeType, FrameType, MappingProxyType
from typing import Any

from .. import clock
from ..values import known_secrets, secrets
from ..values.excerpt import NotKept, excerpt

_LIMIT = 64 * 1024  # of the message, the traceback, each local
_ALL_LOCALS = 1024 * 1024  # a failure record has to fit into a journal segment
_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Failure:
    """How a run failed. `traceback` holds the whole chain of exceptions, `locals` the job's own innermost frame.

    `index` and `item` tell which item of a loop was at hand, the item in a short form; None where that is not known.
    """

    run: str
    number: int
    seq: int
    type: str
    message: str
    traceback: str
    locals: Mapping[str, object]
    time: datetime
    index: int | None = None
    item: str | None = None

    @classmethod
    def thaw(cls, frozen: Mapping[str, Any], *, run: str, number: int, seq: int) -> Failure:
        """Read back what `freeze` made. `seq`: the run's last checkpoint."""
        index, item = frozen.get("item", (None, None))
        return cls(
            run=run,
            number=number,
            seq=seq,
            type=frozen["type"],
            message=frozen["message"],
            traceback=frozen["traceback"],
            locals={name: kept[0] if len(kept) == 1 else NotKept(*kept) for name, kept in frozen["locals"].items()},
            time=datetime.fromtimestamp(frozen["time"], UTC),
            index=index,
            item=item,
        )


def freeze(
    exc: BaseException, *, job_code: CodeType | None, keep_locals: bool, injected: Mapping[str, object] = MappingProxyType({}),
    item: tuple[int, str | None] | None = None,
) -> dict[str, object]:
    """A dict of exact builtin types, each text at most 64 KB, the locals together at most about 1 MB.

    `job_code`: the job's code object, which tells its frame. `item`: the one of a loop that was at hand. `locals` maps each
    name to `(value,)` for plain data or `(type name, text)` for anything else, and for `injected`, the Driver's resources by
    name. Raises nothing but what stops the process (KeyboardInterrupt, SystemExit).
    """
    frame = _frame_of_job(exc, job_code) if keep_locals else None
    return {
        "type": _type_name(type(exc)),
        "message": _bounded(_message(exc)),
        "traceback": _bounded(_traceback(exc)),
        "locals": _locals(frame, injected) if frame is not None else {},
        "time": clock.time_ns() / 1e9,
        **({"item": item} if item is not None else {}),
    }


def in_a_line(exc: BaseException) -> str:
    """An exception as it stands at the end of a sentence: its type's name and the first line of its message, masked."""
    first = next(iter(_bounded(_message(exc)).splitlines()), "")
    return f"{type(exc).__name__}: {first[:200]}" if first else type(exc).__name__


def _type_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as error:  # noqa: BLE001 - the user's __str__
        return f"<no message: its __str__ raises {type(error).__qualname__}>"


def _traceback(exc: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exc))
    except Exception as error:  # noqa: BLE001 - the user's __str__, source files, notes
        return f"{_type_name(type(exc))}: <no traceback: formatting it raises {type(error).__qualname__}>\n"


def _bounded(text: str) -> str:
    """Mask the secrets in a text, and leave out its middle if it is long.

    It is shortened roughly before masking, that a huge text stays cheap, and exactly after it; what the rough cut may have
    made a piece of a secret is left out.
    """
    spare = known_secrets.longest()
    rough = 2 * _LIMIT + spare
    if len(text) <= 2 * rough:
        return _shortened(secrets.mask_text(text), _LIMIT)
    head, tail = secrets.mask_text(text[:rough]), secrets.mask_text(text[-rough:])
    return _without_middle(_bytes(head[: max(0, len(head) - spare)]), _bytes(tail[spare:]), len(_bytes(text)), _LIMIT)


def _shortened(text: str, limit: int) -> str:
    data = _bytes(text)
    return data.decode() if len(data) <= limit else _without_middle(data, data, len(data), limit)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # lone surrogates could not be written out again


def _without_middle(head: bytes, tail: bytes, size: int, limit: int) -> str:
    mark = f"\n... ({size:,} bytes in all) ...\n".encode()
    half = (limit - len(mark)) // 2
    return (head[:half] + mark + tail[-half:]).decode("utf-8", "ignore")


def _frame_of_job(exc: BaseException, job_code: CodeType | None) -> FrameType | None:
    """The innermost frame that runs the job's own code; else the innermost outside this package."""
    frames = [frame for frame, _line in traceback.walk_tb(exc.__traceback__)]
    own = [frame for frame in frames if frame.f_code is job_code]
    outside = [frame for frame in frames if not _is_ours(frame)]
    return next(reversed(own or outside), None)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE


def _locals(frame: FrameType, injected: Mapping[str, object]) -> dict[str, tuple[object, ...]]:
    # Python has None and small numbers once only: they tell nothing.
    resources = {id(value): name for name, value in injected.items() if not isinstance(value, int | float | None)}
    left = _ALL_LOCALS
    frozen: dict[str, tuple[object, ...]] = {}
    try:
        for name, value in dict(frame.f_locals).items():
            if id(value) in resources:
                frozen[name] = _type_name(type(value)), f"<resource {resources[id(value)]!r}>"
            elif not name.startswith("__"):
                frozen[name], size = _local(name, value, min(_LIMIT, left))
                left = max(left - size, 0)
    except Exception as error:  # noqa: BLE001 - a frame of exec() has whatever mapping it was given
        frozen["..."] = (_type_name(type(error)), "reading the other locals raises this")
    return frozen


def _local(name: str, value: object, limit: int) -> tuple[tuple[object, ...], int]:
    """What is kept of one local, and about how many bytes that takes."""
    try:
        copy, exact, size = excerpt(value, limit, name=name)
        if exact and size <= limit:
            return (copy,), size
        text = _shortened(repr(copy), limit)
    except Exception as error:  # noqa: BLE001 - the user's objects: anything, such as a dict changed by another thread
        text = f"<not shown: looking at it raises {type(error).__qualname__}>"
    return (_type_name(type(value)), text), len(text)
