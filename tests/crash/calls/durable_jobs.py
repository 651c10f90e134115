"""Jobs that claim what was reported durable, on a file system that takes note of it: see lossy_fs.py."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jobs
from jobs import START, Job, Layer, mixed, note

from resumable import Driver, NotDurableWarning, StorageError, checkpoint
from resumable.runs import opening
from resumable.storage import disksync, folder, handoff, journal, platform, recovery

ITEMS = 10
TRIES = 5


def filling_of(kind: str, i: int) -> Any:
    """What a state is heavy with."""
    if kind == "large":
        return bytes([i & 255]) * 300_000
    if kind == "layers":
        return [Layer(bytes(100_000)), Layer(bytes([i & 255]) * 70_000)]
    return bytes([i & 255]) * 10_000


def durable(kind: str, driver: Driver, durability: str, mount: Path) -> Callable[..., Job]:
    """A job that claims its checkpoints when the driver reports them as durable."""

    def claim(seq: int) -> None:
        os.path.exists(mount / f"claim.{seq}")

    def sync() -> None:
        # A failed sync is tried again, as an impatient user would.
        with suppress(StorageError):
            driver.sync()
        driver.sync()

    def job(state: tuple[int, int, Any, Any] | None = None) -> Job:
        if state is None:
            first = open(mount / "lines", "w") if kind == "file" else None     # noqa: SIM115 - the state holds it
            state = 0, 0, filling_of(kind, -1), first
        done, digest, filling, out = state
        assert repr(filling) == repr(filling_of(kind, done - 1)), "this is not what was saved"
        note(START, done)
        for i in range(done, ITEMS):
            digest = mixed(digest, i)
            if out is not None:
                out.write(f"{i} {digest}\n")
            yield checkpoint((i + 1, digest, filling_of(kind, i), out), result=(i, digest))
            if durability == "disk":
                claim(i + 1)
            elif i % 3 == 1:
                sync()
                claim(i + 1)
            elif i % 3 == 2:
                claim(driver.info("job").on_disk)
        return digest

    return job


def run_durable(directory: str, mount: str, kind: str, durability: str, mapped: bool) -> list[Any]:
    """Run the job to its end, again after each error; what it gives back, and which errors there were."""
    if mapped:
        folder.can_map = lambda fd: True
    disksync.CAPACITY = 1 << 18
    warnings.simplefilter("error", NotDurableWarning)
    met: list[str] = []
    while True:
        try:
            with Driver(directory, durability=durability, sync_every=3600, keep_states=4) as driver:
                value = driver.run(durable(kind, driver, durability, Path(mount)), name="job", once=True)
                driver.sync()
            os.path.exists(Path(mount) / "claim.done")
            return [value, met]
        except (StorageError, NotDurableWarning) as error:
            met.append(type(error).__name__)
            if len(met) == TRIES:
                raise


def run_after_cut(directory: str, mount: str, kind: str, durability: str, mapped: bool) -> list[Any]:
    """The same on the machine's next boot."""
    boot = os.urandom(16)
    for module in (disksync, folder, handoff, journal, platform, recovery, opening):
        if hasattr(module, "boot_id"):
            module.boot_id = lambda: boot
    return run_durable(directory, mount, kind, durability, mapped)


def _try_syncs_again() -> None:
    """A sync that failed is made once more, and counts when that succeeds."""
    for name in ("fsync", "fdatasync"):
        whole = getattr(os, name)

        def sync(fd: int, whole: Callable[[int], None] = whole) -> None:
            try:
                whole(fd)
            except OSError:
                whole(fd)

        setattr(os, name, sync)


def _copy_on_write() -> None:
    """Files are mapped whether or not the file system writes them in place."""
    platform.set_nocow = lambda fd: False
    folder.can_map = lambda fd: True


jobs.TASKS |= {"durable": run_durable, "after a cut": run_after_cut}
jobs.PLANTS["try syncs again"] = _try_syncs_again
jobs.PLANTS["copy on write"] = _copy_on_write
