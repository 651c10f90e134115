"""Open files: reopened where they stood, and never emptied.

Kept: path, mode, encoding, errors, newline, buffering by line, position, and of a file that is written its length. On
resume a written file is cut to that length, so what came after the checkpoint is not there twice; one opened "w" or
"x" is reopened without truncation. The same file must still stand under the path: inode and first bytes are compared
(not the bytes of a file opened with "+": use such a mode where a job goes back to rewrite the first 64).

Not kept: the size of the buffer. Bytes that were overwritten in place after the checkpoint stay overwritten. Refused,
as a resume would cut off what others wrote: a file opened "a" that something else appends to, and two open files that
write to one. A text file over gzip, bz2 or lzma comes back too, see compressed.py.

Cost: about 9 µs for a text file being written, 7 µs for a binary one, 21 µs in the middle of `for line in file`.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import weakref
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any, Final

from resumable.errors import LiveResourceError
from resumable.values import outputs
from resumable.values.handlers import text_position
from resumable.values.registry import Handler, alive

HEAD: Final = 64  # first bytes that tell a file from another one that got its inode
_STREAMS: Final = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
_STANDARD: Final = (*_STREAMS, *(f"{name}.buffer" for name in _STREAMS))
_NEVER_AGAIN: Final = os.O_TRUNC | os.O_CREAT | os.O_EXCL
_TYPES: Final = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)
_COMPRESSED: Final = ("gzip", "bz2", "lzma")  # modules of the streams that compressed.py knows
_USUAL: Final = ("strict", None, False, False)  # errors, newline, line_buffering, write_through
_Layer = io.FileIO | io.BufferedReader | io.BufferedWriter | io.BufferedRandom


@dataclass(slots=True)
class _Seen:
    """What does not change while a file is open. owner: what the state holds, the file or an object around it."""

    path: str
    mode: str
    descriptor: int
    inode: int
    device: int
    readable: bool
    writable: bool
    unbuffered: bool
    owner: weakref.ref[Any]
    head: bytes | None = None  # once all of it was there


_seen: Final[weakref.WeakKeyDictionary[Any, _Seen]] = weakref.WeakKeyDictionary()


def extract(file: Any) -> dict[str, Any]:
    """Where a file stands, everything written so far handed to the kernel. Raises LiveResourceError."""
    seen = _seen.get(file)
    if seen is not None:
        return _describe(file, seen)
    standard = standard_name(file)
    return {"standard": standard} if standard is not None else describe(file, file)


def describe(file: Any, owner: Any) -> dict[str, Any]:
    """The same for a file inside `owner`, which is what the state holds. Raises LiveResourceError."""
    stream = _compressed_below(file)
    if stream is not None:
        position = text_position.position(file, None)
        below = _compressed().describe(stream, owner)
        return {"position": position, "encoding": file.encoding, "settings": _text_settings(file), "below": below}
    seen = _seen.get(file) or _first_seen(file, owner)
    if seen.owner() is not owner:
        raise _held_twice(file, seen.owner())
    return _describe(file, seen)


def _describe(file: Any, seen: _Seen) -> dict[str, Any]:
    text = isinstance(file, io.TextIOWrapper)
    try:
        position: Any = text_position.position(file, seen.descriptor) if text else _position(file)
        settings = _text_settings(file) if text else None
    except ValueError as error:  # closed or detached
        raise alive(file, f"{error} (keep its path)") from error
    size = _size(file, seen)
    if size > position and seen.mode[0] == "a" and not seen.readable:
        raise alive(file, "something else appends to it, and a resume would cut that off (give each writer its own file)")
    if seen.writable:
        outputs.written(seen.path)
    # What is as usual is left out: each item costs time at every checkpoint.
    description = {
        "path": seen.path,
        "mode": seen.mode,
        "position": position,
        "length": size if seen.writable else None,
        "inode": seen.inode,
        "head": seen.head or _head(seen, min(size, position) if seen.writable else size),
    }
    if settings is not None:
        description["encoding"] = file.encoding
        if settings != _USUAL:
            description["settings"] = settings
    elif seen.unbuffered:
        description["buffering"] = 0
    return description


def identify(file: Any) -> dict[str, Any]:
    """What of a file counts when arguments are compared: where it is and how it was opened, not how far it got."""
    standard = standard_name(file)
    if standard is not None:
        return {"standard": standard}
    encoding = getattr(file, "encoding", None)
    stream = _compressed_below(file)
    if stream is not None:
        return {**_compressed().identify(stream), "encoding": encoding}
    raw = _raw(file)
    return {"path": _path(file, raw), "mode": _mode(file, raw), "encoding": encoding}


def taken_up(file: Any, owner: Any) -> Any:
    """`owner`, noted as what stands for this written file before it is described: a resume after the next failure closes it."""
    stream = _compressed_below(file)
    if stream is not None:
        return _compressed().taken_up(stream, owner)
    if outputs.may_cut() and file.writable():
        _first_seen(file, owner)
    return owner


def reconnect_own(description: dict[str, Any]) -> Any:
    """`reconnect` for a file that the state holds itself."""
    file = reconnect(description)
    return file if "standard" in description else taken_up(file, file)


def reconnect(description: dict[str, Any]) -> Any:
    """The file opened again at its position. Raises OSError or ValueError when it is not the file that it was."""
    if "standard" in description:
        return attrgetter(description["standard"])(sys)
    if "below" in description:
        return _over(_compressed().reconnect(description["below"]), description)
    _close_leftovers(description)
    open_any: Any = open
    path, mode, layers = description["path"], description["mode"], _text_layers(description)

    def reopen(path: str, flags: int) -> int:
        descriptor = os.open(path, flags & ~_NEVER_AGAIN | os.O_CLOEXEC)
        try:
            _check(descriptor, path, description)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    if layers and "+" in mode:
        with open_any(path, "r", -1, *layers, opener=reopen) as trial:
            trial.seek(description["position"])  # it may refuse, and after the cut would be too late
    file = open_any(path, mode, description.get("buffering", -1), *layers, opener=reopen)
    try:
        if description["length"] is not None:  # all that can be checked was
            os.ftruncate(file.fileno(), description["length"])
        _restore(file, description)
    except BaseException:
        file.close()
        raise
    return file


def _over(stream: Any, description: dict[str, Any]) -> io.TextIOWrapper:
    """A text file over a compressed one."""
    try:
        file = io.TextIOWrapper(stream, *_text_layers(description))
        _restore(file, description)
    except BaseException:
        stream.close()
        raise
    return file


def _text_layers(description: dict[str, Any]) -> tuple[Any, ...]:
    """encoding, errors and newline, or nothing for a binary file."""
    return (description["encoding"], *description.get("settings", _USUAL)[:2]) if "encoding" in description else ()


def _restore(file: Any, description: dict[str, Any]) -> None:
    if "settings" in description:
        *_, line_buffering, write_through = description["settings"]
        file.reconfigure(line_buffering=line_buffering, write_through=write_through)
    if description["position"] is not None:
        file.seek(description["position"])


# ---- describing


def standard_name(file: Any) -> str | None:
    """The name in `sys` of a stream that is the process's own."""
    return next((name for name in _STANDARD if file is _stream(name)), None)


