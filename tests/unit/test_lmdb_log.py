"""The LMDB log against damage, full disks, forks and strange surroundings, with real processes and mounts."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import lmdb
import pytest

from resumable._fastlog import crc32c
from resumable.errors import (
    DamagedLogError,
    DiskFullError,
    ForkedError,
    NewerFormatError,
    ReadOnlyError,
    ResumableError,
    SharedPidError,
    StorageError,
)
from resumable.storage import lmdb_log
from resumable.storage.lmdb_log import LmdbStore
from resumable.tools.entries import read_entries

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and pid namespaces need root")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def in_child(action: Callable[[], object]) -> int:
    """Fork, call, and give the child's exit status: 0 if the call gave something true."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if action() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def python(script: str, *arguments: object, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*wrapper, sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# ---- files


def test_the_files_are_private(path: Path) -> None:
    """The directory is 0700 and the files 0600 under any umask."""
    umask = os.umask(0)
    try:
        LmdbStore(path).close()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


def test_the_map_is_a_terabyte_and_costs_nothing(path: Path) -> None:
    """The map has its full size from the start, and the files stay small."""
    with closing(LmdbStore(path)) as store:
        assert store._environment is not None
        assert store._environment.info()["map_size"] == 1 << 40
        assert sum(file.stat().st_blocks * 512 for file in path.iterdir()) < 64 * 1024


def test_limited_address_space_gets_a_smaller_map(path: Path) -> None:
    """Under RLIMIT_AS the log takes what fits, leaves the job some, and is full by name, keeping what it has."""
    script = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
