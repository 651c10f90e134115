"""What a checkpoint costs, told by what does not drift: calls into Python, memory, system calls, bytes."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resumable import _fastlog

SRC = Path(__file__).parents[1] / "src"

# What every checkpoint of plain data runs through, with the worst `cython -a` score that a line may have: 0 is pure C,
# a call of Python's API counts 1 to 5, a call of a Python object some 15 to 30.
HOT = {
    "encode": 2,
    "encode_int": 2,
    "encode_str": 2,
    "encode_items": 2,
    "encode_container": 2,
    "first_meeting": 2,
    "seen_slot": 2,
    "put_block": 2,
    "put_word": 2,
    "put_size": 2,
    "publish": 2,
    "save_state": 2,
    "take": 2,
    "checkpoint": 2,
    "drive": 5,
    "save_number": 2,
    "finish_fast": 5,
    "save_both": 2,
    "save_outputs": 5,
    "is_its_turn": 5,
    "add": 5,
    "encode_state": 5,
    "must_spill": 0,
    "is_marked": 0,
    "__next__": 5,
    "meet": 2,
    "holds": 2,
    "known": 2,
    "sealed": 2,
    "is_plain_key": 2,
}
LINE = re.compile(r'<pre class="cython line score-(\d+)"[^>]*>.*?</span>: (.*?)</pre>')


def scores(source: Path, out: Path) -> dict[str, int]:
    """The worst line of each function of the compiled module, by the function's name."""
    command = [sys.executable, "-m", "cython", "-3", "-a", str(source / "_fastlog.pyx"), "-o", str(out / "_fastlog.c")]
    subprocess.run([*command, "-I", str(source)], check=True, capture_output=True)
    worst: dict[str, int] = {}
    for page in sorted((out / "_fastlog").glob("*.html")):
        function = None
        for score, marked in LINE.findall(page.read_text()):
            line = html.unescape(re.sub("<[^>]+>", "", marked))
            start = re.match(r" *(cp?)?def (?!extern|class|enum|struct|packed)[^=]*?(\w+)\(", line)
            if start:
                function = start[2]
                # Parsing the arguments of a call from Python is counted on the first line, and cannot be avoided.
                worst.setdefault(function, int(score) if start[1] == "c" else 0)
            elif re.match(r"[^\s)]", line):
                function = None
            elif function:
                worst[function] = max(worst[function], int(score))
    return worst


needs_source = pytest.mark.skipif(not SRC.exists(), reason="the source tree is not here")


@needs_source
def test_hot_functions_stay_in_c(tmp_path: Path) -> None:
    """No line of what every checkpoint runs through calls Python code or makes an object."""
    found = scores(SRC, tmp_path)
    assert sorted(set(HOT) - set(found)) == [], "renamed? the list above names what is hot"
    assert {name: found[name] for name in HOT if found[name] > HOT[name]} == {}


@needs_source
def test_a_python_call_in_a_hot_function_is_seen(tmp_path: Path) -> None:
    """The lint above fails when a line that calls Python is planted in a hot function."""
    source = tmp_path / "src"
    shutil.copytree(SRC, source, ignore=shutil.ignore_patterns("*.so"))
    part = source / "_fastlog/encode.pxi"
    start = re.search(r"^cdef .*\bencode_str\(.*\n", part.read_text(), re.MULTILINE)
    assert start
    part.write_text(part.read_text().replace(start[0], start[0] + "    repr(<object>value).strip()\n"))
    assert scores(source, tmp_path)["encode_str"] > HOT["encode_str"]


COUNTING = """
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static unsigned long count;
unsigned long allocations(void) { return count; }
void *malloc(size_t size) { __atomic_add_fetch(&count, 1, 0); return __libc_malloc(size); }
void *calloc(size_t n, size_t size) { __atomic_add_fetch(&count, 1, 0); return __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { __atomic_add_fetch(&count, 1, 0); return __libc_realloc(old, size); }
"""

ALLOCATING_JOBS = """
import ctypes, itertools, json, sys
from resumable import Driver, checkpoint

allocations = ctypes.CDLL(None).allocations
allocations.restype = ctypes.c_ulong
N = 200_000
CONSTANT = {"done": 12, "total": 3.25, "name": "nightly"}

def constant(*, state=None):
    for _ in itertools.repeat(None, N):
        yield checkpoint(CONSTANT)

def fresh(*, state=None):
    for _ in itertools.repeat(None, N):
        yield checkpoint(bytes(100))

def measured(job):
    driver.run(job, fresh=True)
    before = allocations()
    driver.run(job, fresh=True)
    return (allocations() - before) / N

with Driver(sys.argv[1]) as driver:
    print(json.dumps([measured(constant), measured(fresh)]))
"""


def test_a_checkpoint_allocates_nothing(tmp_path: Path) -> None:
    """Saving a state that is there already takes no memory; one new object a state is one allocation (the control)."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to build the counter with")
    (tmp_path / "counting.c").write_text(COUNTING)
    library = tmp_path / "counting.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "counting.c")], check=True)
    environ = os.environ | {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
    command = [sys.executable, "-c", ALLOCATING_JOBS, str(tmp_path / "state")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    constant, fresh = json.loads(done.stdout)
    assert constant < 0.1, "allocations a checkpoint, starting and finishing the run included"
    assert 1 <= fresh < 1.1


COUNTED_JOB = """
import sys
from resumable import Driver, checkpoint

def job(n, *, state=0):
    for i in range(n):
        yield checkpoint(i)

def written():
    return int(open("/proc/self/io").read().split("wchar: ")[1].split()[0])

with Driver(sys.argv[1]) as driver:
    before = written()
    driver.run(job, int(sys.argv[2]))
    print(written() - before)
"""


def system_calls(n: int, directory: Path) -> int:
    directory.mkdir()
    table = directory / "strace"
    job = [sys.executable, "-c", COUNTED_JOB, str(directory / "state"), str(n)]
    subprocess.run(["strace", "-f", "-c", "-o", str(table), *job], check=True, capture_output=True)
    return int(re.findall(r"(\d+)(?: +\d+)? total$", table.read_text(), re.MULTILINE)[0])


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_million_checkpoints_make_few_system_calls(tmp_path: Path) -> None:
    """A million checkpoints make at most a thousand system calls more than ten do: it is the map that takes them."""
    few, many = system_calls(10, tmp_path / "few"), system_calls(1_000_000, tmp_path / "many")
    assert few > 100, "the table was read wrongly"
    assert many - few < 1000


def test_a_million_checkpoints_write_little(tmp_path: Path) -> None:
    """Through write calls go only what the log keeps: under a byte a checkpoint."""
    command = [sys.executable, "-c", COUNTED_JOB, str(tmp_path / "state"), "1000000"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) < 1_000_000


@pytest.mark.parametrize(
    ("state", "size"),
    [(7, 24), (-(1 << 55), 24), (1 << 55, 32), (None, 24), (0.5, 32), ((3, 0.5), 40), ({"a": 1, "b": 2, "c": 3}, 56)],
    ids=str,
)
def test_bytes_of_a_record(state: object, size: int) -> None:
    """A record in the journal takes its 16-byte header, the encoded state and at most 7 bytes of padding."""
    segment = _fastlog.Segment(-1, 65536)
    segment.format(generation=1, index=0, first_seq=0, name=bytes(16), number=1, boot=bytes(16), created=0)
    journal = _fastlog.Journal()
    journal.attach(segment, 4096, 0)
    start = journal.tail
    for _ in range(100):
        assert journal.append_plain(state) == 0
    assert journal.tail - start == 100 * size
