"""What a loop's records say of a file, and how the file is made to follow them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

from resumable._fastlog import Output, crc32c
from resumable.errors import OutputError
from resumable.runs.log import logger
from resumable.storage.platform import wrap_os_error
from resumable.values import outputs
from resumable.work.output_places import Text, may_become, status, write_at

_CHECKED: Final = 4096


class RecordedFile(Output):
    """An output file without its surroundings: where its bytes stand, in memory, in records and on disk.

    It is not touched before a record tells of it: a life that ends before leaves what was there, and a later one knows what it
    finds for its own. What stands behind the last record's end is cut when a loop goes on.
    """

    def __init__(self, path: str, mode: str, text: Text | None, opening: Callable[[int], str] | None) -> None:
        self.mode: Final = mode
        self.path: Final = path
        self.encoding: Final = text.encoding if text is not None else None
        self._text, self._opening = text, opening
        self._first = b""               # what was written before the loop began
        self._uncertain = False         # a record is on its way that may or may not be published

    # ---- bytes

    def _encoded(self, data: Any) -> bytes:
        if self._text is None:
            if isinstance(data, str):
                raise TypeError(f"{self.path} is open for bytes, not for str")
            return bytes(memoryview(data))
        if not isinstance(data, str):
            raise TypeError(f"{self.path} is open for str, not for {type(data).__name__}")
        return self._text.encoded(data)

    def _bom_for(self, made: bytes) -> bytes:
        return self._text.bom if self._text is not None and made and self.end == 0 else b""

    # ---- beginning and going on

    def _begin_anew(self) -> None:
        """No record tells of the file: it is not touched before one does."""
        found = status(self.path)
        if self.mode[0] == "x" and found is not None:
            raise FileExistsError(f"{self.path} is there already")
        base, tail = 0, b""
        if self.mode[0] == "a" and found is not None:
            base = found.st_size
            with open(self.path, "rb") as file:
                file.seek(max(0, base - _CHECKED))
                tail = file.read(base - file.tell())
        self._place(-1, 0)
        self.known = False
        self._start_at(base, len(tail), crc32c(tail))
        self._put(self._beginning(base))
        self._keep()

    def _beginning(self, base: int) -> bytes:
        """What goes into a file of `base` bytes before anything of an item does."""
        made = (self._encoded(self._opening(base)) if self._opening is not None else b"") + self._first
        return made if base or not made or self._text is None else self._text.bom + made

    def _take_up(self, offset: int, inode: int, checked: int, checksum: int, held: bytes) -> None:
        """Go on behind the last record."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | (0 if offset else os.O_CREAT), 0o666)
        except FileNotFoundError:
            raise self._other(f"is gone, and had {offset} bytes") from None
        except OSError as error:
            raise wrap_os_error(error, self.path, "the output file cannot be opened") from error
        try:
            found = os.fstat(file)
            if found.st_size < offset:
                raise self._other(f"has {found.st_size} bytes, and had {offset}")
            if crc32c(os.pread(file, checked, offset - checked)) != checksum:
                raise self._other(f"is another file: the bytes before its byte {offset} are not those that were written")
            if self.mode[0] == "x" and not inode and not may_become(file, held):
                raise self._other("was made by somebody else")
            os.ftruncate(file, offset)
        except BaseException:
            os.close(file)
            raise
        self._place(file, found.st_ino)
        self._start_at(offset, checked, checksum)
        self._put(held)
        self._spill()
        self._is_marked()
        outputs.written(self.path)

    def _other(self, what: str) -> OutputError:
        return self._wrong(
            f"{what}: loop {self.loop.name!r} cannot go on in it", "put the file back as it was, or begin anew with fresh=True",
        )

    # ---- ending

    def _complete(self) -> None:
        """All items are done: what is held goes to the file, before the run is called finished."""
        if self.fd < 0:
            self._begin()
        self._spill()
        found = status(self.path)
        if found is None or not os.path.samestat(found, os.fstat(self.fd)):
            self._meddled(False, 0)

    def _stand_still(self) -> None:
        """The loop is left: what belongs to items that are done goes to the file, to be looked at."""
        if not self.known:
            self._taken()       # the file is not this loop's yet
        if not self._uncertain:
            self._drop_item()
        try:
            if self.fd >= 0:
                os.ftruncate(self.fd, self.offset)
            self._spill()
        except (OSError, OutputError) as error:
            self._left_behind(error)

    def _left_behind(self, error: Exception) -> None:
        # What a left loop has done stands in its last record, and the next life writes it.
        logger.warning("output file %s was left behind its loop: %s", self.path, error)

    def _end(self) -> None:
        """The loop was finished in an earlier life, which may have been killed before it wrote what comes behind."""
        end, held = self.offset, self._taken()
        found = status(self.path)
        if found is None or found.st_size < end:
            return      # it was taken away since
        with open(self.path, "r+b", buffering=0) as file:
            there = os.pread(file.fileno(), len(held), end)
            if held.startswith(there):
                write_at(file.fileno(), held, end)

    # ---- asked for by the compiled part

    def _begin(self) -> None:
        """The file is touched for the first time."""
        how = {"w": os.O_TRUNC, "a": 0, "x": os.O_EXCL}[self.mode[0]]
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | how, 0o666)
        except OSError as error:
            raise wrap_os_error(error, self.path, "the output file cannot be opened") from error
        self._place(file, os.fstat(file).st_ino)
        outputs.written(self.path)

    def _write_failed(self, number: int) -> NoReturn:
        """A part may have been written, which would pass for somebody else's."""
        with suppress(OSError):     # the error to be told is the write's
            os.ftruncate(self.fd, self.offset)
        self._failed(number)

    def _failed(self, number: int) -> NoReturn:
        error = OSError(number, os.strerror(number))
        raise wrap_os_error(error, self.path, "the output file cannot be written") from error

    def _meddled(self, there: bool, size: int) -> NoReturn:
        if not there:
            raise self._wrong("was removed or replaced while it was open", "put it back as it was, or begin anew with fresh=True")
        what = f"has {size} bytes, and {self.offset} were written to it: somebody else writes there"
        raise self._wrong(what, "give each writer its own file")

    def _wrong(self, what: str, instead: str) -> OutputError:
        run = self.loop.name if self.loop is not None else None
        return OutputError(f"{self.path} {what} ({instead})", path=self.path, run=run)
