"""What is intact in a state directory. Every byte is read, nothing is written, no lock is held, jobs may be running.

Damage is what was acknowledged and is gone or does not verify. What a kill or a running job leaves unfinished is none,
and what can be read in spite of a flipped bit (a second copy has it) is a remark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from resumable._fastlog import decode_plain
from resumable.errors import DamagedLogError, StorageError
from resumable.storage.disksync import read_abandoned
from resumable.storage.folder import DiskFolder
from resumable.storage.platform import boot_id
from resumable.storage.records import (
    CHECKPOINT,
    ENDED,
    HAS_RESULT,
    RETURN,
    SIDE,
    RunRecord,
    StateEntry,
    decode_results,
    decode_states,
    entry_of,
    key_run,
    result_of,
    state_of,
)
from resumable.storage.side import reference_names
from resumable.tools.entries import Entry, read_entries
from resumable.tools.keyed import damage_of_keys
from resumable.tools.ranges import Ranges
from resumable.tools.segments import Run, SegmentView, description, read_segments, run_folders

# Of a run's large states the last two are kept.
_KEPT_SIDES = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, and where: "run 'x' 1", "the log", or a file."""

    severity: Literal["damage", "remark"]
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """A run, and which of its checkpoints are intact, as ranges: ((1, 20), (25, 30))."""

    name: str
    number: int
    status: str
    intact: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        ranges = ", ".join(f"{first}..{last}" if first < last else str(first) for first, last in self.intact)
        what = f"checkpoint{'s' if ranges != '1' else ''} {ranges} intact" if ranges else "no checkpoint"
        return f"run {self.name!r} {self.number} ({self.status}): {what}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. `entries` and `segments` count what was read in the log and the journals."""

    path: str
    runs: tuple[CheckedRun, ...]
    findings: tuple[Finding, ...]
    entries: int
    segments: int

    @property
    def damaged(self) -> bool:
        """Whether anything acknowledged is lost."""
        return any(finding.severity == "damage" for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.entries} log entries and {self.segments} journal segments read"]
        lines += [str(run) for run in self.runs]
        lines += [f"{finding.severity}: {finding}" for finding in self.findings]
        if self.damaged:
            lines.append(f"`python -m resumable repair {self.path} NEW_DIR` writes a copy that can go on")
        return "\n".join(lines)


@dataclass(slots=True)
class _Evidence:
    """What was found of one run so far. `sides`: its last states in side files, (seq, reference). `boots`: of its sync files.
    `last`: its last state."""

    folder: DiskFolder | None = None
    live: bool = False
    segments: list[SegmentView] = field(default_factory=list)
    record: RunRecord | None = None
    intact: Ranges = field(default_factory=Ranges)
    last: StateEntry | None = None
    results: int = 0
    sides: dict[int, bytes] = field(default_factory=dict)
    boots: set[bytes] = field(default_factory=set)
    meta: dict[str, Any] = field(default_factory=dict)


def is_state_directory(path: Path) -> bool:
    """Whether this looks like a state directory, be it one that lost its log."""
    if (path / "log" / "data.mdb").is_file():
        return True
    return (path / "runs").is_dir() and any(run_folders(path))


def check_directory(path: str | Path) -> Report:
    """Read everything in a state directory and say what is intact. Raises StorageError if it is none."""
    directory = Path(path).absolute()
    if not is_state_directory(directory):
        raise StorageError(f"{directory} is no state directory (it has no log in it)", path=str(directory))
    return _Check(directory).report()