from resumable.errors import DiskFullError
from resumable.storage.lmdb_log import LmdbStore
from resumable.tools.entries import read_entries
store = LmdbStore(sys.argv[1])
size = store._environment.info()["map_size"]
held = bytearray(size // 2)
store.commit([(b"first", b"1")], [])
value = bytes(8 << 20)
try:
    for number in range(64):
        store.commit([(b"%d" % number, value)], [])
except DiskFullError as error:
    assert "ulimit -v" in str(error), error
    print(size.bit_length() - 1, store.get(b"first"))
"""
    process = python(script, path)
    assert process.communicate()[0].strip() in {f"{bits} b'1'" for bits in (26, 27, 28)}


# ---- damage


def flip(file: Path, needle: bytes, at: int = 0) -> None:
    data = bytearray(file.read_bytes())
    assert data.count(needle) == 1
    data[data.index(needle) + at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("at", [0, 500, 999])
def test_a_flipped_bit_in_a_value_is_found(path: Path, at: int) -> None:
    """A value that changed on disk is never returned: the error names the log and the key, and others still read."""
    value = os.urandom(1000)
    with closing(LmdbStore(path)) as store:
        store.commit([(b"bad", value), (b"good", b"1")], [])
    flip(path / "data.mdb", value, at)
    with closing(LmdbStore(path)) as store:
        for read in (lambda: store.get(b"bad"), lambda: store.last(b"b"), lambda: list(store.scan(b""))):
            with pytest.raises(DamagedLogError, match=r"bad.*repair") as caught:
                read()
            assert (caught.value.path, caught.value.key) == (path, b"bad")
        assert store.get(b"good") == b"1"


def test_a_flipped_bit_in_a_key_is_found(path: Path) -> None:
    """A value under another key than it was stored with is noticed when the log is opened, and by its checksum."""
    with closing(LmdbStore(path)) as store:
        store.commit([(b"a-rather-long-key", b"value")], [])
        flip(path / "data.mdb", b"a-rather-long-key", 16)
        with pytest.raises(DamagedLogError, match="checksum"):
            store.last(b"a-rather")
    with pytest.raises(DamagedLogError, match="its 1 entries are not the 1"):
        LmdbStore(path)


def stale_pages(path: Path, few: bool) -> Iterator[tuple[bytes, list[dict[bytes, bytes]]]]:
    """A log in which one page is what it was before, each in turn, and its contents after each commit."""
    chance, contents = random.Random(few), [dict[bytes, bytes]()]
    with closing(LmdbStore(path)) as store:
        for commit in range(6):
            names = range(0, 60 if few else 600, 1 if commit == 0 else 7)
            puts = [(f"key {name}".encode(), chance.randbytes(200)) for name in names]
            deletes = [f"key {chance.randrange(60)}".encode()] if commit else []
            store.commit(puts, deletes)
            contents.append({key: value for key, value in contents[-1].items() if key not in deletes} | dict(puts))
            if commit == 2:
                earlier = (path / "data.mdb").read_bytes()
    last = (path / "data.mdb").read_bytes()
    for at in range(0, len(earlier), 4096):
        if earlier[at : at + 4096] != last[at : at + 4096]:
            yield last[:at] + earlier[at : at + 4096] + last[at + 4096 :], contents


def test_a_page_from_before_is_noticed(path: Path) -> None:
    """A disk that lost a write gives back an older page: the log is damaged then, or as it was after some commit."""
    noticed = 0
    for data, contents in stale_pages(path, few=True):
        (path / "data.mdb").write_bytes(data)
        try:
            with closing(LmdbStore(path)) as store:
                assert dict(store.scan(b"")) in contents
        except DamagedLogError:
            noticed += 1
    assert noticed > 3


def test_a_page_from_before_is_noticed_by_check(path: Path) -> None:
    """In a log of many entries, which are not gone through whenever it is opened, `check` notices it."""
    noticed = 0
    for data, contents in itertools.islice(stale_pages(path, few=False), 0, None, 3):
        (path / "data.mdb").write_bytes(data)
        troubles: list[str] = []
        found = {entry.key: entry.value for entry in read_entries(path, troubles)}
        assert troubles or found in contents
        noticed += bool(troubles)
    assert noticed > 3


@pytest.mark.parametrize("content", [b"x" * 8192, b"x" * 100, bytes(8192)], ids=["garbage", "short", "zeros"])
def test_what_is_no_log_is_damaged(path: Path, content: bytes) -> None:
    """A file that LMDB cannot take is DamagedLogError, and stays as it is."""
    path.mkdir()
    (path / "data.mdb").write_bytes(content)
    with pytest.raises(DamagedLogError):
        LmdbStore(path)
    assert (path / "data.mdb").read_bytes() == content


def write_raw(path: Path, key: bytes, value: bytes) -> None:
    path.mkdir(exist_ok=True)
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, value)


def test_a_newer_format_is_named(path: Path) -> None:
    """A log of a later format is refused with both versions."""
    version = struct.pack("<I", 7)
    write_raw(path, b"format", struct.pack("<I", crc32c(b"format" + version)) + version)
    with pytest.raises(NewerFormatError, match=r"format 7.* reads 1") as caught:
        LmdbStore(path)
    assert (caught.value.found, caught.value.supported) == (7, 1)


def test_another_programs_environment_is_refused(path: Path) -> None:
    """An LMDB environment with entries and no format is not ours, and nothing is written into it."""
    write_raw(path, b"theirs", b"data")
    with pytest.raises(DamagedLogError, match="format"):
        LmdbStore(path)
    with lmdb.open(str(path)) as environment, environment.begin() as transaction:
        assert list(transaction.cursor()) == [(b"theirs", b"data")]


def test_a_log_that_vanished_is_not_begun_anew(path: Path) -> None:
    """When the directory is removed under an open store, using it is an error and no empty log takes its place."""
    with closing(LmdbStore(path)) as store:
        store.commit([(b"key", b"1")], [])
        store._close_environment()
        shutil.rmtree(path)
        with pytest.raises(StorageError, match="No such file"):
            store.get(b"key")
        with pytest.raises(StorageError):
            store.size()
        assert not path.exists()


# ---- errors


class Faulty:
    """An environment that fails a number of times, as LMDB does after it met a bad disk."""

    def __init__(self, environment: lmdb.Environment, error: Exception) -> None:
        self.environment, self.error = environment, error

    def begin(self, *args: Any, **kwargs: Any) -> lmdb.Transaction:
        raise self.error

    def close(self) -> None:
        self.environment.close()


def break_environment(store: LmdbStore, error: Exception) -> None:
    store._environment = Faulty(store._environment, error)  # type: ignore[assignment, arg-type]


def test_an_operation_is_made_again_in_a_fresh_environment(path: Path) -> None:
    """After one LMDB error the environment is opened anew and the commit or read succeeds."""
    with closing(LmdbStore(path)) as store:
        break_environment(store, lmdb.PanicError("mdb_txn_begin: MDB_PANIC"))
        store.commit([(b"key", b"1")], [])
        break_environment(store, lmdb.MapResizedError("mdb_txn_begin: MDB_MAP_RESIZED"))
        assert store.get(b"key") == b"1"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}"), StorageError),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.ENOSPC)}"), DiskFullError),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EDQUOT)}"), DiskFullError),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EROFS)}"), ReadOnlyError),
        (lmdb.ReadonlyError(f"/log: {os.strerror(errno.EACCES)}"), ReadOnlyError),
        (lmdb.MapFullError("mdb_put: MDB_MAP_FULL"), DiskFullError),
        (lmdb.CorruptedError("mdb_get: MDB_CORRUPTED"), DamagedLogError),
        (lmdb.ReadersFullError("mdb_txn_begin: MDB_READERS_FULL"), StorageError),
        (lmdb.LockError(f"mdb_txn_begin: {os.strerror(errno.EAGAIN)}"), SharedPidError),
    ],
)
def test_a_lasting_error_gets_the_class_of_its_cause(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[StorageError]
) -> None:
    """What fails twice raises one of our errors, from the LMDB error, and the store works once the cause is gone."""
    with closing(LmdbStore(path)) as store:
        store.commit([(b"key", b"1")], [])
        whole = store._open
        with monkeypatch.context() as patch:
            patch.setattr(store, "_open", lambda: Faulty(whole(), error))
            store._close_environment()
            for use in (lambda: store.get(b"key"), lambda: store.commit([(b"key", b"2")], [])):
                with pytest.raises(StorageError) as caught:
                    use()
                assert type(caught.value) is expected
                assert caught.value.__cause__ is error
                assert caught.value.path == path  # type: ignore[attr-defined]
        assert store.get(b"key") == b"1"


def test_two_stores_on_one_log_in_one_process_are_refused(path: Path) -> None:
    """LMDB cannot open a log twice in a process, and the error says so."""
    with closing(LmdbStore(path)):
        with pytest.raises(StorageError, match="already open in this process"):
            LmdbStore(path)
    LmdbStore(path).close()


def test_a_missing_parent_is_named(path: Path) -> None:
    """The log's parent directory must be there."""
    with pytest.raises(StorageError, match="No such file"):
        LmdbStore(path / "below" / "log")


# ---- disks


@needs_root
def test_a_full_disk_is_named_and_loses_nothing(small_disk: Path) -> None:
    """A commit on a full disk raises DiskFullError, earlier entries read, and it works on once there is room."""
    value = os.urandom(20_000)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    with closing(LmdbStore(small_disk / "log")) as store:
        made = 0

        def fill() -> None:
            nonlocal made
            while made < 100:
                store.commit([(b"%03d" % made, value)], [])
                made += 1

        with pytest.raises(DiskFullError, match="free some space") as caught:
            fill()
        assert caught.value.path == small_disk / "log"
        assert 10 < made < 100
        assert list(store.scan(b"")) == [(b"%03d" % number, value) for number in range(made)]
        ballast.unlink()
        store.commit([(b"%03d" % made, value)], [])
    with closing(LmdbStore(small_disk / "log")) as store:
        assert list(store.scan(b"")) == [(b"%03d" % number, value) for number in range(made + 1)]


@needs_root
def test_a_log_does_not_begin_on_a_full_disk(small_disk: Path) -> None:
    """Making a log without any room raises DiskFullError, and works once there is some."""
    with pytest.raises(OSError):
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
    with pytest.raises(DiskFullError):
        LmdbStore(small_disk / "log")
    (small_disk / "ballast").unlink()
    LmdbStore(small_disk / "log").close()


@needs_root
def test_with_any_room_left_there_is_an_error_and_no_signal(small_disk: Path) -> None:
    """With 0 to 99 free pages, opening and committing ends in success or DiskFullError, and never in SIGBUS."""

    def work() -> bool:
        try:
            with closing(LmdbStore(small_disk / "log")) as store:
                for number in range(10):
                    store.commit([(b"%d" % number, bytes(9000))], [])
        except DiskFullError:
            return pages < 90
        return pages > 10 and len(os.listdir(small_disk / "log")) == 2

    statuses = []
    for pages in range(100):
        ballast = small_disk / "ballast"
        ballast.touch()
        with ballast.open("r+b") as file:
            found = os.statvfs(small_disk)
            os.posix_fallocate(file.fileno(), 0, (found.f_bfree - pages) * found.f_bsize)
        statuses.append(in_child(work))
        ballast.unlink()
        shutil.rmtree(small_disk / "log", ignore_errors=True)
    assert statuses == [0] * 100


@needs_root
def test_a_read_only_mount_is_named(small_disk: Path) -> None:
    """On a read-only mount the error is ReadOnlyError."""
    LmdbStore(small_disk / "log").close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for place in ("log", "new"):
        with pytest.raises(ReadOnlyError, match="Read-only file system"):
            LmdbStore(small_disk / place)


@needs_root
def test_a_log_that_may_not_be_written_is_named() -> None:
    """Without the right to write the files the error is ReadOnlyError."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    try:
        LmdbStore(place / "log").close()
        (place / "log").chmod(0o755)
        os.seteuid(65534)
        with pytest.raises(ReadOnlyError, match="Permission denied"):
            LmdbStore(place / "log")
    finally:
        os.seteuid(0)
        shutil.rmtree(place)


# ---- processes


def test_several_processes_share_a_log(path: Path) -> None:
    """Processes that commit at the same time lose nothing, and each sees the others' commits."""
    script = """
import sys
from resumable.storage.lmdb_log import LmdbStore
from resumable.tools.entries import read_entries
store = LmdbStore(sys.argv[1])
for number in range(100):
    store.commit([(b"%s-%03d" % (sys.argv[2].encode(), number), b"")], [])
"""
    with closing(LmdbStore(path)) as store:
        writers = [python(script, path, name) for name in "abc"]
        assert [writer.wait() for writer in writers if not writer.communicate()[0]] == [0, 0, 0]
        assert len(list(store.scan(b""))) == 300


def test_a_killed_writer_leaves_its_commits_and_no_lock(path: Path) -> None:
    """After SIGKILL what was acknowledged is there, and the next process writes at once."""
    script = """
import sys
from resumable.storage.lmdb_log import LmdbStore
from resumable.tools.entries import read_entries
store = LmdbStore(sys.argv[1])
for number in range(10**6):
    store.commit([(b"%09d" % number, b"")], [])
    print(number, flush=True)
"""
    writer = python(script, path)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(50)]
    writer.kill()
    # Not by communicate(): it passes by the lines that readline() has taken into its buffer.
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.communicate()
    with closing(LmdbStore(path)) as store:
        last = store.last(b"")
        assert last is not None
        assert int(last[0]) in (acknowledged[-1], acknowledged[-1] + 1)
        store.commit([(b"key", b"")], [])


