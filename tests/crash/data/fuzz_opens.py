"""Whole files, damaged and then read in every way that the library has: journals, side files, sync files, the log's entries."""

from __future__ import annotations

import random
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import fuzz_corpus

from resumable import _fastlog
from resumable._fastlog import Bitset, Journal, Segment, crc32c, encode_plain
from resumable.errors import ResumableError
from resumable.runs.reports import Results, View, history, state_at
from resumable.storage.disksync import read_abandoned
from resumable.storage.folder import MemoryFolder
from resumable.storage.home import MEMORY, Home
from resumable.storage.memory import MemoryStore
from resumable.storage.platform import boot_id
from resumable.storage.records import RunRecord, encode_results, encode_states, join_result, result_key, run_key, state_key
from resumable.storage.recovery import read_left, salvage
from resumable.storage.side import other_files, read_side, write_side
from resumable.storage.tail import unfinished
from resumable.tools.segments import inspect
from resumable.values.codec import Codec

NAME = b"n" * 16
CAPACITY = 12288
SIDE_HEAD = struct.Struct("<8sQII8x")


def segment_images() -> list[bytes]:
    """Journals written by the library: one with everything, one that failed, one that finished, one with a result count alone."""
    plain = bytes(encode_plain((1, "state", [2.5])))
    images = []
    for last in (0, 4, 5):
        segment, journal = Segment(-1, CAPACITY), Journal()
        before = 3 if last else 0
        segment.format(
            generation=7 + last, index=last, first_seq=before, name=NAME, number=1, boot=boot_id(), created=1 << 60, results=last
        )
        journal.attach(segment, 4096, before)
        journal.append(1, 0, bytes(encode_plain(fuzz_corpus.META)))
        for number in range(12):
            if number % 4 == 1:
                journal.append(3, 0, b"r" * 40)
            if number % 3 == 2:
                journal.append(2, 8, join_result(last + number // 3, plain, plain))
            elif number == 7:
                journal.append(2, 1, b"\x80\x05K\x01.")
            else:
                journal.append_plain((number, "state", {"a": [1.5] * number}))
        if last:
            journal.append(last, 0, bytes(encode_plain(fuzz_corpus.FAILURE)) if last == 4 else plain)
        images.append(segment.image())
    return images


class Opens:
    """One open for each number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._scratch = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self._segments = _fastlog.Corpus(segment_images())
        self._values = _fastlog.Corpus(fuzz_corpus.encodings())
        self._sides = _fastlog.Corpus([self._side()])
        self._syncs = _fastlog.Corpus([self._sync()])
        self.met: Counter[str] = Counter()  # how opens ended

    def close(self) -> None:
        shutil.rmtree(self._scratch)

    def open(self, number: int) -> None:
        """Damage a file and read it. Raises whatever it may not."""
        ways = self._journal, self._journal, self._log, self._side_file, self._sync_file, self._bitset
        ways[number % len(ways)](number)

    def _tried(self, size: int, read: Callable[[], Any], *, forged: bool) -> Any:
        """What it gives. Its error must be one of the library's, or, where checksums were made right again, an ordinary one."""
        try:
            _fastlog.watch(size)
            try:
                return read()
            finally:
                _fastlog.unwatch(size)
        except ResumableError as error:
            self.met[type(error).__name__] += 1
        except (MemoryError, RecursionError, SystemError, AssertionError):
            raise
        except Exception as error:
            if not forged:
                raise
            self.met[f"forged: {type(error).__name__}"] += 1
        return None

    # ---- journals

    def _journal(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        forged = chance.random() < 0.5
        folder = MemoryFolder("fuzzed")
        images = [self._damaged(number * 4 + slot, forged) for slot in range(chance.choice((1, 1, 2, 3)))]
        segments = []
        for slot, image in enumerate(images):
            segment = Segment(-1, 8192)
            _fastlog.put_image(segment, image)
            segments.append(segment)
            folder._segments[1, slot] = segment
        home = Home(MEMORY, MemoryStore(), None)
        if chance.random() < 0.5:
            record = RunRecord(1, "running", 3, 0, (0, 0), boot_id(), 1 << 60, bytes(encode_plain(fuzz_corpus.META)))
            home.store.commit([(run_key(NAME, 1), record.encode())], [])
        size = sum(map(len, images))
        logged = None
        try:
            for image in images:
                self._tried(size, partial(inspect, "1.0", image), forged=forged)
                _fastlog.unpublished(image, len(image) - 8)
            self._tried(size, lambda: read_left(folder, NAME, 1, logged, home.store), forged=forged)
            self._tried(size, lambda: salvage(folder, NAME, 1, logged), forged=forged)
            self._tried(size, lambda: unfinished(folder, 1), forged=forged)
            self._report(size, home, folder, forged=forged)
        finally:
            for segment in segments:
                _fastlog.take_image(segment)

    def _damaged(self, number: int, forged: bool) -> bytes:
        image = bytearray(self._segments.input(self._seed, number))
        del image[len(image) & ~7 :]
        image += bytes(max(0, 8192 - len(image)))
        if forged:
            _fastlog.reseal(image)
        return bytes(image)

    def _report(self, size: int, home: Home, folder: MemoryFolder, *, forged: bool) -> None:
        view = self._tried(size, lambda: View(home, folder, NAME, 1, Codec("plain")), forged=forged)
        if view is None or not view.exists:
            return
        self.met["reported"] += 1
        for read in (
            view.info, view.failure, lambda: state_at(view, None), lambda: list(islice(iter(Results(view)), 50)),
            lambda: [suppressed(lambda: each.state) for each in history(view)],  # noqa: B023
        ):  # fmt: skip
            self._tried(size, read, forged=forged)

    # ---- entries of the log

    def _log(self, number: int) -> None:
        """Entries whose checksum is right and whose content is not."""
        home = Home(MEMORY, MemoryStore(), None)
        value = self._values.input(self._seed, number)
        other = bytes(encode_plain(fuzz_corpus.META))
        record = RunRecord(1, "finished", 5, 1, (0, 0), b"", 1 << 60, other, (0, value), value)
        keys = [(run_key(NAME, 1), record.encode()), (state_key(NAME, 1, 5), encode_states([(5, number % 3, value)]))]
        keys.append((result_key(NAME, 1, 0), encode_results([(0, value)])))
        if number % 4:
            keys[number % 4 - 1] = keys[number % 4 - 1][0], value
        home.store.commit(keys, [])
        self._report(4 * len(value), home, MemoryFolder("fuzzed"), forged=True)

    # ---- files of their own

    def _side(self) -> bytes:
        buffers = [memoryview(bytes(range(256)) * 2), memoryview(bytearray(700))]
        self._reference = write_side(self._scratch / "1.side.7", b"\x02" * 100, buffers, durable=False).reference
        return (self._scratch / "1.side.7").read_bytes()

    def _side_file(self, number: int) -> None:
        data, reference = bytearray(self._sides.input(self._seed, number)), self._reference
        path = self._scratch / "1.side.7"
        forged = number % 4 == 1 and len(data) >= SIDE_HEAD.size
        if forged:
            magic, total, length, _ = SIDE_HEAD.unpack_from(data)
            start = SIDE_HEAD.size + total - length
            crc = crc32c(bytes(data[start : start + length])) if start > 0 else 0
            SIDE_HEAD.pack_into(data, 0, magic, total, length, crc)
            reference = bytes(encode_plain((path.name, 1, crc, [])))
        path.write_bytes(data)
        self._tried(len(data), lambda: read_side(self._scratch, reference), forged=forged)
        self._tried(len(data), lambda: other_files(path), forged=True)

    def _sync(self) -> bytes:
        head = struct.pack("<8sQ16s28x", b"RSMSYNC1", 9, boot_id())
        data = head + struct.pack("<I", crc32c(head))
        for seq in range(1, 6):
            body = bytes(encode_plain((NAME, 1, seq, 2, 0, bytes(encode_plain((seq, "state"))))))
            data += self._entry(body)
        return data + bytes(64)

    @staticmethod
    def _entry(body: bytes) -> bytes:
        crc = crc32c(body, crc32c(len(body).to_bytes(4, "little"), crc32c((9).to_bytes(8, "little"))))
        entry = struct.pack("<II", crc, len(body)) + body
        return entry + bytes(-len(entry) % 8)

    def _sync_file(self, number: int) -> None:
        path, forged = self._scratch / "sync", number % 4 == 2
        if forged:
            head = struct.pack("<8sQ16s28x", b"RSMSYNC1", 9, boot_id())
            data = head + struct.pack("<I", crc32c(head)) + self._entry(self._values.input(self._seed, number))
        else:
            data = self._syncs.input(self._seed, number)
        path.write_bytes(data)
        self._tried(len(data), lambda: read_abandoned(path), forged=forged)

    def _bitset(self, number: int) -> None:
        path = self._scratch / "bits"
        data = self._segments.input(self._seed, number).ljust(CAPACITY, b"\0")[:CAPACITY]
        path.write_bytes(data)
        with path.open("r+b") as file:
            bits = Bitset(file.fileno(), 1)
        for at in (0, 63, 64, 4095, 32767, random.Random(number).randrange(32768)):
            assert bits.test(at) == bool(data[4096 + at // 8] & data[8192 + at // 8] & 1 << at % 8)
            bits.next_clear(at)
        bits.count(), bits.damaged()
        with suppress(IndexError):
            bits.test(32768)
        bits.close()


def suppressed(read: Callable[[], Any]) -> Any:
    """What it gives, or the library's error."""
    try:
        return read()
    except ResumableError as error:
        return error
