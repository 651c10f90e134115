"""The first process of the virtual machine: it waits for a word of the host, mounts the disk, and runs the jobs until the cut.

The machine is saved while it waits, and each cut begins there; so all modules are loaded before. Which boot it is must not
be asked before: the kernel makes up the boot id when it is first asked for, out of the entropy that the word brings.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import struct
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

_FINIT_MODULE = 313
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_SYNCS = {"msync": 26, "fsync": 74, "fdatasync": 75, "sync": 162, "sync_file_range": 277, "syncfs": 306}

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(device: str, place: str, kind: str, options: str = "") -> None:
    os.makedirs(place, exist_ok=True)
    check(libc.mount(device.encode(), place.encode(), kind.encode(), 0, options.encode()), f"mounting {device}")


def insert_modules(listed: Path) -> None:
    for path in listed.read_text().splitlines():
        fd = os.open(path, os.O_RDONLY)
        check(libc.syscall(_FINIT_MODULE, fd, b"", 0), path)
        os.close(fd)


def find(pattern: str) -> str:
    """The device that appears under this name."""
    for _ in range(1000):
        found = sorted(Path("/dev").glob(pattern))
        if found:
            return str(found[0])
        time.sleep(0.01)
    raise FileNotFoundError(pattern)


def add_entropy(entropy: bytes) -> None:
    with open("/dev/urandom", "wb") as pool:
        fcntl.ioctl(pool, _RNDADDENTROPY, struct.pack("ii", 8 * len(entropy), len(entropy)) + entropy)
        fcntl.ioctl(pool, _RNDRESEEDCRNG)


def lie_about_syncs() -> None:
    """No call that asks for a sync does anything, and all succeed."""
    steps = [(0x20, 0, 0, 0)]                               # load the number of the system call
    for number in _SYNCS.values():
        steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000)]   # that one: errno 0, at once
    steps.append((0x06, 0, 0, 0x7FFF0000))                  # every other: allow
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(program)))
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(_PR_SET_SECCOMP, 2, filter_), "seccomp")


def plant(jobs: Any, bug: str) -> None:
    """From now on the guest has this fault."""
    if bug == "lying disk":
        lie_about_syncs()
    elif bug == "no fsync":
        os.fsync = lambda fd: None
    elif bug == "late":
        jobs.actual_window, jobs.syncs_asked = 3600.0, 0.0
    else:
        raise ValueError(bug)


def be_part(jobs: Any, word: dict[str, Any], kinds: list[str]) -> None:
    """One process of the guest: a thread for each kind of job. It ends only if something went wrong."""

    def run(kind: str) -> None:
        try:
            jobs.run_kind(kind, Path(jobs.MOUNT), word["seed"])
        except BaseException:
            traceback.print_exc()
            jobs.note(jobs.FAILED, kind)
            raise

    jobs.watch_commits()
    threads = [threading.Thread(target=run, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def mark_on(device: str, offset: int, port: int) -> Any:
    """Events as sectors of the disk too, so that they stand in its log between the writes of the file system."""
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
    turn = threading.Lock()
    # Mapped memory is aligned, as direct writes ask for.
    sector = ctypes.create_string_buffer(1024)
    start = -ctypes.addressof(sector) % 512
    view = memoryview(sector).cast("B")[start : start + 512]

    def tell(event: bytes) -> None:
        with turn:
            view[: len(event)] = event
            os.pwrite(fd, view, offset)
            os.write(port, event)

    return tell


def main() -> None:
    mount("proc", "/proc", "proc")
    mount("sys", "/sys", "sysfs")
    mount("dev", "/dev", "devtmpfs")
    insert_modules(Path("/modules"))
    sys.path[:] = json.loads(Path("/path.json").read_text())
    for name in json.loads(Path("/loaded.json").read_text()):
        importlib.import_module(name)
    import power_jobs as jobs

    port = os.open(find("vport*p1"), os.O_RDWR)
    jobs.tell = lambda event: os.write(port, event)
    jobs.note(jobs.READY, "ints")
    data = b""
    while not data.endswith(b"\n"):
        data += os.read(port, 4096)
    word = json.loads(data)
    add_entropy(bytes.fromhex(word["entropy"]))
    disk = find("vda")
    mount(disk, jobs.MOUNT, word["type"], word["options"])
    jobs.life = word["life"]
    if word["plant"]:
        plant(jobs, word["plant"])
    if word["marks"]:
        jobs.tell = mark_on(disk, word["marks"], port)
    jobs.note(jobs.BEGUN, "ints")
    for kinds in word["processes"]:
        if os.fork() == 0:
            be_part(jobs, word, kinds)
            os._exit(0)
    while True:
        os.wait()


if __name__ == "__main__":
    main()
