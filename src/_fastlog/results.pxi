# Results on their way into the log: copied from the journal once, without becoming objects.

cdef enum:
    CHUNK_HEAD = 2 + 10       # of a pair, whose first is a list: their tags and lengths
    CHUNK_ENTRY = 10          # of bytes: what is not the bytes

@cython.final
cdef class ResultChunk:
    """What `encode_plain(([result, ...], flags))` makes of a run's results from number `first` on, a byte of flags for each."""
    cdef unsigned char* memory
    cdef size_t size
    cdef size_t used
    cdef unsigned char* flags
    cdef size_t flags_size
    cdef readonly uint64_t first
    cdef readonly uint64_t count
    cdef readonly uint64_t behind_gap   # the number of the first result that did not join, 0 if all did
    cdef readonly list references       # results that stand for side files

    def __cinit__(self, uint64_t first):
        self.first, self.used, self.references = first, CHUNK_HEAD, []

    def __dealloc__(self):
        PyMem_RawFree(self.memory)
        PyMem_RawFree(self.flags)

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
        if not has_room(&self.memory, &self.size, self.used + length + CHUNK_ENTRY):
            return False
        if not has_room(&self.flags, &self.flags_size, self.count + 1):
            return False
        self.used = self.put_bytes(result, length)
        self.flags[self.count] = <unsigned char>flags
        self.count += 1
        return True

    cdef inline size_t put_bytes(self, const unsigned char* data, size_t length) noexcept nogil:
        """Write bytes behind what is used, where there is room for them, and say where they end."""
        cdef Encoder e
        encoder_start(&e, self.memory + self.size)
        return put_block(&e, self.memory + self.used, TAG_BYTES, length, data, length) - self.memory

    def add(self, uint64_t index, int flags, const unsigned char[::1] result not None):
        """Add a result, as it is stored, unless the log has it."""
        self.put(index, flags, &result[0] if result.shape[0] else NULL, result.shape[0])

    def data(self) -> bytes:
        """The pair of list and flags."""
        cdef unsigned char head[CHUNK_HEAD]
        cdef size_t length, end
        if not has_room(&self.memory, &self.size, self.used + self.count + CHUNK_ENTRY):
            raise MemoryError()
        end = self.put_bytes(self.flags, self.count)
        head[0], head[1], head[2] = TAG_TUPLE, 2, TAG_LIST
        length = put_size(&head[3], self.count) - head
        memcpy(self.memory + CHUNK_HEAD - length, head, length)
        return self.memory[CHUNK_HEAD - length:end]


cdef bint has_room(unsigned char** memory, size_t* size, size_t wanted) noexcept nogil:
    """Whether there are so many bytes, by making it twice as many if need be."""
    cdef size_t larger = max(2 * size[0], wanted)
    cdef void* grown
    if wanted <= size[0]:
        return True
    grown = PyMem_RawRealloc(memory[0], larger)
    if grown == NULL:
        return False
    memory[0], size[0] = <unsigned char*>grown, larger
    return True


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

    Gives back where that begins; `last` is the last one added.
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
