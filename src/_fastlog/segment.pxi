# Segments: journal files mapped shared, their headers, and the scan that reads verified records back.
# The formats are in docs/internals.md. The GIL is the lock: every method below is one step to other threads.

cdef enum:
    FORMAT_VERSION = 1
    HEADER_SIZE = 4096
    HEADER_COPY = 128         # bytes of one of the two header copies
    SECOND_COPY = 512
    STATE_HINT = 1024         # offset of the last CHECKPOINT record
    EVENT_HINT = 1032         # offset of the last record of another kind
    RESULT_COUNT = 1040       # results saved so far, and the complement of that
    RECORD_HEADER = 16
    RESULT_HEAD = 12          # before the state of a record with a result: the result's number, u64, and the state's size, u32

cdef enum:
    KIND_META = 1
    KIND_CHECKPOINT = 2
    KIND_RNG = 3
    KIND_FAILURE = 4
    KIND_RETURN = 5

cdef enum:
    FLAG_SIDE = 4
    FLAG_RESULT = 8
    FLAG_RESULT_SIDE = 64

cdef enum:
    BY_MAP = 1
    BY_PWRITE = 2

cdef packed struct Header:
    char magic[8]
    uint32_t version
    uint32_t size
    uint64_t generation
    uint64_t index
    uint64_t first_seq
    uint64_t capacity
    unsigned char name[16]
    uint64_t number
    unsigned char boot[16]
    uint64_t created
    uint64_t mode
    unsigned char reserved[20]
    uint32_t crc

assert sizeof(Header) == HEADER_COPY, "the segment header is 128 bytes"

cdef struct Record:
    size_t offset
    size_t length             # header and payload, without padding
    uint64_t tag

cdef const char* MAGIC = b"RSMJRNL1"

cdef inline size_t padded(size_t length) noexcept nogil:
    return (length + 7) & ~<size_t>7

cdef inline uint32_t generation_seed(uint64_t generation) noexcept nogil:
    return rs_crc(0xFFFFFFFFu, <const unsigned char*>&generation, 8)

cdef bint read_record(const unsigned char* base, size_t capacity, uint32_t seed, size_t offset, Record* record) noexcept nogil:
    """Whether a whole, verified record stands at `offset`."""
    cdef uint64_t word
    if offset < HEADER_SIZE or offset & 7 or offset > capacity - RECORD_HEADER:
        return False
    word = rs_load_acquire(base + offset)
    record.offset = offset
    record.length = word & 0xFFFFFFFFu
    if record.length < RECORD_HEADER or padded(record.length) > capacity - offset:
        return False
    if rs_commit(seed, base + offset, offset, record.length) != word:
        return False
    record.tag = rs_load(base + offset + 8)
    return True

cdef inline size_t hinted(const unsigned char* base, size_t place) noexcept nogil:
    """The offset a hint names, 0 for none, 1 (never an offset) for one that is damaged."""
    cdef uint64_t word = rs_load_acquire(base + place)
    if word == 0:
        return 0
    return word >> 32 if (word >> 32 ^ word & 0xFFFFFFFFu) == 0xFFFFFFFFu else 1

cdef bint read_header_copy(const unsigned char* data, Header* header) noexcept nogil:
    memcpy(header, data, sizeof(Header))
    return ~rs_crc(0xFFFFFFFFu, data, HEADER_COPY - 4) == header.crc and memcmp(header.magic, MAGIC, 8) == 0

cdef bint load_header(const unsigned char* base, size_t size, Header* header) noexcept:
    cdef Header other
    cdef bint first, second
    if size < HEADER_SIZE:
        return False
    first = read_header_copy(base, header)
    second = read_header_copy(base + SECOND_COPY, &other)
    if second and (not first or other.index > header.index):
        header[0] = other
    return first or second


def read_header(data):
    """The header of a segment's bytes as a dict, or None when neither copy is whole."""
    cdef const unsigned char[::1] view = data
    cdef Header header
    if view.shape[0] < HEADER_SIZE or not load_header(&view[0], view.shape[0], &header):
        return None
    return header_dict(&header)


