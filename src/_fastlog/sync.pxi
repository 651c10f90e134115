# Group commit: threads that wait for the disk share one fdatasync. None of them holds the GIL while it waits.

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t* attributes)
    int pthread_condattr_destroy(pthread_condattr_t* attributes)
    int pthread_condattr_setclock(pthread_condattr_t* attributes, int clock)
    int pthread_cond_init(pthread_cond_t* condition, pthread_condattr_t* attributes)
    int pthread_cond_destroy(pthread_cond_t* condition)
    int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, timespec* until)
    int pthread_cond_signal(pthread_cond_t* condition)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int fd)

cdef extern from "pythread.h" nogil:
    ctypedef void* PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int mode)
    void PyThread_release_lock(PyThread_type_lock lock)
    int WAIT_LOCK, NOWAIT_LOCK

cdef enum:
    ENTRY_HEADER = 8          # u32 CRC-32C of generation, length and body; u32 length of the body
    LEAD = -2

cdef struct Waiter:
    PyThread_type_lock asleep
    Waiter* behind
    int status                # what `put_nogil` gives back, or LEAD: its thread writes and syncs what has come meanwhile

cdef void wake(Waiter* waiter, int status) noexcept nogil:
    # Its thread may be gone as soon as the lock is released.
    waiter.status = status
    PyThread_release_lock(waiter.asleep)

cdef inline int64_t nanoseconds() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


