"""Open files: reopened where they stood, and never emptied.

Kept: path, mode, encoding, errors, newline, buffering by line, position, and of a file that is written its length. On
resume a written file is cut to that length, so what came after the checkpoint is not there twice; one opened "w" or
"x" is reopened without truncation. The same file must still stand under the path: inode and first bytes are compared
(not the bytes of a file opened with "+": use such a mode where a job goes back to rewrite the first 64).

Not kept: the size of the buffer. Bytes that were overwritten in place after the checkpoint stay overwritten.

Cost: about 10 µs for a file being written, 50 µs for a text file in the middle of `for line in file`.
"""

from __future__ import annotations

import gc
import io
import os
import stat
import sys
import weakref
from typing import Any, Final

from resumable.values.registry import Handler, alive

_HEAD: Final = 64  # first bytes that tell a file from another one that got its inode
_STANDARD: Final = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
_AHEAD: Final = 4096  # characters
_LAST: Final = (1 << 64) - 1  # greatest plain position; above it are the cookies of decoders in some state
_NEVER_AGAIN: Final = os.O_TRUNC | os.O_CREAT | os.O_EXCL
_TYPES: Final = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)
_Layer = io.FileIO | io.BufferedReader | io.BufferedWriter | io.BufferedRandom

# What cannot change while a file is open, found once: path, and the first bytes when all of them are there.
_paths: weakref.WeakKeyDictionary[io.FileIO, str] = weakref.WeakKeyDictionary()
_heads: weakref.WeakKeyDictionary[io.FileIO, bytes] = weakref.WeakKeyDictionary()


def extract(file: Any) -> dict[str, Any]:
    """Where a file stands, everything written so far handed to the kernel. Raises LiveResourceError."""
    standard = _standard_name(file)
    if standard is not None:
        return {"standard": standard}
    raw = _raw(file)
    text = isinstance(file, io.TextIOWrapper)
    position = _text_position(file, raw) if text else _position(file)
    now = os.fstat(raw.fileno())
    path = _path(file, raw, now)
    return {
        "path": path,
        "mode": _mode(file, raw),
        "position": position,
        "length": now.st_size if raw.writable() else None,
        "inode": now.st_ino,
        "head": _head(raw, path, now.st_size),
        "buffering": 0 if file is raw else -1,
        "text": (file.encoding, file.errors, _newline(file)) if text else None,
        "flushing": (file.line_buffering, file.write_through) if text else None,
    }


def identify(file: Any) -> dict[str, Any]:
    """What of a file counts when arguments are compared: where it is and how it was opened, not how far it got."""
    standard = _standard_name(file)
    if standard is not None:
        return {"standard": standard}
    raw = _raw(file)
    return {
        "path": _path(file, raw, os.fstat(raw.fileno())),
        "mode": _mode(file, raw),
        "encoding": getattr(file, "encoding", None),
    }


def reconnect(description: dict[str, Any]) -> Any:
    """The file opened again at its position. Raises OSError or ValueError when it is not the file that it was."""
    if "standard" in description:
        return getattr(sys, description["standard"])

    def reopen(path: str, flags: int) -> int:
        descriptor = os.open(path, flags & ~_NEVER_AGAIN | os.O_CLOEXEC)
        try:
            _check(descriptor, path, description)
            if description["length"] is not None:
                os.ftruncate(descriptor, description["length"])
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    layers: tuple[Any, Any, Any] = description["text"] or (None, None, None)
    file: Any = open(  # noqa: SIM115 - it stays open
        description["path"], description["mode"], description["buffering"], *layers, opener=reopen
    )
    if description["flushing"]:
        line_buffering, write_through = description["flushing"]
        file.reconfigure(line_buffering=line_buffering, write_through=write_through)
    file.seek(description["position"])
    return file


# ---- describing


def _standard_name(file: Any) -> str | None:
    name = getattr(file, "name", None)
    if type(file) in _TYPES and isinstance(name, str) and name[:1] != "<":
        return None  # at once, for nearly all
    return next((name for name in _STANDARD if file is getattr(sys, name)), None)


def _raw(file: Any) -> io.FileIO:
    """The FileIO at the bottom of a file's layers."""
    if type(file) not in _TYPES:
        raise alive(file, "it is a file of a class of its own (register_reconnector for that class)")
    if file.closed:
        raise alive(file, "it is closed (keep its path)")
    layer = file.buffer if isinstance(file, io.TextIOWrapper) else file
    raw = layer if isinstance(layer, io.FileIO) else getattr(layer, "raw", None)
    if type(raw) is not io.FileIO:
        raise alive(file, f"below it lies a {type(layer).__qualname__} (keep its path and the number of items done)")
    return raw


