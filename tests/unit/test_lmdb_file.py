"""What is found in the log's file before LMDB opens it, while another process may be committing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resumable.storage import lmdb_file
from resumable.storage.lmdb_log import LmdbStore


def test_a_commit_that_comes_between_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process makes longer, and whose meta page it writes then, was not cut short."""
    store = LmdbStore(tmp_path / "log")
    store.commit([(b"a", bytes(100))], [])
    file = tmp_path / "log" / "data.mdb"
    before = file.read_bytes()
    store.commit([(b"b%d" % i, bytes(3000)) for i in range(40)], [])
    store.close()
    after = file.read_bytes()
    assert len(after) > len(before)
    file.write_bytes(before)
    whole = lmdb_file._newest

    def newest(fd: int) -> Any:
        file.write_bytes(after)
        return whole(fd)

    monkeypatch.setattr(lmdb_file, "_newest", newest)
    lmdb_file.lengthen(file, 1 << 40)
    assert file.read_bytes() == after
