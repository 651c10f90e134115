"""gzip, bz2 and xz files, opened by path: reading goes on at the same place, writing in a new member of the same file.

Kept: all that files.py keeps of the file below, and the position in the decompressed data. A text file over one comes
back too; inside `for line in file` it is refused (write `while line := file.readline():`).

Writing: everything before a checkpoint is in the file, and on resume the file is cut to it. gzip's data is flushed and
its member goes on, so a file that was never resumed after a kill can be read up to the last checkpoint, where it ends
without a trailer; resuming puts the trailer there. bz2 and lzma cannot flush: each checkpoint ends the stream and the
next write begins another, which the formats allow and every reader takes, but small ones compress badly. So save
rarely: `save_every=1000`.

Kept of the settings: gzip's mtime, levels 1 and 9 (others become 6); bz2's level; the check and dictionary of xz (its
preset becomes 6). Refused: .lzma and raw streams and other filters of xz; streams over a file object of one's own.

Cost: reading about 12 µs; resuming decompresses all up to the position. Writing lines of 25 bytes, each with a checkpoint:
gzip 25 µs and 8 bytes more in the file, bz2 25 µs and 60 bytes, xz 0.9 ms and 80 bytes; nothing if nothing was written.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import weakref
from typing import Any, Final

from resumable.errors import LiveResourceError
from resumable.values.handlers import files
from resumable.values.registry import Handler, alive

_TYPES: Final = (gzip.GzipFile, bz2.BZ2File, lzma.LZMAFile)
_COMPRESSORS: Final[dict[type[Any], Any]] = {bz2.BZ2File: bz2.BZ2Compressor, lzma.LZMAFile: lzma.LZMACompressor}
_LAST_BLOCK: Final = b"\x03\x00"  # an empty one, which ends deflated data after a flush
_XZ: Final = b"\xfd7zXZ\x00"
_BLOCK: Final = 12  # where the header of the first block stands; 0 for none
_LZMA2: Final = b"\x00\x21\x01"  # behind its first byte: one filter, of this kind, with one byte of settings

# Where the last stream of a bz2 or xz file was ended, in the decompressed data: nothing came after it.
_ended: Final[weakref.WeakKeyDictionary[Any, int]] = weakref.WeakKeyDictionary()


def extract(file: Any) -> dict[str, Any]:
    """Where a compressed file stands, everything written so far in the file. Raises LiveResourceError."""
    return describe(file, file)


def describe(file: Any, owner: Any) -> dict[str, Any]:
    """The same for one inside `owner`, which is what the state holds: a text file over it. Raises LiveResourceError."""
    below = _below(file)
    if file.readable():
        # A text file over it seeks by itself; to seek twice would be to decompress twice.
        return {"class": type(file), "position": file.tell() if owner is file else 0, "file": files.describe(below, owner)}
    position = file.tell()
    if isinstance(file, gzip.GzipFile):
        file.flush()
        member: Any = _hidden(file, "crc", "size", "_write_mtime")
    else:
        _end_stream(file, below, position)
        member = None
    return {"class": type(file), "position": position, "file": files.describe(below, owner), "member": member}


def identify(file: Any) -> dict[str, Any]:
    """What of it counts when arguments are compared: which file, and whether it is read or written."""
    return {**files.identify(_below(file)), "mode": "r" if file.readable() else "w"}


def taken_up(file: Any, owner: Any) -> Any:
    """See `files.taken_up`."""
    return files.taken_up(_below(file), owner)


def reconnect_own(description: dict[str, Any]) -> Any:
    """`reconnect` for a file that the state holds itself."""
    file = reconnect(description)
    return taken_up(file, file)


def reconnect(description: dict[str, Any]) -> Any:
    """The file opened again at its position. Raises OSError, EOFError or ValueError when it is not the file that it was."""
    cls, position, path = description["class"], description["position"], description["file"]["path"]
    writing = description["file"]["length"] is not None
    settings = {}
    with files.reconnect(description["file"]) as below:  # checks it, and cuts one that is written
        if writing:
            settings = _settings(cls, description["file"]["head"] or b"")
        if description.get("member"):
            crc, size, settings["mtime"] = description["member"]
            below.write(_LAST_BLOCK + crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
    file = cls(path, "ab", **settings) if writing else cls(path)
    try:
        if writing:
            _set_position(file, position)
        elif file.seek(position) != position:
            raise ValueError(f"{path} shrank: it has {file.tell()} bytes decompressed and had {position} at the checkpoint")
    except BaseException:
        file.close()
        raise
    return file


def _below(file: Any) -> Any:
    """The file of compressed bytes, which it opened itself."""
    if type(file) not in _TYPES:
        raise alive(file, "it is a compressed file of a class of its own (register_reconnector for that class)")
    if isinstance(file, gzip.GzipFile):
        below, own = _hidden(file, "fileobj", "myfileobj")
    else:
        below, own = _hidden(file, "_fp", "_closefp")
    if below is None:
        raise alive(file, "it is closed (keep its path)")
    if not own:
        raise alive(file, "it is over another file object (keep one that is opened by its path)")
    return below


def _hidden(file: Any, *names: str) -> tuple[Any, ...]:
    try:
        return tuple(getattr(file, name) for name in names)
    except AttributeError as error:
        raise alive(file, f"this version of Python has other parts inside: {error} (keep its path)") from error


# ---- writing


def _end_stream(file: Any, below: Any, position: int) -> None:
    """Write what the compressor still holds, and let the next write begin another stream."""
    if _ended.get(file) == position:
        return
    cls = type(file)
    (compressor,) = _hidden(file, "_compressor")
    if type(compressor) is not _COMPRESSORS[cls]:
        raise alive(file, f"inside is a {type(compressor).__qualname__} in this version of Python (keep its path)")
    below.write(compressor.compress(b""))  # xz: the stream's header, if nothing else was written
    below.flush()
    if cls is lzma.LZMAFile and files.read_head(below.name, len(_XZ)) != _XZ:
        raise _other_lzma(file)
    below.write(compressor.flush())
    below.flush()
    head = files.read_head(below.name, files.HEAD)
    # From now on it can be written and closed again, whatever is said of it.
    settings = _settings(cls, head)
    # Of a BZ2Compressor the level has no name.
    file._compressor = bz2.BZ2Compressor(*settings.values()) if cls is bz2.BZ2File else lzma.LZMACompressor(**settings)
    if cls is lzma.LZMAFile and head[_BLOCK] != 0 and not head.startswith(_LZMA2, _BLOCK + 1):
        raise _other_lzma(file)
    _ended[file] = position


def _other_lzma(file: Any) -> LiveResourceError:
    return alive(file, "it is no .xz file with the usual filter (write with format=lzma.FORMAT_XZ and without filters)")


def _settings(cls: type[Any], head: bytes) -> dict[str, Any]:
    """Those of the file's first stream, as far as its first bytes tell them."""
    if cls is gzip.GzipFile:
        return {"compresslevel": {b"\x02": 9, b"\x04": 1}.get(head[8:9], 6)}
    if cls is bz2.BZ2File:
        return {"compresslevel": int(head[3:4]) if head[3:4].isdigit() else 9}
    settings: dict[str, Any] = {"check": head[7]} if head.startswith(_XZ) else {}
    if head.startswith(_LZMA2, _BLOCK + 1):
        bits = head[_BLOCK + 4]
        settings["filters"] = [{"id": lzma.FILTER_LZMA2, "dict_size": (2 | bits & 1) << (bits // 2 + 11)}]
    return settings


def _set_position(file: Any, position: int) -> None:
    """Let it count from there; by itself it counts its own writes alone."""
    if isinstance(file, gzip.GzipFile):
        vars(file)["offset"] = position
    else:
        file._pos = position
        _ended[file] = position
    if file.tell() != position:
        raise ValueError("its position cannot be set in this version of Python")


HANDLERS: Final = {
    key: Handler(key, extract, reconnect_own, identify, may_hold_secrets=False)
    for key in (f"{cls.__module__}:{cls.__qualname__}" for cls in _TYPES)
}