def _stream(name: str) -> Any:
    try:
        return attrgetter(name)(sys)
    except (AttributeError, ValueError):  # replaced by one without a buffer, or detached
        return None


def _compressed() -> Any:
    # By name, as the registry does it: that file imports this one.
    return import_module(f"{__package__}.compressed")


def _compressed_below(file: Any) -> Any:
    """The stream below a text file when it is one that compressed.py knows."""
    if type(file) is not io.TextIOWrapper:
        return None
    try:
        below = file.buffer
    except ValueError as error:
        raise alive(file, f"{error} (keep the layer that was taken out of it)") from error
    return below if type(below).__module__ in _COMPRESSED else None


def _raw(file: Any) -> io.FileIO:
    """The FileIO at the bottom of a file's layers."""
    if type(file) not in _TYPES:
        raise alive(file, "it is a file of a class of its own (register_reconnector for that class)")
    try:
        closed = file.closed
        layer = file.buffer if isinstance(file, io.TextIOWrapper) else file
        raw = layer if isinstance(layer, io.FileIO) else getattr(layer, "raw", None)
    except ValueError as error:  # detached
        raise alive(file, f"{error} (keep the layer that was taken out of it)") from error
    if closed:
        raise alive(file, "it is closed (keep its path)")
    if type(raw) is not io.FileIO:
        raise alive(file, f"below it lies a {type(layer).__qualname__} (keep its path and the number of items done)")
    return raw


def _first_seen(file: Any, owner: Any) -> _Seen:
    raw = _raw(file)
    if not file.seekable():
        raise alive(file, "it has no position (keep what was read from it)")
    now, readable, writable = os.fstat(raw.fileno()), raw.readable(), raw.writable()
    for other, seen in _open_files(now.st_ino, now.st_dev):
        if seen.descriptor == raw.fileno():
            raise _held_twice(file, other)
        if writable and seen.writable:
            raise alive(file, f"another open file writes to {seen.path} too (close that one, or write through one of them)")
    return _seen.setdefault(file, _Seen(
        _path(file, raw), _mode(file, raw), raw.fileno(), now.st_ino, now.st_dev, readable, writable,
        file is raw, weakref.ref(owner),
    ))


