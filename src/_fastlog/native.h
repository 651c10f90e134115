/* The few things Cython has no words for: CRC-32C, ordered stores, the fork counter, and peeks at CPython's own types. */
#ifndef RESUMABLE_NATIVE_H
#define RESUMABLE_NATIVE_H

#include <Python.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "resumable stores little-endian data and is built for little-endian machines only"
#endif
#ifdef Py_GIL_DISABLED
#error "resumable relies on the GIL as the lock of its journals; free-threaded builds are not supported"
#endif

/* ---- CRC-32C: the instruction where the processor has it (SSE4.2, with PCLMULQDQ), tables elsewhere */

static uint32_t rs_crc_table[8][256];

static void rs_crc_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
        rs_crc_table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int slice = 1; slice < 8; slice++)
            rs_crc_table[slice][byte] =
                (rs_crc_table[slice - 1][byte] >> 8) ^ rs_crc_table[0][rs_crc_table[slice - 1][byte] & 0xFF];
}

static uint32_t rs_crc_portable(uint32_t crc, const unsigned char *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        word ^= crc;
        crc = rs_crc_table[7][word & 0xFF] ^ rs_crc_table[6][(word >> 8) & 0xFF] ^ rs_crc_table[5][(word >> 16) & 0xFF] ^
              rs_crc_table[4][(word >> 24) & 0xFF] ^ rs_crc_table[3][(word >> 32) & 0xFF] ^
              rs_crc_table[2][(word >> 40) & 0xFF] ^ rs_crc_table[1][(word >> 48) & 0xFF] ^ rs_crc_table[0][word >> 56];
    }
    for (; size; data++, size--)
        crc = (crc >> 8) ^ rs_crc_table[0][(crc ^ *data) & 0xFF];
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>

/* The instruction waits three cycles for itself, so data goes through three registers at a time, a lane each, which are then
   made one: a register is carried over the lanes behind it by a multiplication (Gopal et al., "Fast CRC computation for iSCSI
   polynomial using CRC32 instruction", 2011). Lanes are as long as the data has it: records are a few hundred bytes. */
#define RS_LONGEST 64     /* words of a lane, at most */
#define RS_WORTH 12       /* words that are worth a multiplication, at least */
#define RS_PROCESSOR __attribute__((target("sse4.2,pclmul")))
static uint32_t rs_over[2 * RS_LONGEST + 1];

/* x to 64 n - 33 modulo the polynomial, lowest power in the highest bit: what carries a register over n words. */
static void rs_crc_powers(void) {
    uint32_t power = 0x80000000u;
    for (int exponent = 0; exponent <= 64 * 2 * RS_LONGEST - 33; exponent++) {
        if (exponent % 64 == 64 - 33)
            rs_over[exponent / 64 + 1] = power;
        power = (power >> 1) ^ (0x82F63B78u & (0u - (power & 1)));
    }
}

RS_PROCESSOR static inline uint64_t rs_crc_words(uint64_t crc, const unsigned char *data, size_t words) {
    uint64_t word[3], second, third;
    while (words >= RS_WORTH) {
        size_t lane = words < 3 * RS_LONGEST ? words / 3 : RS_LONGEST;
        second = third = 0;
        for (size_t i = 0; i < lane; i++, data += 8) {
            memcpy(&word[0], data, 8);
            memcpy(&word[1], data + 8 * lane, 8);
            memcpy(&word[2], data + 16 * lane, 8);
            crc = _mm_crc32_u64(crc, word[0]);
            second = _mm_crc32_u64(second, word[1]);
            third = _mm_crc32_u64(third, word[2]);
        }
        __m128i over = _mm_set_epi64x(rs_over[lane], rs_over[2 * lane]);
        __m128i carried = _mm_xor_si128(_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), over, 0x00),
                                        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)second), over, 0x10));
        crc = third ^ _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(carried));
        data += 16 * lane;
        words -= 3 * lane;
    }
    for (; words; data += 8, words--) {
        memcpy(&word[0], data, 8);
        crc = _mm_crc32_u64(crc, word[0]);
    }
    return crc;
}

RS_PROCESSOR static uint32_t rs_crc_sse42(uint32_t crc, const unsigned char *data, size_t size) {
    crc = (uint32_t)rs_crc_words(crc, data, size / 8);
    for (data += size & ~(size_t)7, size &= 7; size; data++, size--)
        crc = _mm_crc32_u8(crc, *data);
    return crc;
}
#endif

/* Raw register in, raw register out: callers apply the initial value and the final xor (all ones). */
static uint32_t (*rs_crc)(uint32_t crc, const unsigned char *data, size_t size) = rs_crc_portable;

/* The commit word of a record: its place goes in first, then tag, payload and padding, which stand in a row behind it. */
static uint64_t rs_commit_portable(uint32_t seed, const unsigned char *record, size_t offset, size_t length) {
    uint64_t place = (uint64_t)offset | (uint64_t)length << 32;
    uint32_t crc = rs_crc_portable(seed, (const unsigned char *)&place, 8);
    crc = rs_crc_portable(crc, record + 8, ((length + 7) & ~(size_t)7) - 8);
    return (uint64_t)(uint32_t)~crc << 32 | length;
}
static uint64_t (*rs_commit)(uint32_t seed, const unsigned char *record, size_t offset, size_t length) = rs_commit_portable;

