# The write end of the journal: records are encoded in place and published by one 8-byte store.
# The formats are in docs/internals.md. The GIL is the lock: every method below is one step to other threads.

cdef enum:
    AT_ONCE = 0
    BY_SAVE = 1                       # every checkpoint takes the slow way through the run's `save`
    WAIT_FOR_DISK = 2

cdef enum:
    AHEAD = 1024                      # so many bytes of the next record are asked for at most

@cython.final
cdef class Journal:
    """The write end of one run's journal: appends to the segment it is attached to until that is full."""
    cdef Segment segment
    cdef unsigned char* base          # of the segment, or NULL
    cdef size_t capacity
    cdef uint32_t seed
    cdef readonly uint64_t seq        # the last published checkpoint's
    cdef readonly size_t tail         # offset of the next record
    cdef readonly bint due            # whether the checkpoint at hand is one that `save_every` saves
    cdef public int attention         # AT_ONCE, or why a checkpoint is not acknowledged as soon as it is published
    cdef public object kit            # (dump, clear_memo, chunks, buffers) of a pickler for what is not plain, or None
    cdef public Py_ssize_t save_every
    cdef Py_ssize_t skipped
    cdef uint32_t forks
    cdef size_t length                # of the last record, without padding
    cdef GroupSync group              # what a checkpoint waits for when `attention` is WAIT_FOR_DISK
    cdef dict reached                 # run: how far it got in that file
    cdef tuple run                    # (name digest, number)
    cdef public uint64_t results      # saved so far
    cdef public bint takes_results    # the segment is known to hold some, which the log must have before it is used again

    def __cinit__(self):
        self.save_every = 1
        self.forks = rs_forks

    def attach(self, Segment segment, size_t tail, uint64_t seq):
        """Go on in `segment` at offset `tail`, after checkpoint `seq`."""
        segment.check()
        if tail < HEADER_SIZE or tail & 7 or tail > segment.capacity:
            raise ValueError(f"a journal cannot go on at offset {tail}")
        self.segment = segment
        self.base = segment.base
        self.capacity = segment.capacity
        self.seed = segment.seed
        self.tail = tail
        self.seq = seq
        self.takes_results = False
        # What a kill left behind the tail is cut before anything can be taken for its continuation.
        if tail <= self.capacity - 8:
            rs_store_release(self.base + tail, 0)

    def detach(self):
        """Let go of the segment: appending raises until the next attach."""
        self.segment = None
        self.base = NULL
        self.capacity = 0
        self.tail = HEADER_SIZE

    def wait_for(self, GroupSync group, dict reached, tuple run):
        """From now on each plain checkpoint is on disk, in that sync file, before it is acknowledged."""
        self.group, self.reached, self.run = group, reached, run
        self.attention = WAIT_FOR_DISK

    cdef int check(self) except -1:
        if self.segment is None:
            raise ValueError("the journal is detached")
        return self.segment.check()

    cdef inline void publish(self, size_t length, uint64_t tag, int hint) noexcept nogil:
        """Everything but the commit word is below the segment's end and may be torn; after the commit word nothing may."""
        cdef unsigned char* record = self.base + self.tail
        cdef size_t size = padded(length)
        rs_store(record + length, 0)
        if size <= self.capacity - self.tail - 8:
            rs_store(record + size, 0)
        rs_store(record + 8, tag)
        rs_store_release(record, rs_commit(self.seed, record, self.tail, length))
        rs_store_release(self.base + hint, <uint64_t>self.tail << 32 | (~self.tail & 0xFFFFFFFFu))
        self.tail += size
        self.length = length
        rs_fetch(record + size + 64, min(size, AHEAD))     # the next record will be much like this one

    cdef inline int save_state(self, PyObject* state) noexcept:
        """Encode a plain state into the journal and publish it. Any answer but ENCODED has published nothing."""
        cdef Encoder e
        cdef unsigned char* at
        if self.base == NULL or self.segment.base == NULL:
            return FULL
        # 16 bytes stay free behind the payload: its padding, and the zero commit word of the record to come.
        encoder_start(&e, self.base + self.capacity - 16)
        at = self.base + self.tail + RECORD_HEADER
        if at > e.limit:
            return FULL
        at = encode_int(&e, at, state) if Py_TYPE(state) == &PyLong_Type else encode(&e, at, state)
        encoder_stop(&e)
        if at != NULL:
            self.publish(at - self.base - self.tail, (self.seq + 1) << 16 | KIND_CHECKPOINT << 8, STATE_HINT)
            self.seq += 1
        return e.status

    cdef inline int save_number(self, uint64_t number) noexcept:
        """`save_state` of an int below 2^55 that is no object yet."""
        cdef unsigned char* at
        if self.base == NULL or self.segment.base == NULL or self.capacity - self.tail < RECORD_HEADER + 8 + 16:
            return FULL
        at = self.base + self.tail + RECORD_HEADER
        rs_store(at, number << 8 | TAG_INT56)
        self.publish(RECORD_HEADER + 8, (self.seq + 1) << 16 | KIND_CHECKPOINT << 8, STATE_HINT)
        self.seq += 1
        return ENCODED

    cdef int save_both(self, PyObject* state, PyObject* result) noexcept:
        """`save_state` with a result, into a segment that takes results."""
        cdef Encoder e
        cdef unsigned char* at
        cdef unsigned char* middle
        cdef uint32_t size
        if self.base == NULL or self.segment.base == NULL or not self.takes_results:
            return FULL
        at = self.base + self.tail + RECORD_HEADER + RESULT_HEAD
        encoder_start(&e, self.base + self.capacity - 16)
        if at > e.limit:
            return FULL
        middle = encode(&e, at, state)
        encoder_stop(&e)
        if middle == NULL:
            return e.status
        size = <uint32_t>(middle - at)
        rs_store(at - RESULT_HEAD, self.results)
        memcpy(at - 4, &size, 4)
        encoder_start(&e, e.limit)      # what both refer to is two things: each comes back alone
        at = encode(&e, middle, result)
        encoder_stop(&e)
        if at != NULL:
            self.publish(at - self.base - self.tail, (self.seq + 1) << 16 | KIND_CHECKPOINT << 8 | FLAG_RESULT, STATE_HINT)
            self.seq += 1
            self.count_results(self.results + 1)
        return e.status

    cdef inline void count_results(self, uint64_t results) noexcept nogil:
        self.results = results
        # A kill between the two stores leaves a count that says so itself.
        rs_store_release(self.base + RESULT_COUNT, results)
        rs_store_release(self.base + RESULT_COUNT + 8, ~results)

    def fits(self, size_t size) -> bool:
        """Whether records of `size` payload bytes together, at most four of them, fit the segment."""
        return self.tail + size + 4 * 32 <= self.capacity

    def append(self, int kind, int flags, payload) -> bool:
        """Publish a record of ready bytes; a CHECKPOINT takes the next seq. False when it does not fit: nothing is published."""
        cdef const unsigned char[::1] view = payload
        return self.put(kind, flags, &view[0] if view.shape[0] else NULL, view.shape[0])

    cdef bint put(self, int kind, int flags, const unsigned char* payload, size_t size) except -1:
        """`append`."""
        cdef size_t start = self.tail
        cdef uint64_t seq = self.seq, results = self.results
        self.check()
        if self.tail + RECORD_HEADER + size + 16 > self.capacity:
            return False
        if size:
            memcpy(self.base + self.tail + RECORD_HEADER, payload, size)
        if kind == KIND_CHECKPOINT:
            self.publish(RECORD_HEADER + size, (seq + 1) << 16 | kind << 8 | flags, STATE_HINT)
            self.seq = seq + 1
            if flags & FLAG_RESULT and size >= 8:
                self.count_results(rs_load(payload) + 1)
        else:
            self.publish(RECORD_HEADER + size, (seq + (kind == KIND_RNG)) << 16 | kind << 8 | flags, EVENT_HINT)
        self.acknowledge(start, seq, results)
        return True

    def append_plain(self, state) -> int:
        """Save a state through tier 0: 0 done, 1 the segment is full, 2 the state is not plain."""
        cdef size_t start = self.tail
        cdef uint64_t seq = self.seq, results = self.results
        self.check()
        cdef int status = self.save_state(<PyObject*>state)
        if status == NO_MEMORY:
            raise MemoryError()
        if status == ENCODED:
            self.acknowledge(start, seq, results)
        return status

    cdef int acknowledge(self, size_t start, uint64_t seq, uint64_t results) except -1:
        """Where the file is not mapped, a record counts only once pwrite has taken it; else the journal is as before."""
        if self.segment.mode == BY_PWRITE:
            try:
                self.segment.write_through(start, min(self.tail + 8, self.capacity) - start)
            except BaseException:       # also without memory for the error
                self.tail, self.seq, self.results = start, seq, results
                raise
        return 0
