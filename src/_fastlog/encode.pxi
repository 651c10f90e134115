# The plain codec, writing side: exact builtin types straight into memory that nobody reads yet.
#
# While a state is encoded no Python code runs and nothing is allocated through Python, so no other thread, signal handler or
# collector can change the state under the encoder. What it wrote counts only once the record is published.

cdef enum:
    TAG_NONE = 0x00
    TAG_FALSE = 0x01
    TAG_TRUE = 0x02
    TAG_INT56 = 0x03
    TAG_INT = 0x04
    TAG_FLOAT = 0x05
    TAG_COMPLEX = 0x06
    TAG_STR1 = 0x07
    TAG_STR2 = 0x08
    TAG_STR4 = 0x09
    TAG_BYTES = 0x0A
    TAG_BYTEARRAY = 0x0B
    TAG_TUPLE = 0x10
    TAG_LIST = 0x11
    TAG_SET = 0x12
    TAG_FROZENSET = 0x13
    TAG_DICT = 0x14
    TAG_RANGE = 0x15
    TAG_SLICE = 0x16

cdef enum:
    ENCODED = 0
    FULL = 1          # does not fit below the limit
    NOT_PLAIN = 2     # a type, a depth or a sharing that tier 1 must save
    NO_MEMORY = 3

cdef enum:
    MAX_DEPTH = 100
    SMALL_REPEAT = 64     # an immutable value met again is written again up to this many bytes
    FIRST_SEEN = 16       # slots in the encoder itself; a power of two

cdef struct Seen:
    PyObject* value
    bint repeatable       # immutable all through and small: writing it twice loses nothing

# Where the next byte goes is handed from function to function, not kept here: the bytes written could alias a pointer in
# memory, and the compiler would have to read it again after each. NULL means that `status` says why it ended.
cdef struct Encoder:
    unsigned char* limit
    int status
    int depth
    uint64_t mutables     # mutable values met so far
    Seen* seen            # open addressing; NULL until a container with other owners is met
    size_t slots
    size_t used
    Seen first[FIRST_SEEN]

cdef inline void encoder_start(Encoder* e, unsigned char* limit) noexcept nogil:
    e.limit = limit
    e.status = ENCODED
    e.depth = 0
    e.mutables = 0
    e.seen = NULL

cdef inline void encoder_stop(Encoder* e) noexcept nogil:
    if e.seen != NULL and e.seen != e.first:
        PyMem_RawFree(e.seen)

cdef inline unsigned char* refuse(Encoder* e, int status) noexcept nogil:
    e.status = status
    return NULL

cdef inline Seen* seen_slot(Encoder* e, PyObject* value) noexcept nogil:
    cdef size_t i = (<size_t>value >> 4) * <size_t>0x9E3779B97F4A7C15u >> 32
    while True:
        i &= e.slots - 1
        if e.seen[i].value == NULL or e.seen[i].value == value:
            return &e.seen[i]
        i += 1

cdef bint seen_grow(Encoder* e) noexcept nogil:
    cdef Seen* old = e.seen
    cdef size_t i, slots = e.slots
    cdef Seen* grown = <Seen*>PyMem_RawMalloc(4 * slots * sizeof(Seen))
    if grown == NULL:
        return False
    memset(grown, 0, 4 * slots * sizeof(Seen))
    e.seen = grown
    e.slots = 4 * slots
    for i in range(slots):
        if old[i].value != NULL:
            seen_slot(e, old[i].value)[0] = old[i]
    if old != e.first:
        PyMem_RawFree(old)
    return True

cdef int first_meeting(Encoder* e, PyObject* value) noexcept nogil:
    # ENCODED: met for the first time, or harmless to write again. Only values that somebody else holds too come here.
    cdef Seen* slot
    if e.seen == NULL:
        e.seen = e.first
        e.slots = FIRST_SEEN
        e.used = 0
        memset(e.first, 0, sizeof(e.first))
    elif 2 * e.used >= e.slots and not seen_grow(e):
        return NO_MEMORY
    slot = seen_slot(e, value)
    if slot.value != NULL:
        return ENCODED if slot.repeatable else NOT_PLAIN
    slot.value = value
    slot.repeatable = False
    e.used += 1
    return ENCODED

cdef inline unsigned char* put_size(unsigned char* at, size_t size) noexcept nogil:
    # Callers have made sure of 9 bytes.
    if size < 255:
        at[0] = <unsigned char>size
        return at + 1
    at[0] = 255
    rs_store(at + 1, size)
    return at + 9

