# The keys of a loop's items that are done: a file of entries in the order in which the items were given out, and a table in
# memory that finds a key in it. The format is in docs/internals.md. The GIL is the lock, as of a journal.
#
# The mark of an item says how many entries count, so what stands behind them is nobody's, and an entry is written first.

cdef extern from "keys.h" nogil:
    void rs_siphash(const uint64_t* key, const unsigned char* data, size_t size, uint64_t* out)
    ctypedef struct Bucket "rs_bucket":
        uint32_t tags[8]
        uint32_t places[8]
    unsigned rs_slots(const Bucket* bucket, uint32_t tag)
    int rs_first(unsigned slots)
    void rs_prefetch(const void* at)

cdef extern from "<sys/mman.h>" nogil:
    void* mremap(void* address, size_t old, size_t new, int flags)
    int MREMAP_MAYMOVE, MADV_HUGEPAGE

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* data, size_t size, long offset)

cdef enum:
    NEW = 0
    DONE = 1                  # in an earlier life, and met for the first time in this one
    AGAIN = 2

# The tag of a key is the upper half of the first word of its hash, and its uppermost bits tell the bucket, so that a larger table
# is filled from front to back. What is not found in a bucket that is full stands in the next.
#
# In front of the table stands a Bloom filter (Bloom, 1970; of one word for each bucket: Putze, Sanders and Singler, 2007), which the
# cache holds when it holds the table no more. To a key that it does not know the bucket is of no use at once: it is
# fetched meanwhile, and the key gets its slot when `LATE` more have come.
cdef enum:
    FIRST_BITS = 7
    LATE = 16
    LARGE_PAGE = 1 << 21

cdef uint64_t MOST_KEYS = 0xFFFFFFFFu


cdef inline size_t table_size(int bits) noexcept nogil:
    cdef size_t size = (sizeof(Bucket) + sizeof(uint32_t)) << bits
    # The kernel gives large pages to what is a multiple of them.
    return size if size < LARGE_PAGE else (size + LARGE_PAGE - 1) & ~<size_t>(LARGE_PAGE - 1)


cdef inline uint32_t tag_of(uint64_t first) noexcept nogil:
    cdef uint32_t tag = first >> 32
    return tag if tag else 1

cdef inline uint32_t filter_bits(uint32_t tag) noexcept nogil:
    """Three of a word, of a tag whose uppermost bits are those of all the tags in that word."""
    cdef uint32_t mixed = tag * <uint32_t>0x9E3779B1u
    return <uint32_t>1 << (mixed >> 27) | <uint32_t>1 << (mixed >> 22 & 31) | <uint32_t>1 << (mixed >> 17 & 31)


