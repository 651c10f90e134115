"""The process that fuzzes: it runs the sanitized module, and its end is the verdict.

    python fuzz_process.py decode|open SEED FIRST COUNT PLACE

PLACE is a file of 8 bytes that always holds the number of the input at hand, so that one that ends the process is known.
"""

from __future__ import annotations

import gc
import json
import mmap
import sys
from hashlib import blake2b
from typing import Any

import fuzz_corpus
from fuzz_opens import Opens

from resumable import _fastlog


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, type by type and bit by bit; sets in any order."""
    return digest(one) == digest(other)


def digest(value: Any) -> bytes:
    """Equal for equal values, NaN included, and as short for deep ones."""
    kind = type(value)
    if kind in (set, frozenset):
        parts = sorted(map(digest, value))
    elif kind in (tuple, list):
        parts = [digest(item) for item in value]
    elif kind is dict:
        parts = [digest(part) for pair in value.items() for part in pair]
    elif kind is slice:
        parts = [digest(part) for part in (value.start, value.stop, value.step)]
    else:
        parts = [_fastlog.encode_plain(value)]
    return blake2b(kind.__name__.encode() + b" " + b"".join(parts)).digest()


def decode(seed: int, first: int, count: int, place: mmap.mmap) -> dict[str, int]:
    """Decode so many damaged inputs."""
    corpus = _fastlog.Corpus(fuzz_corpus.encodings())
    accepted, refused = corpus.decode_many(seed, first, count, memoryview(place), same)
    return {"decodes": count, "accepted": accepted, "refused": refused}


def open_files(seed: int, first: int, count: int, place: mmap.mmap) -> dict[str, int]:
    """Open so many damaged files."""
    opens = Opens(seed)
    for number in range(first, first + count):
        place[:8] = number.to_bytes(8, "little")
        opens.open(number)
        if number % 1000 == 0:
            gc.collect()  # exceptions that were caught hold their frames
    opens.close()
    return {"opens": count, **opens.met}


def main(what: str, seed: str, first: str, count: str, place: str) -> None:
    gc.disable()  # nothing here makes cycles
    with open(place, "r+b") as file, mmap.mmap(file.fileno(), 8) as number:
        print(json.dumps({"decode": decode, "open": open_files}[what](int(seed), int(first), int(count), number)))


if __name__ == "__main__":
    main(*sys.argv[1:])
