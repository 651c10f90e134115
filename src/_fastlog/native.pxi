# What comes from C: native.h beside this file, CPython and the operating system.

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.exc cimport PyErr_Fetch, PyErr_NormalizeException, PyErr_Occurred, PyErr_Restore
from cpython.object cimport PyObject, PyTypeObject, destructor
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "native.h" nogil:
    void rs_fetch(const unsigned char* at, size_t size)
    uint32_t (*rs_crc)(uint32_t crc, const unsigned char* data, size_t size)
    uint64_t (*rs_commit)(uint32_t seed, const unsigned char* record, size_t offset, size_t length)
    uint32_t rs_forks
    int rs_setup()
    uint64_t rs_load(const void* at)
    void rs_store(void* at, uint64_t word)
    uint64_t rs_load_acquire(const void* at)
    void rs_store_release(void* at, uint64_t word)
    void rs_or_release(void* at, uint64_t bits)
    void rs_copy(unsigned char* to, const void* source, size_t size)
    int rs_size_and_links(int fd, uint64_t* size, uint64_t* links)

cdef extern from "native.h":
    bint rs_int56(PyObject* number, int64_t* value)
    size_t rs_int_size(PyObject* number)
    int rs_int_bytes(PyObject* number, unsigned char* out, size_t size)       # -1 with an exception set
    object rs_int_from_bytes(const unsigned char* data, size_t size)
    int rs_str_ready(PyObject* text)                                           # -1 with an exception set
    PyObject* rs_set_next(PyObject* set, Py_ssize_t* position)                 # borrowed
    PyObject** rs_list_items(PyObject* list)
    PyObject** rs_tuple_items(PyObject* tuple)
    PyObject* rs_slice_part(PyObject* slice, int part)                         # borrowed

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject** result) except PYGEN_ERROR  # new reference

    PyObject* PyIter_Next(PyObject* iterator)         # new reference; NULL at the end, and with an exception set
    int PyException_SetTraceback(PyObject* error, PyObject* trace)
    void PyObject_GC_UnTrack(void* o)
    void Py_SET_REFCNT(PyObject* o, Py_ssize_t count)

    # Written with PyObject* where Cython's own declarations would count references on the hot path.
    Py_ssize_t Py_REFCNT(PyObject* o)
    PyTypeObject* Py_TYPE(PyObject* o)
    void Py_INCREF(PyObject* o)
    void Py_DECREF(PyObject* o)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* o)
    Py_ssize_t PyList_GET_SIZE(PyObject* o)
    Py_ssize_t PyDict_GET_SIZE(PyObject* o)
    int PyDict_Next(PyObject* o, Py_ssize_t* position, PyObject** key, PyObject** value)
    Py_ssize_t PySet_GET_SIZE(PyObject* o)
    double PyFloat_AS_DOUBLE(PyObject* o)
    double PyComplex_RealAsDouble(PyObject* o)
    double PyComplex_ImagAsDouble(PyObject* o)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* o)
    int PyUnicode_KIND(PyObject* o)
    void* PyUnicode_DATA(PyObject* o)
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* o)
    Py_ssize_t PyBytes_GET_SIZE(PyObject* o)
    char* PyBytes_AS_STRING(PyObject* o)
    Py_ssize_t PyByteArray_GET_SIZE(PyObject* o)
    char* PyByteArray_AS_STRING(PyObject* o)

    int PyContextVar_Get(object variable, PyObject* default, PyObject** value) except -1      # new reference
    unsigned long PyThread_get_thread_ident() nogil

    object PyUnicode_FromKindAndData(int kind, const void* data, Py_ssize_t size)
    PyTypeObject PyLong_Type, PyFloat_Type, PyComplex_Type, PyUnicode_Type, PyBytes_Type, PyByteArray_Type
    PyTypeObject PyTuple_Type, PyList_Type, PyDict_Type, PySet_Type, PyFrozenSet_Type, PyRange_Type, PySlice_Type
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t length)
    int madvise(void* address, size_t length, int advice)
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MADV_DONTFORK
    void* MAP_FAILED

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int fd, const void* data, size_t size, long offset)
    int close_file "close"(int fd)

if rs_setup() != 0:
    raise ImportError("resumable: pthread_atfork refused the fork handler")


def fork_count() -> int:
    """How often this process's ancestry has forked since the module was loaded: it differs in every forked child."""
    return rs_forks


def crc32c(data, uint32_t value=0) -> int:
    """CRC-32C of a buffer, going on from an earlier `value`; the GIL is released for large ones."""
    cdef const unsigned char[::1] view = data if isinstance(data, bytes) else memoryview(data).cast("B")
    cdef size_t size = view.shape[0]
    cdef uint32_t crc = ~value
    if size == 0:
        return value
    cdef const unsigned char* at = &view[0]
    if size < 65536:
        return ~rs_crc(crc, at, size) & 0xFFFFFFFFu
    with nogil:
        crc = rs_crc(crc, at, size)
    return ~crc & 0xFFFFFFFFu