@needs_root
def test_two_containers_with_one_pid_are_told_so(path: Path) -> None:
    """A second process with the same pid, in another pid namespace, gets SharedPidError."""
    script = """
import sys
from resumable.errors import SharedPidError
from resumable.storage.lmdb_log import LmdbStore
from resumable.tools.entries import read_entries
try:
    store = LmdbStore(sys.argv[1])
    print("opened", flush=True)
    sys.stdin.readline()
except SharedPidError as error:
    print("refused", error, flush=True)
"""
    container = ("unshare", "--pid", "--fork", "--kill-child")
    first = python(script, path, wrapper=container)
    assert first.stdout is not None
    assert first.stdout.readline() == "opened\n"
    second = python(script, path, wrapper=container)
    assert second.communicate()[0].startswith("refused cannot open the log")
    first.communicate("\n")


# ---- forks


def open_log_files() -> list[str]:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        if os.path.lexists(f"/proc/self/fd/{fd}"):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    mapped = Path("/proc/self/maps").read_text().splitlines()
    return [name for name in links + mapped if name.endswith(".mdb")]


def test_no_environment_gets_into_a_child(path: Path) -> None:
    """A child inherits neither files nor maps of the log, and its end changes nothing for the parent."""
    with closing(LmdbStore(path)) as store:
        store.commit([(b"key", b"1")], [])
        assert len(open_log_files()) >= 4
        assert in_child(lambda: open_log_files() == []) == 0
        store.commit([(b"key", b"2")], [])
        assert store.get(b"key") == b"2"


