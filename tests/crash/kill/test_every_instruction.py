"""SIGKILL after every single instruction of appending, crossing pages, rolling to a recycled segment and setting bits.

The stepping and the judging are in every_instruction.c, the process under test is stepped_job.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from compiled import compile_c, put_bugs
from figures import Figures, share

import resumable._fastlog
import twin
from resumable.storage import recovery
from resumable.storage.folder import DiskFolder
from resumable.storage.memory import MemoryStore

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "src"
REAL = Path(resumable._fastlog.__file__).parents[1]
# Header, and two pages of records: each segment has one page border that records cross.
SEGMENT, BITSET = 12288, 4096 + 2 * 8192
SEGMENTS = dict.fromkeys(("s0", "s1", "s2"), SEGMENT)
# The first sync file is soon full.
FILES = {"bitset": {"bits": BITSET}, "disk": {**SEGMENTS, "y0": 4096, "y1": 65536}}
# Between which checkpoints the steps are taken, in full and in CI. The first 84 use each segment once.
RECYCLED = 85
LOOPED = 880       # the same for the short records of a loop
RANGES = {
    "fresh segments": ("journal", (1, 45), (27, 38)),
    "recycled segments": ("journal", (RECYCLED, 480), (RECYCLED, 116)),
    "driven by Python": ("taken", (RECYCLED, 330), (RECYCLED, 96)),
    "written with pwrite": ("pwrite", (1, 230), (30, 40)),
    "durability disk": ("disk", (1, 150), (12, 22)),
    "a loop's items": ("loop", (LOOPED, 2400), (LOOPED, 940)),
    "bitset": ("bitset", (1, 400), (1, 60)),
}

pytestmark = pytest.mark.crash


def step_through(
    mode: str, directory: Path, seed: int, first: int, count: int, *, module: Path = REAL, plant: int = 0
) -> Any:
    """Step through the job from checkpoint `first` to `count`; what the judge printed."""
    sizes = {"control": 4096, **FILES.get(mode, SEGMENTS)}
    for name, size in sizes.items():
        (directory / name).write_bytes(bytes(size))
    job = [sys.executable, str(HERE / "stepped_job.py"), mode, str(seed), str(first), str(count), *sizes]
    done = subprocess.run(
        [compile_c(HERE / "every_instruction.c"), mode, str(seed), *sizes, "--", *job],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(module), "PLANT": str(plant)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def recover_everywhere(directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Have the library itself read what each kill would have left; gives back how many there were."""
    boot, number, known = b"b" * 16, 1, set()
    monkeypatch.setattr(recovery, "boot_id", lambda: boot)
    folder = DiskFolder(directory / "run")
    folder.path.mkdir()
    tried = 0
    with open(directory / "states", "rb") as states:
        while acked := states.read(8):
            for slot in range(len(SEGMENTS)):
                image = states.read(SEGMENT)
                # A real segment is never seen before it has its first header.
                if slot in known or twin.read_header(image) is not None:
                    known.add(slot)
                    (folder.path / f"{number}.{slot}").write_bytes(image)
            left = recovery.read_left(folder, b"n" * 16, number, None, MemoryStore())
            assert left is not None
            assert 0 <= left.seq - int.from_bytes(acked, "little") <= 1
            assert left.seq == 0 or (left.state is not None and left.state.seq == left.seq)
            for live in left.segments:
                folder.let_go(live.segment)
            tried += 1
    return tried


