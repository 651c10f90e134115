"""A readable Python twin of the compiled formats, written from docs/internals.md: the oracle of the property tests.

It knows no speed and no sharing of values; it shares no line of code with `resumable._fastlog`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

# ---- CRC-32C


def _crc_row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = [_crc_row(byte) for byte in range(256)]


def crc32c(data: bytes, value: int = 0) -> int:
    """Castagnoli, reflected, initial value and final xor all ones."""
    crc = value ^ 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# ---- the plain codec

MAX_DEPTH = 100
CONTAINERS = (tuple, list, set, frozenset)


def encode(value: object) -> bytes | None:
    """The plain encoding, or None when the value's type or depth is not plain."""
    try:
        return b"".join(_encode(value, 0))
    except NotImplementedError:
        return None


def _size(size: int) -> bytes:
    return bytes([size]) if size < 255 else b"\xff" + struct.pack("<Q", size)


def _encode(value: Any, depth: int) -> Iterator[bytes]:
    kind = type(value)
    if value is None or kind is bool:
        yield b"\x00" if value is None else b"\x02" if value else b"\x01"
    elif kind is int and -(1 << 55) <= value < 1 << 55:
        yield b"\x03" + value.to_bytes(7, "little", signed=True)
    elif kind is int:
        size = value.bit_length() // 8 + 1
        yield b"\x04" + _size(size) + value.to_bytes(size, "little", signed=True)
    elif kind is float:
        yield b"\x05" + struct.pack("<d", value)
    elif kind is complex:
        yield b"\x06" + struct.pack("<dd", value.real, value.imag)
    elif kind is str:
        widest = max(map(ord, value), default=0)
        tag, width = (0x07, 1) if widest <= 0xFF else (0x08, 2) if widest <= 0xFFFF else (0x09, 4)
        yield bytes([tag]) + _size(len(value)) + b"".join(ord(point).to_bytes(width, "little") for point in value)
    elif kind is bytes or kind is bytearray:
        yield (b"\x0a" if kind is bytes else b"\x0b") + _size(len(value)) + bytes(value)
    elif depth == MAX_DEPTH:
        raise NotImplementedError
    elif kind in CONTAINERS:
        yield bytes([0x10 + CONTAINERS.index(kind)]) + _size(len(value))
        for item in value:
            yield from _encode(item, depth + 1)
    elif kind is dict:
        yield b"\x14" + _size(len(value))
        for pair in value.items():
            for part in pair:
                yield from _encode(part, depth + 1)
    elif kind is range or kind is slice:
        yield b"\x15" if kind is range else b"\x16"
        for part in (value.start, value.stop, value.step):
            yield from _encode(part, depth + 1)
    else:
        raise NotImplementedError


def decode(data: bytes) -> Any:
    """The value of a plain encoding. Raises ValueError, or TypeError for values that do not go together."""
    reader = _Reader(data)
    value = reader.value(0)
    if reader.at != len(data):
        raise ValueError("bytes left over")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def size(self, width: int = 1) -> int:
        """A size whose items take at least `width` bytes each."""
        size = self.take(1)[0]
        if size == 255:
            size = int.from_bytes(self.take(8), "little")
        if size * width > len(self.data) - self.at:
            raise ValueError("ends early")
        return size

    def value(self, depth: int) -> Any:
        tag = self.take(1)[0]
        if tag <= 0x02:
            return (None, False, True)[tag]
        if tag == 0x03:
            return int.from_bytes(self.take(7), "little", signed=True)
        if tag == 0x04:
            return int.from_bytes(self.take(self.size()), "little", signed=True)
        if tag == 0x05:
            return struct.unpack("<d", self.take(8))[0]
        if tag == 0x06:
            return complex(*struct.unpack("<dd", self.take(16)))
        if tag in (0x07, 0x08, 0x09):
            width = (1, 2, 4)[tag - 0x07]
            points = [int.from_bytes(self.take(width), "little") for _ in range(self.size(width))]
            if max(points, default=0) > 0x10FFFF:
                raise ValueError("beyond Unicode")
            return "".join(map(chr, points))
        if tag in (0x0A, 0x0B):
            data = self.take(self.size())
            return data if tag == 0x0A else bytearray(data)
        if 0x10 <= tag <= 0x16:
            if depth == MAX_DEPTH:
                raise ValueError("too deep")
            return self.container(tag, depth + 1)
        raise ValueError("unknown tag")

    def container(self, tag: int, depth: int) -> Any:
        if tag in (0x15, 0x16):
            return (range if tag == 0x15 else slice)(*[self.value(depth) for _ in range(3)])
        if tag == 0x14:
            return {self.value(depth): self.value(depth) for _ in range(self.size(2))}
        return CONTAINERS[tag - 0x10]([self.value(depth) for _ in range(self.size())])


