"""The process that fuzzes: it runs the sanitized module, and its end is the verdict.

    python fuzz_process.py decode|open SEED FIRST COUNT PLACE

PLACE is a file of 8 bytes that always holds the number of the input at hand, so that one that ends the process is known.
"""

from __future__ import annotations

import gc
import json
import mmap
import sys
from typing import Any

import fuzz_corpus
from fuzz_opens import Opens

from resumable import _fastlog


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, type by type and bit by bit; sets in any order."""
    return canonical(one) == canonical(other)


def canonical(value: Any) -> Any:
    """A form in which equal values are equal, NaN included."""
    kind = type(value)
    if kind in (set, frozenset):
        return kind.__name__, sorted(repr(canonical(item)) for item in value)
    if kind in (tuple, list):
        return kind.__name__, [canonical(item) for item in value]
    if kind is dict:
        return "dict", [(canonical(key), canonical(item)) for key, item in value.items()]
    if kind is slice:
        return "slice", [canonical(part) for part in (value.start, value.stop, value.step)]
    return kind.__name__, bytes(_fastlog.encode_plain(value))


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
