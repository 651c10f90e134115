"""A virtual machine whose power can be cut: booted once, saved in memory, and from there started for each cut.

qemu in software emulation; killing it takes all that the guest had not written to its disk. The disk is a file of the host.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from power_jobs import BEGUN, EVENT, FAILED, NAMES, READY
from power_root import build_root

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resumable-vm"
# The disk ends with room for marks, which no file system touches.
DISK, FILES = 320 << 20, 316 << 20
_LOG = 4 << 30       # a file with holes
_BOOT, _BEGIN = 300.0, 120.0

Event = tuple[int, str, int, int, float]    # what, kind, life, value, seconds of the guest's clock


class MachineError(AssertionError):
    """The guest did not do what it was told; its console is shown."""


@dataclass(frozen=True)
class FileSystem:
    """How a disk is formatted, and mounted by guest and host."""

    name: str
    type: str
    options: str
    make: tuple[str, ...]
    host_options: str = ""

    def format(self, disk: Path) -> None:
        """A new disk."""
        with open(disk, "wb") as file:
            file.truncate(FILES)
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        subprocess.run([*self.make, str(disk)], check=True, capture_output=True, env={**os.environ, "PATH": path})
        os.truncate(disk, DISK)


FILE_SYSTEMS = {
    one.name: one
    for one in (
        FileSystem("ext4 ordered", "ext4", "data=ordered", ("mkfs.ext4", "-q", "-F", "-b", "4096")),
        FileSystem("ext4 writeback", "ext4", "data=writeback", ("mkfs.ext4", "-q", "-F", "-b", "4096")),
        # The host may have two disks mounted that began as one.
        FileSystem("xfs", "xfs", "", ("mkfs.xfs", "-q", "-f"), "nouuid"),
        FileSystem("btrfs", "btrfs", "", ("mkfs.btrfs", "-q", "-f")),
    )
}


def fetch() -> Path:
    """The unpacked kernel, fetched if it is not there; qemu and the like are installed."""
    subprocess.run([str(HERE / "fetch-vm"), str(CACHE)], check=True)
    return CACHE / "kernel"


def is_fetched() -> bool:
    return (CACHE / "kernel" / "complete").exists() and shutil.which("qemu-system-x86_64") is not None


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file without the holes in it."""
    with open(source, "rb") as reads, open(target, "wb") as writes:
        size = os.fstat(reads.fileno()).st_size
        writes.truncate(size)
        at = 0
        while True:
            try:
                at = os.lseek(reads.fileno(), at, os.SEEK_DATA)
            except OSError:
                return      # ENXIO: nothing but a hole is left
            end = os.lseek(reads.fileno(), at, os.SEEK_HOLE)
            writes.seek(at)
            while at < end:
                at += os.sendfile(writes.fileno(), reads.fileno(), at, end - at)


@dataclass
class Power:
    """One life of the guest, as long as it has power."""

    process: subprocess.Popen[bytes]
    console: Path
    rest: bytes = b""
    events: list[Event] = field(default_factory=list)

    def listen(self, seconds: float, until: int | None = None, events: int = 1 << 40) -> bool:
        """Take events for this long, or until one of this kind came, or this many. True if that one came."""
        assert self.process.stdout is not None
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0 and len(self.events) < events:
            if select.select([self.process.stdout], [], [], left)[0]:
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                if not data:
                    self.fail("the machine went off by itself")
                if self._take(data, until):
                    return True
        return False

    def _take(self, data: bytes, until: int | None = None) -> bool:
        self.rest += data
        whole = len(self.rest) - len(self.rest) % EVENT.size
        came = False
        for what, kind, life, value, when in EVENT.iter_unpack(self.rest[:whole]):
            came |= what == until
            self.events.append((what, NAMES[kind], life, value, when / 1e6))
            if what == FAILED:
                time.sleep(0.5)     # for its words to reach the console
                self.fail(f"{NAMES[kind]} failed in the guest")
        self.rest = self.rest[whole:]
        return came

    def tell(self, word: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(word).encode() + b"\n")
        self.process.stdin.flush()

    def cut(self) -> None:
        """Kill the machine; what it told until then is taken."""
        assert self.process.stdout is not None
        self.process.kill()
        self._take(self.process.stdout.read())
        self.process.wait()

    def fail(self, why: str) -> None:
        self.process.kill()
        self.process.wait()
        raise MachineError(f"{why}\n{self.console.read_text(errors='replace')[-6000:]}")


class Machine:
    """A kernel and its root; `save` boots it and keeps its memory."""

    def __init__(self, place: Path, kernel: Path) -> None:
        self.place = place
        self._image = next(kernel.glob("boot/vmlinuz-*"))
        self._root, self._memory = place / "root.gz", place / "memory"
        self._root.write_bytes(build_root(kernel))

    def save(self) -> None:
        """Boot, wait until the guest waits, and save its memory."""
        disk, control = self.place / "none.img", self.place / "control"
        disk.touch()
        os.truncate(disk, DISK)
        with self._on(disk, "boot", "-qmp", f"unix:{control},server=on,wait=off") as power:
            if not power.listen(_BOOT, READY):
                power.fail("the guest did not come up")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(control))
                with sock.makefile("rw") as lines:
                    lines.readline()
                    _ask(lines, "qmp_capabilities")
                    _ask(lines, "migrate", uri=f"exec:cat > {self._memory}")
                    while (state := _ask(lines, "query-migrate")["status"]) != "completed":
                        if state == "failed":
                            power.fail("the memory could not be saved")
                        time.sleep(0.1)

    @contextmanager
    def begin(self, disk: Path, name: str, word: dict[str, Any], log: Path | None = None) -> Iterator[Power]:
        """The guest with this disk, its jobs begun. With `log`, all writes of the disk are kept there."""
        with self._on(disk, name, "-incoming", f"exec:cat {self._memory}", log=log) as power:
            power.tell(word)
            yield power

    @contextmanager
    def _on(self, disk: Path, name: str, *more: str, log: Path | None = None) -> Iterator[Power]:
        console = self.place / f"{name}.console"
        drive = [f"driver=file,filename={disk},node-name=file"]
        if log is None:
            drive += ["driver=raw,file=file,node-name=disk"]
        else:
            log.touch()
            os.truncate(log, _LOG)
            drive += [f"driver=file,filename={log},node-name=log"]
            drive += ["driver=blklogwrites,file=file,log=log,log-sector-size=512,node-name=disk"]
        command = [
            "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256", "-smp", "1", "-nodefaults",
            "-display", "none", "-no-reboot", "-kernel", str(self._image), "-initrd", str(self._root),
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on rdinit=/init",
            *(part for one in drive for part in ("-blockdev", one)),
            "-device", "virtio-blk-pci,drive=disk,logical_block_size=512,physical_block_size=512",
            "-device", "virtio-serial-pci", "-chardev", "stdio,id=oracle,signal=off", "-device", "virtserialport,chardev=oracle",
            "-serial", f"file:{console}", *more,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            yield Power(process, console)
        finally:
            process.kill()
            process.communicate()


def await_begin(power: Power) -> None:
    """Return when the guest has mounted its disk and begins its jobs."""
    if not power.listen(_BEGIN, BEGUN):
        power.fail("the guest did not begin")


def _ask(lines: Any, what: str, **arguments: str) -> dict[str, Any]:
    lines.write(json.dumps({"execute": what, "arguments": arguments}) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "event" not in answer:
            return dict(answer["return"])
