# The plain codec, reading side. Bytes may be hostile: every size is checked against the bytes left before anything is made.

cdef struct Decoder:
    const unsigned char* at
    const unsigned char* end
    int depth

cdef int need(Decoder* d, size_t size) except -1:
    if <size_t>(d.end - d.at) < size:
        raise ValueError(f"plain encoding ends early: {size} bytes wanted, {d.end - d.at} left")
    return 0

cdef size_t take_size(Decoder* d) except? <size_t>-1:
    cdef size_t size
    need(d, 1)
    size = d.at[0]
    d.at += 1
    if size == 255:
        need(d, 8)
        size = rs_load(d.at)
        d.at += 8
    return size

cdef int check_code_points(const unsigned char* at, size_t length) except -1:
    cdef size_t i
    cdef uint32_t point
    for i in range(length):
        memcpy(&point, at + 4 * i, 4)
        if point > 0x10FFFF:
            raise ValueError(f"plain encoding has a code point beyond Unicode: 0x{point:x}")
    return 0

cdef object take_str(Decoder* d, int kind):
    cdef size_t length = take_size(d)
    if length > <size_t>(d.end - d.at) // kind:
        raise ValueError(f"plain encoding ends early inside a string of {length} code points")
    if kind == 4:
        check_code_points(d.at, length)
    text = PyUnicode_FromKindAndData(kind, d.at, length)
    d.at += length * kind
    return text

cdef object take_bytes(Decoder* d):
    cdef size_t size = take_size(d)
    need(d, size)
    data = d.at[:size]
    d.at += size
    return data

cdef double take_double(Decoder* d) except? -1.0:
    cdef double number
    need(d, 8)
    memcpy(&number, d.at, 8)
    d.at += 8
    return number

cdef list take_list(Decoder* d):
    cdef size_t i, count = take_size(d)
    need(d, count)
    items = []
    for i in range(count):
        items.append(decode(d))
    return items

cdef dict take_dict(Decoder* d):
    cdef size_t i, count = take_size(d)
    if count > <size_t>(d.end - d.at) // 2:
        raise ValueError(f"plain encoding ends early inside a dict of {count} pairs")
    pairs = {}
    for i in range(count):
        key = decode(d)
        pairs[key] = decode(d)
    return pairs

cdef object decode_container(Decoder* d, int tag):
    if d.depth == MAX_DEPTH:
        raise ValueError(f"plain encoding is more than {MAX_DEPTH} levels deep")
    d.depth += 1
    if tag == TAG_LIST:
        value = take_list(d)
    elif tag == TAG_TUPLE:
        value = tuple(take_list(d))
    elif tag == TAG_DICT:
        value = take_dict(d)
    elif tag == TAG_SET:
        value = set(take_list(d))
    elif tag == TAG_FROZENSET:
        value = frozenset(take_list(d))
    else:
        start = decode(d)
        stop = decode(d)
        value = (range if tag == TAG_RANGE else slice)(start, stop, decode(d))
    d.depth -= 1
    return value

cdef object decode(Decoder* d):
    cdef int tag
    cdef int64_t number
    need(d, 1)
    tag = d.at[0]
    if tag == TAG_INT56:
        need(d, 8)
        number = <int64_t>rs_load(d.at) >> 8
        d.at += 8
        return number
    d.at += 1
    if tag == TAG_STR1:
        return take_str(d, 1)
    if tag == TAG_FLOAT:
        return take_double(d)
    if TAG_TUPLE <= tag <= TAG_SLICE:
        return decode_container(d, tag)
    if tag == TAG_NONE:
        return None
    if tag == TAG_FALSE:
        return False
    if tag == TAG_TRUE:
        return True
    if tag == TAG_BYTES:
        return take_bytes(d)
    if tag == TAG_BYTEARRAY:
        return bytearray(take_bytes(d))
    if tag == TAG_STR2:
        return take_str(d, 2)
    if tag == TAG_STR4:
        return take_str(d, 4)
    if tag == TAG_INT:
        data = take_bytes(d)
        return rs_int_from_bytes(data, len(data))
    if tag == TAG_COMPLEX:
        real = take_double(d)
        return complex(real, take_double(d))
    raise ValueError(f"plain encoding has an unknown tag 0x{tag:02x}")


def decode_plain(data):
    """The value that `encode_plain` wrote. Raises ValueError for any other bytes, TypeError for unhashable keys in them."""
    cdef const unsigned char[::1] view = data if isinstance(data, bytes) else memoryview(data).cast("B")
    cdef Decoder d
    if view.shape[0] == 0:
        raise ValueError("plain encoding is empty")
    d.at = &view[0]
    d.end = d.at + view.shape[0]
    d.depth = 0
    value = decode(&d)
    if d.at != d.end:
        raise ValueError(f"plain encoding has {d.end - d.at} bytes left over")
    return value
