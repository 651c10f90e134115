/* Stops a real Python process after every single instruction and asks each time: if it were killed here, what would a
 * start on the same boot find? The answer has to be all that was acknowledged, or one checkpoint (one bit) more.
 *
 *   every_instruction MODE SEED CONTROL FILE... -- COMMAND...
 *
 * COMMAND works on the FILEs in the way that MODE names: it stops itself with SIGSTOP, works, and stops itself again; see
 * stepped_job.py. The first u64 of CONTROL is the last checkpoint it saw acknowledged. In mode "disk" the last two FILEs are
 * sync files. A kill leaves exactly the bytes of the files, so they are
 * judged again whenever an instruction, wherever it stands, has changed one of them, and kept in a file `states`.
 *
 * The judge is written from docs/internals.md and shares nothing with _fastlog. It prints one line of JSON; its exit
 * status is 1 when a state was wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FILES = 5, SYNC_FILES = 2, FIRST_RECORD = 4096, FIRST_ENTRY = 64, BY_PWRITE = 2 };
enum { META = 1, CHECKPOINT = 2, RNG = 3, RETURN = 5, PICKLED = 1, HAS_RESULT = 8, RESULT_EVERY = 5, PICKLED_EVERY = 13 };

struct file {
    unsigned char *now;    /* shared with the process under test */
    unsigned char *judged; /* what it held when it was judged last */
    size_t size;
};

static struct file files[MAX_FILES];
static int file_count, segment_count;
static volatile uint64_t *acked;
static uint64_t seed, seq_found;

static void die(const char *what) {
    perror(what);
    exit(2);
}

static uint64_t u64(const unsigned char *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

static uint32_t crc_table[256];

static uint32_t crc32c(uint32_t crc, const void *data, size_t size) {
    for (const unsigned char *at = data; size; at++, size--)
        crc = crc >> 8 ^ crc_table[(crc ^ *at) & 0xFF];
    return crc;
}

static void make_crc_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        crc_table[byte] = byte;
        for (int bit = 0; bit < 8; bit++)
            crc_table[byte] = crc_table[byte] >> 1 ^ (crc_table[byte] & 1 ? 0x82F63B78u : 0);
    }
}

/* ---- what the job saved as its checkpoint `seq`; stepped_job.py has the same lines */

static size_t state_size(uint64_t seq) { return seq % 11 == 0 ? 300 + (seq * 97 + seed) % 700 : (seq * 37 + seed) % 400; }

static int loops; /* states are the number of items done */

static int is_state(const unsigned char *at, size_t size, uint64_t seq) {
    if (loops)
        return size == 8 && u64(at) == (seq << 8 | 0x03);
    size_t expected = state_size(seq), head = expected < 255 ? 2 : 10;
    if (size != head + expected || at[0] != 0x0A || at[1] != (expected < 255 ? expected : 255))
        return 0;
    if (expected >= 255 && u64(at + 2) != expected)
        return 0;
    for (size_t i = head; i < size; i++)
        if (at[i] != (unsigned char)(seq * 3 + i - head))
            return 0;
    return 1;
}

static int is_checkpoint(const unsigned char *at, size_t size, uint64_t seq, unsigned flags) {
    if (seq % RESULT_EVERY)
        /* The compiled loop pickles a plain state too when the segment has no room for it just so. */
        return (flags == PICKLED || (flags == 0 && (loops || seq % PICKLED_EVERY))) && is_state(at, size, seq);
    /* u64 result index, u32 state length, state, result: an int */
    if (flags != HAS_RESULT || size < 20 || u64(at) != seq / RESULT_EVERY - 1)
        return 0;
    uint32_t length;
    memcpy(&length, at + 8, 4);
    return length + 20 == size && is_state(at + 12, length, seq) && u64(at + 12 + length) == (seq << 8 | 0x03);
}

static int is_event(uint64_t kind, const unsigned char *at, size_t size) {
    return kind >= META && kind <= RETURN && size == 24 && memcmp(at, "what stands in an event.", 24) == 0;
}

