"""Where a text file stands, and the settings of it that no attribute tells: what files.py asks about its text layer.

`tell()` answers exactly but inside `for line in file`, where it is refused, and after `flush()`, where it is wrong.
There the place is found by reading on to where it can be told, and going back by the bytes of what was read.
"""

from __future__ import annotations

import codecs
import gc
import io
import os
from functools import lru_cache
from typing import Any, Final

from resumable.errors import LiveResourceError
from resumable.values.registry import alive

LAST: Final = (1 << 64) - 1  # the byte position in what tell() answers; the decoder's state stands above it
_CLEAN: Final = 1 << 96  # answers below it say where and in which state; those above, how to get there from elsewhere
_AHEAD: Final = 4096  # characters
_TRIES: Final = 8  # reads past the decoded text, for encodings that are rarely at a clean position
_NEWLINES: Final = ("\n", "\r\n", "\r")
_SETTINGS: Final = ("", *_NEWLINES)
_BOMS: Final = {
    "utf-16": {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"},
    "utf-32": {codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be"},
}


def newline(file: io.TextIOWrapper) -> str | None:
    """The `newline` that it was opened with. Raises LiveResourceError when that cannot be found out."""
    # No attribute tells it, and reading on with another one would read other text. The object's own references do:
    # its strings are encoding, newline unless None, decoded text unless none, errors.
    strings = _strings(file)
    if len(strings) == 3 and strings[1] in _SETTINGS and file.readable():
        file.seek(file.tell())  # either one: this drops the decoded text
        strings = _strings(file)
    if not 2 <= len(strings) <= 4 or strings[0] != file.encoding or strings[-1] != file.errors:
        raise alive(file, "its newline setting cannot be read on this Python (register_reconnector for your files)")
    return strings[1] if len(strings) > 2 and strings[1] in _SETTINGS else None


def _strings(file: io.TextIOWrapper) -> list[str]:
    return [part for part in gc.get_referents(file) if type(part) is str]


def position(file: io.TextIOWrapper, descriptor: int | None) -> int | None:
    """What `seek` takes to come back to exactly here, everything written handed to the layer below; None without `seek`.

    descriptor: of the file on disk, None when that does not have the text's own bytes. Raises LiveResourceError where the
    place cannot be told.
    """
    if _keeps_back(file.encoding) and file.writable():
        _check_encoder(file)
    if not file.seekable():
        _flush_unseekable(file)
        return None
    if not file.readable():
        return file.tell()
    try:
        return _told_or_found(file, descriptor)
    except OverflowError:  # the decoder's state is too large for `tell`
        raise _unknown(file) from None


def _told_or_found(file: io.TextIOWrapper, descriptor: int | None) -> int:
    try:
        here = file.tell()
    except OSError:  # inside `for line in file`
        here = _CLEAN
    if here < _CLEAN:
        return here
    # Above that, for some multi-byte encodings, `tell` may say what `seek` refuses or takes for another place.
    if descriptor is None:
        raise _unknown(file)
    return _position_from_ahead(file, descriptor)


def _flush_unseekable(file: io.TextIOWrapper) -> None:
    """Of bz2 and xz files that are written. A new encoder would take the place where it goes on for the start."""
    file.flush()
    name = codecs.lookup(file.encoding).name
    if name in _BOMS or name.endswith("-sig"):
        raise alive(file, f"{name} would get a second byte order mark (use an encoding without one, such as utf-8)")


def _position_from_ahead(file: io.TextIOWrapper, descriptor: int) -> int:
    """Where it stands, exactly, when `tell` cannot say it.

    Inside `for line in file` nobody counted what was decoded so far. What is decoded from now on is counted: so read past it, ask
    there, and go back by the bytes of what was read. That the file has just these bytes there is checked.
    """
    file.flush()
    below: Any = file.buffer
    decoded = below.tell()
    ahead, tries = "", 0
    while tries < _TRIES and (more := file.read(_AHEAD)):
        ahead += more
        if below.tell() > decoded:
            tries += 1
            if file.tell() < _CLEAN:
                break
    cookie = file.tell()
    end, state = cookie & LAST, cookie & ~LAST
    size = _bytes_of(ahead, end, file, descriptor) if cookie < _CLEAN else None
    if size is None:
        raise _unknown(file)
    here = end - size | state
    file.seek(here)
    return here


def _unknown(file: io.TextIOWrapper) -> LiveResourceError:
    reason = "its place cannot be told, in this encoding or inside `for line in file`"
    return alive(file, f"{reason} (write `while line := file.readline():`)")


def _bytes_of(text: str, end: int, file: io.TextIOWrapper, descriptor: int) -> int | None:
    """How many bytes of the file, up to `end`, this text was decoded from; None if it cannot have been from these."""
    encoding, errors, translated = _encoding(file, descriptor), file.errors or "strict", newline(file) is None
    try:
        for ending in _NEWLINES if translated else ("\n",):
            encoded = (text.replace("\n", ending) if ending != "\n" else text).encode(encoding, errors)
            if len(encoded) <= end and os.pread(descriptor, len(encoded), end - len(encoded)) == encoded:
                return len(encoded)
        if not translated:
            return None
        longest = min(end, len(text.replace("\n", "\r\n").encode(encoding, errors)))
        return _bytes_of_mixed(text, os.pread(descriptor, longest, end - longest), encoding, errors)
    except UnicodeError:  # the file has bytes that `errors` turned into other text
        return None


def _bytes_of_mixed(text: str, data: bytes, encoding: str, errors: str) -> int | None:
    """The same for lines that end in different ways, from the last line back."""
    endings = [ending.encode(encoding) for ending in ("\r\n", "\n", "\r")]  # a \n after \r is always one with it
    last, *others = reversed([line.encode(encoding, errors) for line in text.split("\n")])
    if not data.endswith(last):
        return None
    at = len(data) - len(last)
    for line in others:
        ending = next((ending for ending in endings if data.endswith(ending, 0, at)), None)
        if ending is None or not data.endswith(line, 0, at - len(ending)):
            return None
        at -= len(ending) + len(line)
    return len(data) - at


def _encoding(file: io.TextIOWrapper, descriptor: int) -> str:
    """The encoding of what comes after the file's start: without a byte order mark."""
    name = codecs.lookup(file.encoding).name
    if name in _BOMS:
        start = os.pread(descriptor, 4, 0)
        return next((plain for mark, plain in _BOMS[name].items() if start.startswith(mark)), f"{name}-le")
    return name.removesuffix("-sig")


@lru_cache(64)
def _keeps_back(encoding: str) -> bool:
    """Whether an encoder may hold back characters, or stand in a shift that only later output ends."""
    bases = getattr(codecs.lookup(encoding).incrementalencoder, "__mro__", ())
    return any(base.__name__ in ("MultibyteIncrementalEncoder", "BufferedIncrementalEncoder") for base in bases)


def _check_encoder(file: io.TextIOWrapper) -> None:
    """Raise LiveResourceError if the text written so far is not complete in its bytes: a new encoder could not go on."""
    encoder = next((part for part in gc.get_referents(file) if hasattr(part, "encode") and hasattr(part, "getstate")), None)
    if encoder is None:
        return  # nothing was written
    state = encoder.getstate()
    rest = encoder.encode("", True)
    encoder.setstate(state)
    if rest:
        raise alive(file, f"its encoder is in the middle of a {file.encoding} sequence (checkpoint after the end of a line)")