def test_a_child_can_open_the_log_for_itself(path: Path) -> None:
    """In the child the parent's store raises ForkedError, and a new one reads and writes beside the parent's."""

    def work() -> bool:
        with pytest.raises(ForkedError):
            store.get(b"key")
        store.close()
        with closing(LmdbStore(path)) as own:
            own.commit([(b"child", b"1")], [])
            return own.get(b"key") == b"1"

    with closing(LmdbStore(path)) as store:
        store.commit([(b"key", b"1")], [])
        assert in_child(work) == 0
        assert store.get(b"child") == b"1"


def test_forks_beside_busy_threads_do_no_harm(path: Path) -> None:
    """With threads reading and committing, each of many forked children can open the log, and no commit is lost."""
    script = """
import os, sys, threading
from contextlib import closing
from resumable.storage.lmdb_log import LmdbStore
from resumable.tools.entries import read_entries
path = sys.argv[1]
store = LmdbStore(path)
done = threading.Event()
made = {name: 0 for name in (b"a", b"b")}
def write(name):
    while not done.is_set():
        store.commit([(name + b"%06d" % made[name], name * 50)], [])
        made[name] += 1
def read():
    while not done.is_set():
        list(store.scan(b"a"))
threads = [threading.Thread(target=write, args=(name,)) for name in made] + [threading.Thread(target=read)]
for thread in threads:
    thread.start()
statuses = []
for number in range(30):
    child = os.fork()
    if child == 0:
        with closing(LmdbStore(path)) as own:
            own.commit([(b"child%02d" % number, b"")], [])
            os._exit(0)
    statuses.append(os.waitpid(child, 0)[1])
done.set()
for thread in threads:
    thread.join()
counts = [len(list(store.scan(name))) for name in (*made, b"child")]
store.close()
print(statuses == [0] * 30, counts == [*made.values(), 30], min(made.values()) > 0)
"""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.stdout.strip() == "True True True", process.stderr


