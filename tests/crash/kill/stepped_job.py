"""The process that every_instruction.c steps through: `MODE SEED FIRST COUNT CONTROL FILE...`.

It stops itself before checkpoint (or item) FIRST, where the stepping begins, and after checkpoint COUNT. The modes:

    journal     the compiled loop, states plain and pickled, results, and every other kind of record
    taken       the same, driven by Python, as jobs in an event loop are
    pwrite      the same where files cannot be mapped
    disk        durability="disk": each record also goes to a sync file; the last two FILEs
    loop        items of a loop, marked with their number and, some, with a result
    bitset      marks of finished items
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys
from collections.abc import Generator, Iterator
from typing import Any

from resumable._fastlog import (
    NOTHING,
    Bitset,
    GroupSync,
    Journal,
    LoopIterator,
    Marks,
    Segment,
    checkpoint,
    crc32c,
    drive,
    encode_plain,
    take_checkpoint,
)

META, CHECKPOINT, RNG, FAILURE, RETURN = range(1, 6)
PICKLED, HAS_RESULT = 1, 8
RESULT_EVERY, PICKLED_EVERY = 5, 13
BY_MAP, BY_PWRITE = 1, 2
EVENT = b"what stands in an event."
NAME, NUMBER = b"n" * 16, 1


class Odd(bytes):
    """Bytes that are not plain: the pickler must save them."""


def plain(state: Any) -> bytes:
    if type(state) is int:
        return bytes(encode_plain(state))
    return b"\x0a" + (bytes([len(state)]) if len(state) < 255 else b"\xff" + len(state).to_bytes(8, "little")) + state


def state_of(seq: int, seed: int) -> bytes:
    size = 300 + (seq * 97 + seed) % 700 if seq % 11 == 0 else (seq * 37 + seed) % 400
    state = bytes((seq * 3 + i) & 0xFF for i in range(size))
    return state if seq % PICKLED_EVERY else Odd(state)


class Syncs:
    """The sync files, one after the other."""

    def __init__(self, paths: list[str]) -> None:
        self._groups = []
        for number, path in enumerate(paths):
            generation, fd = bytes([number]) * 8, os.open(path, os.O_RDWR)
            head = (b"RSMSYNC1" + generation + b"b" * 16).ljust(60, b"\0")
            os.pwrite(fd, head + crc32c(head).to_bytes(4, "little"), 0)
            self._groups.append(GroupSync(fd, generation, 64, os.path.getsize(path)))
        self.reached: dict[tuple[bytes, int], int] = {}

    @property
    def group(self) -> GroupSync:
        return self._groups[0]

    def put(self, seq: int, kind: int, flags: int, payload: bytes) -> None:
        body = encode_plain((NAME, NUMBER, seq, kind, flags, payload))
        while not self.group.put(body):
            self._groups.pop(0)


class Run:
    """The slow way: checkpoints with a result, pickled states, and the roll to the next segment."""

    def __init__(self, mode: str, paths: list[str], seed: int) -> None:
        self.random = random.Random(seed)
        self.journal = Journal()
        self.syncs = Syncs(paths[3:]) if mode == "disk" else None
        by = BY_PWRITE if mode == "pwrite" else BY_MAP
        self.segments = [Segment(os.open(path, os.O_RDWR), os.path.getsize(path), by) for path in paths[:3]]
        self.rolls = 0
        if mode == "pwrite":
            self.journal.attention = 1
        chunks: list[bytes] = []
        self.journal.kit = (lambda state: chunks.append(plain(state)), lambda: None, chunks, [])
        self.wait()

    def wait(self) -> None:
        if self.syncs is not None:
            self.journal.wait_for(self.syncs.group, self.syncs.reached, (NAME, NUMBER))

    def roll(self) -> None:
        segment = self.segments[self.rolls % len(self.segments)]
        segment.format(
            generation=self.random.getrandbits(64), index=self.rolls, first_seq=self.journal.seq, name=NAME,
            number=NUMBER, boot=b"b" * 16, created=1, results=self.journal.seq // RESULT_EVERY,
        )  # fmt: skip
        self.rolls += 1
        self.journal.attach(segment, 4096, self.journal.seq)
        self.journal.append(META, 0, EVENT)

    def append(self, kind: int, flags: int, payload: bytes) -> None:
        while not self.journal.append(kind, flags, payload):
            self.roll()
        if self.syncs is not None:
            self.syncs.put(self.journal.seq + (kind == RNG), kind, flags, payload)

    def save(self, made: Any, pickled: tuple[int, bytes, Any] | None = None) -> None:
        seq = self.journal.seq + 1
        if made.has_result:
            state = plain(made.state)
            head = (seq // RESULT_EVERY - 1).to_bytes(8, "little") + len(state).to_bytes(4, "little")
            payload = head + state + b"\x03" + made.result.to_bytes(7, "little")
            # Both in one segment, as the real run does it.
            if not self.journal.fits(len(EVENT) + len(payload)):
                self.roll()
            self.append(RNG, 0, EVENT)
            self.append(CHECKPOINT, HAS_RESULT, payload)
            self.journal.takes_results = True
        elif type(made.state) is Odd:
            self.append(CHECKPOINT, PICKLED, pickled[1] if pickled else plain(made.state))
        else:
            while self.journal.append_plain(made.state) == 1:
                self.roll()
            if self.syncs is not None:
                self.syncs.put(seq, CHECKPOINT, 0, plain(made.state))
        self.append(FAILURE, 0, EVENT)      # so that many a segment ends in an event
        self.wait()

    def put_on_disk(self, payload: bytes) -> None:
        """The compiled loop found its sync file full."""
        assert self.syncs is not None
        self.syncs.put(self.journal.seq, CHECKPOINT, 0, payload)
        self.wait()

    def refuse(self, value: object) -> None:
        raise TypeError(value)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def job(states: list[bytes], first: int, acked: memoryview) -> Generator[Any, None, None]:
    for seq, state in enumerate(states, 1):
        if seq == first:
            stop()
        yield checkpoint(state, result=seq) if seq % RESULT_EVERY == 0 else checkpoint(state)
        acked[0] = seq


class Items:
    """The slow half of a loop over numbers, whose source tells what was acknowledged."""

    def __init__(self, run: Run, first: int, count: int, acked: memoryview) -> None:
        self.run, self.first, self.count, self.acked = run, first, count, acked
        self.marks = Marks()
        self.marks.go_on(run.journal, 0, True)

    def start(self, iterator: LoopIterator) -> Iterator[int]:
        for seq in range(1, self.count + 2):
            self.acked[0] = seq - 1
            if seq == self.first:
                stop()
            if seq <= self.count:
                yield seq

    def save(self, done: int) -> None:
        made = checkpoint(done) if self.marks.result is NOTHING else checkpoint(done, result=self.marks.result)
        if not take_checkpoint(self.run.journal, made):
            self.run.save(made)
        self.marks.saved()

    def go_through(self) -> None:
        for seq in LoopIterator(self, self.marks):
            if seq % RESULT_EVERY == 0:
                self.marks.result, self.marks.plainly = seq, False

    def finish(self) -> None:
        """The source has ended."""

    def stop(self, error: BaseException | None) -> None:
        raise AssertionError(error)

    def sample(self, index: int, item: object) -> int:
        raise AssertionError(index)


def set_bits(path: str, seed: int, first: int, count: int, acked: memoryview) -> None:
    pages = (os.path.getsize(path) - 4096) // 8192
    bits = Bitset(os.open(path, os.O_RDWR), pages)
    for number in range(1, count + 1):
        if number == first:
            stop()
        bits.set((number * 40503 + seed) % (pages * 32768))
        acked[0] = number


def go_through(mode: str, run: Run, generator: Generator[Any, None, None]) -> None:
    if mode == "taken":
        for made in generator:
            if not take_checkpoint(run.journal, made):
                run.save(made)
    else:
        drive(generator, run.journal, run)


def main() -> None:
    mode, *numbers, control = sys.argv[1:6]
    seed, first, count = map(int, numbers)
    acked = memoryview(mmap.mmap(os.open(control, os.O_RDWR), 4096)).cast("Q")
    if mode == "bitset":
        set_bits(sys.argv[6], seed, first, count, acked)
    else:
        run = Run(mode, sys.argv[6:], seed)
        run.roll()
        if mode == "loop":
            Items(run, first, count, acked).go_through()
        else:
            go_through(mode, run, job([state_of(seq, seed) for seq in range(1, count + 1)], first, acked))
        run.append(RETURN, 0, EVENT)
    stop()


main()