cdef inline unsigned char* put_block(
    Encoder* e, unsigned char* at, int tag, size_t count, const void* data, size_t size
) noexcept nogil:
    if <size_t>(e.limit - at) < size + 10:
        return refuse(e, FULL)
    at[0] = <unsigned char>tag
    at = put_size(at + 1, count)
    rs_copy(at, data, size)
    return at + size

cdef inline unsigned char* put_word(Encoder* e, unsigned char* at, int tag, uint64_t word) noexcept nogil:
    if e.limit - at < 9:
        return refuse(e, FULL)
    at[0] = <unsigned char>tag
    rs_store(at + 1, word)
    return at + 9

cdef inline unsigned char* encode_int(Encoder* e, unsigned char* at, PyObject* value) noexcept:
    cdef int64_t number
    if not rs_int56(value, &number):
        return encode_long(e, at, value)
    if e.limit - at < 8:
        return refuse(e, FULL)
    rs_store(at, <uint64_t>number << 8 | TAG_INT56)
    return at + 8

cdef unsigned char* encode_long(Encoder* e, unsigned char* at, PyObject* value) noexcept:
    cdef size_t size = rs_int_size(value)
    if <size_t>(e.limit - at) < size + 10:
        return refuse(e, FULL)
    at[0] = TAG_INT
    at = put_size(at + 1, size)
    if rs_int_bytes(value, at, size) < 0:
        return refuse(e, NOT_PLAIN)
    return at + size

cdef inline unsigned char* encode_str(Encoder* e, unsigned char* at, PyObject* value) noexcept:
    cdef size_t length
    cdef int kind
    if rs_str_ready(value) < 0:
        return refuse(e, NOT_PLAIN)
    length = PyUnicode_GET_LENGTH(value)
    kind = PyUnicode_KIND(value)
    return put_block(e, at, TAG_STR1 if kind == 1 else TAG_STR2 if kind == 2 else TAG_STR4,
                     length, PyUnicode_DATA(value), length * kind)

cdef unsigned char* encode_complex(Encoder* e, unsigned char* at, PyObject* value) noexcept:
    cdef double real = PyComplex_RealAsDouble(value), imaginary = PyComplex_ImagAsDouble(value)
    if e.limit - at < 17:
        return refuse(e, FULL)
    at[0] = TAG_COMPLEX
    memcpy(at + 1, &real, 8)
    memcpy(at + 9, &imaginary, 8)
    return at + 17

cdef unsigned char* encode_dict(Encoder* e, unsigned char* at, PyObject* value) noexcept:
    cdef Py_ssize_t position = 0
    cdef PyObject* key
    cdef PyObject* item
    at[0] = TAG_DICT
    at = put_size(at + 1, PyDict_GET_SIZE(value))
    while PyDict_Next(value, &position, &key, &item):
        at = encode(e, at, key)
        if at == NULL:
            return NULL
        at = encode(e, at, item)
        if at == NULL:
            return NULL
    return at

cdef unsigned char* encode_set(Encoder* e, unsigned char* at, int tag, PyObject* value) noexcept:
    cdef Py_ssize_t position = 0
    cdef PyObject* item = rs_set_next(value, &position)
    at[0] = <unsigned char>tag
    at = put_size(at + 1, PySet_GET_SIZE(value))
    while item != NULL:
        at = encode(e, at, item)
        if at == NULL:
            return NULL
        item = rs_set_next(value, &position)
    return at

cdef unsigned char* encode_row(Encoder* e, unsigned char* at, int tag, PyObject** items, Py_ssize_t size) noexcept:
    cdef Py_ssize_t i
    at[0] = <unsigned char>tag
    at = put_size(at + 1, size)
    for i in range(size):
        at = encode(e, at, items[i])
        if at == NULL:
            return NULL
    return at

cdef unsigned char* encode_slice(Encoder* e, unsigned char* at, PyObject* value) noexcept:
    cdef int part
    at[0] = TAG_SLICE
    at += 1
    for part in range(3):
        at = encode(e, at, rs_slice_part(value, part))
        if at == NULL:
            return NULL
    return at

cdef unsigned char* encode_range(Encoder* e, unsigned char* at, object value) noexcept:
    # Its three ints are kept in the object itself: reading them allocates nothing.
    at[0] = TAG_RANGE
    at += 1
    for part in (value.start, value.stop, value.step):
        at = encode_int(e, at, <PyObject*>part)
        if at == NULL:
            return NULL
    return at