/* ---- the journal as a start on the same boot reads it */

struct segment {
    const unsigned char *base;
    size_t size;
    uint64_t generation, index, before, mode; /* before: the last checkpoint of the segments in front */
};

static int header_copy(const unsigned char *at) {
    uint32_t crc;
    memcpy(&crc, at + 124, 4);
    return memcmp(at, "RSMJRNL1", 8) == 0 && ~crc32c(~0u, at, 124) == crc;
}

static int open_segment(const struct file *file, struct segment *s) {
    const unsigned char *best = NULL;
    for (int offset = 0; offset <= 512; offset += 512)
        if (header_copy(file->now + offset) && (!best || u64(file->now + offset + 24) > u64(best + 24)))
            best = file->now + offset;
    if (!best)
        return 0;
    *s = (struct segment){file->now, file->size, u64(best + 16), u64(best + 24), u64(best + 32), u64(best + 96)};
    return 1;
}

/* The record's length with its padding, or 0 when none stands there whole. */
static size_t whole_record(const struct segment *s, size_t offset) {
    uint32_t length, crc, place = (uint32_t)offset;
    if (offset < FIRST_RECORD || offset % 8 || offset + 16 > s->size)
        return 0;
    memcpy(&length, s->base + offset, 4);
    memcpy(&crc, s->base + offset + 4, 4);
    size_t padded = ((size_t)length + 7) / 8 * 8;
    if (length < 16 || padded > s->size - offset)
        return 0;
    uint32_t sum = crc32c(crc32c(crc32c(~0u, &s->generation, 8), &place, 4), &length, 4);
    return ~crc32c(sum, s->base + offset + 8, padded - 8) == crc ? padded : 0;
}

static const char *read_hint(const struct segment *s, size_t at, size_t *offset) {
    uint64_t word = u64(s->base + at);
    *offset = word >> 32;
    if (word && (word >> 32 ^ (word & 0xFFFFFFFF)) != 0xFFFFFFFF)
        return "a hint is torn";
    return word && !whole_record(s, *offset) ? "a hint names what is no whole record" : NULL;
}

/* Reads all of it; *last is the last checkpoint, 0 for none. Gives back what is wrong, or NULL. */
static const char *judge_segment(const struct segment *s, int newest, uint64_t *last) {
    size_t state_hint, event_hint, size, at = FIRST_RECORD;
    uint64_t hinted = s->before, counted = u64(s->base + 1040);
    int counts = counted == ~u64(s->base + 1048);
    const char *wrong = read_hint(s, 1024, &state_hint);
    if (!wrong)
        wrong = read_hint(s, 1032, &event_hint);
    if (wrong)
        return wrong;
    *last = 0;
    for (; (size = whole_record(s, at)); at += size) {
        uint64_t tag = u64(s->base + at + 8), seq = tag >> 16, kind = tag >> 8 & 0xFF;
        uint32_t length;
        memcpy(&length, s->base + at, 4);
        if (kind == CHECKPOINT) {
            if (seq != (*last ? *last : s->before) + 1)
                return "checkpoints are missing or doubled";
            if (!is_checkpoint(s->base + at + 16, length - 16, seq, tag & 0xFF))
                return "a torn checkpoint was accepted";
            *last = seq;
            /* The count lags behind the record whose hint was just stored; then that record itself tells. */
            if (seq % RESULT_EVERY == 0 && at >= state_hint && at >= event_hint)
                counted = seq / RESULT_EVERY, counts = 1;
        } else if (!is_event(kind, s->base + at + 16, length - 16))
            return "a torn event was accepted";
        if (at == state_hint)
            hinted = seq;
    }
    if (at + 8 <= s->size && u64(s->base + at) != 0)
        return "the journal does not end in a zero commit word";
    if (state_hint >= at || event_hint >= at)
        return "a hint points behind the journal's end";
    if (newest && *last && s->mode != BY_PWRITE && *acked > hinted)
        return "an acknowledged checkpoint stands behind the hints";
    if (*last && counts && counted != *last / RESULT_EVERY)
        return "the count of results is wrong";
    return NULL;
}

