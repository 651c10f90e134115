"""Journal segments as they stand: what verifies, and every place where something acknowledged does not."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resumable._fastlog import decode_plain, hints, read_header, scan, unpublished
from resumable.storage.folder import BY_PWRITE, SLOTS, DiskFolder
from resumable.storage.journal import HEADER, JournalRecord
from resumable.storage.records import CHECKPOINT, META
from resumable.storage.recovery import FORMAT

_SECOND_COPY = 512
_RESULT_COUNT = 1040
_COUNT = struct.Struct("<QQ")
_RECORD_HEADER = 16
# A running job may use a segment again while it is read.
_LOOKS = 20

# (the first 24 hex digits of the digest of a run's name, its number): what a file's place alone tells.
Run = tuple[str, int]


@dataclass(slots=True)
class SegmentView:
    """A segment. `chains` are records without a gap between them, in order. `damage` is what was acknowledged and does
    not verify, `remarks` what can be read all the same. `results`: the run's results up to the last checkpoint, None if
    its last records are damaged. `blank`: it is all zeros."""

    name: str
    header: dict[str, Any] | None
    chains: list[list[JournalRecord]] = field(default_factory=list)
    results: int | None = None
    blank: bool = False
    damage: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def records(self) -> Iterator[JournalRecord]:
        return (record for chain in self.chains for record in chain)

    @property
    def meta(self) -> bytes | None:
        """The run's description, which every segment begins with."""
        first = next(self.records, None)
        return first[4] if first is not None and first[2] == META else None

    @property
    def last_seq(self) -> int:
        """The last checkpoint that is known to have been saved when this segment was the newest."""
        first = self.header["first_seq"] if self.header else 0
        return max([first, *(seq for _, seq, kind, _, _ in self.records if kind == CHECKPOINT)])


def run_folders(directory: Path) -> Iterator[DiskFolder]:
    """The folders of a state directory's runs; those of batches hold nothing but a lock."""
    runs = directory / "runs"
    for path in sorted(runs.iterdir()) if runs.is_dir() else []:
        if path.is_dir() and not path.name.startswith("batch-"):
            yield DiskFolder(path)


def read_segments(folder: DiskFolder) -> dict[Run, list[SegmentView]]:
    """The segments in a folder, by run, the oldest first. A damaged one is looked at again while its job is running."""
    name = folder.path.name.rpartition("-")[2]
    found: dict[Run, list[SegmentView]] = {}
    for number in folder.numbers():
        for slot in range(SLOTS):
            view = _read(folder, number, slot, name)
            if view is not None:
                found.setdefault((name, number), []).append(view)
    for views in found.values():
        views.sort(key=lambda view: view.header["index"] if view.header else -1)
    return found


def _read(folder: DiskFolder, number: int, slot: int, name: str) -> SegmentView | None:
    view = None
    for _ in range(_LOOKS):
        image = folder.image(number, slot)
        if image is None:
            return None
        view = inspect(f"{number}.{slot}", image)
        header = view.header
        if header is not None and (header["name"].hex()[:24], header["number"]) != (name, number):
            view.damage.append("it belongs to another run")
            view.chains.clear()
        if not (view.damage or view.remarks) or folder.owner() is None:
            break
    return view


def inspect(name: str, image: bytes) -> SegmentView:
    """What a segment's bytes hold."""
    header = read_header(image)
    view = SegmentView(name, header)
    if header is None:
        view.blank = not image.strip(b"\0")
        view.damage.append("it has no whole header")
        return view
    if header["version"] != FORMAT:
        view.damage.append(f"it has format {header['version']}, and this version of resumable knows {FORMAT}")
        return view
    if len(image) != header["capacity"]:
        view.damage.append(f"it has {len(image)} bytes of {header['capacity']}")
    for at in (0, _SECOND_COPY):
        alone = bytes(at) + image[at : at + _SECOND_COPY]
        if read_header(alone + bytes(HEADER - len(alone))) != header:
            view.remarks.append(f"one of the two copies of its header, at {at}, is damaged")
    count, complement = _COUNT.unpack_from(image, _RESULT_COUNT)
    if _read_records(view, image, header["mode"] == BY_PWRITE) and count ^ complement == (1 << 64) - 1:
        view.results = count
    return view


def _read_records(view: SegmentView, image: bytes, written: bool) -> bool:
    """Fill in what stands in a segment; False when its last records are damaged."""
    records, end = scan(image)
    view.chains.append(records)
    hinted = hints(image)
    last = max(at or 0 for at in hinted)
    if -1 in hinted:
        view.remarks.append("a hint of it is damaged, so all of it is read to find its end")
        last = 0 if unpublished(image, end) else len(image) - _RECORD_HEADER
    while end <= last:
        more: list[JournalRecord] = []
        damaged_from = end
        # Where a record does not verify, its length cannot be trusted either: the next one is searched for.
        for at in range(end + 8, min(last, len(image) - _RECORD_HEADER) + 1, 8):
            more, end = scan(image, at)
            if more:
                break
        view.damage.append(f"damaged at offset {damaged_from}" + (f" to {more[0][0]}" if more else ""))
        if not more:
            return False
        view.chains.append(more)
    if records and records[0][2] != META:
        view.damage.append("its first record is not the run's description")
    if not unpublished(image, end):
        why = "a write that was cut short, or damage" if written else "nothing acknowledged stood there"
        view.remarks.append(f"it ends at offset {end} in bytes that do not verify: {why}")
    return True


def description(data: bytes) -> dict[str, Any]:
    """The run's description: the payload of META."""
    return dict(decode_plain(data))
