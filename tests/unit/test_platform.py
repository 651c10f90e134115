"""What the package believes about the machine's files, tested on real mounts where there is root."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable.errors import (
    DiskFullError,
    NetworkFileSystemError,
    ReadOnlyError,
    StorageError,
    SyncFailedError,
    UnsafeDirectoryError,
)
from resumable.storage import platform
from resumable.storage.platform import (
    boot_id,
    can_map,
    create_file,
    file_system,
    fsync_directory,
    prepare_directory,
    set_nocow,
    wrap_os_error,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and changing owners need root")
NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """This process without root's rights, and a directory that it owns."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(place, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    yield place
    os.seteuid(0)
    shutil.rmtree(place)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_boot_has_an_id_of_16_bytes() -> None:
    """`boot_id` is the kernel's own, as bytes."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(boot_id()) == 16
    assert boot_id().hex() == text.replace("-", "")


# ---- errors


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EROFS, ReadOnlyError),
        (errno.EACCES, ReadOnlyError),
        (errno.EPERM, ReadOnlyError),
        (errno.EIO, StorageError),
    ],
)
def test_an_os_error_becomes_the_error_that_says_what_to_do(code: int, expected: type[StorageError]) -> None:
    """Each errno has its class, and the message names what was done, where, and why it failed."""
    error = wrap_os_error(OSError(code, os.strerror(code)), "/some/where", "cannot roll the journal")
    assert type(error) is expected
    assert str(error).startswith(f"cannot roll the journal: /some/where: {os.strerror(code)}")
    assert error.path == "/some/where"  # type: ignore[attr-defined]


# ---- file systems


@pytest.mark.parametrize(("path", "name"), [("/proc", "proc"), ("/sys", "sysfs")])
def test_a_mount_is_known_by_its_type(path: str, name: str) -> None:
    """The kernel's name of the type is found, and what is not known to be safe is not mapped."""
    found = file_system(path)
    assert (found.name, found.network, found.mapped) == (name, False, False)


@needs_root
def test_a_bind_mount_and_an_overlay_are_told_from_what_is_around(small_disk: Path, tmp_path: Path) -> None:
    """The type is that of the mount on which a file stands, through bind mounts and overlays."""
    bound, merged = tmp_path / "bound", tmp_path / "merged"
    bound.mkdir()
    merged.mkdir()
    for name in ("lower", "upper", "work"):
        (small_disk / name).mkdir()
    layers = f"lowerdir={small_disk}/lower,upperdir={small_disk}/upper,workdir={small_disk}/work"
    subprocess.run(["mount", "--bind", small_disk, bound], check=True)
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", merged], check=True)
    try:
        fd = create_file(merged, "file", 4096)
        assert (file_system(bound).name, file_system(bound / "lower").mapped) == ("tmpfs", True)
        assert (file_system(merged).name, file_system(fd).name, can_map(fd)) == ("overlay", "overlay", True)
        os.close(fd)
    finally:
        subprocess.run(["umount", merged], check=True)
        subprocess.run(["umount", bound], check=True)
    assert file_system(bound).name != "tmpfs"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system nothing is made, and the error names its kind."""
    monkeypatch.setattr(platform, "_mount_type", lambda mount_id: kind)
    with pytest.raises(NetworkFileSystemError, match=kind) as caught:
        prepare_directory(tmp_path / "state")
    assert caught.value.kind == kind
    assert not (tmp_path / "state").exists()


def test_a_mount_without_a_type_is_unknown() -> None:
    """A mount that the kernel does not list is unknown, which is neither network nor mapped."""
    assert platform._mount_type("no such mount") == "unknown"


@needs_root
@pytest.mark.skipif(shutil.which("mkfs.btrfs") is None, reason="btrfs-progs is missing")
def test_btrfs_is_mapped_only_without_copy_on_write(tmp_path: Path) -> None:
    """On btrfs a new file is made NOCOW and may be mapped; any other file may not."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(160 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        fd = create_file(place, "ours", 65536)
        other = os.open(place / "other", os.O_RDWR | os.O_CREAT)
        assert (can_map(fd), can_map(other), set_nocow(other)) == (True, False, True)
        os.close(fd)
        os.close(other)
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_file_system_without_the_flag_refuses_it() -> None:
    """`set_nocow` says no where the file system has no such flag."""
    with open("/proc/self/stat") as file:
        assert not set_nocow(file.fileno())


# ---- files


def test_a_created_file_owns_its_space(tmp_path: Path) -> None:
    """A created file has its size in zero bytes, its blocks, mode 0600 under any umask, and is not inherited."""
    umask = os.umask(0)
    try:
        fd = create_file(tmp_path, "journal", 100_000)
    finally:
        os.umask(umask)
    found = os.fstat(fd)
    assert os.pread(fd, 200_000, 0) == bytes(100_000)
    assert found.st_blocks * 512 >= 100_000
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_created_file_may_be_named_from_a_descriptor(tmp_path: Path) -> None:
    """The directory may be given as an open descriptor, and the file may be empty."""
    directory = os.open(tmp_path, os.O_RDONLY)
    os.close(create_file(directory, "journal", 0))
    assert (tmp_path / "journal").stat().st_size == 0
    with pytest.raises(StorageError):
        create_file(directory, "journal", 0)
    os.close(directory)


def test_a_file_that_is_there_is_never_opened(tmp_path: Path) -> None:
    """A file or a link in its place is an error, and stays as it is."""
    (tmp_path / "file").write_text("data")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("file", "link"):
        with pytest.raises(StorageError):
            create_file(tmp_path, name, 10)
    assert (tmp_path / "file").read_text() == "data"
    assert not (tmp_path / "target").exists()


