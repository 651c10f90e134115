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
cdef enum:
    FIRST_BITS = 7

cdef uint64_t MOST_KEYS = 0xFFFFFFFFu


cdef inline uint32_t tag_of(uint64_t first) noexcept nogil:
    cdef uint32_t tag = first >> 32
    return tag if tag else 1


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
    cdef int bits
    cdef uint64_t used                # slots in them
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
        with nogil:
            for i in range(done):
                if not key_verifies(self.base, self.seed, i):
                    bad = i + 1
                    break
                self.remember(i)
        if bad:
            raise ValueError(f"key {bad - 1} fails its checksum")
        self.count = self.loaded = done

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
        cdef size_t size = sizeof(Bucket) << bits
        cdef void* buckets = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if buckets == MAP_FAILED:
            raise MemoryError()
        madvise(buckets, size, MADV_HUGEPAGE)
        self.drop_table()
        self.buckets, self.bits, self.used = <Bucket*>buckets, bits, 0
        return 0

    cdef void drop_table(self) noexcept nogil:
        if self.buckets != NULL:
            munmap(self.buckets, sizeof(Bucket) << self.bits)
        self.buckets = NULL

    cdef int grow_table(self) except -1:
        cdef Bucket* old = self.buckets
        cdef uint64_t i, size = <uint64_t>1 << self.bits
        cdef int j
        self.buckets = NULL
        try:
            self.make_table(self.bits + 1)
        except MemoryError:
            self.buckets = old
            raise
        for i in range(size):
            for j in range(8):
                if old[i].tags[j]:
                    self.put(old[i].tags[j], old[i].places[j])
        munmap(old, size * sizeof(Bucket))
        return 0

    cdef inline void put(self, uint32_t tag, uint32_t place) noexcept nogil:
        cdef uint64_t mask = (<uint64_t>1 << self.bits) - 1, i = tag >> (32 - self.bits)
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
        cdef uint64_t mask, i
        cdef uint32_t tag
        cdef unsigned slots
        self.check()
        while <size_t>(self.entry(self.count + 1) - self.base) > self.size:
            self.grow_file()
        if self.used + 1 > <uint64_t>6 << self.bits:
            self.grow_table()
        # Mostly the items are in the order that they had: then no memory is touched here and there.
        if self.expected < self.loaded and self.holds(self.expected, first, second):
            return self.known(self.expected)
        tag, mask = tag_of(first), (<uint64_t>1 << self.bits) - 1
        i = tag >> (32 - self.bits)
        rs_prefetch(&self.buckets[i])
        # Nobody's yet, so it does no harm if the key is known; the bucket is on its way from memory meanwhile.
        rs_store(self.entry(self.count), first)
        rs_store(self.entry(self.count) + 8, sealed(self.seed, self.count, first, second))
        while True:
            slots = rs_slots(&self.buckets[i], tag)
            while slots:
                if self.holds(self.buckets[i].places[rs_first(slots)], first, second):
                    return self.known(self.buckets[i].places[rs_first(slots)])
                slots &= slots - 1
            slots = rs_slots(&self.buckets[i], 0)
            if slots:
                break
            i = (i + 1) & mask
        self.write_through(self.entry(self.count) - self.base, KEYS_ENTRY)
        self.buckets[i].tags[rs_first(slots)] = tag
        self.buckets[i].places[rs_first(slots)] = <uint32_t>self.count
        self.used += 1
        self.count += 1
        return NEW

    cdef int add(self, uint64_t first, uint64_t second) except -1:
        """Another entry for a key that was just met: its item is done once more. The table keeps to the one that it found."""
        rs_store(self.entry(self.count), first)
        rs_store(self.entry(self.count) + 8, sealed(self.seed, self.count, first, second))
        self.write_through(self.entry(self.count) - self.base, KEYS_ENTRY)
        self.count += 1
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
