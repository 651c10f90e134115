"""Where output files stand, and how text becomes their bytes."""

from __future__ import annotations

import codecs
import os
import stat
from contextlib import suppress
from typing import Final

from resumable.errors import OutputError
from resumable.storage.platform import wrap_os_error

_ASCII: Final = bytes(range(128))


class Text:
    """How text becomes bytes: each piece by itself, so that a file that goes on later is the one that went on at once."""

    def __init__(self, encoding: str, errors: str, newline: str | None) -> None:
        """Raises LookupError and ValueError, as the builtin `open` does."""
        if newline not in (None, "", "\n", "\r", "\r\n"):
            raise ValueError(f"illegal newline value: {newline!r}")
        codecs.lookup_error(errors)
        self.encoding: Final = encoding
        self._errors = errors
        self._line = os.linesep if newline is None else newline or "\n"
        self.bom: Final = "".encode(encoding)       # stands before the first byte of a file, and nowhere else
        self.copies_ascii: Final = self._line == "\n" and "".join(map(chr, _ASCII)).encode(encoding, "replace") == _ASCII

    def encoded(self, text: str) -> bytes:
        """Without the mark that stands at a file's beginning. Raises UnicodeEncodeError."""
        if self._line != "\n":
            text = text.replace("\n", self._line)
        return text.encode(self.encoding, self._errors)[len(self.bom) :]

    def decoded(self, data: bytes) -> str:
        """What `encoded` was given, but for the ends of lines."""
        return (self.bom + data).decode(self.encoding, self._errors)


def status(path: str) -> os.stat_result | None:
    """What stands there, None if nothing does."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def check_place(path: str) -> None:
    """Raises OSError or OutputError where no file can be written; nothing is touched."""
    folder = os.path.dirname(path)
    found, above = status(path), os.stat(folder)
    if not stat.S_ISDIR(above.st_mode):
        raise NotADirectoryError(f"{folder} is no directory")
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path} is a directory")
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{path} is a pipe or a device, and cannot be cut when a loop goes on (write to a file)", path=path)
    if not os.access(path if found is not None else folder, os.W_OK):
        raise PermissionError(f"{path} cannot be written by this user")


def may_become(file: int, held: bytes) -> bool:
    """Whether an open file holds a part of these bytes, from the first on, and nothing else."""
    return held.startswith(os.pread(file, len(held) + 1, 0))


def replace(path: str, data: bytes, *, new: bool) -> None:
    """Put a file in place that is whole at any moment; `new`: where none is, else FileExistsError. Raises StorageError."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.resumable")
    found = status(path)
    try:
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with open(file, "wb", buffering=0) as writer:
                if found is not None:
                    os.fchmod(file, stat.S_IMODE(found.st_mode))
                write_at(writer.fileno(), data, 0)
            if new:
                os.link(beside, path)
            else:
                os.replace(beside, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(beside)
    except FileExistsError:
        raise FileExistsError(f"{path} is there already") from None
    except OSError as error:
        raise wrap_os_error(error, path, "the output file cannot be written") from error


def append(path: str, data: bytes) -> None:
    """Add to a file. Raises StorageError."""
    try:
        with open(path, "ab", buffering=0) as writer:
            write_at(writer.fileno(), data, writer.tell())
    except OSError as error:
        raise wrap_os_error(error, path, "the output file cannot be written") from error


def write_at(file: int, data: bytes, place: int) -> None:
    """`os.pwrite`, until all is written."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(file, rest, place)
        rest, place = rest[count:], place + count
