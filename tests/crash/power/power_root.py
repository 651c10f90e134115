"""The root of the virtual machine: this very Python, the library as it is built here, and a kernel's modules, in one archive.

What belongs in it is found out by rehearsing the jobs on the host: the files of all modules that were loaded then, and the
shared libraries that they need.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from places import PYTHONPATH

HERE = Path(__file__).parent
_WANTED = ("virtio_pci", "virtio_blk", "virtio_console", "crc32c_intel", "xfs", "blake2b_generic", "btrfs")

_REHEARSE = """
import ctypes, fcntl, json, os, random, sys, tempfile, threading, traceback
from pathlib import Path
import power_jobs
from resumable import Driver
power_jobs.stop_after = 20
with tempfile.TemporaryDirectory() as place:
    for kind in power_jobs.NAMES:
        if kind not in ("brief", "bits"):
            try:
                power_jobs.run_work(Path(place, "state"), kind, random.Random(1))
            except power_jobs.Enough:
                pass
    with Driver(Path(place, "state")) as driver:
        driver.run(power_jobs.brief, 1, name="brief")
        driver.clear("brief")
files = [file for module in list(sys.modules.values())
    for file in (getattr(module, "__file__", None), getattr(module, "__cached__", None)) if file and os.path.exists(file)]
mapped = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
print(json.dumps({"files": files, "libraries": sorted(mapped), "path": sys.path,
    "loaded": [name for name, module in sys.modules.items() if getattr(module, "__file__", None)]}))
"""


class Archive:
    """A cpio archive as the kernel unpacks it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def _add(self, name: str, mode: int, content: bytes, when: int = 0, device: tuple[int, int] = (0, 0)) -> None:
        encoded = name.encode() + b"\0"
        fields = (len(self._parts), mode, 0, 0, 1, when, len(content), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._parts += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]

    def directory(self, path: str) -> None:
        if path not in self._names and path != "/":
            self.directory(os.path.dirname(path))
            self._names.add(path)
            self._add(path[1:], stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, content: bytes, mode: int = 0o755, when: int = 0) -> None:
        if path not in self._names:
            self.directory(os.path.dirname(path))
            self._names.add(path)
            self._add(path[1:], stat.S_IFREG | mode, content, when)

    def link(self, path: str, target: str) -> None:
        self._names.add(path)
        self._add(path[1:], stat.S_IFLNK | 0o777, target.encode())

    def console(self) -> None:
        self.directory("/dev")
        self._add("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))

    def copy(self, path: str) -> None:
        """A file of this machine under its own path; of links, only those to directories stay."""
        place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        self.file(place, Path(path).read_bytes(), when=int(os.stat(path).st_mtime))

    def bytes(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return gzip.compress(b"".join(self._parts), 1, mtime=0)


def build_root(kernel: Path) -> bytes:
    """The archive for this kernel, whose package was unpacked there."""
    archive = Archive()
    archive.console()
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(name):
            archive.link(name, os.readlink(name))
    rehearsed = _rehearse()
    interpreter = os.path.realpath(sys._base_executable)    # type: ignore[attr-defined]
    for path in rehearsed["files"]:
        archive.copy(path)
    for path in {interpreter, *rehearsed["libraries"], *_needed([interpreter, *rehearsed["libraries"]])}:
        archive.copy(path)
    library = Path(os.__file__).parent
    archive.directory(os.path.realpath(library / "lib-dynload"))
    archive.file("/path.json", json.dumps(rehearsed["path"]).encode())
    archive.file("/loaded.json", json.dumps(rehearsed["loaded"]).encode())
    modules = _modules(kernel)
    archive.file("/modules", "".join(f"/modules.d/{module.name}\n" for module in modules).encode())
    for module in modules:
        archive.file(f"/modules.d/{module.name}", module.read_bytes())
    archive.file("/init", f"#!{interpreter} -SsB\n".encode() + (HERE / "power_guest.py").read_bytes())
    return archive.bytes()


def _rehearse() -> dict[str, Any]:
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", _REHEARSE], env=env, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def _needed(binaries: list[str]) -> set[str]:
    """The shared libraries of these, under the names by which they are looked for."""
    found = set()
    for path in binaries:
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        found |= {os.path.normpath(name) for name in re.findall(r"(/\S+) \(0x", listed)}
    return found


def _modules(kernel: Path) -> list[Path]:
    """The kernel modules that are wanted, each behind those that it needs; what is built in has no file."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in kernel.glob("lib/modules/*/kernel/**/*.ko")}
    ordered: list[Path] = []

    def add(name: str) -> None:
        if name in files and files[name] not in ordered:
            depends = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
            for needed in depends[1].decode().split(",") if depends else []:
                add(needed.replace("-", "_"))
            ordered.append(files[name])

    for name in _WANTED:
        add(name)
    return ordered
