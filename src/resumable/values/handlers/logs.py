"""Handlers of `logging`: made again from their settings; a log file is appended to, never cut or emptied.

Kept: level, formatter, filters, name; of a FileHandler, a RotatingFileHandler, a TimedRotatingFileHandler and a
WatchedFileHandler path, encoding, errors, delay, and how it rotates; of a StreamHandler its stream, which has to be one that
can come back itself (stdout and stderr do, as those of the new process); host, port and further settings of a
SocketHandler, DatagramHandler, SysLogHandler, HTTPHandler and SMTPHandler, the password as a reference; capacity and target
of a MemoryHandler. Refused: a MemoryHandler that holds records, a QueueHandler, closed handlers, classes of one's own.

Not kept: the loggers that it was added to, as a program adds its handlers when it starts, and two would write each line
twice. Mode "w" becomes "a". What a job logs again after a resume stands in the log twice. A rotating handler judges anew,
by the file as it stands, when to rotate next.

Loggers and LoggerAdapters need no handler: they pickle by name. Cost: 5 to 12 µs.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Final, NamedTuple

from resumable.values.registry import Handler, alive, key_of


class _Kind(NamedTuple):
    """arguments: what its class is called with. settings: attributes set afterwards. where: those that identify it."""

    arguments: Callable[[Any], dict[str, Any]]
    settings: tuple[str, ...] = ()
    where: tuple[str, ...] = ()


def extract(handler: logging.Handler) -> dict[str, Any]:
    """What makes an equal one, everything logged so far written out. Raises LiveResourceError."""
    kind = _kind(handler)
    if getattr(handler, "_closed", False):
        raise alive(handler, "it is closed (keep the settings that it was made from)")
    arguments = kind.arguments(handler)
    handler.flush()
    login = getattr(handler, "credentials", None)  # an HTTPHandler's
    return {
        "arguments": arguments,
        "settings": {name: getattr(handler, name) for name in kind.settings},
        "login": {"user": login[0], "password": login[1]} if login else None,
        "name": handler.name,
        "level": handler.level,
        "formatter": handler.formatter,
        "filters": list(handler.filters),
    }


def identify(handler: logging.Handler) -> dict[str, Any]:
    """Its class, and where it writes to."""
    return {"class": key_of(type(handler)), "where": [getattr(handler, name) for name in _kind(handler).where]}


def reconnect(key: str, description: dict[str, Any]) -> Any:
    """An equal handler. Raises OSError when its file cannot be opened."""
    module, _, name = key.partition(":")
    arguments = {name: _stream(value) if name == "stream" else value for name, value in description["arguments"].items()}
    made: Any = getattr(import_module(module), name)(**arguments)
    for setting, value in description["settings"].items():
        setattr(made, setting, value)
    if description["login"]:
        made.credentials = (description["login"]["user"], description["login"]["password"])
    made.set_name(description["name"])
    made.setLevel(description["level"])
    made.setFormatter(description["formatter"])
    for each in description["filters"]:
        made.addFilter(each)
    return made


def _kind(handler: logging.Handler) -> _Kind:
    key = key_of(type(handler))
    if key == "logging.handlers:QueueHandler":
        raise alive(handler, "a thread that will be gone reads its queue (keep its settings, and make both when the job starts)")
    kind = _KINDS.get(key)
    if kind is None:
        raise alive(handler, "it is of a class of its own (keep its settings, or use register_reconnector for that class)")
    return kind


# ---- what their classes are called with


def _attributes(*names: str) -> Callable[[Any], dict[str, Any]]:
    """Arguments that stand in attributes of the same names."""
    return lambda handler: {name: getattr(handler, name) for name in names}


def _file(handler: Any, *names: str) -> dict[str, Any]:
    return {"filename": handler.baseFilename, **_attributes("encoding", "errors", "delay", *names)(handler)}


def _timed(handler: Any) -> dict[str, Any]:
    seconds = {"S": 1, "M": 60, "H": 3600, "W": 7 * 86400}.get(handler.when[0] if handler.when != "MIDNIGHT" else "D", 86400)
    return {
        **_file(handler, "when", "backupCount", "utc", "atTime"),
        "interval": int(handler.interval) // seconds,
    }


def _to_stream(handler: Any) -> dict[str, Any]:
    # Whatever stands for them: a notebook and a test have streams of their own kind there.
    standard = next((name for name in ("stdout", "stderr") if handler.stream is getattr(sys, name)), None)
    return {"stream": handler.stream if standard is None else {"standard": standard}}


def _stream(described: Any) -> Any:
    return getattr(sys, described["standard"]) if type(described) is dict else described


def _mail(handler: Any) -> dict[str, Any]:
    host = handler.mailhost if handler.mailport is None else (handler.mailhost, handler.mailport)
    return {"mailhost": host, **_attributes("fromaddr", "toaddrs", "subject", "secure", "timeout")(handler)}


def _memory(handler: Any) -> dict[str, Any]:
    if handler.buffer:
        raise alive(handler, f"it holds {len(handler.buffer)} records (flush() it before the checkpoint)")
    return _attributes("capacity", "flushLevel", "target", "flushOnClose")(handler)


_FILE: Final = ("baseFilename",)
_SERVER: Final = ("host", "port")
_RETRIES: Final = ("closeOnError", "retryStart", "retryMax", "retryFactor")
_KINDS: Final = {
    "logging:NullHandler": _Kind(_attributes()),
    "logging:StreamHandler": _Kind(_to_stream, ("terminator",)),
    "logging:FileHandler": _Kind(_file, ("terminator",), _FILE),
    "logging.handlers:WatchedFileHandler": _Kind(_file, ("terminator",), _FILE),
    "logging.handlers:RotatingFileHandler": _Kind(
        lambda handler: _file(handler, "maxBytes", "backupCount"), ("terminator", "namer", "rotator"), _FILE
    ),
    "logging.handlers:TimedRotatingFileHandler": _Kind(
        _timed, ("terminator", "namer", "rotator", "suffix", "extMatch"), _FILE
    ),
    "logging.handlers:SocketHandler": _Kind(_attributes(*_SERVER), _RETRIES, _SERVER),
    "logging.handlers:DatagramHandler": _Kind(_attributes(*_SERVER), _RETRIES, _SERVER),
    "logging.handlers:SysLogHandler": _Kind(
        _attributes("address", "facility", "socktype"), ("ident", "append_nul"), ("address",)
    ),
    "logging.handlers:HTTPHandler": _Kind(
        _attributes("host", "url", "method", "secure", "context"), (), ("host", "url")
    ),
    "logging.handlers:SMTPHandler": _Kind(_mail, ("username", "password"), ("mailhost", "mailport", "toaddrs")),
    "logging.handlers:MemoryHandler": _Kind(_memory, (), ("capacity",)),
}
HANDLERS: Final = {
    key: Handler(key, extract, partial(reconnect, key), identify) for key in ("logging:Handler", *_KINDS)
}
