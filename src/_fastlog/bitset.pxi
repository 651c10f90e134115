# The completed-index bitset of a loop: two mirrored maps in one file, an item is done when both say so, so that a bit
# flipped on disk or in memory can make an item run again but never skip one.
#
# Bit i is bit i % 64 of word i // 64 in the pages of its map. Page p of the first map stands at 4096 + p * 8192, its mirror
# 4096 bytes further on: the file grows at its end. The first 4096 bytes are a header of the owner's.

cdef enum:
    BITS_PER_PAGE = 32768
    PAGE = 4096


@cython.final
cdef class Bitset:
    """Marks of finished items, mapped from `fd` (anonymous when -1). `pages` is the number of 32,768-bit pages."""
    cdef unsigned char* base
    cdef size_t mapped
    cdef uint32_t forks
    cdef readonly size_t pages

    def __cinit__(self, int fd, size_t pages):
        if not 0 < pages < (<size_t>1 << 40):
            raise ValueError(f"a bitset has at least one page, got {pages}")
        self.mapped = PAGE + pages * 2 * PAGE
        self.pages = pages
        self.forks = rs_forks
        cdef int flags = MAP_PRIVATE | MAP_ANONYMOUS if fd < 0 else MAP_SHARED
        cdef void* base = mmap(NULL, self.mapped, PROT_READ | PROT_WRITE, flags, fd, 0)
        if base == MAP_FAILED:
            raise OSError(errno, "the bitset cannot be mapped")
        self.base = <unsigned char*>base
        madvise(base, self.mapped, MADV_DONTFORK)

    @staticmethod
    def file_size(size_t pages) -> int:
        """Bytes of a file that holds `pages` pages."""
        return PAGE + pages * 2 * PAGE

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Unmap; the file stays. Closing twice is fine."""
        if self.base != NULL and self.forks == rs_forks:
            munmap(self.base, self.mapped)
        self.base = NULL

    cdef inline unsigned char* word(self, size_t index) except NULL:
        if self.forks != rs_forks:
            raise ForkedError("a loop in progress was carried into a forked child: only the process that started it may go on")
        if self.base == NULL:
            raise ValueError("the bitset is closed")
        if index >= self.pages * BITS_PER_PAGE:
            raise IndexError(f"item {index} is beyond the bitset's {self.pages * BITS_PER_PAGE}")
        return self.base + PAGE + index // BITS_PER_PAGE * (2 * PAGE) + index % BITS_PER_PAGE // 64 * 8

    cpdef int set(self, size_t index) except -1:
        """Mark an item done. Survives kill -9 from the moment this returns."""
        cdef unsigned char* word = self.word(index)
        cdef uint64_t bit = <uint64_t>1 << (index & 63)
        rs_or_release(word, bit)
        rs_or_release(word + PAGE, bit)
        return 0

    cpdef bint test(self, size_t index) except -1:
        """Whether an item is done: both maps say so."""
        cdef unsigned char* word = self.word(index)
        return rs_load(word) & rs_load(word + PAGE) & <uint64_t>1 << (index & 63) != 0

    def count(self) -> int:
        """Items done."""
        cdef size_t total = 0, page, at
        cdef unsigned char* first
        self.word(0)
        for page in range(self.pages):
            first = self.base + PAGE + page * 2 * PAGE
            for at in range(0, PAGE, 8):
                total += popcount(rs_load(first + at) & rs_load(first + PAGE + at))
        return total

    def next_clear(self, size_t start=0) -> int:
        """The first item from `start` on that is not done."""
        cdef size_t index = start
        cdef uint64_t done
        cdef unsigned char* word
        while index < self.pages * BITS_PER_PAGE:
            word = self.word(index)
            done = (rs_load(word) & rs_load(word + PAGE)) >> (index & 63)
            if index & 63:
                done |= ~(~<uint64_t>0 >> (index & 63))      # bits shifted in stand for the next word: look there again
            if ~done:
                step = trailing_zeros(~done)
                return index + step
            index = (index | 63) + 1
        return index

    def damaged(self) -> int:
        """Bits that the two maps disagree on: marks that a flip, or a kill between the two stores, took back."""
        cdef size_t total = 0, page, at
        cdef unsigned char* first
        self.word(0)
        for page in range(self.pages):
            first = self.base + PAGE + page * 2 * PAGE
            for at in range(0, PAGE, 8):
                total += popcount(rs_load(first + at) ^ rs_load(first + PAGE + at))
        return total

cdef extern from *:
    """
    #define rs_popcount(x) __builtin_popcountll(x)
    #define rs_ctz(x) __builtin_ctzll(x)
    """
    int popcount "rs_popcount"(uint64_t word) noexcept nogil
    int trailing_zeros "rs_ctz"(uint64_t word) noexcept nogil