@pytest.mark.filterwarnings("ignore:.*is multi-threaded:DeprecationWarning")
def test_an_environment_that_is_inherited_is_never_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a transaction outlasts the wait of a fork, the child keeps the environment unused and cannot open its own."""

    def work() -> bool:
        before = open_log_files()
        store.close()
        store._environment = None
        gc.collect()
        with pytest.raises(StorageError, match="already open"):
            LmdbStore(path)
        return open_log_files() == before != []

    monkeypatch.setattr(lmdb_log, "_FORK_PATIENCE", 0.02)
    with closing(LmdbStore(path)) as store:
        begun, done = threading.Event(), threading.Event()

        def linger() -> None:
            with store._open_environment():
                begun.set()
                done.wait()

        thread = threading.Thread(target=linger)
        thread.start()
        begun.wait()
        assert in_child(work) == 0
        done.set()
        thread.join()
        store.commit([(b"key", b"1")], [])
        assert store.get(b"key") == b"1"


def test_a_fork_in_a_signal_handler_does_no_harm(path: Path) -> None:
    """When a signal handler forks in the middle of commits and scans of its own thread, they are made all the same."""

    def fork(number: int, frame: object) -> None:
        statuses.append(in_child(lambda: True))
        signal.setitimer(signal.ITIMER_REAL, 0.001 + len(statuses) % 10 / 1000)

    statuses: list[int] = []
    earlier = signal.signal(signal.SIGALRM, fork)
    with closing(LmdbStore(path)) as store:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        try:
            made = 0
            while len(statuses) < 100:
                store.commit([(b"%06d" % made, b"")], [])
                made += 1
                assert store.last(b"") == (b"%06d" % (made - 1), b"")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, earlier)
        assert len(list(store.scan(b""))) == made
        assert set(statuses) == {0}


def test_a_failed_fork_leaves_the_store_usable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork that did not come about the store works on."""
    with closing(LmdbStore(path)) as store:
        lmdb_log._before_fork()
        lmdb_log._after_fork_in_parent()
        store.commit([(b"key", b"1")], [])
        assert store.get(b"key") == b"1"


def test_no_lmdb_error_gets_out(path: Path) -> None:
    """Strange arguments to reads are answered, or raise errors of this package, never LMDB's."""
    with closing(LmdbStore(path)) as store:
        store.commit([(b"key", b"1")], [])
        for odd in (b"", b"\0", b"k" * 512, b"\xff" * 2000):
            assert store.get(odd) is None
            assert list(store.scan(b"", odd)) == ([(b"key", b"1")] if odd < b"key" else [])
            assert store.last(odd) == (None if odd else (b"key", b"1"))
    with pytest.raises(ResumableError):
        store.get(b"key")


def test_closing_waits_for_no_thread_that_could_not_say_it_had_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that has no memory for the lock as it leaves the log's environment is not waited for when that is closed."""
    store, taken = LmdbStore(tmp_path / "log"), lmdb_log._lock

    class Scarce:
        """The lock, which the other thread can take once: as it enters."""

        entered = False

        def __enter__(self) -> None:
            if threading.current_thread() is reader and self.entered:
                raise MemoryError
            taken.acquire()
            self.entered |= threading.current_thread() is reader

        def __exit__(self, *about: object) -> None:
            taken.release()

    def read() -> None:
        with pytest.raises(MemoryError):
            store.get(b"\1" * 30)

    over = threading.Event()

    def close() -> None:
        over.wait()
        store.close()

    reader, closer = threading.Thread(target=read), threading.Thread(target=close, daemon=True)
    monkeypatch.setattr(lmdb_log, "_lock", Scarce())
    closer.start()      # before the other, whose number it would have otherwise
    reader.start()
    reader.join()
    over.set()
    closer.join(10)
    assert not closer.is_alive()