static const char *judge_journal(void) {
    struct segment found[MAX_FILES], s;
    int count = 0;
    for (int i = 0; i < segment_count; i++)
        if (open_segment(&files[i], &s)) {
            int at = count++;
            for (; at > 0 && found[at - 1].index < s.index; at--)
                found[at] = found[at - 1];
            found[at] = s;
        }
    seq_found = 0;
    /* A start reads all of them, also the one that was about to be used again. The state is the newest's, or, while that
     * has none yet, the one's before. */
    for (int i = 0; i < count; i++) {
        uint64_t last;
        const char *wrong = judge_segment(&found[i], seq_found == 0, &last);
        if (wrong)
            return wrong;
        if (seq_found == 0)
            seq_found = last;
    }
    if (seq_found < *acked)
        return "an acknowledged checkpoint is lost";
    return seq_found > *acked + 1 ? "more than one checkpoint ahead of the acknowledged" : NULL;
}

/* ---- the sync files of durability="disk", as a start after a power cut reads them: they have all that was acknowledged */

/* A plain-encoded (name of 16 bytes, number, seq, kind, flags, payload). */
static const char *judge_entry(const unsigned char *body, size_t size, uint64_t *last) {
    uint64_t seq = u64(body + 28) >> 8, kind = u64(body + 36) >> 8, flags = u64(body + 44) >> 8;
    size_t head = size > 53 && body[53] == 255 ? 62 : 54;
    if (size < head || body[0] != 0x10 || body[1] != 6 || body[2] != 0x0A || body[52] != 0x0A)
        return "an entry is no record";
    if (kind != CHECKPOINT)
        return is_event(kind, body + head, size - head) ? NULL : "a torn event is in a sync file";
    if (seq != *last + 1)
        return "checkpoints are missing or doubled in the sync files";
    *last = seq;
    return is_checkpoint(body + head, size - head, seq, (unsigned)flags) ? NULL : "a torn checkpoint is in a sync file";
}

static const char *judge_disk(void) {
    uint64_t last = 0;
    const char *wrong = judge_journal();
    for (int i = segment_count; !wrong && i < file_count; i++) {
        const unsigned char *base = files[i].now;
        for (size_t at = FIRST_ENTRY; !wrong && at + 8 < files[i].size;) {
            uint32_t crc, length;
            memcpy(&crc, base + at, 4);
            memcpy(&length, base + at + 4, 4);
            if (!length || length > files[i].size - at - 8)
                break;
            if (~crc32c(crc32c(~0u, base + 8, 8), base + at + 4, 4 + length) != crc)
                break;
            wrong = judge_entry(base + at + 8, length, &last);
            at += (8 + (size_t)length + 7) / 8 * 8;
        }
    }
    if (wrong)
        return wrong;
    if (last < *acked)
        return "an acknowledged checkpoint is not in the sync files";
    return last > seq_found ? "the sync files are ahead of the journal" : NULL;
}

/* ---- the bitset: exactly the acknowledged items are done, and at most the next one */

static const char *judge_bitset(void) {
    static unsigned char done[1 << 16];
    static uint64_t known;
    const unsigned char *base = files[0].now;
    size_t items = (files[0].size - 4096) / 8192 * 32768;
    for (; known < *acked; known++) {
        size_t item = ((known + 1) * 40503 + seed) % items;
        done[item / 8] |= 1 << item % 8;
    }
    size_t next = ((known + 1) * 40503 + seed) % items;
    for (size_t byte = 0; byte < items / 8; byte++) {
        const unsigned char *at = base + 4096 + byte / 4096 * 8192 + byte % 4096;
        unsigned char both = at[0] & at[4096];
        if (done[byte] & ~both)
            return "an acknowledged item is lost";
        if (both & ~(done[byte] | (next / 8 == byte ? 1 << next % 8 : 0)))
            return "an item is done that was never set";
    }
    return NULL;
}

/* ---- the stepping */