#if defined(__x86_64__)
/* Once per checkpoint, so all of it in one call. */
RS_PROCESSOR static uint64_t rs_commit_sse42(uint32_t seed, const unsigned char *record, size_t offset, size_t length) {
    uint64_t sum = _mm_crc32_u64(seed, (uint64_t)offset | (uint64_t)length << 32);
    sum = rs_crc_words(sum, record + 8, (length + 7) / 8 - 1);
    return (uint64_t)(uint32_t)~sum << 32 | length;
}
#endif

/* ---- forks: a child must not touch a journal that its parent is writing */

static volatile uint32_t rs_forks = 0;
static void rs_in_child(void) { rs_forks++; }

static int rs_setup(void) {
    rs_crc_tables();
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        rs_crc_powers();
        rs_crc = rs_crc_sse42;
        rs_commit = rs_commit_sse42;
    }
#endif
    return pthread_atfork(NULL, NULL, rs_in_child);
}

/* ---- memory */

static inline uint64_t rs_load(const void *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}
static inline void rs_store(void *at, uint64_t word) { memcpy(at, &word, 8); }
static inline uint64_t rs_load_acquire(const void *at) { return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE); }
static inline void rs_store_release(void *at, uint64_t word) { __atomic_store_n((uint64_t *)at, word, __ATOMIC_RELEASE); }
static inline void rs_or_release(void *at, uint64_t bits) {
    __atomic_store_n((uint64_t *)at, *(uint64_t *)at | bits, __ATOMIC_RELEASE);
}

/* Ask for memory that will be written; it may lie behind the end of what is ours. */
static inline void rs_fetch(const unsigned char *at, size_t size) {
    for (size_t line = 0; line < size; line += 64)
        __builtin_prefetch(at + line, 1);
}

/* memcpy for what is mostly a few bytes: two moves that overlap instead of a call. */
static inline void rs_copy(unsigned char *to, const void *from, size_t size) {
    const unsigned char *at = (const unsigned char *)from;
    if (size > 16) {
        memcpy(to, at, size);
    } else if (size >= 8) {
        uint64_t head = rs_load(at), tail = rs_load(at + size - 8);
        rs_store(to, head);
        rs_store(to + size - 8, tail);
    } else if (size >= 4) {
        uint32_t head, tail;
        memcpy(&head, at, 4);
        memcpy(&tail, at + size - 4, 4);
        memcpy(to, &head, 4);
        memcpy(to + size - 4, &tail, 4);
    } else {
        for (size_t i = 0; i < size; i++)
            to[i] = at[i];
    }
}

/* ---- files: size and number of links, 0 or -1 with errno. No times: whoever asks for a file's times makes Linux (6.13 and newer)
   give the next write a time of its own and note it in the inode, for every small write again. */

static int rs_size_and_links(int fd, uint64_t *size, uint64_t *links) {
#ifdef STATX_SIZE
    struct statx part;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_SIZE | STATX_NLINK, &part) == 0) {
        *size = part.stx_size;
        *links = part.stx_nlink;
        return 0;
    }
#endif
    struct stat found;      /* also where a sandbox refuses the newer call */
    if (fstat(fd, &found) != 0)
        return -1;
    *size = (uint64_t)found.st_size;
    *links = (uint64_t)found.st_nlink;
    return 0;
}

/* ---- ints: 1 and the value when it fits 56 bits, else 0 */

static inline int rs_int56(PyObject *number, int64_t *value) {
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)number)) {
        *value = (int64_t)PyUnstable_Long_CompactValue((PyLongObject *)number);
        return 1;
    }
#endif
    int overflow;
    long long wide = PyLong_AsLongLongAndOverflow(number, &overflow);
    *value = (int64_t)wide;
    return !overflow && wide >= -(1LL << 55) && wide < (1LL << 55);
}

/* Bytes that two's complement needs, and the bytes themselves, without allocating: nothing may run while a state is encoded. */
static inline size_t rs_int_size(PyObject *number) { return _PyLong_NumBits(number) / 8 + 1; }
static inline int rs_int_bytes(PyObject *number, unsigned char *out, size_t size) {
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_AsNativeBytes(number, out, (Py_ssize_t)size, Py_ASNATIVEBYTES_LITTLE_ENDIAN) < 0 ? -1 : 0;
#else
    return _PyLong_AsByteArray((PyLongObject *)number, out, size, 1, 1);
#endif
}
static inline PyObject *rs_int_from_bytes(const unsigned char *data, size_t size) {
    return _PyLong_FromByteArray(data, size, 1, 1);
}

/* ---- str */

static inline int rs_str_ready(PyObject *text) {
#if PY_VERSION_HEX < 0x030C0000
    return PyUnicode_READY(text);
#else
    (void)text;
    return 0;
#endif
}

/* ---- sets: the next element at or behind *position, borrowed; NULL at the end. Iterating must not allocate either. */

static inline PyObject *rs_set_next(PyObject *set, Py_ssize_t *position) {
    PySetObject *table = (PySetObject *)set;
    for (Py_ssize_t i = *position; i <= table->mask; i++) {
        setentry *entry = &table->table[i];
        if (entry->key != NULL && entry->hash != -1) {
            *position = i + 1;
            return entry->key;
        }
    }
    return NULL;
}

/* ---- rows and slices */

static inline PyObject **rs_list_items(PyObject *list) { return ((PyListObject *)list)->ob_item; }
static inline PyObject **rs_tuple_items(PyObject *tuple) { return ((PyTupleObject *)tuple)->ob_item; }


static inline PyObject *rs_slice_part(PyObject *slice, int part) {
    PySliceObject *s = (PySliceObject *)slice;
    return part == 0 ? s->start : part == 1 ? s->stop : s->step;
}

#endif