# ---- the journal

HEADER_SIZE = 4096
COPIES = (0, 512)
STATE_HINT, EVENT_HINT, RESULT_COUNT = 1024, 1032, 1040
META, CHECKPOINT, RNG, FAILURE, RETURN = range(1, 6)
HAS_RESULT = 8
BY_MAP, BY_PWRITE = 1, 2
HEADER = struct.Struct("<8s II QQQQ 16s Q 16s QQ 20x")


@dataclass(frozen=True)
class Header:
    generation: int
    index: int
    first_seq: int
    capacity: int
    name: bytes
    number: int
    boot: bytes
    created: int
    mode: int = BY_MAP

    def pack(self) -> bytes:
        copy = HEADER.pack(b"RSMJRNL1", 1, HEADER_SIZE, *astuple(self))
        return copy + struct.pack("<I", crc32c(copy))


class Record(NamedTuple):
    offset: int
    seq: int
    kind: int
    flags: int
    payload: bytes

    @property
    def results(self) -> int | None:
        """The run's results so far, as a checkpoint with a result tells it."""
        if self.kind == CHECKPOINT and self.flags & HAS_RESULT and len(self.payload) >= 8:
            return (int.from_bytes(self.payload[:8], "little") + 1) % (1 << 64)
        return None


def read_header(data: bytes) -> Header | None:
    """The whole copy with the higher index."""
    found = []
    for at in COPIES:
        copy, crc = data[at : at + 124], data[at + 124 : at + 128]
        if copy[:8] == b"RSMJRNL1" and crc == struct.pack("<I", crc32c(copy)):
            found.append(Header(*HEADER.unpack(copy)[3:]))
    return max(found, key=lambda header: header.index) if len(data) >= HEADER_SIZE and found else None


def record_bytes(generation: int, record: Record) -> bytes:
    """A record as it stands in the file."""
    length = 16 + len(record.payload)
    tag = struct.pack("<Q", record.seq << 16 | record.kind << 8 | record.flags)
    body = tag + record.payload + bytes(-length % 8)
    crc = crc32c(struct.pack("<QII", generation, record.offset, length) + body)
    return struct.pack("<II", length, crc) + body


def read_record(data: bytes, generation: int, offset: int, *, verify: bool = True) -> Record | None:
    """The verified record at `offset`. `verify=False` is the planted bug of test_damage.py."""
    if offset < HEADER_SIZE or offset % 8 or offset > len(data) - 16:
        return None
    length, _, tag = struct.unpack_from("<IIQ", data, offset)
    end = offset + length + -length % 8
    if length < 16 or end > len(data):
        return None
    record = Record(offset, tag >> 16, tag >> 8 & 0xFF, tag & 0xFF, data[offset + 16 : offset + length])
    return record if not verify or record_bytes(generation, record) == data[offset:end] else None


