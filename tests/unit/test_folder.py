"""A run's folder on disk: its files and descriptors when something fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resumable.errors import DamagedLogError, StorageError
from resumable.storage import folder
from resumable.storage.folder import DiskFolder


def open_files(path: Path) -> list[str]:
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return [target for link in links if os.path.lexists(link) and (target := os.readlink(link)).startswith(str(path))]


def fail(*_: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("mapped", [True, False], ids=["map", "pwrite"])
@pytest.mark.parametrize("where", ["fill", "rename", "can_map", "size"])
def test_a_segment_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, mapped: bool
) -> None:
    """A new segment that fails, wherever it does, leaves neither an open descriptor nor a file."""
    monkeypatch.setattr(folder, "can_map", fail if where == "can_map" else lambda fd: mapped)
    if where == "rename":
        monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StorageError):
        DiskFolder(tmp_path).new_segment(
            1, 0, 100 if where == "size" else 8192, fail if where == "fill" else lambda segment: None
        )
    assert open_files(tmp_path) == []
    assert os.listdir(tmp_path) == []


def test_a_cut_segment_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that is too short to be mapped is a DamagedLogError, and its file is closed."""
    monkeypatch.setattr(folder, "can_map", lambda fd: False)
    (tmp_path / "1.0").write_bytes(bytes(100))
    with pytest.raises(DamagedLogError, match="100 bytes"):
        list(DiskFolder(tmp_path).segments(1))
    assert open_files(tmp_path) == []


def test_a_side_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A symbolic link where a side file is about to be written is refused, and the file that it leads to stays as it is."""
    precious = tmp_path / "precious"
    precious.write_text("data")
    (tmp_path / "1.side.1.new").symlink_to(precious)
    with pytest.raises(StorageError):
        DiskFolder(tmp_path).write_side("1.side.1", b"state", [], durable=False)
    assert precious.read_text() == "data"