cdef dict header_dict(const Header* header):
    return {
        "version": header.version, "header_size": header.size, "generation": header.generation, "index": header.index,
        "first_seq": header.first_seq, "capacity": header.capacity, "name": header.name[:16], "number": header.number,
        "boot": header.boot[:16], "created": header.created, "mode": header.mode,
    }


cdef object record_tuple(const unsigned char* base, Record* record):
    payload = base[record.offset + RECORD_HEADER:record.offset + record.length]
    return (record.offset, record.tag >> 16, <int>(record.tag >> 8 & 0xFF), <int>(record.tag & 0xFF), payload)


cdef inline bint has_result(Record* record) noexcept nogil:
    return (record.tag >> 8 & 0xFF) == KIND_CHECKPOINT and record.tag & FLAG_RESULT != 0

cdef size_t pass_states(
    const unsigned char* base, size_t capacity, uint32_t seed, size_t start, size_t stop, uint64_t from_seq
) noexcept nogil:
    """Where the first record from `start` on stands that is more than a state before `from_seq`, or `stop`."""
    cdef Record record
    while (start < stop and read_record(base, capacity, seed, start, &record) and record.tag >> 16 < from_seq
            and (record.tag >> 8 & 0xFF) == KIND_CHECKPOINT and not has_result(&record)):
        start += padded(record.length)
    return start


def scan(data, size_t start=HEADER_SIZE):
    """Verified records of a segment's bytes from offset `start`: a list of (offset, seq, kind, flags, payload), and where it ends.

    The list ends at the first record that is unpublished or does not verify.
    """
    cdef const unsigned char[::1] view = data
    cdef Header header
    cdef Record record
    cdef uint32_t seed
    cdef size_t offset = start
    if view.shape[0] < HEADER_SIZE or not load_header(&view[0], view.shape[0], &header):
        return [], 0
    seed = generation_seed(header.generation)
    records = []
    while read_record(&view[0], view.shape[0], seed, offset, &record):
        records.append(record_tuple(&view[0], &record))
        offset += padded(record.length)
    return records, offset


def unpublished(data, size_t offset) -> bool:
    """Whether the journal really ends at `offset`: a zero commit word, or no room for a record."""
    cdef const unsigned char[::1] view = data
    return offset + RECORD_HEADER > <size_t>view.shape[0] or rs_load(&view[offset]) == 0


def hints(data):
    """What the two hints of a segment say, (last checkpoint, last other record): an offset, None for none, -1 for damaged."""
    cdef const unsigned char[::1] view = data
    if view.shape[0] < HEADER_SIZE:
        raise ValueError(f"a segment has at least {HEADER_SIZE} bytes, not {view.shape[0]}")
    found = []
    for place in (STATE_HINT, EVENT_HINT):
        offset = hinted(&view[0], place)
        found.append(None if offset == 0 else -1 if offset == 1 else offset)
    return tuple(found)