cdef inline unsigned char* encode_items(Encoder* e, unsigned char* at, PyObject* value, PyTypeObject* kind) noexcept:
    if e.limit - at < 10:
        return refuse(e, FULL)
    if kind == &PyDict_Type:
        return encode_dict(e, at, value)
    if kind == &PyList_Type:
        return encode_row(e, at, TAG_LIST, rs_list_items(value), PyList_GET_SIZE(value))
    if kind == &PyTuple_Type:
        return encode_row(e, at, TAG_TUPLE, rs_tuple_items(value), PyTuple_GET_SIZE(value))
    if kind == &PySet_Type:
        return encode_set(e, at, TAG_SET, value)
    if kind == &PyFrozenSet_Type:
        return encode_set(e, at, TAG_FROZENSET, value)
    if kind == &PySlice_Type:
        return encode_slice(e, at, value)
    return encode_range(e, at, <object>value)

cdef unsigned char* encode_container(Encoder* e, unsigned char* at, PyObject* value, PyTypeObject* kind) noexcept:
    cdef bint mutable = kind == &PyDict_Type or kind == &PyList_Type or kind == &PySet_Type
    cdef bint shared = Py_REFCNT(value) > 1
    cdef uint64_t mutables
    cdef unsigned char* start = at
    cdef int status
    if shared:
        status = first_meeting(e, value)
        if status != ENCODED:
            return refuse(e, status)
    if e.depth == MAX_DEPTH:
        return refuse(e, NOT_PLAIN)
    e.mutables += mutable
    mutables = e.mutables
    e.depth += 1
    at = encode_items(e, at, value, kind)
    e.depth -= 1
    if shared and not mutable and at != NULL and e.mutables == mutables and at - start <= SMALL_REPEAT:
        seen_slot(e, value).repeatable = True
    return at

cdef unsigned char* encode_bytearray(Encoder* e, unsigned char* at, PyObject* value) noexcept:
    cdef int status = first_meeting(e, value) if Py_REFCNT(value) > 1 else ENCODED
    if status != ENCODED:
        return refuse(e, status)
    e.mutables += 1
    return put_block(
        e, at, TAG_BYTEARRAY, PyByteArray_GET_SIZE(value), PyByteArray_AS_STRING(value), PyByteArray_GET_SIZE(value)
    )

cdef unsigned char* encode_rare(Encoder* e, unsigned char* at, PyObject* value, PyTypeObject* kind) noexcept:
    if kind == &PyBytes_Type:
        return put_block(e, at, TAG_BYTES, PyBytes_GET_SIZE(value), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if kind == &PyByteArray_Type:
        return encode_bytearray(e, at, value)
    if kind == &PyComplex_Type:
        return encode_complex(e, at, value)
    if at == e.limit:
        return refuse(e, FULL)
    if value == Py_None:
        at[0] = TAG_NONE
    elif value == Py_True:
        at[0] = TAG_TRUE
    elif value == Py_False:
        at[0] = TAG_FALSE
    else:
        return refuse(e, NOT_PLAIN)
    return at + 1

cdef unsigned char* encode(Encoder* e, unsigned char* at, PyObject* value) noexcept:
    """Write one value at `at` and give back where the next one goes; after NULL what was written is to be forgotten."""
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef double number
    cdef uint64_t word
    if kind == &PyLong_Type:
        return encode_int(e, at, value)
    if kind == &PyUnicode_Type:
        return encode_str(e, at, value)
    if kind == &PyFloat_Type:
        number = PyFloat_AS_DOUBLE(value)
        memcpy(&word, &number, 8)
        return put_word(e, at, TAG_FLOAT, word)
    if (kind == &PyDict_Type or kind == &PyList_Type or kind == &PyTuple_Type or kind == &PySet_Type
            or kind == &PyFrozenSet_Type or kind == &PyRange_Type or kind == &PySlice_Type):
        return encode_container(e, at, value, kind)
    return encode_rare(e, at, value, kind)


def encode_plain(value):
    """The plain encoding of `value` as bytes, or None when tier 0 cannot hold it exactly."""
    cdef Encoder e
    cdef size_t size = 1024
    cdef unsigned char* buffer = NULL
    cdef unsigned char* grown
    cdef unsigned char* end
    try:
        e.status = FULL
        while e.status == FULL:
            size *= 4
            grown = <unsigned char*>PyMem_RawRealloc(buffer, size)
            if grown == NULL:
                raise MemoryError()
            buffer = grown
            encoder_start(&e, buffer + size)
            end = encode(&e, buffer, <PyObject*>value)
            encoder_stop(&e)
        if e.status == NO_MEMORY:
            raise MemoryError()
        return buffer[:end - buffer] if e.status == ENCODED else None
    finally:
        PyMem_RawFree(buffer)