static void map_file(const char *path, struct file *file) {
    struct stat info;
    int fd = open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &info) < 0)
        die(path);
    file->size = (size_t)info.st_size;
    file->now = mmap(NULL, file->size, PROT_READ, MAP_SHARED, fd, 0);
    file->judged = malloc(file->size);
    if (file->now == MAP_FAILED || !file->judged)
        die("mmap");
    memcpy(file->judged, file->now, file->size);
    close(fd);
}

/* Keeps what a kill would leave now, behind what it has to be: the library's own recovery is tried on it later. */
static void keep(FILE *states) {
    uint64_t ack = *acked;
    if (fwrite(&ack, 8, 1, states) != 1)
        die("states");
    for (int i = 0; i < segment_count; i++)
        if (fwrite(files[i].now, files[i].size, 1, states) != 1)
            die("states");
}

static int changed(void) {
    static uint64_t judged_ack;
    int any = judged_ack != *acked;
    judged_ack = *acked;
    for (int i = 0; i < file_count; i++)
        if (memcmp(files[i].judged, files[i].now, files[i].size) != 0) {
            memcpy(files[i].judged, files[i].now, files[i].size);
            any = 1;
        }
    return any;
}

/* Where the code of _fastlog is mapped in the process. */
static void find_code(pid_t pid, uint64_t *low, uint64_t *high) {
    char path[64], line[4096], access[8];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "r");
    if (!maps)
        die(path);
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (strstr(line, "_fastlog") && sscanf(line, "%lx-%lx %7s", &from, &to, access) == 3 && access[2] == 'x')
            *low = from, *high = to;
    }
    fclose(maps);
}

static pid_t start(char **command) {
    int status;
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execvp(command[0], command);
        die(command[0]);
    }
    /* It stops at its exec, and then where it stops itself. */
    for (;;) {
        if (waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status))
            return -1;
        if (WSTOPSIG(status) == SIGSTOP)
            return pid;
        ptrace(PTRACE_CONT, pid, 0, WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
    }
}

int main(int argc, char **argv) {
    int at = 3, status = 0;
    cpu_set_t one;
    make_crc_table();
    if (argc < 6)
        return 2;
    int disk = strcmp(argv[1], "disk") == 0;
    loops = strcmp(argv[1], "loop") == 0;
    const char *(*judge)(void) = disk ? judge_disk : strcmp(argv[1], "bitset") == 0 ? judge_bitset : judge_journal;
    seed = strtoull(argv[2], NULL, 10);
    struct file control;
    map_file(argv[at++], &control);
    acked = (volatile uint64_t *)control.now;
    for (; at < argc && strcmp(argv[at], "--") != 0 && file_count < MAX_FILES; at++)
        map_file(argv[at], &files[file_count++]);
    segment_count = disk ? file_count - SYNC_FILES : file_count;

    /* On one processor the two hand over to each other at once. */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    pid_t pid = start(argv + at + 1);
    if (pid < 0)
        return 2;
    uint64_t low = 0, high = 0, steps = 0, inside = 0, judged = 0;
    const char *wrong = NULL;
    FILE *states = fopen("states", "w");
    struct timespec begin, end;
    if (!states)
        die("states");
    find_code(pid, &low, &high);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int signal = 0; !wrong;) {
        if (ptrace(PTRACE_SINGLESTEP, pid, 0, signal) < 0 || waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status))
            break;
        signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        if (signal == SIGSTOP)
            break;
        uint64_t rip = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0);
        steps++;
        inside += rip >= low && rip < high;
        if (changed()) {
            judged++;
            wrong = judge();
            keep(states);
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (fclose(states))
        die("states");
    int finished = WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    printf("{\"steps\": %lu, \"inside\": %lu, \"judged\": %lu, \"acked\": %lu, \"found\": %lu, \"finished\": %s, \"seconds\": %.2f, "
           "\"wrong\": \"%s\"}\n",
           steps, inside, judged, (uint64_t)*acked, seq_found, finished ? "true" : "false",
           (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9, wrong ? wrong : "");
    return wrong != NULL;
}
