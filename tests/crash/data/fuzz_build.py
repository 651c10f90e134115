"""The library's compiled module built anew for fuzzing: under ASan and UBSan, with fuzz.pxi behind it, kept by its content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from compiled import cache_directory, put_bugs
from figures import share
from places import FOLDERS, SRC

HERE = Path(__file__).parent
FLAGS = (
    "-shared", "-fPIC", "-g1", "-fno-strict-aliasing", "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip

# Planted bugs, one for each kind of report: what a line of the source becomes. One build has them all, and FUZZ_PLANT of the
# process says which is in force, if any, so that they cost one compilation.
PLANTS = {
    "decode.pxi": [
        # A string of wide code points is bounded as if they were narrow: reads beyond the input.
        ("(d.end - d.at) // kind:\n", "(d.end - d.at) // (1 if planted(1) else kind):\n"),
        # A length is multiplied in 32 bits with a sign: overflows.
        ("length = take_size(d)\n", "length = take_size(d)\n    if planted(2) and <int>length * kind < 0:\n        return ''\n"),
        # Memory is asked for before the size is checked.
        ("    need(d, size)\n    data = ", "    if planted(3):\n        bytearray(size)\n    need(d, size)\n    data = "),
        # A dict is accepted that is not what was written.
        ("    pairs = {}\n", "    pairs = {0.5: b''} if planted(4) and count == 1 else {}\n"),
    ],
}  # fmt: skip
_PLANTED = (
    'cdef extern from *:\n    """\n    #include <stdlib.h>\n    static int fuzz_plant;\n    '
    '#define planted(which) (fuzz_plant == (which))\n    """\n    int fuzz_plant\n    bint planted(int which) nogil\n'
    "from os import environ as fuzz_environ\nfuzz_plant = int(fuzz_environ['FUZZ_PLANT'])\n"
)


def sanitized(planted: bool) -> Path:
    """The module, compiled unless that was done before. `planted`: with the bugs that FUZZ_PLANT chooses from.

    For the short forms, where compiling takes longer than fuzzing, it is one build, with no bug in force unless one is chosen.
    """
    planted = planted or not share()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _write_sources(work, planted)
        files = sorted(path for path in work.rglob("*") if path.is_file())
        flags = (*FLAGS, "-O0" if planted else "-O1")
        told = b"\0".join([path.read_bytes() for path in files] + [" ".join(flags).encode(), sys.version.encode()])
        made = cache_directory() / f"fuzz-{hashlib.sha256(told).hexdigest()[:16]}.so"
        if not made.exists():
            subprocess.run([sys.executable, "-m", "cython", "-3", "_fastlog.pyx"], cwd=work, check=True)
            include = sysconfig.get_path("include")
            command = [shutil.which("gcc") or "cc", *flags, f"-I{include}", "-I_fastlog", "_fastlog.c", "-o", "_fastlog.so"]
            subprocess.run(command, cwd=work, check=True)
            # Moved into place whole, so that another test process never loads half a file.
            unfinished = made.with_suffix(f".{os.getpid()}")
            shutil.move(work / "_fastlog.so", unfinished)
            unfinished.rename(made)
    return made


def _write_sources(work: Path, planted: bool) -> None:
    shutil.copytree(SRC / "_fastlog", work / "_fastlog")
    shutil.copy(HERE / "fuzz.pxi", work / "_fastlog")
    source = (SRC / "_fastlog.pyx").read_text() + 'include "_fastlog/fuzz.pxi"\n'
    if planted:
        (work / "_fastlog" / "planted.pxi").write_text(_PLANTED)
        first = 'include "_fastlog/native.pxi"\n'
        source = source.replace(first, f'{first}include "_fastlog/planted.pxi"\n')
        put_bugs(work / "_fastlog", PLANTS)
    (work / "_fastlog.pyx").write_text(source)


def package(directory: Path, module: Path) -> Path:
    """A place to import `resumable` from: the tree's Python files, and this module in place of the usual one."""
    made = directory / "resumable"
    made.mkdir()
    for entry in (SRC / "resumable").iterdir():
        if not entry.name.startswith("_fastlog.") and entry.name != "__pycache__":
            (made / entry.name).symlink_to(entry)
    (made / f"_fastlog{sysconfig.get_config_var('EXT_SUFFIX')}").symlink_to(module)
    return directory


def environment(place: Path) -> dict[str, str]:
    """What a process needs to run the sanitized module: the runtime first, every allocation where ASan sees it."""
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        **os.environ, "LD_PRELOAD": runtime, "PYTHONMALLOC": "malloc", "PYTHONPATH": os.pathsep.join(map(str, (place, *FOLDERS))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # the order of sets is part of an input
        # The quarantine is small, as what is freed here is soon known to be fine.
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=1:quarantine_size_mb=4:thread_local_quarantine_size_kb=64",
    }  # fmt: skip
