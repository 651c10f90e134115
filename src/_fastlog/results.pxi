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
        cdef Encoder e
        cdef unsigned char* at
        if index < self.first + self.count:
            return 0
        if index > self.first + self.count:
            self.behind_gap = self.behind_gap or index
            return 0
        self.reserve(length + CHUNK_ENTRY)
        encoder_start(&e, self.memory + self.size)
        at = self.memory + self.used
        at[0], at[1] = TAG_TUPLE, 2
        rs_store(at + 2, <uint64_t>flags << 8 | TAG_INT56)
        at = put_block(&e, at + 10, TAG_BYTES, length, result, length)
        self.used = at - self.memory
        self.count += 1
        if flags & FLAG_SIDE:
            self.references.append(result[:length])
        return 0

    def add(self, uint64_t index, int flags, const unsigned char[::1] result not None):
        """Add a result, as it is stored, unless the log has it."""
        self.put(index, flags, &result[0] if result.shape[0] else NULL, result.shape[0])

    cdef int reserve(self, size_t more) except -1:
        cdef size_t size = max(2 * self.size, self.used + more)
        cdef void* memory
        if self.used + more <= self.size:
            return 0
        memory = PyMem_RawRealloc(self.memory, size)
        if memory == NULL:
            raise MemoryError()
        self.memory, self.size = <unsigned char*>memory, size
        return 0

    def data(self) -> bytes:
        """The list."""
        cdef unsigned char head[CHUNK_HEAD]
        cdef size_t length
        self.reserve(0)
        head[0] = TAG_LIST
        length = put_size(&head[1], self.count) - head
        memcpy(self.memory + CHUNK_HEAD - length, head, length)
        return self.memory[CHUNK_HEAD - length:self.used]


cdef uint32_t state_size(const unsigned char* base, Record* record) except? 0xFFFFFFFFu:
    """How long the state is in a checkpoint with a result."""
    cdef uint32_t size = 0
    if record.length >= RECORD_HEADER + RESULT_HEAD:
        memcpy(&size, base + record.offset + RECORD_HEADER + 8, 4)
    if record.length < RECORD_HEADER + RESULT_HEAD + size:
        raise ValueError(f"the record at offset {record.offset} is too short for its result")
    return size


cdef int take_result(ResultChunk chunk, const unsigned char* base, Record* record) except -1:
    """Add a checkpoint's result to a chunk."""
    cdef const unsigned char* payload = base + record.offset + RECORD_HEADER
    cdef size_t before = RESULT_HEAD + state_size(base, record)
    cdef int flags = <int>(record.tag & 0xFF)
    return chunk.put(
        rs_load(payload), flags >> 4 & 3 | (FLAG_SIDE if flags & FLAG_RESULT_SIDE else 0), payload + before,
        record.length - RECORD_HEADER - before,
    )


cdef object state_tuple(const unsigned char* base, Record* record):
    """A checkpoint with a result, as if it had none."""
    cdef size_t first = record.offset + RECORD_HEADER + RESULT_HEAD
    state = base[first:first + state_size(base, record)]
    return (record.offset, record.tag >> 16, KIND_CHECKPOINT, <int>(record.tag & (3 | FLAG_SIDE)), state)
