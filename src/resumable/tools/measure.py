"""What saving costs: of one state (`resumable.measure`), and of a user's own job (`python -m resumable measure`).

A state is saved many times through the whole way of a run, in memory, or, where a side file takes it, in a throw-away
directory. What a generator that yields it costs without a driver is taken off.

A job runs once, as jobs have effects, in a throw-away directory. A generator around it reads the clock when the job
yields and when it is asked to go on: between the two lies the checkpoint. What reading the clock and that generator
cost is measured without a driver and taken off. The log's writer runs beside the job; what it takes from it counts as
the job's time.
"""

from __future__ import annotations

import functools
import pickle
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

from resumable._fastlog import Checkpoint, checkpoint, drive
from resumable.errors import ResumableError, WrongArgumentsError
from resumable.runs import reports
from resumable.runs.driver import Driver
from resumable.runs.identity import identify
from resumable.runs.live import LiveRun, open_run
from resumable.runs.settings import Request, Settings
from resumable.storage.home import Home, open_home
from resumable.storage.records import SIDE, TIER_MASK, StateEntry
from resumable.storage.side import THRESHOLD, reference_size
from resumable.values.codec import Codec
from resumable.values.registry import GLOBAL

TIERS = ("plain", "pickle", "dill")
# Each is measured in so many stretches of about that many nanoseconds; in fewer where one alone takes longer.
_ROUNDS, _STRETCH_NS = 9, 4_000_000
_SLOW_ROUNDS, _SLOW_NS = 3, 100_000_000
_NAME = "measured"
_CALIBRATION = 20_000
# What pickle says of what it cannot save.
_UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, NotImplementedError)

_now = time.perf_counter_ns


@dataclass(frozen=True, slots=True)
class Measurement:
    """What saving a state costs. `tier` is "plain", "pickle" or "dill"; `nanoseconds` to save it as a checkpoint and
    `pickle_nanoseconds` to pickle it alone (None: it cannot be pickled) are medians; `where` it is kept."""

    tier: str
    bytes: int
    nanoseconds: float
    pickle_nanoseconds: float | None
    where: Literal["journal", "side file"]

    def __str__(self) -> str:
        alone = self.pickle_nanoseconds
        pickled = "pickle.dumps cannot" if alone is None else f"pickle.dumps takes {duration(alone)}"
        what = f"{self.tier}, {self.bytes:,} bytes, saved to the {self.where}"
        return "\n".join([f"{what} in {duration(self.nanoseconds)} ({pickled})", *self._advice()])

    def _advice(self) -> Iterator[str]:
        if self.where == "side file":
            yield f"from {THRESHOLD >> 10} KiB on, or with large arrays, it is a file each time: keep less in it"
        elif self.tier == "dill":
            yield "dill is slow: define at module level what it saves here, or keep what that is made from"
        elif self.tier == "pickle":
            yield "plain data (numbers, str, bytes, tuple, list, dict, set, each mutable object once) is saved faster"


def measure(state: object, *, codec: Literal["auto", "plain"] = "auto") -> Measurement:
    """Save `state` as a run would, many times, and say what that costs. Raises UnsavableStateError."""
    encoded = Codec(codec).encode(state)
    size = len(encoded.data) + sum(buffer.nbytes for buffer in encoded.buffers)
    large = bool(encoded.buffers) or size >= THRESHOLD
    try:
        pickled: float | None = _median(lambda count: _pickling(state, count))
    except _UNPICKLABLE:
        pickled = None
    with tempfile.TemporaryDirectory(prefix="resumable-") as directory:
        with _throw_away_run(Path(directory) / "state" if large else None, codec) as (home, run):
            between = home.writer.flush_all if large else None      # side files that are spent go away then
            saving = _median(lambda count: _saving(state, count, run, large), between)
            bare = _median(lambda count: _bare(state, count))
    where: Literal["journal", "side file"] = "side file" if large else "journal"
    return Measurement(TIERS[encoded.tier], size, max(saving - bare, 0.0), pickled, where)


@contextmanager
def _throw_away_run(path: Path | None, codec: Literal["auto", "plain"]) -> Iterator[tuple[Home, LiveRun]]:
    """A run whose checkpoints nobody needs. One state is kept, nothing is synced: saving alone is measured."""
    home = open_home(path)
    try:
        settings = Settings(
            codec=Codec(codec),
            durability="process",
            sync_every=3600.0,
            save_every=1,
            keep_states=1,
            keep_runs=1,
            rng=False,
            failure_locals=False,
        )
        identity = identify(_job, (), {}, name=_NAME, registry=GLOBAL, given=set())
        run = open_run(home, identity, settings, Request())
        assert isinstance(run, LiveRun)
        with run:
            yield home, run
            run.finish(None)
    finally:
        home.close()


def _job(state: object = None) -> Iterator[Checkpoint[object]]:
    yield from ()


def _median(timed: Callable[[int], int], between: Callable[[], None] | None = None) -> float:
    """Nanoseconds for one: the median of several stretches, where `timed(count)` gives the time of one of them."""
    count = 1
    while (elapsed := timed(count)) < _STRETCH_NS // 2:
        count *= 2
    rounds = []
    for _ in range(_ROUNDS if elapsed < _SLOW_NS else _SLOW_ROUNDS):
        if between is not None:
            between()
        rounds.append(timed(count) / count)
    return statistics.median(rounds)


def _pickling(state: object, count: int) -> int:
    begun = _now()
    for _ in repeat(None, count):
        pickle.dumps(state, protocol=5)
    return _now() - begun


