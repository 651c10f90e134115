"""The log's data file as it stands, looked at before LMDB maps it.

LMDB trusts its file. A page that its newest meta page knows of, and that stands behind the end of the file, ends the
process that reads it (SIGBUS). A file may rightly be a little short: pages at its end that were given back in the
transaction that took them are never written. So a short file is made as long as it says it is, by zeros, which LMDB
and the checksums of the entries tell from pages.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

from resumable.errors import DamagedLogError, StorageError
from resumable.storage.platform import wrap_os_error

# A meta page: 16 bytes of page header; then u32 magic, u32 version, u64 address, u64 map size, two databases of 48 bytes,
# of which the first begins with the page size (u32), u64 last page, u64 transaction.
_META = struct.Struct("<16xII8xQI44x48xQQ")
_MAGIC = 0xBEEFC0DE
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
        size = os.fstat(fd).st_size
        if size == 0:
            raise _damaged(file, "its file is empty")       # which LMDB would make a new log of
        wanted = _length(fd)
        if wanted > largest:
            raise _damaged(file, f"its first pages say that it has {wanted} bytes")
        if wanted > size:
            # Never ftruncate: another process may have made it longer meanwhile, and that would cut it off.
            os.posix_fallocate(fd, wanted - 1, 1)
    except StorageError:
        raise
    except OSError as error:
        raise wrap_os_error(error, file, "cannot look at the log's file") from error
    finally:
        with suppress(OSError):
            os.close(fd)


def _length(fd: int) -> int:
    """What the newer of the two meta pages says; 0 without any."""
    found = [_meta(fd, 0)]
    # The second one's place is told by the first; without that it is looked for.
    sizes = [found[0][2]] if found[0] is not None else _PAGE_SIZES
    found += [_meta(fd, size) for size in sizes]
    metas = [meta for meta in found if meta is not None]
    return max(metas)[1] if metas else 0


def _meta(fd: int, offset: int) -> tuple[int, int, int] | None:
    """(transaction, length of the file, page size) of the meta page at an offset."""
    data = os.pread(fd, _META.size, offset)
    if len(data) < _META.size:
        return None
    magic, _, _, page_size, last, transaction = _META.unpack(data)
    if magic != _MAGIC or page_size not in _PAGE_SIZES:
        return None
    return transaction, (last + 1) * page_size, page_size


def _damaged(file: Path, reason: str) -> DamagedLogError:
    return DamagedLogError(
        f"the log {file.parent} is damaged: {reason} (`python -m resumable repair` saves what is intact)",
        path=str(file.parent), reason=reason,
    )
