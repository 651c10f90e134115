"""The log's data file as it stands, looked at before LMDB maps it.

LMDB trusts its file. A page that its newest meta page knows of, and that stands behind the end of the file, ends the
process that reads it (SIGBUS), and one of zeros may (an assertion). A file may rightly be a little short: pages at its end
that were given back in the transaction that took them are never written. So the trees of a short file are walked: one that
lacks a page they lead to is damaged, any other is made as long as it says it is.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from resumable.errors import DamagedLogError, StorageError
from resumable.storage.platform import wrap_os_error

# A meta page: 16 bytes of page header; then u32 magic, u32 version, u64 address, u64 map size, two databases of 48 bytes,
# of which the first begins with the page size (u32) and both end with the root's page, u64 last page, u64 transaction.
_META = struct.Struct("<16xII8xQI36xQ40xQQQ")
_MAGIC = 0xBEEFC0DE
# A page: u64 number, u16, u16 flags, u16 end of the node offsets behind this header; for an overflow u32 its pages instead.
_PAGE = struct.Struct("<Q2xHH2x")
_OVERFLOW = struct.Struct("<12xI")
_BRANCH, _LEAF = 1, 2
# A node: three u16 that are a branch's page, or a leaf's size and flags; u16 length of the key, the key, the data.
_NODE = struct.Struct("<HHHH")
_ELSEWHERE = 1      # the data is the number of an overflow page
_NO_PAGE = (1 << 64) - 1
_PAGE_SIZES = [1 << bits for bits in range(8, 17)]


def lengthen(file: Path, largest: int) -> None:
    """Let the file be as long as its newest meta page says. A file without one is left to LMDB, which refuses it.

    Raises DamagedLogError when the file is empty, or would be longer than `largest`, StorageError.
    """
    try:
        fd = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return      # LMDB meets the same and says so
    try:
        if os.fstat(fd).st_size == 0:
            raise _damaged(file, "its file is empty")       # which LMDB would make a new log of
        meta = _newest(fd)
        if meta is None:
            return
        # Only now: another process may be committing, and that writes the pages before the meta page that needs them.
        size = os.fstat(fd).st_size
        if meta.length > largest:
            raise _damaged(file, f"its first pages say that it has {meta.length} bytes")
        if meta.length > size:
            if not _is_whole(fd, meta, size // meta.page_size) and _newest(fd) == meta:
                raise _damaged(file, f"its file was cut to {size} bytes")
            # Never ftruncate: another process may have made it longer meanwhile, and that would cut it off.
            os.posix_fallocate(fd, meta.length - 1, 1)
    except StorageError:
        raise
    except OSError as error:
        raise wrap_os_error(error, file, "cannot look at the log's file") from error
    finally:
        with suppress(OSError):
            os.close(fd)


class _Meta(NamedTuple):
    transaction: int
    length: int         # of the file, in bytes
    page_size: int
    roots: tuple[int, int]


def _newest(fd: int) -> _Meta | None:
    """The newer of the two meta pages; None without any."""
    first = _meta(fd, 0)
    # The second one's place is told by the first; without that it is looked for.
    sizes = [first.page_size] if first is not None else _PAGE_SIZES
    metas = [meta for meta in (first, *(_meta(fd, size) for size in sizes)) if meta is not None]
    return max(metas, default=None)


def _meta(fd: int, offset: int) -> _Meta | None:
    data = os.pread(fd, _META.size, offset)
    if len(data) < _META.size:
        return None
    magic, _, _, page_size, free_root, main_root, last, transaction = _META.unpack(data)
    if magic != _MAGIC or page_size not in _PAGE_SIZES:
        return None
    return _Meta(transaction, (last + 1) * page_size, page_size, (free_root, main_root))


def _is_whole(fd: int, meta: _Meta, pages: int) -> bool:
    """Whether every page that the trees lead to is among the first `pages` of the file."""
    left = [root for root in meta.roots if root != _NO_PAGE]
    while left:
        number = left.pop()
        if number >= pages:
            return False
        page = os.pread(fd, meta.page_size, number * meta.page_size)
        try:
            for child, is_overflow in _children(page):
                if not is_overflow:
                    left.append(child)
                elif child + _overflow_pages(fd, child * meta.page_size) > pages:
                    return False
        except struct.error:        # offsets that lead out of the page: LMDB would follow them
            return False
    return True


def _children(page: bytes) -> Iterator[tuple[int, bool]]:
    """The pages that a page leads to, and whether they are overflow pages."""
    _, flags, lower = _PAGE.unpack_from(page)
    for at in range(_PAGE.size, lower, 2):
        (offset,) = struct.unpack_from("<H", page, at)
        low, high, more, key = _NODE.unpack_from(page, offset)
        if flags & _BRANCH:
            yield low | high << 16 | more << 32, False
        elif flags & _LEAF and more & _ELSEWHERE:
            yield struct.unpack_from("<Q", page, offset + _NODE.size + key)[0], True


def _overflow_pages(fd: int, offset: int) -> int:
    header = os.pread(fd, _OVERFLOW.size, offset)
    return int(_OVERFLOW.unpack(header)[0]) if len(header) == _OVERFLOW.size else 1 << 62


def _damaged(file: Path, reason: str) -> DamagedLogError:
    return DamagedLogError(
        f"the log {file.parent} is damaged: {reason} (`python -m resumable repair` saves what is intact)",
        path=str(file.parent), reason=reason,
    )