def test_zeros_are_written_where_space_cannot_be_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fallocate the file gets its blocks by writing them."""

    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    fd = create_file(tmp_path, "journal", 600_001)
    assert os.pread(fd, 1 << 20, 0) == bytes(600_001)
    os.close(fd)


@needs_root
def test_a_full_disk_is_named_and_leaves_no_file(small_disk: Path) -> None:
    """When the space is not there the error says so, no file stays, and it works once there is room."""
    with pytest.raises(DiskFullError, match="No space left") as caught:
        create_file(small_disk, "journal", 4 << 20)
    assert caught.value.path == str(small_disk / "journal")
    assert os.listdir(small_disk) == []
    os.close(create_file(small_disk, "journal", 1 << 19))


def test_a_directory_can_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fsync_directory` syncs, names a refusal by the disk, and lets file systems be that sync no directories."""
    fsync_directory(tmp_path)
    with pytest.raises(StorageError):
        fsync_directory(tmp_path / "missing")

    def refuse(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    code = errno.EINVAL
    fsync_directory(tmp_path)
    code = errno.EIO
    with pytest.raises(SyncFailedError):
        fsync_directory(tmp_path)


def test_a_directory_whose_sync_failed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later sync of a directory that the disk refused to sync would mean nothing, so it is refused too."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: os.fdatasync(1 << 20))
        with pytest.raises(SyncFailedError):
            fsync_directory(tmp_path)
        with pytest.raises(SyncFailedError):
            prepare_directory(tmp_path / "state")
    assert not (tmp_path / "state").exists(), "one that the disk may not have is made anew by the next start"
    with pytest.raises(SyncFailedError, match="an earlier sync of it failed"):
        fsync_directory(tmp_path)


def test_what_takes_the_place_of_a_refused_directory_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a directory whose sync failed is removed, no other one is taken for it."""
    (tmp_path / "refused").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: os.fdatasync(1 << 20))
        with pytest.raises(SyncFailedError):
            fsync_directory(tmp_path / "refused")
    (tmp_path / "refused").rmdir()
    for at in range(300):
        (tmp_path / f"{at}").mkdir()
        fsync_directory(tmp_path / f"{at}")


# ---- the state directory


def test_a_state_directory_is_private(tmp_path: Path) -> None:
    """It and its missing parents are made 0700 under any umask, with a .gitignore, and preparing again is no error."""
    path = tmp_path / "a" / "b" / "state"
    umask = os.umask(0)
    try:
        prepare_directory(path)
        prepare_directory(path)
    finally:
        os.umask(umask)
    assert [mode_of(tmp_path / part) for part in ("a", "a/b", "a/b/state")] == [0o700] * 3
    assert (path / ".gitignore").read_text() == "*\n"


def test_a_directory_of_other_files_gets_no_gitignore(tmp_path: Path) -> None:
    """A directory that holds something already is used as it is."""
    (tmp_path / "mine.py").touch()
    prepare_directory(tmp_path)
    assert os.listdir(tmp_path) == ["mine.py"]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_directory_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    """A group- or world-writable directory is refused with its mode, and nothing is written there."""
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(UnsafeDirectoryError, match="chmod go-w") as caught:
        prepare_directory(path)
    assert caught.value.mode == mode
    assert os.listdir(path) == []


def test_a_readable_directory_is_accepted(tmp_path: Path) -> None:
    """Others may read the directory: that is the user's choice."""
    path = tmp_path / "state"
    path.mkdir(mode=0o755)
    prepare_directory(path)
    assert mode_of(path) == 0o755


@needs_root
def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    """A directory of another user is refused, for root too, naming the owner."""
    path = tmp_path / "state"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(UnsafeDirectoryError, match=f"belongs to user {NOBODY}, not to user 0") as caught:
        prepare_directory(path)
    assert caught.value.owner == NOBODY
    assert os.listdir(path) == []


def test_a_link_to_an_own_directory_is_accepted(tmp_path: Path) -> None:
    """The state directory may be a link that the user made, to a larger disk for instance."""
    (tmp_path / "target").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "target")
    prepare_directory(tmp_path / "state")
    assert os.listdir(tmp_path / "target") == [".gitignore"]


@needs_root
def test_a_link_that_another_user_made_is_refused(tmp_path: Path) -> None:
    """A link that somebody else planted is refused, wherever it leads."""
    (tmp_path / "target").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "target")
    os.chown(tmp_path / "state", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(UnsafeDirectoryError, match=f"belongs to user {NOBODY}"):
        prepare_directory(tmp_path / "state")
    assert os.listdir(tmp_path / "target") == []


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file, or a link that leads nowhere, is a StorageError."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "dangling"):
        with pytest.raises(StorageError):
            prepare_directory(path)


@needs_root
def test_a_place_that_cannot_be_written_is_named(as_nobody: Path) -> None:
    """Without the right to write, or to look, the error is ReadOnlyError."""
    (as_nobody / "closed").mkdir()
    (as_nobody / "closed").chmod(0o500)
    with pytest.raises(ReadOnlyError, match="Permission denied"):
        prepare_directory(as_nobody / "closed" / "state")
    with pytest.raises(ReadOnlyError, match="Permission denied"):
        create_file(as_nobody / "closed", "journal", 10)
    (as_nobody / "closed").chmod(0)
    with pytest.raises(ReadOnlyError, match="Permission denied"):
        prepare_directory(as_nobody / "closed" / "state")


@needs_root
def test_a_read_only_mount_is_named(small_disk: Path) -> None:
    """On a read-only mount the error is ReadOnlyError."""
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ReadOnlyError, match="Read-only file system"):
        prepare_directory(small_disk / "state")
