/* LD_PRELOAD shim: makes the k-th call of one kind fail, come up short, or be the last thing the process sees.
 *
 *   FAULT_OP      the kind of call, or "any"; without it nothing fails
 *   FAULT_NTH     which call of that kind, counted from 1; 0 for none
 *   FAULT_FROM    1: that one and all after it
 *   FAULT_ERRNO   the number errno gets
 *   FAULT_SHORT   1: writes take half of the bytes instead of failing
 *   FAULT_KILL    1: SIGKILL before the call instead of failing; 2: wait there for one
 *   FAULT_UNDER   count only calls on files below this directory (maps: of such files; msync: all)
 *   FAULT_COUNTS  a file that gets a line "pid op path" for each counted call, in order
 *
 * Calls of forked children are counted with their parent's (the counters are shared memory). Only calls that go through
 * libc's symbols are seen: not those that libc makes inside itself, nor raw system calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *only, *under;
static long nth, error;
static int from, shorten, deadly, counts = -1;
static long *calls;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULT_COUNTS");
    only = getenv("FAULT_OP");
    under = getenv("FAULT_UNDER");
    nth = number("FAULT_NTH");
    error = number("FAULT_ERRNO");
    from = (int)number("FAULT_FROM");
    shorten = (int)number("FAULT_SHORT");
    deadly = (int)number("FAULT_KILL");
    void *page = (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        abort();
    calls = page;
    /* High, out of the way of programs that expect the first free numbers. */
    if (path) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        counts = fcntl(fd, F_DUPFD_CLOEXEC, 900);
        syscall(SYS_close, fd);
    }
}

static int is_under(const char *path) {
    size_t size = strlen(under);
    return strncmp(path, under, size) == 0 && (path[size] == '/' || path[size] == 0);
}

/* The absolute path of `path` below directory `dir`, or of descriptor `dir` where path is NULL. */
static const char *locate(int dir, const char *path, char *out) {
    char link[64], base[PATH_MAX] = "";
    if (path && path[0] == '/')
        return path;
    if (dir == AT_FDCWD)
        strcpy(link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t size = readlink(link, base, sizeof base - 1);
    base[size > 0 ? size : 0] = 0;
    snprintf(out, 2 * PATH_MAX, path ? "%s/%s" : "%s", base, path);
    return out;
}

/* Whether this call is to fail. A deadly one does not come back. */
static int hit(const char *op, int dir, const char *path) {
    char out[2 * PATH_MAX], line[3 * PATH_MAX];
    int saved = errno;
    if (!calls || (only && strcmp(only, "any") != 0 && strcmp(only, op) != 0))
        return 0;
    const char *where = locate(dir, path, out);
    errno = saved;
    if (under && strcmp(op, "msync") != 0 && !is_under(where))
        return 0;
    long count = __atomic_add_fetch(calls, 1, __ATOMIC_SEQ_CST);
    if (counts >= 0) {
        int size = snprintf(line, sizeof line, "%d %s %s\n", getpid(), op, where);
        syscall(SYS_write, counts, line, size);
    }
    errno = saved;
    if (!only || nth == 0 || count < nth || (count > nth && !from))
        return 0;
    if (deadly) {
        if (deadly == 1)
            kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    return 1;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FAIL(op, dir, path, answer) \
    if (hit(op, dir, path)) { \
        errno = (int)error; \
        return answer; \
    }

/* fd first, then the rest */
#define ON_FD(type, name, op, params, ...) \
    type name params { \
        REAL(name); \
        FAIL(op, fd, NULL, -1) \
        return real(__VA_ARGS__); \
    }

ON_FD(int, fsync, "fsync", (int fd), fd)
ON_FD(int, fdatasync, "fdatasync", (int fd), fd)
ON_FD(int, flock, "flock", (int fd, int how), fd, how)
ON_FD(int, ftruncate, "ftruncate", (int fd, off_t size), fd, size)
ON_FD(int, ftruncate64, "ftruncate", (int fd, off64_t size), fd, size)
ON_FD(int, fallocate, "fallocate", (int fd, int mode, off_t at, off_t size), fd, mode, at, size)
ON_FD(int, fallocate64, "fallocate", (int fd, int mode, off64_t at, off64_t size), fd, mode, at, size)

/* Give back the error itself and leave errno alone. */
#define ALLOCATE(name, offset) \
    int name(int fd, offset at, offset size) { \
        REAL(name); \
        return hit("posix_fallocate", fd, NULL) ? (int)error : real(fd, at, size); \
    }

ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

#define WRITE(name, op, params, ...) \
    ssize_t name params { \
        REAL(name); \
        if (hit(op, fd, NULL)) { \
            if (!shorten || size < 2) { \
                errno = (int)error; \
                return -1; \
            } \
            size /= 2; \
        } \
        return real(__VA_ARGS__); \
    }

WRITE(write, "write", (int fd, const void *data, size_t size), fd, data, size)
WRITE(pwrite, "pwrite", (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
WRITE(pwrite64, "pwrite", (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)

#define OPEN(name, op, dir, params, ...) \
    int name params { \
        mode_t mode = 0; \
        REAL(name); \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        FAIL(op, dir, path, -1) \
        return real(__VA_ARGS__, mode); \
    }

OPEN(open, "open", AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPEN(open64, "open", AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPEN(openat, "open", fd, (int fd, const char *path, int flags, ...), fd, path, flags)
OPEN(openat64, "open", fd, (int fd, const char *path, int flags, ...), fd, path, flags)

#define ON_PATH(name, op, dir, params, ...) \
    int name params { \
        REAL(name); \
        FAIL(op, dir, path, -1) \
        return real(__VA_ARGS__); \
    }

ON_PATH(rename, "rename", AT_FDCWD, (const char *path, const char *to), path, to)
ON_PATH(renameat, "rename", fd, (int fd, const char *path, int to_fd, const char *to), fd, path, to_fd, to)
ON_PATH(unlink, "unlink", AT_FDCWD, (const char *path), path)
ON_PATH(unlinkat, "unlink", fd, (int fd, const char *path, int flags), fd, path, flags)
ON_PATH(mkdir, "mkdir", AT_FDCWD, (const char *path, mode_t mode), path, mode)
ON_PATH(mkdirat, "mkdir", fd, (int fd, const char *path, mode_t mode), fd, path, mode)
ON_PATH(rmdir, "rmdir", AT_FDCWD, (const char *path), path)

int msync(void *at, size_t size, int flags) {
    REAL(msync);
    FAIL("msync", AT_FDCWD, "/", -1)
    return real(at, size, flags);
}

/* Anonymous maps are memory, not files. */
#define MAP(name, offset) \
    void *name(void *address, size_t size, int protection, int flags, int fd, offset at) { \
        REAL(name); \
        if (fd >= 0) \
            FAIL("mmap", fd, NULL, MAP_FAILED) \
        return real(address, size, protection, flags, fd, at); \
    }

MAP(mmap, off_t)
MAP(mmap64, off64_t)
