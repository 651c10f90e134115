# A key file's header and entries, as bytes: docs/internals.md has the format.

cdef enum:
    KEYS_HEADER = 64
    KEYS_ENTRY = 16
    KEY_KEPT = 12             # bytes of a key's hash in it, first of all

cdef const char* KEYS_MAGIC = b"RSMKEYS1"


cdef inline uint32_t keys_seed(const unsigned char* salt) noexcept nogil:
    return rs_crc(0xFFFFFFFFu, salt, 16)

cdef void put_keys_header(unsigned char* base, const unsigned char* salt) noexcept nogil:
    cdef uint32_t crc
    memset(base, 0, KEYS_HEADER)
    memcpy(base, KEYS_MAGIC, 8)
    memcpy(base + 8, salt, 16)
    crc = ~rs_crc(0xFFFFFFFFu, base, KEYS_HEADER - 4)
    memcpy(base + KEYS_HEADER - 4, &crc, 4)

cdef bint is_keys_header(const unsigned char* base, const unsigned char* salt) noexcept nogil:
    cdef unsigned char whole[KEYS_HEADER]
    put_keys_header(whole, salt)
    return memcmp(base, whole, KEYS_HEADER) == 0

cdef inline uint64_t sealed(uint32_t seed, uint64_t place, uint64_t first, uint64_t second) noexcept nogil:
    """The second word of an entry: what it has of the hash, and the checksum that this key has at this place."""
    cdef uint64_t words[3]
    words[0], words[1], words[2] = place, first, second & 0xFFFFFFFFu
    return words[2] | <uint64_t>~rs_crc(seed, <const unsigned char*>words, 24) << 32

cdef inline bint key_verifies(const unsigned char* base, uint32_t seed, uint64_t place) noexcept nogil:
    cdef const unsigned char* entry = base + KEYS_HEADER + place * KEYS_ENTRY
    cdef uint64_t second = rs_load(entry + 8)
    return sealed(seed, place, rs_load(entry), second) == second


def lost_keys(data, bytes salt, uint64_t count):
    """The places below `count` where the bytes of a key file have no key that verifies."""
    cdef const unsigned char[::1] view = data
    cdef uint32_t seed = keys_seed(<const unsigned char*>salt)
    cdef uint64_t place, whole = keys_in(view.shape[0])
    return [place for place in range(count) if place >= whole or not key_verifies(&view[0], seed, place)]


def last_key(data, bytes salt):
    """One more than the last place where the bytes of a key file have a key that verifies."""
    cdef const unsigned char[::1] view = data
    cdef uint32_t seed = keys_seed(<const unsigned char*>salt)
    cdef uint64_t count = keys_in(view.shape[0])
    while count and not key_verifies(&view[0], seed, count - 1):
        count -= 1
    return count


def keys_header(bytes salt):
    """What a key file begins with."""
    cdef unsigned char header[KEYS_HEADER]
    put_keys_header(header, <const unsigned char*>salt)
    return header[:KEYS_HEADER]


def lost_key(bytes salt, uint64_t place):
    """What stands at a place whose key is lost: the item is done again."""
    cdef uint64_t words[2]
    words[0], words[1] = 0, sealed(keys_seed(<const unsigned char*>salt), place, 0, 0)
    return (<unsigned char*>words)[:KEYS_ENTRY]


cdef inline uint64_t keys_in(size_t size) noexcept nogil:
    return (size - KEYS_HEADER) // KEYS_ENTRY if size > KEYS_HEADER else 0