def scan(data: bytes, start: int = HEADER_SIZE, *, verify: bool = True) -> tuple[list[Record], int]:
    """Records from `start` up to the first that does not verify, and where that stands."""
    header = read_header(data)
    if header is None:
        return [], 0
    records, at = [], start
    while record := read_record(data, header.generation, at, verify=verify):
        records.append(record)
        at += 16 + len(record.payload) + -len(record.payload) % 8
    return records, at


def hints(data: bytes) -> tuple[int | None, int | None]:
    """Offsets of the last checkpoint and the last other record: None when there is none, -1 for a damaged hint."""
    return _hint(data, STATE_HINT), _hint(data, EVENT_HINT)


def _hint(data: bytes, at: int) -> int | None:
    low, high = struct.unpack_from("<II", data, at)
    return None if low == high == 0 else high if low ^ high == 0xFFFFFFFF else -1


def ends(data: bytes, *, verify: bool = True) -> tuple[Record | None, Record | None, int, int]:
    """(last checkpoint, last other record, tail, results) for a start on the same boot; ValueError for damage."""
    header, hinted = read_header(data), hints(data)
    if header is None:
        raise ValueError("no whole header")
    count, complement = struct.unpack_from("<QQ", data, RESULT_COUNT)
    trusted = -1 not in hinted and count ^ complement == (1 << 64) - 1
    named = [offset for offset in hinted if offset is not None and trusted]
    acknowledged = [read_record(data, header.generation, offset, verify=verify) for offset in named]
    # The first record, of the same generation as all, tells a header page that is older than the records.
    if header.mode == BY_MAP and (named or any(data[HEADER_SIZE : HEADER_SIZE + 8])):
        acknowledged.append(read_record(data, header.generation, HEADER_SIZE, verify=verify))
    if None in acknowledged:
        raise ValueError("an acknowledged record is damaged")
    behind, tail = scan(data, max(named, default=HEADER_SIZE), verify=verify)
    if not trusted and any(data[tail : tail + 8]):
        raise ValueError("a hint is damaged, and so is a record")
    records = sorted({record for record in (*acknowledged, *behind) if record})
    counts = [record.results for record in behind if record.results is not None]
    if not counts and count ^ complement != (1 << 64) - 1 and tail != HEADER_SIZE:
        raise ValueError("the count of results is damaged, and no record tells it")
    states = [record for record in records if record.kind == CHECKPOINT]
    events = [record for record in records if record.kind != CHECKPOINT]
    return max(states, default=None), max(events, default=None), tail, (counts or [count])[-1]


class Journal:
    """The write end: a segment as bytes."""

    def __init__(self, header: Header, results: int = 0) -> None:
        self.data = bytearray(header.capacity)
        self.header = header
        self.tail, self.seq = HEADER_SIZE, 0
        for at in COPIES:
            self.data[at : at + 128] = header.pack()
        self.count(results)

    def count(self, results: int) -> None:
        struct.pack_into("<QQ", self.data, RESULT_COUNT, results, results ^ (1 << 64) - 1)

    def append(self, kind: int, flags: int, payload: bytes) -> bool:
        """False when the record, and 16 bytes behind it, do not fit."""
        if self.tail + 16 + len(payload) + 16 > len(self.data):
            return False
        record = Record(self.tail, self.seq + (kind in (CHECKPOINT, RNG)), kind, flags, payload)
        whole = record_bytes(self.header.generation, record)
        self.data[self.tail : self.tail + len(whole)] = whole
        if self.header.mode == BY_MAP:
            at = STATE_HINT if kind == CHECKPOINT else EVENT_HINT
            struct.pack_into("<II", self.data, at, self.tail ^ 0xFFFFFFFF, self.tail)
            if record.results is not None:
                self.count(record.results)
        self.tail += len(whole)
        self.seq += kind == CHECKPOINT
        return True


# ---- the bitset


def bitset_test(data: bytes, item: int) -> bool:
    """Done when both maps say so."""
    page, bit = divmod(item, 32768)
    at = 4096 + page * 8192 + bit // 8
    return bool(data[at] & data[at + 4096] & 1 << bit % 8)
