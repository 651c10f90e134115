/* What the keys of a loop need: a keyed hash, and a look at the slots of a bucket. */
#ifndef RESUMABLE_KEYS_H
#define RESUMABLE_KEYS_H

#include <stdint.h>
#include <string.h>

/* ---- SipHash-2-4 with 128 bits (Aumasson and Bernstein, 2012): nobody without the key can find two inputs of one hash */

#define RS_ROTATE(word, by) ((word) << (by) | (word) >> (64 - (by)))

static inline void rs_sip_rounds(uint64_t v[4], int rounds) {
    for (int i = 0; i < rounds; i++) {
        v[0] += v[1]; v[1] = RS_ROTATE(v[1], 13) ^ v[0]; v[0] = RS_ROTATE(v[0], 32);
        v[2] += v[3]; v[3] = RS_ROTATE(v[3], 16) ^ v[2];
        v[0] += v[3]; v[3] = RS_ROTATE(v[3], 21) ^ v[0];
        v[2] += v[1]; v[1] = RS_ROTATE(v[1], 17) ^ v[2]; v[2] = RS_ROTATE(v[2], 32);
    }
}

static inline void rs_siphash(const uint64_t key[2], const unsigned char *data, size_t size, uint64_t out[2]) {
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du ^ 0xee,
                     key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
    uint64_t word, last = (uint64_t)size << 56;
    for (; size >= 8; data += 8, size -= 8) {
        memcpy(&word, data, 8);
        v[3] ^= word;
        rs_sip_rounds(v, 2);
        v[0] ^= word;
    }
    for (size_t i = 0; i < size; i++)
        last |= (uint64_t)data[i] << 8 * i;
    v[3] ^= last;
    rs_sip_rounds(v, 2);
    v[0] ^= last;
    v[2] ^= 0xee;
    rs_sip_rounds(v, 4);
    out[0] = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    rs_sip_rounds(v, 4);
    out[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- buckets: a line of the cache, so that a key costs one wait for memory; no branch depends on which slots are taken */

typedef struct {
    uint32_t tags[8];      /* 0: free */
    uint32_t places[8];
} rs_bucket;

/* A bit for each slot with this tag. */
#if defined(__SSE2__)
#include <emmintrin.h>
static inline unsigned rs_slots(const rs_bucket *bucket, uint32_t tag) {
    __m128i wanted = _mm_set1_epi32((int)tag);
    __m128i first = _mm_cmpeq_epi32(_mm_load_si128((const __m128i *)bucket->tags), wanted);
    __m128i second = _mm_cmpeq_epi32(_mm_load_si128((const __m128i *)bucket->tags + 1), wanted);
    return (unsigned)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(first, second), _mm_setzero_si128()));
}
#else
static inline unsigned rs_slots(const rs_bucket *bucket, uint32_t tag) {
    unsigned found = 0;
    for (int i = 0; i < 8; i++)
        found |= (unsigned)(bucket->tags[i] == tag) << i;
    return found;
}
#endif
#define rs_first(slots) __builtin_ctz(slots)
#define rs_prefetch(at) __builtin_prefetch(at)

#endif
