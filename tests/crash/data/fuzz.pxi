# The fuzzer's compiled half, included behind the library's own source (fuzz_build.py), so that it calls the very functions.
#
# One seed and a number make one input: bytes of a corpus, damaged in a few places. The input stands between poisoned bytes, so
# that a read beyond it is reported, and Python's allocators are watched while it is decoded.

from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #include <sanitizer/asan_interface.h>

    /* What was asked for since the watch began; a request above the limit is refused, so that no bomb goes off. */
    static struct { size_t largest, total, limit; } watched;
    static PyMemAllocatorEx unwatched[3];

    static int refused(size_t size) {
        watched.total += size;
        if (size > watched.largest)
            watched.largest = size;
        return size > watched.limit;
    }
    static void *watched_malloc(void *at, size_t size) {
        PyMemAllocatorEx *under = at;
        return refused(size) ? NULL : under->malloc(under->ctx, size);
    }
    static void *watched_calloc(void *at, size_t count, size_t size) {
        PyMemAllocatorEx *under = at;
        return refused(count * size) ? NULL : under->calloc(under->ctx, count, size);
    }
    static void *watched_realloc(void *at, void *old, size_t size) {
        PyMemAllocatorEx *under = at;
        return refused(size) ? NULL : under->realloc(under->ctx, old, size);
    }
    static void watched_free(void *at, void *old) {
        PyMemAllocatorEx *under = at;
        under->free(under->ctx, old);
    }
    static void watch_allocators(void) {
        for (int domain = 0; domain < 3; domain++) {
            PyMem_GetAllocator((PyMemAllocatorDomain)domain, &unwatched[domain]);
            PyMemAllocatorEx ours = {&unwatched[domain], watched_malloc, watched_calloc, watched_realloc, watched_free};
            PyMem_SetAllocator((PyMemAllocatorDomain)domain, &ours);
        }
    }
    static void begin_watch(size_t limit) { watched.largest = watched.total = 0; watched.limit = limit; }
    static void end_watch(void) { watched.limit = (size_t)-1; }
    """
    struct Watched:
        size_t largest
        size_t total
        size_t limit
    Watched watched
    void watch_allocators()
    void begin_watch(size_t limit) nogil
    void end_watch() nogil
    void poison "ASAN_POISON_MEMORY_REGION"(void* at, size_t size) nogil
    void unpoison "ASAN_UNPOISON_MEMORY_REGION"(void* at, size_t size) nogil

cdef enum:
    LARGEST_INPUT = 1 << 15
    GUARD = 64
    # One request may be so many times the input, plus a constant; all requests together so many. Measured on the whole corpus:
    # the dearest valid input is a list of empty sets, two bytes for 216, and a list that grows is copied now and then.
    ONE_REQUEST = 32
    ALL_REQUESTS = 512
    BESIDES = 1 << 14
    FILES_BESIDE = 1 << 20            # Python's own: modules, tables of names

end_watch()
watch_allocators()

cdef uint64_t dice                    # the state of splitmix64

cdef inline uint64_t rolled() noexcept nogil:
    global dice
    dice += <uint64_t>0x9E3779B97F4A7C15u
    cdef uint64_t z = dice
    z = (z ^ z >> 30) * <uint64_t>0xBF58476D1CE4E5B9u
    z = (z ^ z >> 27) * <uint64_t>0x94D049BB133111EBu
    return z ^ z >> 31

cdef inline size_t below(size_t limit) noexcept nogil:
    return (rolled() >> 33) % limit if limit else 0

# Lengths around which bounds are got wrong.
cdef uint64_t[20] TEMPTING = [
    0, 1, 2, 7, 8, 9, 127, 128, 254, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, <uint64_t>1 << 32, <uint64_t>1 << 40,
    <uint64_t>1 << 61, <uint64_t>1 << 62, <uint64_t>1 << 63, <uint64_t>0xFFFFFFFFFFFFFFFFu,
]

cdef inline uint64_t tempting(size_t size) noexcept nogil:
    cdef uint64_t found = TEMPTING[below(20)] if below(4) else size
    return found + below(5) - 2 if below(2) else found

cdef class Corpus:
    """Valid inputs, and a place for a damaged one."""
    cdef list inputs
    cdef unsigned char* room
    cdef unsigned char* data              # the input: `size` bytes
    cdef size_t size

    def __cinit__(self, inputs):
        self.inputs = sorted((bytes(each) for each in inputs), key=len)
        self.room = <unsigned char*>malloc(LARGEST_INPUT + 2 * GUARD)
        if self.room == NULL:
            raise MemoryError()
        self.data = self.room + GUARD

    def __dealloc__(self):
        if self.room != NULL:
            unpoison(self.room, LARGEST_INPUT + 2 * GUARD)
            free(self.room)

    cdef int draw(self, uint64_t seed, uint64_t number) except -1:
        """Make input `number`, with nothing readable around it."""
        global dice
        cdef size_t i
        dice = seed * <uint64_t>0xD1342543DE82EF95u + number
        unpoison(self.room, LARGEST_INPUT + 2 * GUARD)
        # The shorter ones more often: they are as telling, and cheaper.
        cdef bytes first = self.inputs[min(below(len(self.inputs)), below(len(self.inputs)))]
        self.size = min(<size_t>len(first), LARGEST_INPUT)
        memcpy(self.data, <const char*>first, self.size)
        for i in range(1 + below(4)):
            self.damage()
        poison(self.room, GUARD)
        poison(self.data + self.size, LARGEST_INPUT - self.size + GUARD)
        return 0

    cdef int damage(self) except -1:
        cdef size_t at = below(self.size), many
        cdef size_t way = below(11)
        if self.size == 0 or way == 0:
            self.put_other(at)
        elif way == 1:
            self.data[at] ^= <unsigned char>(1 << below(8))
        elif way == 2:
            self.data[at] = <unsigned char>rolled()
        elif way == 3:
            self.data[at] = <unsigned char>below(TAG_SLICE + 2)
        elif way == 4:
            self.data[at] += <unsigned char>(below(5) - 2)
        elif way == 5:
            self.size = at
        elif way == 6:
            self.put_length(at)
        elif way == 7:
            self.nest(at)
        elif way == 8:
            many = 1 + below(min(self.size - at, 16))
            memmove(self.data + at, self.data + at + many, self.size - at - many)
            self.size -= many
        elif way == 9:
            many = 1 + below(min(self.size - at, 64))
            if self.widen(at, many):
                memmove(self.data + at, self.data + at + many, many)
        else:
            self.size = at
            self.put_other(at)
        return 0

    cdef bint widen(self, size_t at, size_t many) noexcept:
        """Make room for so many bytes."""
        if self.size + many > LARGEST_INPUT:
            return False
        memmove(self.data + at + many, self.data + at, self.size - at)
        self.size += many
        return True

    cdef int put_other(self, size_t at) except -1:
        """A piece of another input, or all of it."""
        cdef bytes other = self.inputs[below(len(self.inputs))]
        cdef size_t start = below(len(other)) if below(2) else 0
        cdef size_t many = <size_t>len(other) - start
        if self.widen(at, many):
            memcpy(self.data + at, <const char*>other + start, many)
        return 0

    cdef void put_length(self, size_t at) noexcept:
        """A long length, over what is there or in between."""
        cdef uint64_t length = tempting(self.size)
        if (below(2) or self.size - at < 9) and not self.widen(at, 9):
            return
        self.data[at] = 255
        memcpy(self.data + at + 1, &length, 8)

    cdef void nest(self, size_t at) noexcept:
        """Containers of one in one another, up to a little more than is allowed."""
        cdef size_t i, many = 1 + below(110)
        cdef unsigned char tag = <unsigned char>(TAG_TUPLE + below(4))
        if self.widen(at, 2 * many):
            for i in range(many):
                self.data[at + 2 * i] = tag if below(8) else <unsigned char>(TAG_TUPLE + below(7))
                self.data[at + 2 * i + 1] = 1 if below(16) else 2

    def input(self, uint64_t seed, uint64_t number) -> bytes:
        """Input `number` as bytes, to look at."""
        self.draw(seed, number)
        return self.data[:self.size]

    def decode_many(self, uint64_t seed, uint64_t first, uint64_t count, unsigned char[::1] place, same):
        """Decode inputs `first` to `first + count`: (accepted, refused). `place` holds the number of the one at hand.

        Raises AssertionError when memory beyond measure is asked for, an error is none that may be, or a value that was
        accepted is not the same after another turn.
        """
        cdef Decoder d
        cdef uint64_t number, accepted = 0
        for number in range(first, first + count):
            memcpy(&place[0], &number, 8)
            self.draw(seed, number)
            d.at, d.end, d.depth = self.data, self.data + self.size, 0
            begin_watch(ONE_REQUEST * self.size + BESIDES)
            value = None
            try:
                value = decode(&d)
                ok = d.at == d.end
            except (ValueError, TypeError):
                ok = False
            except MemoryError:
                self.check_memory()
                raise
            finally:
                end_watch()
            self.check_memory()
            if ok:
                accepted += 1
                self.turn(value, same)
        return accepted, count - accepted

    cdef int check_memory(self) except -1:
        cdef size_t one = ONE_REQUEST * self.size + BESIDES, all_ = ALL_REQUESTS * self.size + BESIDES
        if watched.largest > one or watched.total > all_:
            raise AssertionError(f"{watched.largest} bytes at once, {watched.total} in all for an input of {self.size}")
        return 0

    cdef int turn(self, value, same) except -1:
        """What was accepted must be what the encoder writes, or become it and stay the same value."""
        cdef unsigned char[::1] view
        again = encode_plain(value)
        assert again is not None, "an accepted value cannot be encoded"
        if <size_t>len(again) != self.size or memcmp(<const char*><bytes>again, self.data, self.size) != 0:
            back = decode_plain(again)
            assert encode_plain(back) == again or same(value, back), f"{value!r} came back as {back!r}"
        return 0

cdef extern from "<string.h>" nogil:
    void* memmove(void* to, const void* source, size_t size)


# ---- whole files


def reseal(bytearray image):
    """Make the checksums of a damaged segment right again, as whoever damages on purpose can."""
    cdef unsigned char[::1] view = image
    cdef size_t at, length, size = view.shape[0]
    cdef uint32_t crc
    if size < HEADER_SIZE:
        return
    for at in (0, SECOND_COPY):
        crc = ~rs_crc(0xFFFFFFFFu, &view[at], HEADER_COPY - 4)
        memcpy(&view[at + HEADER_COPY - 4], &crc, 4)
    cdef uint32_t seed = generation_seed(rs_load(&view[16]))
    at = HEADER_SIZE
    while at + RECORD_HEADER <= size:
        length = rs_load(&view[at]) & 0xFFFFFFFFu
        if length < RECORD_HEADER or padded(length) > size - at:
            return
        rs_store(&view[at], rs_commit(seed, &view[at], at, length))
        at += padded(length)


def put_image(Segment segment, data):
    """Let a segment have these bytes for its file, in memory of just that size, so that ASan sees a read beyond them."""
    cdef const unsigned char[::1] view = data
    cdef unsigned char* base = <unsigned char*>malloc(view.shape[0])
    if base == NULL:
        raise MemoryError()
    memcpy(base, &view[0], view.shape[0])
    segment.unmap()
    segment.base = base
    segment.capacity = view.shape[0]


def take_image(Segment segment):
    """Take such bytes away; the segment is closed then."""
    free(segment.base)
    segment.base = NULL


def watch(size_t size):
    """From now on no request for memory may be beyond measure, for a file of `size` bytes."""
    begin_watch(ONE_REQUEST * size + FILES_BESIDE)


def unwatch(size_t size):
    """Raises AssertionError when one was."""
    end_watch()
    if watched.largest > ONE_REQUEST * size + FILES_BESIDE:
        raise AssertionError(f"{watched.largest} bytes at once for a file of {size}")
