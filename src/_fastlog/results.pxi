# Results on their way into the log: copied from the journal once, without becoming objects.

cdef enum:
    CHUNK_HEAD = 10           # of a list: its tag and its length
    CHUNK_ENTRY = 2 + 8 + 10  # of a pair of an int and bytes: what is not the bytes

@cython.final
cdef class ResultChunk:
    """What `encode_plain([(flags, result), ...])` makes of a run's results from number `first` on."""
    cdef unsigned char* memory
    cdef size_t size
    cdef size_t used
    cdef readonly uint64_t first
    cdef readonly uint64_t count
    cdef readonly uint64_t behind_gap   # the number of the first result that did not join, 0 if all did
    cdef readonly list references       # results that stand for side files

    def __cinit__(self, uint64_t first):
        self.first, self.used, self.references = first, CHUNK_HEAD, []

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef int put(self, uint64_t index, int flags, const unsigned char* result, size_t length) except -1:
        """Add a result, unless the log has it, or one before it is missing."""
        if index < self.first + self.count:
            return 0
        if index > self.first + self.count:
            self.behind_gap = self.behind_gap or index
            return 0
        if not self.put_next(flags, result, length):
            raise MemoryError()
        if flags & FLAG_SIDE:
            self.references.append(result[:length])
        return 0

    cdef bint put_next(self, int flags, const unsigned char* result, size_t length) noexcept nogil:
        """Add the next result; False when there is no memory for it."""
        cdef Encoder e
        cdef unsigned char* at
        if not self.has_room(length + CHUNK_ENTRY):
            return False
        encoder_start(&e, self.memory + self.size)
        at = self.memory + self.used
        at[0], at[1] = TAG_TUPLE, 2
        rs_store(at + 2, <uint64_t>flags << 8 | TAG_INT56)
        at = put_block(&e, at + 10, TAG_BYTES, length, result, length)
        self.used = at - self.memory
        self.count += 1
        return True

    def add(self, uint64_t index, int flags, const unsigned char[::1] result not None):
        """Add a result, as it is stored, unless the log has it."""
        self.put(index, flags, &result[0] if result.shape[0] else NULL, result.shape[0])

    cdef bint has_room(self, size_t more) noexcept nogil:
        cdef size_t size = max(2 * self.size, self.used + more)
        cdef void* memory
        if self.used + more <= self.size:
            return True
        memory = PyMem_RawRealloc(self.memory, size)
        if memory == NULL:
            return False
        self.memory, self.size = <unsigned char*>memory, size
        return True

    def data(self) -> bytes:
        """The list."""
        cdef unsigned char head[CHUNK_HEAD]
        cdef size_t length
        if not self.has_room(0):
            raise MemoryError()
        head[0] = TAG_LIST
        length = put_size(&head[1], self.count) - head
        memcpy(self.memory + CHUNK_HEAD - length, head, length)
        return self.memory[CHUNK_HEAD - length:self.used]


cdef inline uint32_t size_of_state(const unsigned char* base, Record* record) noexcept nogil:
    """How long the state is in a checkpoint with a result; 0xFFFFFFFF when the record is too short for it."""
    cdef uint32_t size
    if record.length < RECORD_HEADER + RESULT_HEAD:
        return 0xFFFFFFFFu
    memcpy(&size, base + record.offset + RECORD_HEADER + 8, 4)
    return size if record.length - RECORD_HEADER - RESULT_HEAD >= size else 0xFFFFFFFFu


cdef uint32_t state_size(const unsigned char* base, Record* record) except? 0xFFFFFFFFu:
    cdef uint32_t size = size_of_state(base, record)
    if size == 0xFFFFFFFFu:
        raise ValueError(f"the record at offset {record.offset} is too short for its result")
    return size


cdef inline int flags_of_result(Record* record) noexcept nogil:
    cdef int flags = <int>(record.tag & 0xFF)
    return flags >> 4 & 3 | (FLAG_SIDE if flags & FLAG_RESULT_SIDE else 0)


cdef int take_result(ResultChunk chunk, const unsigned char* base, Record* record) except -1:
    """Add a checkpoint's result to a chunk."""
    cdef const unsigned char* payload = base + record.offset + RECORD_HEADER
    cdef size_t before = RESULT_HEAD + state_size(base, record)
    return chunk.put(rs_load(payload), flags_of_result(record), payload + before, record.length - RECORD_HEADER - before)


cdef size_t take_results(
    ResultChunk chunk, const unsigned char* base, size_t capacity, uint32_t seed, size_t start, size_t stop, uint64_t from_seq,
    Record* last,
) noexcept nogil:
    """Add the results from `start` to `stop` whose states are before `from_seq`, up to the first that takes more than that.

    Gives back where that begins; `last` is the last one added. Without the GIL: a job goes on meanwhile.
    """
    cdef Record record
    cdef const unsigned char* payload
    cdef uint32_t size
    while start < stop and read_record(base, capacity, seed, start, &record) and has_result(&record):
        size, payload = size_of_state(base, &record), base + start + RECORD_HEADER
        if (record.tag >> 16 >= from_seq or record.tag & FLAG_RESULT_SIDE or size == 0xFFFFFFFFu
                or rs_load(payload) != chunk.first + chunk.count
                or not chunk.put_next(
                    flags_of_result(&record), payload + RESULT_HEAD + size, record.length - RECORD_HEADER - RESULT_HEAD - size
                )):
            break
        last[0] = record
        start += padded(record.length)
    return start


cdef object state_tuple(const unsigned char* base, Record* record):
    """A checkpoint with a result, as if it had none."""
    cdef size_t first = record.offset + RECORD_HEADER + RESULT_HEAD
    state = base[first:first + state_size(base, record)]
    return (record.offset, record.tag >> 16, KIND_CHECKPOINT, <int>(record.tag & (3 | FLAG_SIDE)), state)
