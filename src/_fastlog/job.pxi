# What a job yields, and the loop that drives it.

cdef dict running = {}              # thread: how many runs are in progress in it; dropped checkpoints matter only there
cdef list unyielded_places = []
cdef uint32_t times = 0             # how often a thread began its first run: checkpoints of an earlier time are nobody's any more
cdef int unyielded = 0              # how many places stand in the list
cdef object saver = None            # contextvars.ContextVar of the run a coroutine saves to; set by resumable.runs


@cython.final
@cython.freelist(8)
@cython.no_gc
cdef class Checkpoint:
    """What `checkpoint(...)` returns: `.state`, and `.result` (None when there is none). Immutable.

    A job yields it; a coroutine under `arun` awaits it. Outside a run it does nothing, so a job can be tested by iterating over it.
    """
    cdef readonly object state
    cdef readonly object result
    cdef readonly bint has_result
    cdef bint taken                  # a driver has seen it
    cdef uint32_t time               # `times` when it was made

    __class_getitem__ = classmethod(GenericAlias)

    def __await__(self):
        run = saver.get() if saver is not None else None
        self.taken = True
        return iter(()) if run is None else run.save_awaited(self)

    def __repr__(self):
        shown = f", result={self.result!r}" if self.has_result else ""
        return f"checkpoint({self.state!r}{shown})"

    def __reduce__(self):
        raise TypeError("a checkpoint is yielded, not stored: keep its .state")


cdef object NO_RESULT = object()
cdef PyObject* spare = NULL          # a record that its driver was the last to hold, for the next checkpoint


@cython.binding(False)
def checkpoint(state=None, *, result=NO_RESULT):
    """A point to come back to: `yield checkpoint(state)`.

    `state` is what the next run of the job gets as its `state` parameter; it must be a value that can be saved
    (see the README). `result`, if given, is appended to the run's result list in the same step.
    """
    global spare
    cdef Checkpoint made
    if spare != NULL:
        made = <Checkpoint>spare
        Py_DECREF(spare)
        spare = NULL
    else:
        made = Checkpoint.__new__(Checkpoint)
    made.state = state
    made.time = times
    if result is not NO_RESULT:
        made.result = result
        made.has_result = True
    return made


cdef inline void give_back(PyObject* value) noexcept:
    """Drop a checkpoint that was saved; if nobody else holds it, the next one is made of it."""
    global spare
    cdef Checkpoint made
    if spare == NULL and Py_REFCNT(value) == 1 and not (<Checkpoint>value).has_result:
        made = <Checkpoint>value
        made.state = None
        made.taken = False
        spare = value
    else:
        Py_DECREF(value)


cdef destructor forget_checkpoint = (<PyTypeObject*>Checkpoint).tp_dealloc

cdef void watch_checkpoint(PyObject* made) noexcept:
    # A checkpoint that dies unseen while a job runs was most likely meant to be yielded.
    # Not one that a traceback held until a later run: it may die in the collector, where no frame may be asked for.
    if not (<Checkpoint>made).taken and running and (<Checkpoint>made).time == times:
        note_unyielded()
    forget_checkpoint(made)

(<PyTypeObject*>Checkpoint).tp_dealloc = <destructor>watch_checkpoint

cdef void note_unyielded() noexcept:
    global unyielded
    cdef PyObject* kind
    cdef PyObject* value
    cdef PyObject* trace
    # The object may die while an exception is on its way: that one is kept.
    PyErr_Fetch(&kind, &value, &trace)
    me = get_ident()
    if me in running:
        frame = _getframe()
        unyielded_places.append((me, frame.f_code.co_filename, frame.f_lineno, frame.f_globals))
        unyielded = len(unyielded_places)
    PyErr_Restore(kind, value, trace)


def take_unyielded():
    """Places in this thread where a checkpoint was made and dropped since the last call: [(file, line, globals)]."""
    global unyielded
    if not unyielded:
        return []
    me = get_ident()
    mine = [place[1:] for place in unyielded_places if place[0] == me]
    unyielded_places[:] = [place for place in unyielded_places if place[0] != me]
    unyielded = len(unyielded_places)
    return mine


def run_started():
    """Count a run in progress in this thread; each call is undone by `run_ended` in the same thread."""
    global times
    me = get_ident()
    if me not in running:
        times += 1
    running[me] = running.get(me, 0) + 1


def run_ended():
    """See `run_started`. What the last run of a thread left untold is forgotten."""
    me = get_ident()
    running[me] -= 1
    if not running[me]:
        del running[me]
        take_unyielded()


def in_run() -> bool:
    """Whether a job runs in this thread."""
    return get_ident() in running


def set_saver(variable):
    """Name the context variable that holds the run which an awaited checkpoint saves to."""
    global saver
    saver = variable


cdef enum:
    TAKEN = 0
    SLOW = 1                         # the run's `save` must do it
    RICH = 2                         # not plain: the pickler must

