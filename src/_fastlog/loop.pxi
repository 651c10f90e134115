# A loop over items: asked for the next one, it saves that the one before is done.

cdef enum:
    NO_SAMPLE = 0xFFFFFFFFFFFFFFF


cdef object nothing = object()
NOTHING = nothing                   # no result of the item at hand


@cython.final
cdef class Marks:
    """How far a loop is, and what is saved with the mark of the items at hand."""
    cdef Journal journal
    cdef readonly uint64_t done         # items
    cdef readonly uint64_t at_hand      # items that were given out and not come back for
    cdef readonly bint marking
    cdef public bint plainly            # nothing but the number of items is saved with the next mark, and the result if there is one
    cdef public bint slowly             # marks are for `loop.save` alone
    cdef public bint due                # the next one is, too: somebody looks on
    cdef public object values           # what the loop carries from item to item, a dict, or None
    cdef readonly dict parts            # what else does, by its key
    cdef public object result           # of the item at hand, or `NOTHING`
    cdef public bint holds_item         # whether `item` is kept
    cdef public object item             # the one at hand; of a batch a list of its own
    cdef public object given            # called with this when an item that is held is given out, or None
    cdef public bint again              # the item at hand is to be given out once more, not called done
    cdef public bint redoing            # items that were done before are done once more, and not counted
    cdef readonly list outputs          # files among the parts
    cdef readonly list guests           # files that were opened while the item is at hand, and must be closed before it is done

    def __cinit__(self):
        self.plainly, self.parts, self.result, self.outputs, self.guests = True, {}, nothing, [], []

    def go_on(self, Journal journal, uint64_t done, bint marking):
        """From `done` items on; without `marking` nothing is ever called done."""
        self.journal, self.done, self.marking = journal, done, marking

    cpdef state(self, uint64_t done):
        """What is saved when so many items are done."""
        if self.values is None and not self.parts:
            return done
        parts = self.parts
        if self.outputs:
            parts = {key: part._state() if isinstance(part, Output) else part for key, part in parts.items()}
        return done, self.values, parts

    cpdef saved(self):
        """The mark of the items at hand is saved."""
        self.result = nothing
        self.plainly = self.values is None and not self.parts

    cdef inline int finish_fast(self) except -1:
        """The items at hand are done, and saved as that if this is a moment like most; else nothing has happened."""
        cdef Journal journal = self.journal
        if PyList_GET_SIZE(<PyObject*>self.guests):
            self.refuse_guest()
        if not self.marking or self.slowly or self.due or journal.attention or rs_forks != journal.forks:
            return False
        if journal.save_every == 1 or self.is_due(journal):
            if self.plainly and self.result is nothing:
                if journal.save_number(self.done + self.at_hand) != ENCODED:
                    return False
                journal.skipped = 0
            elif not self.save_all(journal):
                return False
        self.done += self.at_hand
        self.at_hand = 0
        return True

    cdef bint is_due(self, Journal journal) noexcept:
        """Whether `save_every` asks for this mark; whoever cannot save it asks again."""
        if self.result is nothing and journal.skipped + 1 < journal.save_every:
            journal.skipped += 1
            return False
        return True

    def catch_up(self):
        """The loop is left: marks that `save_every` let pass are saved, if they are numbers alone."""
        cdef Journal journal = self.journal
        if journal is None or rs_forks != journal.forks or not self.plainly or not journal.skipped:
            return
        if journal.save_number(self.done) == ENCODED:
            journal.skipped = 0

    cpdef uint64_t done_next(self):
        """How many items are done with those at hand."""
        return self.done if self.redoing else self.done + self.at_hand

    def count(self):
        """Those at hand are done."""
        self.done, self.at_hand = self.done_next(), 0

    cdef int hold(self, item) except -1:
        self.item = item
        if self.given is not None:
            self.given(self)
        return 0

    def left(self):
        """No item is at hand any more."""
        self.at_hand, self.item, self.result = 0, None, nothing
        for guest in list(self.guests):
            guest._give_up()

    cdef bint save_all(self, Journal journal) except -1:
        """Save the mark of the items at hand with all that belongs to it, if that is plain and there is room."""
        if self.outputs:
            return self.result is nothing and self.save_outputs(journal)
        state = self.state(self.done + self.at_hand)
        cdef int status
        if self.result is nothing:
            status = journal.save_state(<PyObject*>state)
        else:
            status = journal.save_both(<PyObject*>state, <PyObject*>self.result)
        if status != ENCODED:
            return False
        journal.skipped = 0
        self.saved()
        return True

    cdef int refuse_guest(self) except -1:
        self.guests[0]._outstay()       # raises
        return -1

    cdef bint save_outputs(self, Journal journal) except -1:
        """`save_all` with files among the parts: what they lack of their bytes goes into the record."""
        cdef PyObject** outputs = rs_list_items(<PyObject*>self.outputs)
        cdef Py_ssize_t i, count = PyList_GET_SIZE(<PyObject*>self.outputs)
        cdef Encoder e
        cdef unsigned char* at
        for i in range(count):
            if (<Output>outputs[i]).must_spill():
                (<Output>outputs[i]).spill()
        if journal.base == NULL or journal.segment.base == NULL:
            return False
        encoder_start(&e, journal.base + journal.capacity - 16)
        at = journal.base + journal.tail + RECORD_HEADER
        if at > e.limit or e.limit - at < 32:
            return False
        at = self.encode_state(&e, at)
        encoder_stop(&e)
        if at == NULL:
            return False
        journal.publish(at - journal.base - journal.tail, (journal.seq + 1) << 16 | KIND_CHECKPOINT << 8, STATE_HINT)
        journal.seq += 1
        journal.skipped = 0
        for i in range(count):
            (<Output>outputs[i]).is_marked()
        return True

    cdef unsigned char* encode_state(self, Encoder* e, unsigned char* at) noexcept:
        """`state`, of the items that are done and those at hand; there are 32 bytes of room."""
        cdef Py_ssize_t position = 0
        cdef PyObject* key
        cdef PyObject* part
        at[0], at[1] = TAG_TUPLE, 3
        rs_store(at + 2, self.done_next() << 8 | TAG_INT56)
        at = encode(e, at + 10, <PyObject*>self.values)
        if at == NULL:
            return NULL
        if e.limit - at < 10:
            return refuse(e, FULL)
        at[0] = TAG_DICT
        at = put_size(at + 1, PyDict_GET_SIZE(<PyObject*>self.parts))
        while PyDict_Next(<PyObject*>self.parts, &position, &key, &part):
            at = encode(e, at, key)
            if at == NULL:
                return NULL
            at = (<Output>part).encode_state(e, at) if isinstance(<object>part, Output) else encode(e, at, part)
            if at == NULL:
                return NULL
        return at


