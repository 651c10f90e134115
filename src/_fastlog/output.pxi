# A file that is written with a loop's marks: what it lacks of the items that are done stands in the record of the last mark.

cdef enum:
    PENDING = 1024                   # bytes that records carry before the file gets them: more cost the record, fewer a call
    CHECKED = 4096                   # bytes before `offset` by which the file is known again, at most
    INODE = 0x7FFFFFFFFFFFFF         # what of an inode's number is kept

cdef class Output:
    """Bytes on their way to a file; `resumable.work.outputs` opens and closes it.

    A record holds (offset, inode, checked, checksum, bytes): the file has everything before `offset`, of which the last `checked`
    bytes have this checksum, and the bytes belong behind. So the last record alone says what the file is to hold.
    """
    cdef unsigned char* held         # what the file does not have: bytes of items that are done, then of the one at hand
    cdef size_t size
    cdef size_t room
    cdef readonly uint64_t offset    # where in the file they go
    cdef readonly uint64_t marked_end    # where the bytes of items that are done end
    cdef readonly uint64_t inode
    cdef uint64_t checked
    cdef uint64_t checksum
    cdef readonly str key            # its name among the loop's parts
    cdef readonly int fd             # -1: the file has not been touched
    cdef public bint known           # a record tells of the file
    cdef public object loop          # that writes it, while that goes on
    cdef Marks marks                 # its loop's
    cdef object started              # context variable: the loops that have started
    cdef unsigned long thread
    cdef object written              # called when the file has been written to
    cdef bint copies_ascii           # ASCII text goes to the file as it is

    def __cinit__(self, *args, **kwargs):
        self.fd = -1

    def __dealloc__(self):
        PyMem_RawFree(self.held)
        if self.fd >= 0:
            close_file(self.fd)

    def _set_up(self, str key, started, written, bint copies_ascii):
        self.key, self.started, self.written, self.copies_ascii = key, started, written, copies_ascii

    def _set_marks(self, marks):
        """From here on it is written in this thread, in the body of the loop that has these marks; None: in none."""
        self.marks, self.thread = marks, PyThread_get_thread_ident()

    def _place(self, int fd, uint64_t inode):
        """The file is open: (-1, 0) that it is not."""
        if self.fd >= 0:
            close_file(self.fd)
        self.fd, self.inode = fd, inode & INODE

    def _start_at(self, uint64_t offset, uint64_t checked, uint64_t checksum):
        """Hold nothing, and go on at this offset."""
        self.size, self.offset, self.marked_end, self.checked, self.checksum = 0, offset, offset, checked, checksum

    @property
    def end(self):
        """Where the next byte goes."""
        return self.offset + self.size

    def write(self, data):
        """Write text, or bytes to a binary file; gives back how many. It is in the file when the item at hand is done."""
        cdef PyObject* text = <PyObject*>data
        cdef Py_ssize_t length
        if not (
            self.copies_ascii and Py_TYPE(text) == &PyUnicode_Type and PyUnicode_IS_COMPACT_ASCII(text) and self.is_its_turn()
        ):
            return self._write(data)
        length = PyUnicode_GET_LENGTH(text)
        self.add(<const unsigned char*>PyUnicode_DATA(text), length)
        return length

    cdef bint is_its_turn(self) except -1:
        """Whether the item at hand is the loop's, of its thread, and of no other loop inside."""
        if self.marks is None or self.marks.at_hand == 0 or self.thread != PyThread_get_thread_ident():
            return False
        cdef PyObject* loops
        cdef Py_ssize_t count
        cdef bint own
        PyContextVar_Get(self.started, NULL, &loops)
        count = PyTuple_GET_SIZE(loops)
        own = count > 0 and rs_tuple_items(loops)[count - 1] == <PyObject*>self.loop
        Py_DECREF(loops)
        return own

    def _put(self, bytes data):
        """Hold these bytes."""
        self.add(<const unsigned char*>PyBytes_AS_STRING(<PyObject*>data), len(data))

    cdef int add(self, const unsigned char* data, size_t size) except -1:
        if size > self.room - self.size:
            self.grow(size)
        memcpy(self.held + self.size, data, size)
        self.size += size
        return 0

    cdef int grow(self, size_t more) except -1:
        cdef size_t room = max(2 * self.room, self.size + more, 4 * PENDING)
        cdef unsigned char* grown = <unsigned char*>PyMem_RawRealloc(self.held, room)
        if grown == NULL:
            raise MemoryError()
        self.held, self.room = grown, room
        return 0

    def _taken(self):
        """The bytes that are held; it holds them no more."""
        data = self.held[:self.size]
        self.size = 0
        return data

    def _keep(self):
        """What is held is no item's: it stays, whatever becomes of the item at hand."""
        self.marked_end = self.offset + self.size

    def _drop_item(self):
        """Forget what the item at hand has written. The file is to be cut at `offset`."""
        self.size = min(self.size, max(self.marked_end, self.offset) - self.offset)
        self.offset = min(self.marked_end, self.offset)     # below it if a mark failed that had made room

    cdef inline bint must_spill(self) noexcept:
        return self.size > PENDING and self.known

    def _make_short(self):
        """Spill what is too much for a record."""
        if self.must_spill():
            self.spill()

    def _spill(self):
        """Write what is held to the file, behind what it has. Raises OSError; then nothing has changed."""
        self.spill()

    cdef int spill(self) except -1:
        cdef size_t written = 0
        cdef ssize_t count
        cdef int why
        if self.size == 0:
            return 0
        if self.fd < 0:
            self._begin()
        self.check_file()
        while written < self.size:
            with nogil:
                count = pwrite(self.fd, self.held + written, self.size - written, <long>(self.offset + written))
                why = errno
            if count >= 0:
                written += count
            elif why != EINTR:
                self._write_failed(why)
        self.written()
        self.checked = min(self.size, CHECKED)
        self.checksum = ~rs_crc(0xFFFFFFFFu, self.held + self.size - self.checked, self.checked) & 0xFFFFFFFFu
        self.offset += self.size
        self.size = 0
        return 0

    cdef int check_file(self) except -1:
        """Somebody else may write to it, or remove it: what is written then is lost, or not where records say."""
        cdef uint64_t size = 0, links = 0
        if rs_size_and_links(self.fd, &size, &links) != 0:
            self._failed(errno)
        if links == 0 or size != self.offset:
            self._meddled(links != 0, size)
        return 0

    def _state(self):
        """What a record says of the file."""
        return self.offset, self.inode, self.checked, self.checksum, self.held[:self.size]

    cdef unsigned char* encode_state(self, Encoder* e, unsigned char* at) noexcept:
        """`_state`, encoded; see `encode`."""
        if <size_t>(e.limit - at) < 2 + 4 * 8:
            return refuse(e, FULL)
        at[0], at[1] = TAG_TUPLE, 5
        rs_store(at + 2, self.offset << 8 | TAG_INT56)
        rs_store(at + 10, self.inode << 8 | TAG_INT56)
        rs_store(at + 18, self.checked << 8 | TAG_INT56)
        rs_store(at + 26, self.checksum << 8 | TAG_INT56)
        return put_block(e, at + 34, TAG_BYTES, self.size, self.held, self.size)

    cdef inline void is_marked(self) noexcept:
        self.marked_end = self.offset + self.size
        self.known = True

    def _is_marked(self):
        """A record tells of all that was written."""
        self.is_marked()
