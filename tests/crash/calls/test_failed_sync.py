"""A sync that fails, then succeeds, then the power is cut: on a file system that drops what a failed sync should have kept."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import durable_jobs
import jobs
import pytest
from figures import Figures, chosen
from harness import Server, scratch

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="cannot mount FUSE file systems here"),
    pytest.mark.skipif(importlib.util.find_spec("fuse") is None, reason="fusepy is not installed"),
]

SAMPLE = 2       # of each scene in CI


class Scene(NamedTuple):
    kind: str
    durability: str
    mapped: bool = False


SCENES = [
    Scene(kind, durability) for kind in ("small", "large", "layers", "file") for durability in ("process", "disk")
] + [Scene("small", "process", True), Scene("large", "disk", True)]


class LossyDisk:
    """The mounted file system, and how to ask it."""

    def __init__(self, mount: Path, sock: socket.socket) -> None:
        self.mount, self._sock = mount, sock

    def ask(self, **request: Any) -> Any:
        self._sock.send(json.dumps(request).encode())
        return json.loads(self._sock.recv(1 << 20))


@contextmanager
def lossy_disk() -> Iterator[LossyDisk]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with scratch() as mount, ours:
        with theirs:
            argv = [sys.executable, Path(__file__).with_name("lossy_fs.py"), mount, str(theirs.fileno())]
            process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        try:
            while not os.path.ismount(mount):
                assert process.poll() is None, "the file system did not start"
                time.sleep(0.01)
            yield LossyDisk(mount, ours)
        finally:
            subprocess.run(["umount", "--lazy", mount], check=False)
            process.wait(30)


def check_cut(server: Server, disk: LossyDisk, args: dict[str, Any], at: int, claimed: str, right: Any) -> None:
    """The power is cut at a claim: what was claimed is there, the run goes on, and its value is right."""
    disk.ask(do="cut", claim=at)
    life = server.live("after a cut", **args)
    value, met = life.value()
    started = life.first(jobs.START)
    began = durable_jobs.ITEMS if started is None else started
    promised = durable_jobs.ITEMS if claimed == "done" else int(claimed)
    assert began >= promised, f"checkpoint {claimed} was reported durable, and the run went on at {began}"
    assert not met, f"an undisturbed run met {met}"
    assert value == right


def fail_sync(server: Server, disk: LossyDisk, scene: Scene, nth: int, plant: str | None = None) -> Counter[str]:
    """Have the `nth` sync fail, and cut the power at each claim after it; what the run met."""
    args = {"directory": str(disk.mount / "d"), "mount": str(disk.mount), **scene._asdict()}
    right = digest_of_all()
    disk.ask(do="begin", fail=nth)
    life = server.live("durable", plant=plant, **args)
    assert not life.timed_out, f"{scene}, sync {nth}: hung"
    if "error" in life.report:
        assert "ResumableError" in life.report["bases"], f"{scene}, sync {nth}: {life.report['trace']}"
    claims, _ = disk.ask(do="claims")
    after = [(at, name) for at, (name, syncs) in enumerate(claims) if syncs >= nth]
    for at, name in [*after[:2], *after[-1:]]:
        try:
            check_cut(server, disk, args, at, name, right)
        except AssertionError as error:
            raise AssertionError(f"{scene}, sync {nth}, claim {name}: {error}\nthe first life: {life.report}") from error
    if "error" in life.report:
        return Counter([life.report["error"]])
    assert life.report["value"][0] == right
    return Counter(life.report["value"][1] or ["none"])


def digest_of_all() -> int:
    digest = 0
    for i in range(durable_jobs.ITEMS):
        digest = jobs.mixed(digest, i)
    return digest


def syncs_of(server: Server, disk: LossyDisk, scene: Scene) -> int:
    """How many syncs an undisturbed run makes."""
    disk.ask(do="begin", fail=0)
    args = {"directory": str(disk.mount / "d"), "mount": str(disk.mount), **scene._asdict()}
    assert server.live("durable", **args).value() == [digest_of_all(), []]
    claims, syncs = disk.ask(do="claims")
    assert claims[-1][0] == "done"
    return int(syncs)


def test_failed_syncs(seed: int, figures: Figures) -> None:
    """Whichever sync fails once, nothing that was reported durable is lost when the power is cut after it."""
    ends: Counter[str] = Counter()
    with lossy_disk() as disk, Server("durable_jobs") as server:
        points = [(scene, nth + 1) for scene in SCENES for nth in range(syncs_of(server, disk, scene))]
        tried = chosen(points, SAMPLE * len(SCENES), seed)
        wrong = []
        for scene, nth in tried:
            try:
                ends += fail_sync(server, disk, scene, nth)
            except AssertionError as error:
                wrong.append(str(error))
    how = ", ".join(f"{name} {count}" for name, count in ends.most_common())
    figures("F2", f"of {len(points)} there are ({how})", wrong=len(wrong), sync_points=len(tried))
    assert not wrong, f"{len(wrong)} of {len(tried)}:\n" + "\n\n".join(wrong[:5])


def test_control_syncs_tried_again(seed: int) -> None:
    """A program that makes a failed sync once more, and believes that, is found out."""

    def fail_all() -> None:
        scene = Scene("large", "disk")
        with lossy_disk() as disk, Server("durable_jobs") as server:
            points = range(1, syncs_of(server, disk, scene) + 1)
            for nth in random.Random(seed).sample(points, len(points)):
                fail_sync(server, disk, scene, nth, plant="try syncs again")

    with pytest.raises(AssertionError, match=r"was reported durable|DamagedLogError"):
        fail_all()