class _Check:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._findings: list[Finding] = []
        self._runs: dict[Run, _Evidence] = {}
        self._folders = _folders(directory)
        self._entries = 0
        self._cleared: dict[str, int] = {}

    def report(self) -> Report:
        # The journals first: what a running job hands over meanwhile is then in the log.
        for folder in list(self._folders.values()):
            for run, segments in read_segments(folder).items():
                self._evidence(run).segments = segments
        self._read_sync_files()
        self._read_log()
        checked = []
        for run, evidence in sorted(self._runs.items()):
            if evidence.record is None and run[1] <= self._cleared.get(run[0], 0):
                continue        # what a sync file still has of a run that was cleared
            name = self._named(run, evidence)
            self._judge(run, evidence, f"run {name!r} {run[1]}")
            status = evidence.record.status if evidence.record else "running"
            if status not in ENDED:
                status = "running" if evidence.live else "unfinished"
            checked.append(CheckedRun(name, run[1], status, evidence.intact.merged()))
        count = sum(len(evidence.segments) for evidence in self._runs.values())
        return Report(str(self._directory), tuple(checked), tuple(self._findings), self._entries, count)

    def _evidence(self, run: Run) -> _Evidence:
        found = self._runs.get(run)
        if found is None:
            if run[0] not in self._folders:      # it may have begun after the journals were read
                self._folders = _folders(self._directory)
            folder = self._folders.get(run[0])
            found = self._runs[run] = _Evidence(folder, _is_live(folder))
        return found

    def _damage(self, where: str, what: str) -> None:
        self._findings.append(Finding("damage", where, what))

    def _remark(self, where: str, what: str) -> None:
        self._findings.append(Finding("remark", where, what))

    # ---- reading

    def _read_sync_files(self) -> None:
        folder = self._directory / "sync"
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            left = read_abandoned(path)
            if left is None:
                continue
            for (name, number), (_, seq, kind, flags, payload) in left.records:
                self._evidence((name.hex()[:24], number)).boots.add(left.boot)
                if kind == CHECKPOINT:
                    self._state((name.hex()[:24], number), state_of(seq, flags, payload))

    def _read_log(self) -> None:
        troubles: list[str] = []
        for entry in read_entries(self._directory / "log", troubles):
            self._entries += 1
            if entry.value is None:
                self._damage("the log", f"{_described(entry.key)} fails its checksum")
            else:
                try:
                    self._read_entry(entry, entry.value)
                except (ValueError, TypeError, DamagedLogError) as error:
                    self._damage("the log", f"{_described(entry.key)} does not decode: {error}")
        for trouble in troubles:
            self._damage("the log", trouble)

    def _read_entry(self, entry: Entry, value: bytes) -> None:
        kind = entry.key[:1]
        if kind not in (b"r", b"s", b"v"):
            number = decode_plain(value)
            if kind == b"c":
                self._cleared[entry.key[1:17].hex()[:24]] = number
            return
        run = run_of(entry.key)
        if kind == b"r":
            self._evidence(run).record = RunRecord.decode(value)
        elif kind == b"s":
            for state in decode_states(value):
                self._state(run, state)
        else:
            evidence = self._evidence(run)
            first = entry_of(entry.key)
            if first != evidence.results:
                self._damage(self._label(run), f"results {evidence.results} to {first - 1} are missing from the log")
            for flags, payload in decode_results(value):
                if flags & SIDE:
                    self._side(run, payload, needed=True)
                first += 1
            evidence.results = first

    def _state(self, run: Run, entry: StateEntry) -> None:
        evidence = self._evidence(run)
        evidence.intact.add(entry.seq)
        if evidence.last is None or entry.seq > evidence.last.seq:
            evidence.last = entry
        if entry.flags & SIDE:
            evidence.sides[entry.seq] = entry.payload
            for seq in sorted(evidence.sides)[:-_KEPT_SIDES]:
                self._side(run, evidence.sides.pop(seq), needed=False)

    def _side(self, run: Run, reference: bytes, *, needed: bool) -> None:
        """Verify a side file. One that a running job has replaced meanwhile is not missed."""
        evidence = self._evidence(run)
        try:
            names = reference_names(reference)
        except DamagedLogError as error:
            self._damage(self._label(run), str(error))
            return
        missing = [name for name in names if evidence.folder is None or not (evidence.folder.path / name).exists()]
        if missing:
            if needed and not evidence.live:
                what = "is missing" if missing[0] == names[0] else f"is missing, where a part of {names[0]} stands"
                self._damage(self._label(run), f"side file {missing[0]} {what}")
            return
        assert evidence.folder is not None
        try:
            evidence.folder.read_side(reference)
        except DamagedLogError as error:
            self._damage(self._label(run), f"side file {names[0]}: {error.__dict__['reason']}")

    # ---- judging

    def _label(self, run: Run) -> str:
        return f"run {self._named(run, self._evidence(run))!r} {run[1]}"

    def _named(self, run: Run, evidence: _Evidence) -> str:
        metas = [view.meta for view in evidence.segments] + [evidence.record.meta if evidence.record else None]
        return next((str(description(meta)["name"]) for meta in metas if meta), f"<{run[0]}>")

    def _judge(self, run: Run, evidence: _Evidence, where: str) -> None:
        evidence.live |= _is_live(evidence.folder)
        ours = _of_this_boot(evidence)
        last = evidence.last
        # What a power cut leaves of a journal was promised to nobody: resuming takes what verifies.
        tell = self._damage if ours else self._remark
        for view in evidence.segments:
            for what in view.damage:
                tell(where, f"segment {view.name}: {what}")
            for what in view.remarks:
                self._remark(where, f"segment {view.name}: {what}")
            self._read_segment(run, view, ours)
        for _, reference in sorted(evidence.sides.items()):
            self._side(run, reference, needed=True)
        value = evidence.record.value if evidence.record else None
        if value is not None and value[0] & SIDE:
            self._side(run, value[1], needed=True)
        if not evidence.live:
            for what in _gaps(evidence, ours):
                self._damage(where, what)
        self._judge_keys(run, evidence, evidence.last if ours else last, where)

    def _judge_keys(self, run: Run, evidence: _Evidence, last: StateEntry | None, where: str) -> None:
        metas = [evidence.record.meta] if evidence.record else [view.meta for view in evidence.segments if view.meta]
        salt = description(metas[0]).get("keys") if metas else None
        over = evidence.record is not None and evidence.record.status in ENDED
        if salt is not None and not over and not evidence.live:
            for what in damage_of_keys(evidence.folder, run[1], salt, last):
                self._damage(where, what)

    def _read_segment(self, run: Run, view: SegmentView, ours: bool) -> None:
        for _, seq, kind, flags, payload in view.records:
            if not ours and (flags & SIDE or kind != CHECKPOINT):
                continue        # the side file may be gone with the power
            if kind == CHECKPOINT:
                self._state(run, state_of(seq, flags, payload))
                if ours and flags & HAS_RESULT:
                    _, result_flags, result = result_of(flags, payload)
                    if result_flags & SIDE:
                        self._side(run, result, needed=True)
            elif kind == RETURN and flags & SIDE:
                self._side(run, payload, needed=True)


