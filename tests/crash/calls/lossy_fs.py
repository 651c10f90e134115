"""A file system in memory that forgets what was not synced: its one failing sync drops what it should have kept.

Every file and directory is there twice: as programs see it, and as the disk has it. A sync that succeeds brings what changed
since the last one to the disk. One that fails forgets it: later syncs succeed, and the disk never gets it, as with the page
cache of Linux. `lossy_fs.py MOUNTPOINT SOCKET_FD` serves until it is unmounted; requests come as JSON over the socket:

    {"do": "begin", "fail": k}   an empty file system; the k-th sync from now on fails (0: none)
    {"do": "claims"}             (name, syncs before it, place in the story) of every claim, and how many syncs there were
    {"do": "cut", "claim": n}    the disk as it was at the n-th claim, -1 for now; programs see that

A claim is a look at /claim.NAME, which is never there: whoever looks says that what came before must be on the disk.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fuse import FUSE, FuseOSError, Operations

PAGE = 4096
CLAIM = "/claim."
_EMPTY = bytes(PAGE)


@dataclass(eq=False)
class File:
    """`data` is what programs see; `kept` are the pages that the disk has, `dirty` those that differ."""

    mode: int
    data: bytearray = field(default_factory=bytearray)
    kept: dict[int, bytes] = field(default_factory=dict)
    kept_size: int = 0
    dirty: set[int] = field(default_factory=set)
    links: int = 1

    def write(self, data: bytes, at: int) -> None:
        if at + len(data) > len(self.data):
            self.resize(at + len(data))
        self.data[at : at + len(data)] = data
        self.dirty |= set(range(at // PAGE, -(-(at + len(data)) // PAGE)))

    def resize(self, size: int) -> None:
        pages = range(min(size, len(self.data)) // PAGE, -(-max(size, len(self.data)) // PAGE))
        self.data = self.data[:size] + bytes(max(0, size - len(self.data)))
        self.dirty |= set(pages)

    def sync(self) -> None:
        for page in self.dirty:
            self.kept[page] = bytes(self.data[page * PAGE : (page + 1) * PAGE]).ljust(PAGE, b"\0")
        self.kept_size = len(self.data)
        self.dirty = set()

    def drop(self) -> None:
        for page in self.dirty:
            old = self.kept.get(page, _EMPTY)[: max(0, len(self.data) - page * PAGE)]
            self.data[page * PAGE : page * PAGE + len(old)] = old
        self.dirty = set()


@dataclass(eq=False)
class Directory:
    """`names` is what programs see, `kept` what the disk has, `dirty` the names that differ."""

    mode: int
    names: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    links: int = 2

    def set(self, name: str, node: Any) -> None:
        if node is None:
            del self.names[name]
        else:
            self.names[name] = node
        self.dirty.add(name)

    def sync(self) -> None:
        for name in self.dirty:
            if name in self.names:
                self.kept[name] = self.names[name]
            else:
                self.kept.pop(name, None)
        self.dirty = set()

    def drop(self) -> None:
        self.dirty = set()


def on_disk(node: Any) -> Any:
    """A copy of what the disk has of a file or of a directory and all below it."""
    if isinstance(node, File):
        kept = dict(node.kept)
        data = bytearray(node.kept_size)
        for page, content in kept.items():
            part = content[: max(0, node.kept_size - page * PAGE)]
            data[page * PAGE : page * PAGE + len(part)] = part
        return File(node.mode, data, kept, node.kept_size)
    names = {name: on_disk(child) for name, child in node.kept.items()}
    return Directory(node.mode, dict(names), names)


class LossyFileSystem(Operations):  # type: ignore[misc] # fusepy is not typed
    """One thread of FUSE, and one that takes requests; they take turns."""

    use_ns = True

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._begin(0)

    def __call__(self, op: str, *args: Any) -> Any:
        with self._turn:
            return super().__call__(op, *args)

    # ---- requests

    def _begin(self, fail: int) -> None:
        self._root = Directory(stat.S_IFDIR | 0o755)
        self._open: dict[int, Any] = {}
        self._next = 0
        self._syncs, self._fail = 0, fail
        self._claims: list[tuple[str, int, Directory | None]] = []

    def answer(self, request: dict[str, Any]) -> Any:
        with self._turn:
            if request["do"] == "begin":
                self._begin(request["fail"])
                return None
            if request["do"] == "claims":
                return [[(name, syncs) for name, syncs, _ in self._claims], self._syncs]
            at = request["claim"]
            self._root = on_disk(self._root if at < 0 else self._claims[at][2])
            return None

    def _claim(self, name: str) -> None:
        # A picture of the disk, where something may be missing.
        picture = on_disk(self._root) if self._fail and self._syncs >= self._fail else None
        self._claims.append((name, self._syncs, picture))

    def _sync(self, node: Any) -> None:
        self._syncs += 1
        if self._syncs == self._fail:
            node.drop()
            raise FuseOSError(errno.EIO)
        node.sync()

    # ---- the tree

    def _walk(self, path: str) -> Any:
        node = self._root
        for name in path.split("/")[1:]:
            if name:
                if not isinstance(node, Directory):
                    raise FuseOSError(errno.ENOTDIR)
                if name not in node.names:
                    raise FuseOSError(errno.ENOENT)
                node = node.names[name]
        return node

    def _entry(self, path: str) -> tuple[Directory, str]:
        place, _, name = path.rpartition("/")
        return self._walk(place), name

    def _handle(self, node: Any) -> int:
        self._next += 1
        self._open[self._next] = node
        return self._next

    def _node(self, path: str, handle: int | None) -> Any:
        return self._walk(path) if handle is None else self._open[handle]

    # ---- what FUSE asks for

    def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
        if path.startswith(CLAIM):
            self._claim(path.removeprefix(CLAIM))
        node = self._node(path, handle)
        size = len(node.data) if isinstance(node, File) else 0
        return {
            "st_mode": node.mode, "st_size": size, "st_nlink": node.links, "st_uid": os.getuid(), "st_gid": os.getgid(),
            "st_blocks": -(-size // 512),
        }  # fmt: skip

    def readdir(self, path: str, handle: int) -> Iterator[str]:
        return iter([".", "..", *self._walk(path).names])

    def mkdir(self, path: str, mode: int) -> None:
        place, name = self._entry(path)
        place.set(name, Directory(stat.S_IFDIR | mode))

    def create(self, path: str, mode: int, info: Any = None) -> int:
        place, name = self._entry(path)
        place.set(name, File(stat.S_IFREG | mode & 0o7777))
        return self._handle(place.names[name])

    def link(self, path: str, source: str) -> None:
        place, name = self._entry(path)
        node = self._walk(source)
        node.links += 1
        place.set(name, node)

    def rename(self, path: str, to: str) -> None:
        (place, name), (to_place, to_name) = self._entry(path), self._entry(to)
        node = self._walk(path)
        place.set(name, None)
        to_place.set(to_name, node)

    def unlink(self, path: str) -> None:
        place, name = self._entry(path)
        self._walk(path).links -= 1
        place.set(name, None)

    def rmdir(self, path: str) -> None:
        place, name = self._entry(path)
        if self._walk(path).names:
            raise FuseOSError(errno.ENOTEMPTY)
        place.set(name, None)

    def open(self, path: str, flags: int) -> int:
        return self._handle(self._walk(path))

    def opendir(self, path: str) -> int:
        return self._handle(self._walk(path))

    def release(self, path: str, handle: int) -> None:
        del self._open[handle]

    releasedir = release

    def read(self, path: str, size: int, at: int, handle: int) -> bytes:
        return bytes(self._open[handle].data[at : at + size])

    def write(self, path: str, data: bytes, at: int, handle: int) -> int:
        self._open[handle].write(data, at)
        return len(data)

    def truncate(self, path: str, size: int, handle: int | None = None) -> None:
        self._node(path, handle).resize(size)

    def chmod(self, path: str, mode: int) -> None:
        node = self._walk(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)

    def fsync(self, path: str, data_only: int, handle: int) -> None:
        self._sync(self._open[handle])

    def fsyncdir(self, path: str, data_only: int, handle: int) -> None:
        self._sync(self._open[handle])

    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": PAGE, "f_frsize": PAGE, "f_blocks": 1 << 20, "f_bfree": 1 << 19, "f_bavail": 1 << 19}


def main(mountpoint: str, sock: socket.socket) -> None:
    files = LossyFileSystem()

    def take_requests() -> None:
        while request := sock.recv(1 << 16):
            sock.send(json.dumps(files.answer(json.loads(request))).encode())

    threading.Thread(target=take_requests, daemon=True).start()
    # No attribute or name is remembered by the kernel: a cut changes them behind its back.
    FUSE(
        files, mountpoint, foreground=True, nothreads=True, fsname="lossy", attr_timeout=0, entry_timeout=0,
        negative_timeout=0, default_permissions=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