cdef inline int take(Journal journal, Checkpoint made) noexcept:
    """Save a checkpoint the fast way, or skip one that is not due."""
    made.taken = True
    journal.due = True
    if journal.save_every > 1 and not made.has_result:
        journal.skipped += 1
        if journal.skipped < journal.save_every:
            journal.due = False
        else:
            journal.skipped = 0
    if journal.attention or made.has_result or unyielded or rs_forks != journal.forks:
        return SLOW
    if not journal.due:
        return TAKEN
    cdef int status = journal.save_state(<PyObject*>made.state)
    return TAKEN if status == ENCODED else RICH if status == NOT_PLAIN else SLOW


@cython.final
cdef class Reducer:
    """What a pickler asks about every object that is no exact builtin, with its `override` as `reducer_override`.

    Objects of the types in `ordinary` are left to pickle; `reduce` is asked about others. Most are ordinary, and asking is most
    of what a pickled state costs more than `pickle.dumps`.
    """
    cdef set ordinary
    cdef object reduce

    def __cinit__(self, set ordinary, reduce):
        self.ordinary, self.reduce = ordinary, reduce

    def override(self, obj):
        return NotImplemented if type(obj) in self.ordinary else self.reduce(obj)


cdef bint take_rich(Journal journal, Checkpoint made, run) except -1:
    """Save what the pickler can hold in a small record; else `save` has to do it, with what was pickled if there is something."""
    cdef object kit = journal.kit
    if kit is None:
        return False
    journal.kit = None               # pickling runs the user's code, which may checkpoint too; after a failure it is not used again
    dump, clear_memo, chunks, buffers = <tuple>kit
    try:
        dump(made.state)
    except Exception:
        return False                 # `save` tries the next tier, or says what is wrong
    data = (<list>chunks).pop()
    if chunks or buffers or len(<bytes>data) > LARGEST_PICKLE:
        run.save(made, (1, b"".join([*chunks, data]), tuple(buffers)))
        return True
    clear_memo()
    journal.kit = kit
    if not journal.put(
        KIND_CHECKPOINT, 1, <const unsigned char*>PyBytes_AS_STRING(<PyObject*>data), PyBytes_GET_SIZE(<PyObject*>data),
    ):
        run.save(made, (1, data, ()))
    return True


cdef bint take_to_disk(Journal journal, Checkpoint made, run) except -1:
    """Save a plain state and wait until the disk has it, without the GIL; else `save` has to do it."""
    cdef size_t start = journal.tail
    cdef const unsigned char* data
    cdef size_t length
    cdef int status
    cdef GroupSync group = journal.group
    if not journal.due:
        return True
    if rs_forks != journal.forks or journal.save_state(<PyObject*>made.state) != ENCODED:
        return False
    payload = journal.base[start + RECORD_HEADER : start + journal.length]
    body = encode_plain((journal.run[0], journal.run[1], journal.seq, KIND_CHECKPOINT, 0, payload))
    data, length = <const unsigned char*><bytes>body, len(<bytes>body)
    journal.reached[journal.run] = journal.seq      # first: a file is removed when the log has all that it reached
    with nogil:
        status = group.put_nogil(data, length)
    if status:
        run.put_on_disk(payload)     # that file is full, or failed
    return True


cdef enum:
    LARGEST_PICKLE = 65536           # up to here a pickler is used again: its memo stays as large as it once was


def drive(job, Journal journal, run):
    """Run the generator `job` to its end, saving each checkpoint; gives back its return value.

    `run.save(checkpoint)` takes what the fast way cannot: dill, a full segment, results, large states, stops; `run.save(checkpoint,
    (tier, data, buffers))` what is pickled already. `run.refuse(value)` raises for what is no checkpoint. Whatever the job
    raises passes through.
    """
    cdef PyObject* value
    while PyIter_Send(job, None, &value) == PYGEN_NEXT:
        if Py_TYPE(value) == <PyTypeObject*>Checkpoint and take(journal, <Checkpoint>value) == TAKEN:
            give_back(value)
        else:
            finish_step(journal, run, value)
    answer = <object>value
    Py_DECREF(value)
    return answer


cdef int finish_step(Journal journal, run, PyObject* value) except -1:
    """The rest of a step that `take` alone could not do."""
    yielded = <object>value
    Py_DECREF(value)
    if type(yielded) is not Checkpoint:
        run.refuse(yielded)
    elif unyielded or (<Checkpoint>yielded).has_result or not take_else(journal, <Checkpoint>yielded, run):
        run.save(yielded)
    return 0


cdef bint take_else(Journal journal, Checkpoint made, run) except -1:
    if journal.attention == AT_ONCE:
        return take_rich(journal, made, run)
    return journal.attention == WAIT_FOR_DISK and take_to_disk(journal, made, run)


def step(job, Journal journal, run):
    """One step of `drive`: (True, None) after a checkpoint, (False, return value) at the end."""
    cdef PyObject* value
    if PyIter_Send(job, None, &value) == PYGEN_NEXT:
        if Py_TYPE(value) == <PyTypeObject*>Checkpoint and take(journal, <Checkpoint>value) == TAKEN:
            give_back(value)
        else:
            finish_step(journal, run, value)
        return True, None
    answer = <object>value
    Py_DECREF(value)
    return False, answer


def take_checkpoint(Journal journal, Checkpoint made) -> bool:
    """`take` for jobs that Python drives: True when the checkpoint is saved or was not due."""
    return take(journal, made) == TAKEN