@cython.final
cdef class LoopIterator:
    """Goes through a loop's items, in lists of `size` if that is above 0.

    `loop.start(iterator)` gives the source when the first item is asked for; `loop.sample(index, item)` sees some items and says
    which index is next; `loop.save(done)` takes marks that the fast way cannot; `loop.redo(size)` gives items that are done once
    more, None when there are none left; `loop.finish()` hears that the items are at an end, and `loop.stop(error)` that the loop
    was left: with the exception that left it, or None. `loop` must not hold this: a `for` alone does, and by dropping it says
    that it was left.
    """
    cdef object loop
    cdef Marks marks
    cdef object source
    cdef size_t size
    cdef uint64_t next_sample
    cdef bint over

    def __cinit__(self, loop, Marks marks, size_t size=0):
        self.loop, self.marks, self.size = loop, marks, size
        self.next_sample = NO_SAMPLE

    def sample_from(self, uint64_t index):
        """Show the loop the item at this index, and then those that it asks for."""
        self.next_sample = index

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject* value
        if self.source is None or self.size or (self.marks.at_hand and not self.marks.finish_fast()):
            return self.advance()
        value = PyIter_Next(<PyObject*>self.source)
        if value == NULL or self.marks.done >= self.next_sample:
            return self.hand_out(value)
        item = <object>value
        Py_DECREF(value)
        if self.marks.holds_item:
            self.marks.hold(item)
        self.marks.at_hand = 1
        return item

    cdef advance(self):
        """The next item, by the long way."""
        if self.over:
            raise StopIteration
        if self.source is None:
            self.source = self.loop.start(self)
        try:
            if self.marks.again:
                return self.give_again(self.size == 0)
            if self.marks.at_hand:
                self.finish()
            if self.marks.redoing:
                items = self.loop.redo(max(self.size, 1))
                if items is not None:
                    return self.give(items, self.size == 0)
        except BaseException as error:
            self.give_up(error)
            raise
        return self.hand_out(PyIter_Next(<PyObject*>self.source))

    cdef int finish(self) except -1:
        """The items at hand are done."""
        if self.marks.finish_fast():
            return 0
        if self.marks.marking:
            self.loop.save(self.marks.done_next())
        self.marks.count()
        return 0

    cdef hand_out(self, PyObject* value):
        """What the source gave, and more of it for a list; NULL at its end, or with an exception set."""
        cdef list batch
        if value == NULL:
            self.end()
        item = <object>value
        Py_DECREF(value)
        self.see(item, 0)
        batch = [item]
        while <size_t>len(batch) < self.size:
            value = PyIter_Next(<PyObject*>self.source)
            if value == NULL:
                if PyErr_Occurred() != NULL:
                    self.end()
                break
            item = <object>value
            Py_DECREF(value)
            self.see(item, len(batch))
            batch.append(item)
        return self.give(batch, self.size == 0)

    cdef give(self, list items, bint alone):
        """Give out these items: the list, or the one in it."""
        cdef size_t count = len(items)
        if self.marks.holds_item:
            self.marks.hold(items[0] if alone else list(items))
        self.marks.at_hand = count
        return items[0] if alone else items

    def give_again(self, bint alone):
        """The item at hand once more; a batch as it was, whatever the loop has done to its list."""
        self.marks.again = False
        self.marks.hold(self.marks.item)
        return self.marks.item if alone else list(self.marks.item)

    # ---- for `async for`, where whoever holds this asks the source

    def waits_for(self, source):
        """The loop has begun, and its items come from there."""
        self.source = source

    def finished(self) -> bool:
        """Whether the items at hand are saved as done, or none is; else `loop.save` has to do it, and they are counted."""
        return not self.marks.at_hand or not self.marks.marking or self.marks.finish_fast()

    def hand(self, list items, bint alone):
        """Give out these items: the list, or the one in it."""
        cdef size_t ahead
        for ahead in range(len(items)):
            self.see(items[ahead], ahead)
        return self.give(items, alone)

    def close(self, error=None):
        """The items are at an end, or the source has failed."""
        if error is not None:
            self.give_up(error)
        else:
            self.over, self.source = True, None
            self.loop.finish()

    cdef int see(self, item, size_t ahead) except -1:
        if self.marks.done + ahead < self.next_sample:
            return 0
        try:
            self.next_sample = self.loop.sample(self.marks.done + ahead, item)
        except BaseException as error:
            self.give_up(error)
            raise
        return 0

    cdef int end(self) except -1:
        """The source has ended, or failed."""
        cdef PyObject* kind
        cdef PyObject* error
        cdef PyObject* trace
        if PyErr_Occurred() == NULL:
            self.over, self.source = True, None
            self.loop.finish()
            raise StopIteration
        PyErr_Fetch(&kind, &error, &trace)
        self.give_up(raised(&kind, &error, &trace))
        PyErr_Restore(kind, error, trace)
        return -1

    cdef int give_up(self, error) except -1:
        self.over, self.source = True, None
        self.loop.stop(error)
        return 0