def _held_twice(file: Any, other: Any) -> LiveResourceError:
    return alive(file, f"a {type(other).__qualname__} stands for the same open file in a state (keep one of both)")


def _open_files(inode: int, device: int) -> list[tuple[Any, _Seen]]:
    """Those of this process that were in states and are this file."""
    found = []
    for ref in _seen.keyrefs():
        file: Any = ref()
        seen = _seen.get(file) if file is not None else None
        if seen is not None and (seen.inode, seen.device) == (inode, device):
            with suppress(ValueError):  # detached
                if not file.closed:
                    found.append((file, seen))
    return found


def _path(file: Any, raw: io.FileIO) -> str:
    """The absolute path under which the file stands."""
    now = os.fstat(raw.fileno())
    if not stat.S_ISREG(now.st_mode):
        raise alive(file, "it is a pipe or a device (open a regular file)")
    if isinstance(raw.name, int):
        raise alive(file, "it is a temporary file or a bare descriptor (open a file of your own by its path)")
    path = os.path.abspath(os.fsdecode(raw.name))
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path), now):
            return path
    if now.st_nlink == 0:
        raise alive(file, f"{path} was deleted or replaced while open (keep the file in place)")
    raise alive(file, f"{path} is not this file (open it by its absolute path, and replace or delete no file that is open)")


def _size(file: Any, seen: _Seen) -> int:
    """The file's size, after seeing that it still stands under its path."""
    try:
        now = os.stat(seen.path)
    except FileNotFoundError as error:
        raise alive(file, f"{seen.path} was deleted or renamed while open (keep the file in place)") from error
    if now.st_ino != seen.inode or now.st_dev != seen.device:
        raise alive(file, f"{seen.path} was replaced while open (replace no file that is open)")
    return now.st_size


def _mode(file: Any, raw: io.FileIO) -> str:
    # A FileIO forgets the "w" in "w+" and says "rb+", which reopens it just as well.
    mode = getattr(file, "mode", None)
    if isinstance(mode, str):
        return mode
    return raw.mode.replace("b", "")  # a TextIOWrapper that open() did not make has none of its own


def _head(seen: _Seen, size: int) -> bytes | None:
    """The file's first bytes, as far as they will stay: before the place where it is written."""
    if not seen.writable:
        head = os.pread(seen.descriptor, HEAD, 0)
    elif seen.readable:
        return None
    else:
        try:
            head = read_head(seen.path, min(HEAD, size))
        except PermissionError:  # a file that may be written but not read
            return None
    if len(head) == HEAD:
        seen.head = head
    return head


def _text_settings(file: io.TextIOWrapper) -> tuple[Any, ...]:
    return file.errors, text_position.newline(file), file.line_buffering, file.write_through


def _position(file: _Layer) -> int:
    file.flush()
    return file.tell()


# ---- checking


def _close_leftovers(description: dict[str, Any]) -> None:
    """Close what this process still has open of the file that comes back for writing.

    An object left over from a run that failed, held by a traceback, would write its buffer, or the trailer of a
    compressed file, into the file that was cut.
    """
    if description["length"] is None or not outputs.may_cut():
        return
    with suppress(FileNotFoundError):
        now = os.stat(description["path"])
        for file, seen in _open_files(now.st_ino, now.st_dev):
            if seen.writable:
                owner = seen.owner()
                (file if owner is None else owner).close()


def _check(descriptor: int, path: str, description: dict[str, Any]) -> None:
    """Raise ValueError unless this is the file that was described, and as long as it was."""
    now = os.fstat(descriptor)
    head = description["head"]
    if now.st_ino != description["inode"]:
        raise ValueError(f"{path} was replaced by another file")
    needed = description["length"]
    if needed is None:
        needed = description["position"] & text_position.LAST
    if now.st_size < needed:
        raise ValueError(f"{path} shrank: it has {now.st_size} bytes and had {needed} at the checkpoint")
    if now.st_size > needed and description["length"] is not None and not outputs.may_cut():
        raise ValueError(f"{path} grew: it has {now.st_size} bytes and had {needed} when its run ended, and is not cut then")
    if head is not None and read_head(path, len(head)) != head:
        raise ValueError(f"{path} was replaced or rewritten: it begins with other bytes than at the checkpoint "
                         '(a job that rewrites its first 64 bytes itself is to open it with "+")')


def read_head(path: str, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, 0)
    finally:
        os.close(descriptor)


HANDLERS: Final = {
    key: Handler(key, extract, reconnect_own, identify, may_hold_secrets=False)
    for key in (f"_io:{cls.__qualname__}" for cls in _TYPES)
}
