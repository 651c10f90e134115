"""Facts about this machine, learned from the kernel: which boot this is, what a file system can be trusted with; and
what follows from them: how to make a directory that is ours alone, and a file that owns its space.

Everything here raises errors of `errors`; an OSError that stands for something else is worded by `wrap_os_error`.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from resumable.errors import (
    DiskFullError,
    NetworkFileSystemError,
    ReadOnlyError,
    StorageError,
    SyncFailedError,
    UnsafeDirectoryError,
)

StrPath = str | os.PathLike[str]

# Locks and shared maps of these are not to be trusted between machines.
# fmt: off
_NETWORK = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "lustre", "gpfs", "beegfs", "orangefs",
    "pvfs2", "glusterfs", "9p", "ocfs2", "gfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs",
    "fuse.gcsfuse", "fuse.juicefs", "fuse.rclone",
))
# fmt: on
# Writing through a map into space that was allocated never fails on these; on btrfs, only if the file is not copied on
# write. An overlay passes the flag down to a btrfs below it.
_MAPPED = frozenset(("ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs", "overlay", "btrfs"))
_COPY_ON_WRITE = frozenset(("btrfs",))
_TAKES_NOCOW = frozenset(("btrfs", "overlay"))

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_NOCOW_FL = 0x00800000

_FULL = frozenset([errno.ENOSPC, errno.EDQUOT])
_FORBIDDEN = frozenset([errno.EROFS, errno.EACCES, errno.EPERM])
_NO_FALLOCATE = frozenset([errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
_ZEROS = bytes(1 << 18)


@cache
def boot_id() -> bytes:
    """The 16 bytes that name this boot of the kernel. Raises StorageError without /proc."""
    path = "/proc/sys/kernel/random/boot_id"
    try:
        return bytes.fromhex(Path(path).read_text("ascii").strip().replace("-", ""))
    except OSError as error:
        raise wrap_os_error(error, path, "cannot tell which boot of the machine this is") from error


# ---- errors


def wrap_os_error(error: OSError, path: StrPath, what: str) -> StorageError:
    """The error of this package that stands for an OSError met while doing `what` ("cannot create the journal")."""
    reason = f"{what}: {os.fspath(path)}: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFullError(
            f"{reason} (free some space and run again; nothing acknowledged is lost)", path=path, errno=error.errno
        )
    if error.errno in _FORBIDDEN:
        return ReadOnlyError(
            f"{reason} (make it writable for this user, or choose another directory)", path=path, errno=error.errno
        )
    return StorageError(reason, path=path, errno=error.errno)


# ---- file systems


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a file lives on. `mapped`: writes may go through a map, on btrfs if the file took `set_nocow`."""

    name: str
    network: bool
    mapped: bool


def file_system(file: StrPath | int) -> FileSystem:
    """The file system of a path or an open file; "unknown", and not mapped, if the kernel does not tell.

    The mount is found by its id, not by the device number: on btrfs and overlay those of a file and its mount differ.
    """
    try:
        if isinstance(file, int):
            name = _mount_type(_mount_id(file))
        else:
            fd = os.open(file, os.O_PATH | os.O_CLOEXEC)
            try:
                name = _mount_type(_mount_id(fd))
            finally:
                os.close(fd)
    except OSError as error:
        raise wrap_os_error(error, str(file), "cannot tell the file system") from error
    return FileSystem(name, network=name in _NETWORK, mapped=name in _MAPPED)


def _mount_id(fd: int) -> str:
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text("ascii").splitlines():
        field, _, value = line.partition(":")
        if field == "mnt_id":
            return value.strip()
    return ""


def _mount_type(mount_id: str) -> str:
    # "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw": the type stands behind the lone dash.
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.decode("utf-8", "surrogateescape").split(" ")
        if fields[0] == mount_id:
            return fields[fields.index("-", 6) + 1]
    return "unknown"


def set_nocow(fd: int) -> bool:
    """Ask that this empty file be written in place. True if the file system agreed."""
    flags = array.array("L", [0])
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
        flags[0] |= _FS_NOCOW_FL
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, flags)
    except OSError:
        return False
    return True


def can_map(fd: int) -> bool:
    """Whether stores through a map of this file, made by `create_file`, can never meet a full disk."""
    found = file_system(fd)
    return found.mapped and (found.name not in _COPY_ON_WRITE or _is_nocow(fd))


def _is_nocow(fd: int) -> bool:
    flags = array.array("L", [0])
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
    except OSError:
        return False
    return bool(flags[0] & _FS_NOCOW_FL)


# ---- files and directories


def create_file(directory: StrPath | int, name: str, size: int) -> int:
    """Make a new file of `size` bytes, 0600, that owns its space on the disk, and return its descriptor.

    `directory` is a path or a descriptor. A file that is there already, or a link, is never opened. When it fails, no
    file is left. Raises DiskFullError, ReadOnlyError, StorageError.
    """
    place, dir_fd = (name, directory) if isinstance(directory, int) else (os.path.join(directory, name), None)
    try:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    except OSError as error:
        raise wrap_os_error(error, place, "cannot create a file") from error
    complete = False
    try:
        if file_system(fd).name in _TAKES_NOCOW:
            set_nocow(fd)
        _allocate(fd, size)
        complete = True
    except StorageError:
        raise
    except OSError as error:
        raise wrap_os_error(error, place, f"cannot get {size} bytes of disk space") from error
    finally:
        if not complete:
            os.close(fd)
            with suppress(OSError):     # the error under way is the one that counts
                os.unlink(place, dir_fd=dir_fd)
    return fd