@cython.final
cdef class Segment:
    """A journal file in memory: mapped shared, or, where mapping is unsafe, a private image that is written through pwrite.

    `fd` -1 makes an anonymous one. The descriptor of a `BY_PWRITE` segment is owned and closed by the segment.
    """
    cdef unsigned char* base
    cdef readonly size_t capacity
    cdef readonly int mode
    cdef readonly uint64_t generation
    cdef readonly uint64_t index
    cdef int fd
    cdef uint32_t seed
    cdef uint32_t forks

    def __cinit__(self, int fd, size_t capacity, int mode=BY_MAP):
        cdef int flags = MAP_PRIVATE | MAP_ANONYMOUS if fd < 0 or mode == BY_PWRITE else MAP_SHARED
        if capacity < 2 * HEADER_SIZE or capacity & 7 or capacity >= <size_t>1 << 32:
            raise ValueError(f"a segment's capacity is 8 KiB to 4 GiB, got {capacity}")
        self.fd = fd if mode == BY_PWRITE else -1
        self.capacity = capacity
        self.mode = mode
        self.forks = rs_forks
        cdef void* base = mmap(NULL, capacity, PROT_READ | PROT_WRITE, flags, -1 if flags & MAP_ANONYMOUS else fd, 0)
        if base == MAP_FAILED:
            raise OSError(errno, "the journal segment cannot be mapped")
        self.base = <unsigned char*>base
        # A forked child gets no mapping at all; the fork check in front of every use keeps it from looking for one.
        madvise(base, capacity, MADV_DONTFORK)

    def __dealloc__(self):
        self.unmap()

    cdef void unmap(self) noexcept:
        if self.base != NULL and self.forks == rs_forks:
            munmap(self.base, self.capacity)
        self.base = NULL

    def close(self):
        """Unmap; the file stays. Closing twice is fine."""
        self.unmap()
        if self.fd >= 0:
            os_close(self.fd)
            self.fd = -1

    cdef int check(self) except -1:
        if self.forks != rs_forks:
            raise ForkedError("a run in progress was carried into a forked child: only the process that started it may go on")
        if self.base == NULL:
            raise ValueError("the journal segment is closed")
        return 0

    def load(self):
        """Take generation and index from the header that the file holds, and give it back as `read_header` does."""
        cdef Header header
        self.check()
        if self.mode == BY_PWRITE and self.fd >= 0:
            data = os_pread(self.fd, self.capacity, 0)
            memcpy(self.base, <const char*><bytes>data, len(data))
        if not load_header(self.base, self.capacity, &header):
            return None
        self.generation = header.generation
        self.index = header.index
        self.seed = generation_seed(header.generation)
        return header_dict(&header)

    def format(self, *, uint64_t generation, uint64_t index, uint64_t first_seq, bytes name, uint64_t number,
               bytes boot, uint64_t created, uint64_t results=0):
        """Make the segment empty and the run's newest. What it held is gone."""
        cdef Header header
        self.check()
        if len(name) != 16 or len(boot) != 16:
            raise ValueError("name digest and boot id are 16 bytes")
        memset(&header, 0, sizeof(Header))
        memcpy(header.magic, MAGIC, 8)
        header.version = FORMAT_VERSION
        header.size = HEADER_SIZE
        header.generation = generation
        header.index = index
        header.first_seq = first_seq
        header.capacity = self.capacity
        memcpy(header.name, <const char*>name, 16)
        header.number = number
        memcpy(header.boot, <const char*>boot, 16)
        header.created = created
        header.mode = self.mode
        header.crc = ~rs_crc(0xFFFFFFFFu, <const unsigned char*>&header, HEADER_COPY - 4)
        self.generation = generation
        self.index = index
        self.seed = generation_seed(generation)
        # No record of the old life may be taken for one of the new: the first commit word goes before the header comes,
        # and the hints before that, or they would name a record that is no more. The state's is the last of them: with the
        # other alone a start that comes in between would look for the last checkpoint behind the event.
        rs_store_release(self.base + EVENT_HINT, 0)
        rs_store_release(self.base + STATE_HINT, 0)
        rs_store_release(self.base + HEADER_SIZE, 0)
        rs_store(self.base + RESULT_COUNT, results)
        rs_store(self.base + RESULT_COUNT + 8, ~results)
        memcpy(self.base, &header, sizeof(Header))
        memcpy(self.base + SECOND_COPY, &header, sizeof(Header))
        if self.mode == BY_PWRITE:
            self.write_through(0, HEADER_SIZE + 8)

    cdef int write_through(self, size_t offset, size_t size) except -1:
        # With the GIL: the thread that commits to the log must not find a record that the file does not have.
        cdef ssize_t done
        if self.fd < 0:
            return 0
        while size > 0:
            done = pwrite(self.fd, self.base + offset, size, offset)
            if done < 0:
                if errno == EINTR:
                    continue
                raise OSError(errno, "the journal segment cannot be written")
            offset += done
            size -= done
        return 0

    def records(self, size_t start, size_t stop, uint64_t from_seq, size_t budget, ResultChunk results=None):
        """Records between two offsets for the log: (list of (offset, seq, kind, flags, payload), offset to go on from).

        Left out are states before `from_seq` that carry no result. With `results` these go there, and of their records the
        states are left, of those before `from_seq` the last: the log's state must not be behind its results. Stops once
        `budget` payload bytes are taken. Raises ValueError when a record fails its checksum: memory or file were damaged
        under a running job.
        """
        cdef Record record, last
        cdef size_t begun, taken = 0
        self.check()
        found = []
        last.length = 0
        while start < stop and taken < budget:
            with nogil:     # a job goes on meanwhile
                start = begun = pass_states(self.base, self.capacity, self.seed, start, stop, from_seq)
                if results is not None:
                    start = take_results(
                        results, self.base, self.capacity, self.seed, start, min(stop, start + budget - taken), from_seq, &last
                    )
            taken += start - begun
            if start != begun or start >= stop:
                continue
            if not read_record(self.base, self.capacity, self.seed, start, &record):
                raise ValueError(f"the record at offset {start} fails its checksum")
            start += padded(record.length)
            if results is not None and has_result(&record):
                taken += record.length
                take_result(results, self.base, &record)
                if (record.tag >> 16) < from_seq:
                    last = record
                else:
                    found.append(state_tuple(self.base, &record))
            else:
                found.append(record_tuple(self.base, &record))
                taken += record.length
        if last.length and not any([kind == KIND_CHECKPOINT for _, _, kind, _, _ in found]):
            found.append(state_tuple(self.base, &last))
        return found, start

    def record_at(self, size_t offset):
        """The verified record at `offset`, or None."""
        cdef Record record
        self.check()
        if not read_record(self.base, self.capacity, self.seed, offset, &record):
            return None
        return record_tuple(self.base, &record)

    def ends(self):
        """(last checkpoint, last other record, tail, results): records or None, where the journal ends, results saved up to there.

        Found through the hints and verified. Raises ValueError when what must verify does not.
        """
        cdef Record record
        cdef size_t state, event, at
        cdef bint trusted, counted
        cdef uint64_t results
        self.check()
        state = hinted(self.base, STATE_HINT)
        event = hinted(self.base, EVENT_HINT)
        results = rs_load(self.base + RESULT_COUNT)
        trusted = state != 1 and event != 1 and rs_load(self.base + RESULT_COUNT + 8) == ~results
        at = HEADER_SIZE                  # without hints to trust the segment is read from its start
        if trusted:
            for place in (state, event):
                if place and not read_record(self.base, self.capacity, self.seed, place, &record):
                    raise ValueError(f"the acknowledged record at offset {place} fails its checksum")
            at = max(state, event, at)
        else:
            state = event = 0
        # A header page that is older than the records: theirs is another generation, which its hints cannot tell.
        if (self.mode == BY_MAP and (at != HEADER_SIZE or rs_load(self.base + at) != 0)
                and not read_record(self.base, self.capacity, self.seed, HEADER_SIZE, &record)):
            raise ValueError("the first record fails its checksum")
        counted = rs_load(self.base + RESULT_COUNT + 8) == ~results
        while read_record(self.base, self.capacity, self.seed, at, &record):
            if (record.tag >> 8 & 0xFF) == KIND_CHECKPOINT:
                state = at
                if record.tag & FLAG_RESULT and record.length >= RECORD_HEADER + 8:
                    results = rs_load(self.base + at + RECORD_HEADER) + 1
                    counted = True
            else:
                event = at
            at += padded(record.length)
        if not trusted and at <= self.capacity - 8 and rs_load(self.base + at) != 0:
            raise ValueError(f"a hint is damaged, and so is the record at offset {at}")
        if self.mode == BY_PWRITE and self.goes_on_behind(at):
            raise ValueError(f"the record at offset {at} fails its checksum, and the one behind it does not")
        # An empty segment may be one that a kill left half formatted; its count is of no use to anybody.
        if not counted and at != HEADER_SIZE:
            raise ValueError("the count of results is damaged, and no record tells it")
        return self.record_at(state), self.record_at(event), at, results

    cdef bint goes_on_behind(self, size_t at) noexcept:
        """Whether a verified record stands behind a bad one: a kill tears the last record only."""
        cdef Record record
        cdef uint64_t word
        if at > self.capacity - RECORD_HEADER:
            return False
        word = rs_load(self.base + at)
        at += padded(word & 0xFFFFFFFFu)
        return word != 0 and at < self.capacity and read_record(self.base, self.capacity, self.seed, at, &record)

    def image(self) -> bytes:
        """A copy of the whole segment, for `scan` and reports."""
        self.check()
        return self.base[:self.capacity]