@cython.final
cdef class GroupSync:
    """The writing end of one sync file, whose descriptor it owns: `put` returns when the disk has the entry. For any number of threads.

    Whoever comes first leads: it writes and syncs for all that came meanwhile. A leader that shared its last sync waits for as many
    again, at most as long as a sync takes, or threads that were woken together would sync in two shifts. Those that waited wake
    one another, each the one behind it: all at once they would wait again, for the mutex and for the GIL.
    """
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t arrived       # an entry has come while a leader waits for more
    cdef unsigned char* pending
    cdef size_t size                  # bytes pending
    cdef size_t room
    cdef readonly size_t end          # of what is in the file or on its way there
    cdef readonly size_t capacity
    cdef Waiter* first                # of those whose entries are pending, but the leader
    cdef Waiter* last
    cdef uint64_t asked, synced
    cdef uint64_t shared              # entries in the last sync
    cdef int64_t lasted               # ns of the last sync
    cdef bint leading
    cdef readonly int failed          # errno of a write or sync: the file is not used any more
    cdef int fd
    cdef uint32_t seed

    def __cinit__(self, int fd, bytes generation, size_t end, size_t capacity):
        cdef pthread_condattr_t attributes
        pthread_mutex_init(&self.mutex, NULL)
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)     # the time of day may be set while a leader waits
        pthread_cond_init(&self.arrived, &attributes)
        pthread_condattr_destroy(&attributes)
        self.fd = fd
        self.end = end
        self.capacity = capacity
        self.seed = rs_crc(0xFFFFFFFFu, <const unsigned char*>generation, len(generation))

    def __dealloc__(self):
        if self.fd >= 0:
            os_close(self.fd)
        PyMem_RawFree(self.pending)
        pthread_cond_destroy(&self.arrived)
        pthread_mutex_destroy(&self.mutex)

    def put(self, bytes body) -> bool:
        """Write an entry and wait for the disk. False when the file has no room for it. Raises OSError; then nothing more goes in."""
        cdef const unsigned char* data = <const unsigned char*>body
        cdef size_t length = len(body)
        cdef int status
        with nogil:
            status = self.put_nogil(data, length)
        if status < 0:
            raise MemoryError()
        if status > 1:
            raise OSError(status >> 1, "the disk refused to sync")
        return status == 0

    def retire(self):
        """Take no more entries; those that are under way still reach the disk."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.capacity = 0
            pthread_mutex_unlock(&self.mutex)

    cdef int put_nogil(self, const unsigned char* data, size_t length) noexcept nogil:
        # 0 on disk, 1 no room, -1 no memory, errno << 1 when the file failed.
        cdef int status
        pthread_mutex_lock(&self.mutex)
        status = self.enqueue(data, length)
        if status != 0:
            pthread_mutex_unlock(&self.mutex)
            return status
        return self.stand_in_line() if self.leading else self.lead()

    cdef int stand_in_line(self) noexcept nogil:
        """Wait for the sync of the entry that was queued. Called with the mutex, and gives it back."""
        cdef Waiter me
        me.asleep, me.behind = PyThread_allocate_lock(), NULL
        if me.asleep == NULL:
            pthread_mutex_unlock(&self.mutex)
            return -1               # it reaches the disk all the same, and may be there twice
        PyThread_acquire_lock(me.asleep, NOWAIT_LOCK)
        if self.first == NULL:
            self.first = &me
        else:
            self.last.behind = &me
        self.last = &me
        if self.asked - self.synced >= self.shared:
            pthread_cond_signal(&self.arrived)
        pthread_mutex_unlock(&self.mutex)
        PyThread_acquire_lock(me.asleep, WAIT_LOCK)
        PyThread_free_lock(me.asleep)
        if me.status == LEAD:
            pthread_mutex_lock(&self.mutex)
            return self.lead()
        if me.behind != NULL:
            wake(me.behind, me.status)
        return me.status

    cdef int enqueue(self, const unsigned char* data, size_t length) noexcept nogil:
        cdef size_t whole = padded(ENTRY_HEADER + length)
        cdef unsigned char* grown
        cdef uint32_t crc, size = <uint32_t>length
        if self.failed:
            return self.failed << 1
        if self.end + self.size + whole > self.capacity:
            return 1
        if self.size + whole > self.room:
            grown = <unsigned char*>PyMem_RawRealloc(self.pending, 2 * (self.size + whole))
            if grown == NULL:
                return -1
            self.pending = grown
            self.room = 2 * (self.size + whole)
        grown = self.pending + self.size
        memset(grown + whole - 8, 0, 8)
        memcpy(grown + 4, &size, 4)
        memcpy(grown + ENTRY_HEADER, data, length)
        crc = ~rs_crc(self.seed, grown + 4, 4 + length)
        memcpy(grown, &crc, 4)
        self.size += whole
        self.asked += 1
        return 0

    cdef int lead(self) noexcept nogil:
        """Write and sync what is pending, and wake whose it is. Called with the mutex, and gives it back."""
        cdef Waiter* followers
        cdef Waiter* heir         # leads when this sync is over: the first of those that came meanwhile
        cdef unsigned char* taken
        cdef size_t start, size
        cdef uint64_t upto
        cdef int64_t begun
        cdef int error
        self.leading = True
        self.wait_for_others()
        taken, size, upto = self.pending, self.size, self.asked
        followers, start = self.first, self.end
        self.end += size
        self.pending, self.size, self.room, self.first = NULL, 0, 0, NULL
        pthread_mutex_unlock(&self.mutex)
        begun = nanoseconds()
        error = self.write_and_sync(taken, size, start)
        PyMem_RawFree(taken)
        pthread_mutex_lock(&self.mutex)
        self.lasted = nanoseconds() - begun
        self.shared = upto - self.synced
        if error:
            self.failed = error
        else:
            self.synced = upto
        heir = self.first
        self.first = heir.behind if heir != NULL and not error else NULL
        self.leading = heir != NULL and not error
        pthread_mutex_unlock(&self.mutex)
        if heir != NULL:
            wake(heir, error << 1 if error else LEAD)
        if followers != NULL:
            wake(followers, error << 1)
        return error << 1

    cdef int write_and_sync(self, const unsigned char* data, size_t size, size_t start) noexcept nogil:
        """0, or the errno of what failed."""
        cdef size_t done = 0
        cdef ssize_t wrote
        while done < size:
            wrote = pwrite(self.fd, data + done, size - done, start + done)
            if wrote >= 0:
                done += wrote
            elif errno != EINTR:
                return errno
        return errno if fdatasync(self.fd) != 0 else 0

    cdef void wait_for_others(self) noexcept nogil:
        cdef timespec until
        cdef int64_t limit
        if self.shared < 2:
            return
        limit = nanoseconds() + self.lasted
        until.tv_sec = limit // 1000000000
        until.tv_nsec = limit % 1000000000
        while self.asked - self.synced < self.shared:
            if pthread_cond_timedwait(&self.arrived, &self.mutex, &until) != 0:
                return
