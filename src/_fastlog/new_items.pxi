# Items that are known by their keys: from a key to its hash, and the source that gives out those that are new.

from cpython.exc cimport PyErr_CheckSignals

cdef enum:
    KEY_BYTES = 256           # up to here the encoding of a key stays on the stack
    OF_ANOTHER_KIND = 0xFF    # no tag of the plain codec: what follows is a digest


cdef inline bint is_scalar(PyObject* value) noexcept:
    cdef PyTypeObject* kind = Py_TYPE(value)
    return (kind == &PyUnicode_Type or kind == &PyLong_Type or kind == &PyBytes_Type or kind == &PyFloat_Type
            or value == Py_None or value == Py_True or value == Py_False)


cdef bint is_plain_key(PyObject* key) noexcept:
    """Whether equal keys have one encoding. A set or a dict has several, and so has what refers to something twice."""
    cdef Py_ssize_t i
    if Py_TYPE(key) != &PyTuple_Type:
        return is_scalar(key)
    for i in range(PyTuple_GET_SIZE(key)):
        if not is_scalar(rs_tuple_items(key)[i]):
            return False
    return True


cdef int hash_key(const uint64_t* salt, PyObject* key, uint64_t* out) except -1:
    """The hash of a key; 0 for one that the plain codec is not for."""
    cdef Encoder e
    cdef unsigned char buffer[KEY_BYTES]
    cdef unsigned char* end
    if not is_plain_key(key):
        return 0
    encoder_start(&e, buffer + KEY_BYTES)
    end = encode(&e, buffer, key)
    encoder_stop(&e)
    if end != NULL:
        rs_siphash(salt, buffer, end - buffer, out)
        return 1
    data = encode_plain(<object>key)
    if data is None:
        return 0
    rs_siphash(salt, <const unsigned char*><bytes>data, len(<bytes>data), out)
    return 1


def siphash(bytes salt, bytes data) -> bytes:
    """SipHash-2-4 of 16 bytes, with a key of 16."""
    cdef uint64_t key[2]
    cdef uint64_t out[2]
    if len(salt) != 16:
        raise ValueError("a salt has 16 bytes")
    memcpy(key, <const char*>salt, 16)
    rs_siphash(key, <const unsigned char*>data, len(data), out)
    return (<unsigned char*>out)[:16]


@cython.final
cdef class NewItems:
    """The items of `source` that no earlier life has done, as `key` of them tells.

    `judge.digest(key, place)` gives 16 bytes for a key that is not plain; `judge.met_twice(key, place, earlier)` raises for a key
    that this life has met before, at entry `earlier`. Places count the items of the source in this life, from 0 on.
    """
    cdef object source
    cdef object key
    cdef object judge
    cdef Keys keys
    cdef Marks marks
    cdef uint64_t place               # of the item that comes next
    cdef readonly uint64_t at_hand    # place of the first item at hand
    cdef uint64_t hashed[2]           # and the hash of its key
    cdef set wanted                   # keys, as `Keys.key_at` gives them, of items that are done once more; mostly None
    cdef object alone                 # if not None, keys besides which none is given out

    def __cinit__(self, source, key, Keys keys, Marks marks, judge):
        self.source, self.key, self.keys, self.marks, self.judge = source, key, keys, marks, judge

    def want(self, set keys, alone=None):
        """Give out the items of these keys, too, though they are done; `alone`: and of items without one of those keys, none.

        Keys are as `Keys.key_at` gives them. Called also when none is left of those that an earlier life was told of.
        """
        self.wanted, self.alone = keys, alone

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject* value
        while True:
            value = PyIter_Next(<PyObject*>self.source)
            if value == NULL:
                self.pass_on()
                raise StopIteration
            item = <object>value
            Py_DECREF(value)
            if self.is_new(item):
                return item
            if not self.place & 1023:
                PyErr_CheckSignals()      # neither source nor key need be Python code

    cdef int pass_on(self) except -1:
        return -1 if PyErr_Occurred() != NULL else 0

    cpdef bint is_new(self, item) except -1:
        """Whether the item that comes next is to be done; it is at hand then."""
        cdef uint64_t place = self.place
        cdef uint64_t hashed[2]
        cdef uint64_t count
        cdef int met
        self.place = place + 1
        key = self.key(item)
        if not hash_key(self.keys.salt, <PyObject*>key, hashed):
            self.hash_rare(key, place, hashed)
        count = self.keys.count
        met = self.keys.meet(hashed[0], hashed[1]) if self.wanted is None else self.meet_wanted(hashed)
        if met == AGAIN:
            self.judge.met_twice(key, place, self.keys.last)
        if met == NEW and count == self.marks.done:
            self.at_hand, self.hashed[0], self.hashed[1] = place, hashed[0], hashed[1]
        return met == NEW

    cdef int meet_wanted(self, uint64_t* hashed) except -1:
        """What is known of the item that comes with this hash of its key; one that is wanted is NEW."""
        cdef bytes key = (<unsigned char*>hashed)[:KEY_KEPT]
        cdef int met
        if self.alone is not None and key not in self.alone:
            return DONE
        self.keys.expected = self.keys.loaded       # of several entries of a key the table always finds the same one
        met = self.keys.meet(hashed[0], hashed[1])
        if met == DONE and key in self.wanted:
            self.keys.add(hashed[0], hashed[1])
            met = NEW
        if met == NEW:
            self.wanted.discard(key)
        return met

    def keys_at_hand(self) -> bytes:
        """What `Keys.key_at` gives for each of the items at hand, one behind the other."""
        cdef uint64_t done = self.marks.done
        return b"".join([self.keys.key_at(place) for place in range(done, done + self.marks.at_hand)])

    def hash_at_hand(self) -> bytes:
        """Of the key of the first item at hand: the same in each life."""
        return (<unsigned char*>self.hashed)[:16]

    cdef int hash_rare(self, key, uint64_t place, uint64_t* out) except -1:
        cdef unsigned char data[17]
        cdef bytes digest = self.judge.digest(key, place)
        data[0] = OF_ANOTHER_KIND
        memcpy(data + 1, <const char*>digest, 16)
        rs_siphash(self.keys.salt, data, 17, out)
        return 0
