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

cdef struct Encoder:
    unsigned char* at
    unsigned char* limit
    int depth
    uint64_t mutables     # mutable values met so far
    Seen* seen            # open addressing; NULL until a container with other owners is met
    size_t slots
    size_t used
    Seen first[FIRST_SEEN]

cdef inline void encoder_start(Encoder* e, unsigned char* at, unsigned char* limit) noexcept nogil:
    e.at = at
    e.limit = limit
    e.depth = 0
    e.mutables = 0
    e.seen = NULL

cdef inline void encoder_stop(Encoder* e) noexcept nogil:
    if e.seen != NULL and e.seen != e.first:
        PyMem_RawFree(e.seen)

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

cdef inline int put_block(Encoder* e, int tag, size_t count, const void* data, size_t size) noexcept nogil:
    if <size_t>(e.limit - e.at) < size + 10:
        return FULL
    e.at[0] = <unsigned char>tag
    e.at = put_size(e.at + 1, count)
    memcpy(e.at, data, size)
    e.at += size
    return ENCODED

cdef inline int put_word(Encoder* e, int tag, uint64_t word) noexcept nogil:
    if e.limit - e.at < 9:
        return FULL
    e.at[0] = <unsigned char>tag
    rs_store(e.at + 1, word)
    e.at += 9
    return ENCODED

cdef int encode_int(Encoder* e, PyObject* value) noexcept:
    cdef int64_t number
    cdef size_t size
    if rs_int56(value, &number):
        if e.limit - e.at < 8:
            return FULL
        rs_store(e.at, <uint64_t>number << 8 | TAG_INT56)
        e.at += 8
        return ENCODED
    size = rs_int_size(value)
    if <size_t>(e.limit - e.at) < size + 10:
        return FULL
    e.at[0] = TAG_INT
    e.at = put_size(e.at + 1, size)
    if rs_int_bytes(value, e.at, size) < 0:
        return NOT_PLAIN
    e.at += size
    return ENCODED

cdef int encode_str(Encoder* e, PyObject* value) noexcept:
    cdef size_t length
    cdef int kind
    if rs_str_ready(value) < 0:
        return NOT_PLAIN
    length = PyUnicode_GET_LENGTH(value)
    kind = PyUnicode_KIND(value)
    return put_block(e, TAG_STR1 if kind == 1 else TAG_STR2 if kind == 2 else TAG_STR4,
                     length, PyUnicode_DATA(value), length * kind)

cdef int encode_complex(Encoder* e, PyObject* value) noexcept:
    cdef double part = PyComplex_RealAsDouble(value)
    cdef uint64_t word
    memcpy(&word, &part, 8)
    if e.limit - e.at < 17:
        return FULL
    put_word(e, TAG_COMPLEX, word)
    part = PyComplex_ImagAsDouble(value)
    memcpy(e.at, &part, 8)
    e.at += 8
    return ENCODED

cdef int encode_items(Encoder* e, PyObject* value, PyTypeObject* kind) noexcept:
    cdef Py_ssize_t i, size, position = 0
    cdef PyObject* key
    cdef PyObject* item
    cdef int status
    if e.limit - e.at < 10:
        return FULL
    if kind == &PyDict_Type:
        e.at[0] = TAG_DICT
        e.at = put_size(e.at + 1, PyDict_GET_SIZE(value))
        while PyDict_Next(value, &position, &key, &item):
            status = encode(e, key)
            if status == ENCODED:
                status = encode(e, item)
            if status != ENCODED:
                return status
    elif kind == &PyList_Type:
        size = PyList_GET_SIZE(value)
        e.at[0] = TAG_LIST
        e.at = put_size(e.at + 1, size)
        for i in range(size):
            status = encode(e, PyList_GET_ITEM(value, i))
            if status != ENCODED:
                return status
    elif kind == &PyTuple_Type:
        size = PyTuple_GET_SIZE(value)
        e.at[0] = TAG_TUPLE
        e.at = put_size(e.at + 1, size)
        for i in range(size):
            status = encode(e, PyTuple_GET_ITEM(value, i))
            if status != ENCODED:
                return status
    elif kind == &PySet_Type or kind == &PyFrozenSet_Type:
        e.at[0] = TAG_SET if kind == &PySet_Type else TAG_FROZENSET
        e.at = put_size(e.at + 1, PySet_GET_SIZE(value))
        item = rs_set_next(value, &position)
        while item != NULL:
            status = encode(e, item)
            if status != ENCODED:
                return status
            item = rs_set_next(value, &position)
    elif kind == &PySlice_Type:
        e.at[0] = TAG_SLICE
        e.at += 1
        for i in range(3):
            status = encode(e, rs_slice_part(value, i))
            if status != ENCODED:
                return status
    else:
        return encode_range(e, <object>value)
    return ENCODED