@pytest.mark.parametrize("what", RANGES)
def test_a_kill_anywhere_loses_nothing(
    what: str, tmp_path: Path, seed: int, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every instruction a start would find all that was acknowledged, or one more, and nothing torn."""
    mode, whole, short = RANGES[what]
    first, count = whole if share() else short
    found = step_through(mode, tmp_path, seed % 1000, first, count)
    recovered = recover_everywhere(tmp_path, monkeypatch) if mode != "bitset" else found["judged"]
    wrong = int(found["wrong"] != "")
    figures("K1", f"{what}, {first}..{count}", wrong=wrong, boundaries=found["inside"], judged=found["judged"])
    assert (found["wrong"], found["finished"], found["acked"], recovered) == ("", True, count, found["judged"])
    assert found["inside"] > 100 * (count - first), "the steps were taken in the compiled module"
    if mode != "bitset":
        # What was meant to be crossed was crossed.
        images = [(tmp_path / name).read_bytes() for name in SEGMENTS]
        rolls = max(header.index for data in images if (header := twin.read_header(data)))
        assert rolls >= (3 if first in (RECYCLED, LOOPED) else 1 if count > 30 else 0)
        records = [record for data in images for record in twin.scan(data)[0]]
        # By some seeds a record ends just there.
        assert any(record.offset < 8192 <= record.offset + 23 + len(record.payload) for record in records)
        assert {record.kind for record in records} >= {twin.META, twin.CHECKPOINT, twin.RNG, twin.RETURN}
    if mode == "disk":
        assert any((tmp_path / "y1").read_bytes()[64:]), "the second sync file was needed"


# Each is a wrong order, or a missing store, that no test without a kill would notice.
HINT = "        rs_store_release(self.base + hint, <uint64_t>self.tail << 32 | (~self.tail & 0xFFFFFFFFu))"
COMMIT = "        rs_store_release(record, rs_commit("
NEXT_WORD = "            rs_store(record + size, 0)"
FIRST_WORD = "        rs_store_release(self.base + HEADER_SIZE, 0)"
SECOND_COPY = "        memcpy(self.base + SECOND_COPY, &header, sizeof(Header))"
SETUP = "if rs_setup() != 0:"
MIRROR = "        rs_or_release(word + PAGE, bit)"
WRITE = "        while done < size:\n            wrote"
WRITTEN = "        if self.segment.mode == BY_PWRITE:\n            try:"
PLANTS = {
    "journal.pxi": [
        # 1: the hint before the record it names
        (COMMIT, f"        if planted == 1:\n    {HINT}\n{COMMIT}"),
        # 2: no end behind the record
        (NEXT_WORD, "            if planted != 2: rs_store(record + size, 0)"),
        # 6: acknowledged before the file has it
        (WRITTEN, WRITTEN.replace("PWRITE:", "PWRITE and planted != 6:")),
    ],
    "segment.pxi": [
        # 3: the new header while the old records still stand
        (FIRST_WORD, "        if planted != 3: rs_store_release(self.base + HEADER_SIZE, 0)"),
        (SECOND_COPY, SECOND_COPY + "\n        if planted == 3: rs_store_release(self.base + HEADER_SIZE, 0)"),
    ],
    # 5: acknowledged before the disk has it
    "sync.pxi": [(WRITE, WRITE.replace("size:", "size and planted != 5:"))],
    # 4: one map only
    "bitset.pxi": [(MIRROR, "        if planted != 4: rs_or_release(word + PAGE, bit)")],
    "native.pxi": [(SETUP, f"import os\ncdef int planted = int(os.environ['PLANT'])\n\n{SETUP}")],
}  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose extension has all the bugs, each switched on by its number in PLANT."""
    copy = tmp_path_factory.mktemp("planted")
    shutil.copytree(SOURCES, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    put_bugs(copy / "_fastlog", PLANTS)
    module = copy / "resumable" / ("_fastlog" + sysconfig.get_config_var("EXT_SUFFIX"))
    cython = [
        sys.executable,
        "-m",
        "cython",
        "-3",
        "--module-name",
        "resumable._fastlog",
        "-o",
        "_fastlog.c",
        "_fastlog.pyx",
    ]
    subprocess.run(cython, cwd=copy, check=True)
    includes = ["-I_fastlog", f"-I{sysconfig.get_path('include')}"]
    subprocess.run(
        ["gcc", "-O0", "-shared", "-fPIC", "-w", *includes, "-o", module, "_fastlog.c"], cwd=copy, check=True
    )
    return copy


@pytest.mark.parametrize(
    ("plant", "mode", "wrong"),
    [
        (1, "journal", "a hint names what is no whole record"),
        (2, "journal", "the journal does not end in a zero commit word"),
        (3, "journal", "the journal does not end in a zero commit word"),
        (4, "bitset", "an acknowledged item is lost"),
        (5, "disk", "an acknowledged checkpoint is not in the sync files"),
        (6, "pwrite", "an acknowledged checkpoint is lost"),
    ],
)
def test_planted_bugs_are_caught(plant: int, mode: str, wrong: str, planted: Path, tmp_path: Path, seed: int) -> None:
    """The same stepping fails for a wrong order of stores, for a missing end, and for a missing mirror."""
    found = step_through(mode, tmp_path, seed % 1000, 85, 130, module=planted, plant=plant)
    assert found["wrong"] == wrong, found


def test_without_a_plant_the_copy_is_sound(planted: Path, tmp_path: Path, seed: int) -> None:
    """It is the planted bug, not the copy, that the control finds."""
    assert step_through("journal", tmp_path, seed % 1000, 85, 90, module=planted)["wrong"] == ""