@cython.final
cdef class Keys:
    """The keys of one run, mapped from `fd` (in memory when -1), whose `size` bytes it owns; closed by this.

    `salt` is 16 bytes that nobody can know in advance. `allocate(size)` makes the file own that much. Where the file is not
    mapped (`BY_PWRITE`) a private image is, and each entry is written through.
    """
    cdef unsigned char* base
    cdef size_t size
    cdef int fd
    cdef int mode
    cdef uint32_t forks
    cdef uint32_t seed
    cdef uint64_t salt[2]
    cdef object allocate
    cdef Bucket* buckets              # 2 ** bits of them
    cdef uint32_t* filter             # a word for each
    cdef int bits
    cdef uint64_t used                # slots in them
    cdef uint64_t settled             # keys that have theirs; those behind them stand in the filter alone
    cdef readonly uint64_t count      # keys of items that are done or at hand
    cdef uint64_t loaded              # of them, those of earlier lives
    cdef unsigned char* met           # a bit for each of these: this life has met it
    cdef uint64_t expected            # of these, the one behind the last that was met: mostly the next one
    cdef uint64_t last                # the entry that the last DONE or AGAIN is about

    def __cinit__(self, int fd, size_t size, bytes salt, allocate, int mode=BY_MAP):
        cdef int flags = MAP_PRIVATE | MAP_ANONYMOUS if fd < 0 or mode == BY_PWRITE else MAP_SHARED
        self.fd = fd
        if len(salt) != 16 or size < KEYS_HEADER + KEYS_ENTRY:
            raise ValueError("a key file has a salt of 16 bytes, and room for a key")
        memcpy(self.salt, <const char*>salt, 16)
        self.seed = keys_seed(<const unsigned char*>self.salt)
        self.mode = mode
        self.forks = rs_forks
        self.allocate = allocate
        cdef void* base = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1 if flags & MAP_ANONYMOUS else fd, 0)
        if base == MAP_FAILED:
            raise OSError(errno, "the key file cannot be mapped")
        self.base, self.size = <unsigned char*>base, size
        madvise(base, size, MADV_DONTFORK)
        self.make_table(FIRST_BITS)

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Unmap, and close the file; it stays. Closing twice is fine."""
        if self.base != NULL and self.forks == rs_forks:
            munmap(self.base, self.size)
        self.base = NULL
        self.drop_table()
        PyMem_RawFree(self.met)
        self.met = NULL
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os_close(fd)

    cdef int check(self) except -1:
        if self.forks != rs_forks:
            raise ForkedError("a loop in progress was carried into a forked child: only the process that started it may go on")
        if self.base == NULL:
            raise ValueError("the key file is closed")
        return 0

    # ---- the file

    def format(self):
        """Make it one without keys."""
        self.check()
        put_keys_header(self.base, <const unsigned char*>self.salt)
        self.write_through(0, KEYS_HEADER)

    def load(self, uint64_t done):
        """Take the first `done` keys of the file for those of earlier lives. Raises ValueError when they are not all there."""
        cdef uint64_t i, bad = 0
        cdef int bits = FIRST_BITS
        self.check()
        if self.mode == BY_PWRITE and self.fd >= 0:
            self.read_all()
        if not is_keys_header(self.base, <const unsigned char*>self.salt):
            raise ValueError("its header is not this run's")
        if done > keys_in(self.size):
            raise ValueError(f"it ends before key {done}")
        while 6 * (<uint64_t>1 << bits) < done + 1:
            bits += 1
        self.make_table(bits)
        PyMem_RawFree(self.met)
        self.expected = 0
        self.met = <unsigned char*>PyMem_RawMalloc(done // 8 + 1)
        if self.met == NULL:
            raise MemoryError()
        memset(self.met, 0, done // 8 + 1)
        self.count = 0
        with nogil:
            for i in range(done):
                if not key_verifies(self.base, self.seed, i):
                    bad = i + 1
                    break
                self.count_next(tag_of(rs_load(self.entry(i))))
        if bad:
            raise ValueError(f"key {bad - 1} fails its checksum")
        self.loaded = done

    def entries(self, uint64_t first, uint64_t last) -> bytes:
        """What stands in the file from place `first` on and before `last`: for `put_back`."""
        self.check_places(first, last)
        return self.entry(first)[: (last - first) * KEYS_ENTRY]

    def put_back(self, uint64_t first, const unsigned char[::1] entries):
        """Write what `entries` gave, in whatever life, to its place again, before `load`."""
        cdef size_t size = entries.shape[0], offset = KEYS_HEADER + first * KEYS_ENTRY
        self.check()
        while offset + size > self.size:
            self.grow_file()
        if size:
            memcpy(self.base + offset, &entries[0], size)
            self.write_through(offset, size)

    def sum_of(self, uint64_t first, uint64_t last) -> int:
        """Of the first words of these keys, modulo 2^64: no other set of as many keys has it but by a chance of 1 in 2^64."""
        cdef uint64_t place, total = 0
        self.check_places(first, last)
        for place in range(first, last):
            total += rs_load(self.entry(place))
        return total

    cdef int check_places(self, uint64_t first, uint64_t last) except -1:
        self.check()
        if not first <= last <= self.count:
            raise ValueError(f"there are {self.count} keys, and none from {first} to {last}")
        return 0

    cdef inline unsigned char* entry(self, uint64_t place) noexcept nogil:
        return self.base + KEYS_HEADER + place * KEYS_ENTRY

    cdef int write_through(self, size_t offset, size_t size) except -1:
        cdef ssize_t done
        while size > 0 and self.mode == BY_PWRITE and self.fd >= 0:
            done = pwrite(self.fd, self.base + offset, size, offset)
            if done < 0:
                if errno == EINTR:
                    continue
                raise OSError(errno, "the key file cannot be written")
            offset += done
            size -= done
        return 0

    cdef int read_all(self) except -1:
        cdef size_t at = 0
        cdef ssize_t done
        while at < self.size:
            with nogil:
                done = pread(self.fd, self.base + at, self.size - at, at)
            if done < 0 and errno == EINTR:
                continue
            if done <= 0:
                raise OSError(errno, "the key file cannot be read")
            at += done
        return 0

    cdef int grow_file(self) except -1:
        cdef size_t size = self.size + min(self.size, <size_t>1 << 24)
        cdef void* base
        if self.count == MOST_KEYS:
            raise OverflowError(f"a loop with key= has at most {MOST_KEYS} items")
        self.allocate(size)
        self.check()
        if self.size >= size:
            return 0                  # another thread was here meanwhile
        base = mremap(self.base, self.size, size, MREMAP_MAYMOVE)
        if base == MAP_FAILED:
            raise OSError(errno, "the key file cannot be mapped")
        self.base, self.size = <unsigned char*>base, size
        return 0

    # ---- the table

    cdef int make_table(self, int bits) except -1:
        """An empty one."""
        cdef size_t size = table_size(bits)
        cdef void* buckets = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if buckets == MAP_FAILED:
            raise MemoryError()
        madvise(buckets, size, MADV_HUGEPAGE)
        self.drop_table()
        self.buckets, self.bits, self.used, self.settled = <Bucket*>buckets, bits, 0, 0
        self.filter = <uint32_t*>(self.buckets + (<size_t>1 << bits))
        return 0

    cdef void drop_table(self) noexcept nogil:
        if self.buckets != NULL:
            munmap(self.buckets, table_size(self.bits))
        self.buckets = NULL

    cdef int grow_table(self) except -1:
        cdef Bucket* old = self.buckets
        cdef uint64_t i, size = <uint64_t>1 << self.bits
        cdef uint32_t tag
        cdef int j
        self.settle(self.count)
        self.buckets = NULL
        try:
            self.make_table(self.bits + 1)
        except MemoryError:
            self.buckets = old
            raise
        for i in range(size):
            for j in range(8):
                tag = old[i].tags[j]
                if not tag:
                    break               # a bucket is filled from its first slot on
                self.put(tag, old[i].places[j])
                self.filter[self.bucket(tag)] |= filter_bits(tag)
        self.settled = self.count
        munmap(old, table_size(self.bits - 1))
        return 0

    cdef inline uint64_t bucket(self, uint32_t tag) noexcept nogil:
        return tag >> (32 - self.bits)

    cdef inline void count_next(self, uint32_t tag) noexcept nogil:
        """The next entry of the file counts, and is found from now on. There is room for it in the table."""
        self.filter[self.bucket(tag)] |= filter_bits(tag)
        rs_prefetch(&self.buckets[self.bucket(tag)])
        self.count += 1
        if self.count > self.settled + LATE:
            self.settle(self.settled + 1)

    cdef inline void settle(self, uint64_t stop) noexcept nogil:
        """Give the keys before `stop` their slots."""
        while self.settled < stop:
            self.remember(self.settled)
            self.settled += 1

    cdef inline void put(self, uint32_t tag, uint32_t place) noexcept nogil:
        cdef uint64_t mask = (<uint64_t>1 << self.bits) - 1, i = self.bucket(tag)
        cdef unsigned free = rs_slots(&self.buckets[i], 0)
        while not free:
            i = (i + 1) & mask
            free = rs_slots(&self.buckets[i], 0)
        self.buckets[i].tags[rs_first(free)] = tag
        self.buckets[i].places[rs_first(free)] = place
        self.used += 1

    cdef inline void remember(self, uint64_t place) noexcept nogil:
        cdef uint64_t first = rs_load(self.entry(place))
        if first or rs_load(self.entry(place) + 8) & 0xFFFFFFFFu:      # else it was lost, and `repair` has told so
            self.put(tag_of(first), place)

    cdef int meet(self, uint64_t first, uint64_t second) except -1:
        """What is known of the item that comes with this hash of its key. A NEW one is at hand from now on."""
        cdef uint32_t tag = tag_of(first), bits = filter_bits(tag)
        cdef int64_t place
        self.check()
        while <size_t>(self.entry(self.count + 1) - self.base) > self.size:
            self.grow_file()
        if self.used + (self.count - self.settled) + 1 > <uint64_t>6 << self.bits:
            self.grow_table()
        # Mostly the items are in the order that they had: then no memory is touched here and there.
        if self.expected < self.loaded and self.holds(self.expected, first, second):
            return self.known(self.expected)
        if self.filter[self.bucket(tag)] & bits == bits:
            place = self.find(tag, first, second)
            if place >= 0:
                return self.known(place)
        self.write_next(first, second)
        self.count_next(tag)
        return NEW

    cdef int64_t find(self, uint32_t tag, uint64_t first, uint64_t second) noexcept nogil:
        """The place of the key with this hash, of several the first, or -1."""
        cdef uint64_t mask = (<uint64_t>1 << self.bits) - 1, i = self.bucket(tag), place
        cdef unsigned slots
        while True:
            slots = rs_slots(&self.buckets[i], tag)
            while slots:
                place = self.buckets[i].places[rs_first(slots)]
                if self.holds(place, first, second):
                    return place
                slots &= slots - 1
            if rs_slots(&self.buckets[i], 0):
                break
            i = (i + 1) & mask
        for place in range(self.settled, self.count):
            if self.holds(place, first, second):
                return place
        return -1

    cdef inline int write_next(self, uint64_t first, uint64_t second) except -1:
        """Write the entry behind those that count, for which there is room."""
        rs_prefetch(self.entry(self.count + LATE))      # soon to be written
        rs_store(self.entry(self.count), first)
        rs_store(self.entry(self.count) + 8, sealed(self.seed, self.count, first, second))
        return self.write_through(self.entry(self.count) - self.base, KEYS_ENTRY)

    cdef int add(self, uint64_t first, uint64_t second) except -1:
        """Another entry for a key that was just met: its item is done once more. The table keeps to the one that it found."""
        self.write_next(first, second)
        self.settle(self.count)
        self.count += 1
        self.settled = self.count
        return 0

    def key_at(self, uint64_t place) -> bytes:
        """What the entry at this place has of its key's hash."""
        self.check()
        if place >= self.count:
            raise IndexError(f"there are {self.count} keys, and none at place {place}")
        return self.entry(place)[:KEY_KEPT]

    def take_out(self, set wanted, uint64_t start, uint64_t stop):
        """Take out of a set what `key_at` gives for the places from `start` to `stop`."""
        cdef uint64_t place
        self.check()
        for place in range(start, min(stop, self.count)):
            if not wanted:
                break
            wanted.discard(self.entry(place)[:KEY_KEPT])

    cdef inline int known(self, uint64_t place) noexcept nogil:
        cdef int bit = 1 << (place & 7)
        self.expected, self.last = place + 1, place
        if place >= self.loaded or self.met[place >> 3] & bit:
            return AGAIN
        self.met[place >> 3] |= bit
        return DONE

    cdef inline bint holds(self, uint64_t place, uint64_t first, uint64_t second) noexcept nogil:
        cdef unsigned char* entry = self.entry(place)
        return rs_load(entry) == first and (rs_load(entry + 8) ^ second) & 0xFFFFFFFFu == 0

    def meet_hash(self, bytes hashed) -> int:
        """`meet` with a hash of 16 bytes: 0 for a new key, 1 for one of an earlier life, 2 for one that this life has met."""
        cdef const unsigned char* data = <const unsigned char*>hashed
        if len(hashed) != 16:
            raise ValueError("a hash has 16 bytes")
        return self.meet(rs_load(data), rs_load(data + 8))