def _folders(directory: Path) -> dict[str, DiskFolder]:
    return {folder.path.name.rpartition("-")[2]: folder for folder in run_folders(directory)}


def _is_live(folder: DiskFolder | None) -> bool:
    return folder is not None and folder.owner() is not None


def _of_this_boot(evidence: _Evidence) -> bool:
    """Whether the journal was written in this boot of the machine, as recovery decides it: what there is of the run says so.

    If none of them says anything, files of zeros are what a power cut leaves of new ones.
    """
    boots = evidence.boots | {view.header["boot"] for view in evidence.segments if view.header is not None}
    if evidence.record is not None:
        boots.add(evidence.record.boot)
    if boots:
        return boot_id() in boots
    return not evidence.segments or not all(view.blank for view in evidence.segments)


def _gaps(evidence: _Evidence, ours: bool) -> Iterator[str]:
    """What the log, the journal (if it is `ours`, of this boot) and the rest should have of a run that nobody is running."""
    record = evidence.record
    segments = [view for view in evidence.segments if view.header is not None] if ours else []
    last = max([record.seq if record else 0, *(view.last_seq for view in segments)])
    over = record is not None and record.status in ENDED        # then states are history alone
    if last and last not in evidence.intact and not over:
        yield f"checkpoint {last} was acknowledged and is missing"
    if record is None:
        if ours and not segments:
            yield "its record in the log is missing"
    else:
        if evidence.results < record.results:
            yield f"results {evidence.results} to {record.results - 1} are missing from the log"
        if ours:
            yield from _missing_results(evidence)
        if record.status not in ENDED and record.boot == boot_id():
            yield from _missing_segments(record, evidence.segments)
    # A kill while a segment is made, or used again, leaves one without records.
    for view, later in pairwise(view for view in segments if any(view.chains)):
        if not (view.header and later.header):
            continue
        # A life that was killed before its first record leaves a gap between indexes that means nothing.
        if later.header["index"] != view.header["index"] + 1 and later.header["first_seq"] != view.last_seq:
            yield f"a journal segment between {view.name} and {later.name} is missing"


def _missing_results(evidence: _Evidence) -> Iterator[str]:
    late = set()
    for view in evidence.segments:
        for _, _, kind, flags, payload in view.records:
            if kind == CHECKPOINT and flags & HAS_RESULT:
                late.add(result_of(flags, payload)[0])
    expected = evidence.results
    for index in sorted(index for index in late if index >= expected):
        if index > expected:
            yield f"results {expected} to {index - 1} are missing"
        expected = index + 1


def _missing_segments(record: RunRecord, segments: list[SegmentView]) -> Iterator[str]:
    if not segments:
        yield f"its journal is gone; the log has checkpoint {record.seq}, which may not be the last"
    headers = [view.header for view in segments if view.header is not None]
    if headers and (headers[-1]["index"] < record.handed[0] or segments[-1].last_seq < record.seq):
        yield f"the newest journal segment is missing: the log has checkpoint {record.seq}"


def run_of(key: bytes) -> Run:
    """The run that an entry of the log belongs to."""
    name, number = key_run(key)
    return name.hex()[:24], number


def _described(key: bytes) -> str:
    kinds = {b"r": "the record", b"s": "the states", b"v": "the results"}
    what = kinds.get(key[:1])
    if what is None or len(key) < 21:
        return f"entry {key!r}"
    name, number = run_of(key)
    first = f" from {entry_of(key)} on" if len(key) == 29 else ""
    return f"the entry with {what} of run {number} of <{name}>{first}"