def grow_file(fd: int, path: StrPath, size: int) -> None:
    """Let a file of ours own `size` bytes on the disk; what is in it stays. Raises DiskFullError, StorageError."""
    try:
        _allocate(fd, size, os.fstat(fd).st_size)
    except OSError as error:
        raise wrap_os_error(error, path, f"cannot get {size} bytes of disk space") from error


def _allocate(fd: int, size: int, written: int = 0) -> None:
    """`written`: so many bytes of it are there already."""
    if size == 0:
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in _NO_FALLOCATE:
            raise
        for start in range(written, size, len(_ZEROS)):
            pwrite_all(fd, _ZEROS[: size - start], start)


def pwrite_all(fd: int, data: bytes | bytearray, offset: int) -> None:
    """Write all of it: one call may take less."""
    view = memoryview(data)
    while view.nbytes:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


# Directories whose sync failed: a later one would succeed, with the entries lost that the first should have kept.
# They are held open, so that no other directory gets their numbers.
_lost: dict[tuple[int, int], int] = {}


def fsync_directory(path: StrPath) -> None:
    """Put a directory's entries on disk; once that failed it is refused by this process.

    Raises SyncFailedError, or another StorageError when it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise wrap_os_error(error, path, "cannot sync a directory") from error
    found = os.fstat(fd)
    directory = found.st_dev, found.st_ino
    try:
        if directory in _lost:
            raise OSError(errno.EIO, "an earlier sync of it failed")
        os.fsync(fd)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a file system without directories on disk
            return
        _lost.setdefault(directory, fd)
        raise SyncFailedError(
            f"the disk refused to sync the directory {os.fspath(path)}: {error.strerror} (check the disk, then run again in a "
            f"new process)",
            path=path,
            errno=error.errno,
        ) from error
    finally:
        if _lost.get(directory) != fd:
            os.close(fd)


def prepare_directory(path: StrPath) -> None:
    """Make the state directory, 0700, or see that the one there belongs to this user and nobody else can write it.

    Missing parents are made 0700 too. The path may be a link (state is often moved to a larger disk), if this user or
    root made it; what counts is the directory it leads to. A `.gitignore` goes into a directory that is empty, so that
    one full of somebody's own files is left as it is. Nothing is written before the checks have passed.

    Raises UnsafeDirectoryError, NetworkFileSystemError, DiskFullError, ReadOnlyError, StorageError.
    """
    path = Path(os.path.abspath(path))
    ancestor = path
    while not os.path.lexists(ancestor):
        ancestor = ancestor.parent
    found = file_system(ancestor)
    if found.network:
        raise NetworkFileSystemError(
            f"{path} is on a network file system ({found.name}), where locks and mapped files cannot be trusted "
            f"(set RESUMABLE_HOME or Driver(path) to a directory on a local disk)",
            path=path,
            kind=found.name,
        )
    try:
        _make_directories(path)
        _check_safe(path)
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
        if empty:
            _write_gitignore(path)
    except StorageError:
        raise
    except OSError as error:
        raise wrap_os_error(error, path, "cannot prepare the state directory") from error


def _make_directories(path: Path) -> None:
    for directory in (*reversed(path.parents), path):
        if not os.path.lexists(directory):
            try:
                directory.mkdir(0o700)
            except FileExistsError:
                continue  # another process was quicker; what it made is judged like any other
            try:
                fsync_directory(directory.parent)
            except ReadOnlyError:
                pass    # a parent that may be written but not read cannot be synced
            except StorageError:
                with suppress(OSError):     # the error under way is the one that counts
                    directory.rmdir()       # else the next start would take it for one that the disk has
                raise


def _check_safe(path: Path) -> None:
    link, target = os.lstat(path), os.stat(path)
    user = os.geteuid()
    if not stat.S_ISDIR(target.st_mode):
        raise StorageError(f"{path} is no directory (remove it, or choose another path)", path=path)
    owner = target.st_uid if target.st_uid != user else link.st_uid
    foreign = target.st_uid != user or link.st_uid not in (user, 0)
    mode = stat.S_IMODE(target.st_mode)
    if foreign:
        reason = f"it belongs to user {owner}, not to user {user} (choose a directory of your own)"
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"others can write it, mode {mode:04o} (chmod go-w {path}, if you trust what is in it)"
    else:
        return
    raise UnsafeDirectoryError(f"the state directory {path} is not safe: {reason}", path=path, owner=owner, mode=mode)


def _write_gitignore(directory: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(directory / ".gitignore", flags, 0o600)
    except FileExistsError:
        return  # another process was quicker
    try:
        os.write(fd, b"*\n")
    finally:
        os.close(fd)
