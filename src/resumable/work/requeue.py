"""Dead letters of the runs of a loop or map, and having their items done again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from resumable.errors import ResumableError, RunNameError
from resumable.runs import reports
from resumable.runs.batch import current_batch
from resumable.runs.identity import identify_loop
from resumable.runs.mapped import AGAIN, MAPPED, PAIRS, TAKEN
from resumable.runs.opening import Answer
from resumable.runs.preempt import forget
from resumable.storage.records import FINISHED, SIDE, TIER_MASK
from resumable.work.again import Again, Request
from resumable.work.idempotency import ORIGIN, origin_of
from resumable.work.keyed import KEY_SIZE, KEYS, is_keyed
from resumable.work.loop import ABOUT, loop_job

if TYPE_CHECKING:
    from resumable.runs.engine import Engine, Handle
    from resumable.runs.live import LiveRun
    from resumable.values.dead_letter import DeadLetter

MOST: Final = 100_000   # items that a request can name: they stand at the head of each of the journal's segments


def dead_letters(engine: Engine, handle: Handle, number: int | None) -> list[DeadLetter]:
    """`Driver.dead_letters`."""
    return _letters(engine.view(handle, number))


def retry(engine: Engine, name: str) -> int:
    """`Driver.retry_dead_letters`."""
    while True:
        view = engine.view(name, None)
        if _about(view.meta) is None:
            raise RunNameError(f"run {name!r} is not one of a loop or map: only their dead letters can be retried", name=name)
        letters = _letters(view)
        if not letters:
            return 0
        if view.info().status != FINISHED:
            with _begun(engine, view, {}) as run:
                if run is not None and run.number == view.number:       # else it was finished meanwhile
                    return _add(run, engine)
        else:
            about = _new_run(view, letters)
            with _begun(engine, view, about) as run:
                if run is not None and run.described(AGAIN) == about[AGAIN]:    # else somebody else has begun one meanwhile
                    return len(letters)


def _about(meta: Mapping[str, Any]) -> str | None:
    """Where the run's description has what its items are; None if it is of neither."""
    return next((about for about in (ABOUT, MAPPED) if meta.get(about) is not None), None)


def _new_run(view: reports.View, letters: list[DeadLetter]) -> dict[str, Any]:
    """What the description of a run says that does the items of a finished one's letters again."""
    meta = view.meta
    about = {ORIGIN: origin_of(view.number, meta)}
    if is_keyed(meta):
        # With the salt that the letters' keys were hashed with.
        keys = _checked_keys(meta["name"], (0, _keys(letters)))
        return {**about, AGAIN: tuple(Request(0, (), _base(view), keys, True)), KEYS: meta[KEYS]}
    indices = _checked(meta["name"], _indices(letters))
    if _about(meta) == ABOUT:
        return {**about, AGAIN: tuple(Request(0, indices, _base(view)))}
    # A map's results are those of all its items, so the new run begins with all that the finished one has.
    count = len(reports.Results(view))
    request = tuple(Request(count, indices, _base(view)))
    return {**about, AGAIN: request, PAIRS: meta.get(PAIRS, count), TAKEN: (view.number, count)}


def _checked(name: str, indices: tuple[int, ...]) -> tuple[int, ...]:
    """The indices. Raises ResumableError for more than a description should hold."""
    _check_count(name, len(indices))
    return indices


def _checked_keys(name: str, *keys: tuple[int, bytes]) -> tuple[tuple[int, bytes], ...]:
    """The same for keys."""
    _check_count(name, sum(len(joined) for _, joined in keys) // KEY_SIZE)
    return keys


def _check_count(name: str, count: int) -> None:
    if count > MOST:
        raise ResumableError(
            f"loop {name!r} has {count:,} items among its dead letters, and at most {MOST:,} can be done again by it "
            f"(give the items of driver.dead_letters({name!r}) to a loop of their own)", run=name,
        )


@contextmanager
def _begun(engine: Engine, view: reports.View, about: dict[str, Any]) -> Iterator[LiveRun | None]:
    """The unfinished run of that name, or a new one that takes over from a finished one; None if it is to be looked at anew."""
    meta = view.meta
    what = _about(meta)
    assert what is not None
    body = loop_job.__code__
    identity = identify_loop(loop_job, {}, name=meta["name"], registry=engine.registry, body=body)
    # The next call of the loop itself says which arguments it has.
    identity = replace(identity, job=meta["job"], digest=None, shown=meta["shown"])
    batch = current_batch.set(None)     # which asks for what a finished run gave back
    try:
        run = engine.begin(identity, {}, {what: meta[what], **about})
    finally:
        current_batch.reset(batch)
    if isinstance(run, Answer):     # a kill had come at its end, and it is tidied up only now
        yield None
        return
    run.blamed = False
    try:
        yield run
    except BaseException as error:
        run.end_with(error)
        raise
    else:
        run.leave()
    finally:
        forget(run)


def _base(view: reports.View) -> tuple[int, bytes]:
    """The last state of a finished run, for another one to begin with. Raises ResumableError for one that is too large."""
    entry = view.last_state()
    assert entry is not None        # a dead letter comes with one
    if entry.flags & SIDE:
        name = view.meta["name"]
        raise ResumableError(
            f"loop {name!r} is finished, and what it carried is too large for a new run to begin with (give the items of "
            f"driver.dead_letters({name!r}) to a loop of their own)", run=name,
        )
    return entry.flags & TIER_MASK, bytes(entry.payload)


def _letters(view: reports.View) -> list[DeadLetter]:
    return reports.dead_letters(view, Request(*view.meta.get(AGAIN) or ()).seen)


def _add(run: LiveRun, engine: Engine) -> int:
    """Describe the request in an unfinished run: what is left of an earlier one, and the letters that came since."""
    view = engine.view(run.identity.name, run.number)
    state: Any = view.decode(entry) if (entry := view.last_state()) is not None else None
    request = Request(*run.described(AGAIN) or ())
    letters = _letters(view)
    done, _, parts = state if isinstance(state, tuple) else (state, None, {})
    count = len(reports.Results(view))
    if is_keyed(view.meta):
        keys = _checked_keys(run.identity.name, *request.keys, (done, _keys(letters)))
        run.describe(AGAIN, tuple(request._replace(seen=count, keys=keys)))
        return len(letters)
    left = Again(request, parts.get(AGAIN)).left
    indices = _checked(run.identity.name, tuple(sorted({*left, *_indices(letters)})))
    about: dict[str, object] = {AGAIN: tuple(request._replace(seen=count, indices=indices))}
    if run.described(MAPPED) is not None and run.described(PAIRS) is None:
        about[PAIRS] = count        # from here on they do not come in the order of the items
    run.describe_all(about)
    return len(letters)


def _keys(letters: Iterable[DeadLetter]) -> bytes:
    return b"".join(letter.keys for letter in letters)


def _indices(letters: Iterable[DeadLetter]) -> tuple[int, ...]:
    return tuple(sorted({index for letter in letters for index in range(letter.index, letter.index + letter.count)}))