cdef object raised(PyObject** kind, PyObject** error, PyObject** trace):
    """The exception that was fetched, or None."""
    if kind[0] == NULL:
        return None
    PyErr_NormalizeException(kind, error, trace)
    found = <object>error[0]
    if trace[0] != NULL:
        PyException_SetTraceback(error[0], trace[0])
    return found


cdef destructor forget_loop = (<PyTypeObject*>LoopIterator).tp_dealloc

cdef void leave_loop(PyObject* left) noexcept:
    # `break`, `return` and an exception in the body drop the iterator. Python code runs here: a collection must not meet what is
    # half gone, and the exception on its way is kept.
    cdef PyObject* kind
    cdef PyObject* error
    cdef PyObject* trace
    PyObject_GC_UnTrack(left)
    Py_SET_REFCNT(left, 1)
    PyErr_Fetch(&kind, &error, &trace)
    tell_left(<LoopIterator>left, &kind, &error, &trace)
    PyErr_Restore(kind, error, trace)
    Py_SET_REFCNT(left, 0)
    forget_loop(left)

cdef void tell_left(LoopIterator left, PyObject** kind, PyObject** error, PyObject** trace) noexcept:
    if left.source is not None and not left.over:
        left.over = True
        left.loop.stop(raised(kind, error, trace))      # raises nothing; what it does all the same is shown, as for __del__

(<PyTypeObject*>LoopIterator).tp_dealloc = <destructor>leave_loop