def _saving(state: object, count: int, run: LiveRun, large: bool) -> int:
    job: Generator[Any, Any, Any] = _changing(state, count, run) if large else (checkpoint(state) for _ in repeat(None, count))
    begun = _now()
    drive(job, run.write, run)
    return _now() - begun


def _changing(state: object, count: int, run: LiveRun) -> Generator[Checkpoint[object], None, None]:
    for _ in repeat(None, count):
        run.write_whole()
        yield checkpoint(state)


def _bare(state: object, count: int) -> int:
    job = (state for _ in repeat(None, count))
    begun = _now()
    for _ in job:
        pass
    return _now() - begun


# ---- a user's own job


@dataclass(slots=True)
class _Times:
    """Nanoseconds in the job, and between its yields and going on, and how many there were of these."""

    inside: int = 0
    outside: int = 0
    count: int = 0
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class JobCost:
    """What checkpoints cost a job. Times in nanoseconds: `total` of all, `inside` the job, `saving` of all checkpoints.

    `tiers` counts the last states by tier, `sizes` are those of the smallest and the largest of them.
    """

    job: str
    checkpoints: int
    total: int
    inside: int
    saving: float
    tiers: dict[str, int]
    sizes: tuple[int, int]
    stopped: bool

    @property
    def share(self) -> float:
        """The checkpoints' part of the time that the job and they took."""
        return self.saving / max(self.inside + self.saving, 1.0)

    def __str__(self) -> str:
        stopped = ", where it was stopped (--seconds, --limit)" if self.stopped else ""
        lines = [f"{self.job}: {self.checkpoints:,} checkpoints in {duration(self.total)}{stopped}"]
        if self.checkpoints:
            cost = f"{duration(self.saving)} in all, {duration(self.saving / self.checkpoints)} each"
            lines.append(f"checkpoints: {cost}, {self.share:.2%} of the job's time")
            tiers = ", ".join(f"{count:,} {tier}" for tier, count in self.tiers.items())
            low, high = self.sizes
            lines.append(f"the last states: {tiers}; {low:,}" + (f" to {high:,}" if high > low else "") + " bytes")
        return "\n".join(lines)


def measure_job(job: Callable[..., Any], args: tuple[Any, ...], *, seconds: float, limit: int | None) -> JobCost:
    """Run the job once, for so many seconds or checkpoints at most. Raises what `Driver.run` raises."""
    times = _Times()

    @functools.wraps(job)
    def timed(*given: Any, **keywords: Any) -> Any:
        made = job(*given, **keywords)
        return _stamped(made, times, seconds, limit) if isinstance(made, Generator) else made

    label = _identified(job, args)
    reading = _reading_cost()
    with tempfile.TemporaryDirectory(prefix="resumable-") as directory:
        path = Path(directory) / "state"
        with Driver(path) as driver:
            begun = _now()
            driver.run(timed, *args, name=_NAME)
            total = _now() - begun
            home = open_home(path)
            try:
                states = reports.find(home, _NAME, None, Codec()).states()
            finally:
                home.close()
    sizes = [_size(entry) for entry in states] or [0]
    tiers = Counter(TIERS[entry.flags & TIER_MASK] for entry in states)
    saving = max(times.outside - reading * times.count, 0.0)
    span = min(sizes), max(sizes)
    return JobCost(label, times.count, total, times.inside, saving, dict(tiers), span, times.stopped)


def _identified(job: Callable[..., Any], args: tuple[Any, ...]) -> str:
    try:
        identity = identify(job, args, {}, name=_NAME, registry=GLOBAL, given=set())
    except ResumableError:
        raise
    except TypeError as error:
        raise WrongArgumentsError(
            f"the job cannot be called like that: {error} (give the arguments that it takes, without `state`)",
            reason=str(error),
        ) from error
    for parameter, name in identity.marked.items():
        raise WrongArgumentsError(
            f"{identity.job}: the parameter `{parameter}` is marked resource({name!r}), and only a Driver of your own can fill "
            f"it (measure a function that makes it and runs the job: `yield from job(..., {parameter}=..., state=state)`)",
            reason=f"`{parameter}` is marked resource({name!r})",
        )
    return identity.job


def _stamped(job: Generator[Any, None, Any], times: _Times, seconds: float, limit: int | None) -> Iterator[Any]:
    # Local variables: between the two stamps as little as possible is to happen.
    inside = outside = count = 0
    most = limit if limit is not None else -1
    resumed = _now()
    deadline = resumed + int(seconds * 1e9)
    try:
        for made in job:
            left = _now()
            inside += left - resumed
            yield made
            resumed = _now()
            outside += resumed - left
            count += 1
            if count == most or resumed >= deadline:
                times.stopped = True
                break
        else:
            inside += _now() - resumed
    finally:
        job.close()
        times.inside, times.outside, times.count = inside, outside, count


def _reading_cost() -> float:
    """What lies between the two stamps when there is no driver."""
    rounds = []
    for _ in range(_ROUNDS):
        times = _Times()
        for _ in _stamped((None for _ in repeat(None, _CALIBRATION)), times, 60.0, None):
            pass
        rounds.append(times.outside / times.count)
    return statistics.median(rounds)


def _size(entry: StateEntry) -> int:
    if not entry.flags & SIDE:
        return len(entry.payload)
    return reference_size(entry.payload)


def duration(nanoseconds: float) -> str:
    """A time in the unit that suits it: "61 ns", "1.2 ms"."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"
