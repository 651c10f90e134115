# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, embedsignature=True
"""The compiled ground: plain codec, journal, bitset and the loop that drives a job.

One module, in parts by subject under `_fastlog/`. Formats: docs/internals.md. A readable twin of them in Python stands in
tests/twin.py and is the oracle of the property tests.
"""

cimport cython

from _thread import get_ident
from os import close as os_close
from os import pread as os_pread
from sys import _getframe
from types import GenericAlias

from resumable.errors import ForkedError

include "_fastlog/native.pxi"
include "_fastlog/encode.pxi"
include "_fastlog/decode.pxi"
include "_fastlog/segment.pxi"
include "_fastlog/results.pxi"
include "_fastlog/sync.pxi"
include "_fastlog/journal.pxi"
include "_fastlog/bitset.pxi"
include "_fastlog/job.pxi"
include "_fastlog/output.pxi"
include "_fastlog/loop.pxi"
include "_fastlog/key_entries.pxi"
include "_fastlog/keys.pxi"
include "_fastlog/new_items.pxi"