def _path(file: Any, raw: io.FileIO, now: os.stat_result) -> str:
    """The absolute path under which the file stands; checked once, later only that it was not deleted."""
    if now.st_nlink == 0:
        raise alive(file, "it was deleted or replaced while open (keep the file in place, or its contents)")
    if raw in _paths:
        return _paths[raw]
    if isinstance(raw.name, int) or not stat.S_ISREG(now.st_mode):
        raise alive(file, "it is a pipe, a device or a bare descriptor (open a regular file by its path)")
    path = os.path.abspath(os.fsdecode(raw.name))
    if not os.path.exists(path) or not os.path.samestat(os.stat(path), now):
        raise alive(file, f"{path} is another file by now (open by absolute path, and replace no file that is open)")
    return _paths.setdefault(raw, path)


def _mode(file: Any, raw: io.FileIO) -> str:
    # A FileIO forgets the "w" in "w+" and says "rb+", which reopens it just as well.
    mode = getattr(file, "mode", None)
    if isinstance(mode, str):
        return mode
    return raw.mode.replace("b", "")  # a TextIOWrapper that open() did not make has none of its own


def _head(raw: io.FileIO, path: str, size: int) -> bytes | None:
    if raw.readable() and raw.writable():
        return None
    if raw in _heads:
        return _heads[raw]
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(descriptor, min(_HEAD, size), 0)
    finally:
        os.close(descriptor)
    return _heads.setdefault(raw, head) if len(head) == _HEAD else head


def _newline(file: io.TextIOWrapper) -> str | None:
    # No attribute tells it, and reading on with another one would read other text. The object's own references do:
    # its strings are encoding, newline unless None, errors. A reader's decoded text would be a fourth: see seek below.
    strings = [part for part in gc.get_referents(file) if type(part) is str]
    if not 2 <= len(strings) <= 3 or strings[0] != file.encoding or strings[-1] != file.errors:
        raise alive(file, "its newline setting cannot be read on this Python (register_reconnector for your files)")
    return strings[1] if len(strings) == 3 else None


# ---- positions


def _position(file: _Layer) -> int:
    if not file.seekable():
        raise alive(file, "it has no position (keep what was read from it)")
    file.flush()
    return file.tell()


def _text_position(file: io.TextIOWrapper, raw: io.FileIO) -> int:
    if not file.seekable():
        raise alive(file, "it has no position (keep what was read from it)")
    try:
        position = file.tell()
    except OSError:
        return _iterated_position(file, raw)
    if raw.readable():
        file.seek(position)  # drops the decoded text, which `_newline` would take for a setting
    return position


def _iterated_position(file: io.TextIOWrapper, raw: io.FileIO) -> int:
    """Where `for line in file` stands, exactly.

    Inside the loop tell() is refused; after flush() it answers, but wrongly, as nobody counted what was decoded so far.
    What is decoded from now on is counted: so read past it, ask there, and go back by the bytes of what was read. That
    they decode to the same text is checked, as a mixture of newlines or an encoding with states would miscount.
    """
    file.flush()
    below: Any = file.buffer
    decoded = below.tell()
    ahead = ""
    while more := file.read(_AHEAD):
        ahead += more
        if below.tell() > decoded and file.tell() <= _LAST:
            break
    end = file.tell()
    file.seek(end)
    encoding = file.encoding.removesuffix("-sig")  # its mark stands at the file's start alone
    for newline in ("\n", "\r\n", "\r") if _newline(file) is None else ("\n",):
        encoded = ahead.replace("\n", newline).encode(encoding, file.errors or "strict")
        start = end - len(encoded)
        if start >= 0 and end <= _LAST and os.pread(raw.fileno(), len(encoded), start) == encoded:
            file.seek(start)
            return start
    raise alive(file, "its place inside `for line in file` cannot be told (write `while line := file.readline():`)")


# ---- checking


def _check(descriptor: int, path: str, description: dict[str, Any]) -> None:
    """Raise ValueError unless this is the file that was described, and as long as it was."""
    now = os.fstat(descriptor)
    head = description["head"]
    if now.st_ino != description["inode"]:
        raise ValueError(f"{path} was replaced by another file")
    needed = description["length"]
    if needed is None:
        needed = description["position"] & _LAST
    if now.st_size < needed:
        raise ValueError(f"{path} shrank: it has {now.st_size} bytes and had {needed} at the checkpoint")
    if head is not None and _read_head(path, len(head)) != head:
        raise ValueError(f"{path} was replaced or rewritten: it begins with other bytes than at the checkpoint")


def _read_head(path: str, length: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(length)


HANDLERS: Final = {
    key: Handler(key, extract, reconnect, identify) for key in (f"_io:{cls.__qualname__}" for cls in _TYPES)
}
