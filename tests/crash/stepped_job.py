"""The process that every_instruction.c steps through: `journal|bitset SEED FIRST COUNT CONTROL FILE...`.

It stops itself before checkpoint (or item) FIRST, where the stepping begins, and after checkpoint COUNT.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys
from collections.abc import Generator
from typing import Any

from resumable._fastlog import Bitset, Journal, Segment, checkpoint, drive

META, CHECKPOINT, RNG = 1, 2, 3
HAS_RESULT, RESULT_EVERY = 8, 5
EVENT = b"what stands in an event."


def plain(state: bytes) -> bytes:
    return b"\x0a" + (bytes([len(state)]) if len(state) < 255 else b"\xff" + len(state).to_bytes(8, "little")) + state


def state_of(seq: int, seed: int) -> bytes:
    size = 300 + (seq * 97 + seed) % 700 if seq % 11 == 0 else (seq * 37 + seed) % 400
    return bytes((seq * 3 + i) & 0xFF for i in range(size))


class Run:
    """The slow way: checkpoints with a result, and the roll to the next segment."""

    def __init__(self, paths: list[str], seed: int) -> None:
        self.random = random.Random(seed)
        self.journal = Journal()
        self.segments = [Segment(os.open(path, os.O_RDWR), os.path.getsize(path)) for path in paths]
        self.rolls = 0

    def roll(self) -> None:
        segment = self.segments[self.rolls % len(self.segments)]
        segment.format(
            generation=self.random.getrandbits(64), index=self.rolls, first_seq=self.journal.seq, name=b"n" * 16,
            number=1, boot=b"b" * 16, created=1, results=self.journal.seq // RESULT_EVERY,
        )  # fmt: skip
        self.rolls += 1
        self.journal.attach(segment, 4096, self.journal.seq)
        self.journal.append(META, 0, EVENT)

    def save(self, made: Any) -> None:
        if made.has_result:
            seq, state = self.journal.seq + 1, plain(made.state)
            head = (seq // RESULT_EVERY - 1).to_bytes(8, "little") + len(state).to_bytes(4, "little")
            payload = head + state + b"\x03" + made.result.to_bytes(7, "little")
            while not (self.journal.append(RNG, 0, EVENT) and self.journal.append(CHECKPOINT, HAS_RESULT, payload)):
                self.roll()
        else:
            while self.journal.append_plain(made.state) == 1:
                self.roll()

    def refuse(self, value: object) -> None:
        raise TypeError(value)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def job(states: list[bytes], first: int, acked: memoryview) -> Generator[object, None, None]:
    for seq, state in enumerate(states, 1):
        if seq == first:
            stop()
        yield checkpoint(state, result=seq) if seq % RESULT_EVERY == 0 else checkpoint(state)
        acked[0] = seq


def main() -> None:
    mode, *numbers, control = sys.argv[1:6]
    seed, first, count = map(int, numbers)
    paths = sys.argv[6:]
    acked = memoryview(mmap.mmap(os.open(control, os.O_RDWR), 4096)).cast("Q")
    if mode == "journal":
        run = Run(paths, seed)
        run.roll()
        drive(job([state_of(seq, seed) for seq in range(1, count + 1)], first, acked), run.journal, run)
    else:
        pages = (os.path.getsize(paths[0]) - 4096) // 8192
        bits = Bitset(os.open(paths[0], os.O_RDWR), pages)
        for number in range(1, count + 1):
            if number == first:
                stop()
            bits.set((number * 40503 + seed) % (pages * 32768))
            acked[0] = number
    stop()


main()