cdef int encode_range(Encoder* e, object value) noexcept:
    # Its three ints are kept in the object itself: reading them allocates nothing.
    cdef int status
    e.at[0] = TAG_RANGE
    e.at += 1
    start, stop, step = value.start, value.stop, value.step
    status = encode_int(e, <PyObject*>start)
    if status == ENCODED:
        status = encode_int(e, <PyObject*>stop)
    if status == ENCODED:
        status = encode_int(e, <PyObject*>step)
    return status

cdef int encode_container(Encoder* e, PyObject* value, PyTypeObject* kind) noexcept:
    cdef bint mutable = kind == &PyDict_Type or kind == &PyList_Type or kind == &PySet_Type
    cdef bint shared = Py_REFCNT(value) > 1
    cdef uint64_t mutables
    cdef unsigned char* start = e.at
    cdef int status
    if shared:
        status = first_meeting(e, value)
        if status != ENCODED:
            return status
    if e.depth == MAX_DEPTH:
        return NOT_PLAIN
    e.mutables += mutable
    mutables = e.mutables
    e.depth += 1
    status = encode_items(e, value, kind)
    e.depth -= 1
    if shared and not mutable and status == ENCODED and e.mutables == mutables and e.at - start <= SMALL_REPEAT:
        seen_slot(e, value).repeatable = True
    return status

cdef int encode_bytearray(Encoder* e, PyObject* value) noexcept:
    cdef int status = first_meeting(e, value) if Py_REFCNT(value) > 1 else ENCODED
    if status != ENCODED:
        return status
    e.mutables += 1
    return put_block(e, TAG_BYTEARRAY, PyByteArray_GET_SIZE(value), PyByteArray_AS_STRING(value), PyByteArray_GET_SIZE(value))

cdef int encode(Encoder* e, PyObject* value) noexcept:
    """Write one value at e.at; on anything but ENCODED what was written is to be forgotten."""
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef double number
    cdef uint64_t word
    if kind == &PyLong_Type:
        return encode_int(e, value)
    if kind == &PyUnicode_Type:
        return encode_str(e, value)
    if kind == &PyFloat_Type:
        number = PyFloat_AS_DOUBLE(value)
        memcpy(&word, &number, 8)
        return put_word(e, TAG_FLOAT, word)
    if (kind == &PyDict_Type or kind == &PyList_Type or kind == &PyTuple_Type or kind == &PySet_Type
            or kind == &PyFrozenSet_Type or kind == &PyRange_Type or kind == &PySlice_Type):
        return encode_container(e, value, kind)
    if kind == &PyBytes_Type:
        return put_block(e, TAG_BYTES, PyBytes_GET_SIZE(value), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if kind == &PyByteArray_Type:
        return encode_bytearray(e, value)
    if kind == &PyComplex_Type:
        return encode_complex(e, value)
    if e.at == e.limit:
        return FULL
    if value == Py_None:
        e.at[0] = TAG_NONE
    elif value == Py_True:
        e.at[0] = TAG_TRUE
    elif value == Py_False:
        e.at[0] = TAG_FALSE
    else:
        return NOT_PLAIN
    e.at += 1
    return ENCODED


def encode_plain(value):
    """The plain encoding of `value` as bytes, or None when tier 0 cannot hold it exactly."""
    cdef Encoder e
    cdef size_t size = 1024
    cdef unsigned char* buffer = NULL
    cdef unsigned char* grown
    cdef int status = FULL
    try:
        while status == FULL:
            size *= 4
            grown = <unsigned char*>PyMem_RawRealloc(buffer, size)
            if grown == NULL:
                raise MemoryError()
            buffer = grown
            encoder_start(&e, buffer, buffer + size)
            status = encode(&e, <PyObject*>value)
            encoder_stop(&e)
        if status == NO_MEMORY:
            raise MemoryError()
        return buffer[:e.at - buffer] if status == ENCODED else None
    finally:
        PyMem_RawFree(buffer)
