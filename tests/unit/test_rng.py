"""The watch over the global random generators."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable.errors import UndecodableStateError
from resumable.values import rng
from resumable.values.rng import GeneratorsWatch

numpy_random: Any = importlib.import_module("numpy.random")  # its stubs leave out the bit generator functions


@pytest.fixture(autouse=True)
def generators_put_back() -> Iterator[None]:
    python, generator, state = random.getstate(), numpy_random.get_bit_generator(), numpy_random.get_state(legacy=False)
    yield
    random.setstate(python)
    numpy_random.set_bit_generator(generator)
    numpy_random.set_state(state)


@pytest.fixture(params=["quick", "public"])
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> GeneratorsWatch:
    """A watch that reads memory, and one that found no place to read and asks the generators."""
    if request.param == "public":
        monkeypatch.setattr(rng, "_place_of", lambda *_args: None)
    return GeneratorsWatch()


def snapshot_of(watch: GeneratorsWatch) -> bytes:
    snapshot = watch.snapshot_if_changed()
    assert snapshot is not None
    return snapshot


def draws() -> list[object]:
    cards = list(range(50))
    random.shuffle(cards)
    return [
        cards,
        [random.random() for _ in range(700)],
        [random.gauss(0, 1) for _ in range(3)],
        numpy_random.normal(size=5).tolist(),
        numpy_random.randint(0, 1000, size=700).tolist(),
        numpy_random.permutation(20).tolist(),
    ]


def test_first_call_gives_a_snapshot_and_then_none_while_nothing_is_drawn(watch: GeneratorsWatch) -> None:
    """An unchanged state is reported once."""
    assert snapshot_of(watch)
    assert watch.snapshot_if_changed() is None
    assert watch.snapshot_if_changed() is None


@pytest.mark.parametrize(
    "use",
    [
        random.random,
        lambda: random.gauss(0, 1),
        lambda: random.seed(5),
        lambda: [random.getrandbits(32) for _ in range(624)],
        numpy_random.random,
        numpy_random.standard_normal,
        lambda: numpy_random.seed(5),
        lambda: numpy_random.bytes(4 * 624),
        lambda: numpy_random.set_bit_generator(numpy_random.PCG64(3)),
    ],
)
def test_every_use_is_seen(watch: GeneratorsWatch, use: Callable[[], object]) -> None:
    """Any draw or seeding changes the snapshot, also one that brings the position back to where it was."""
    before = snapshot_of(watch)
    use()
    assert snapshot_of(watch) != before
    assert watch.snapshot_if_changed() is None


def test_taking_the_spare_gaussian_is_seen(watch: GeneratorsWatch) -> None:
    """The second of a pair of gaussians changes no word of the generator, and is still a change."""
    random.gauss(0, 1)
    numpy_random.standard_normal()
    snapshot_of(watch)
    random.gauss(0, 1)
    assert watch.snapshot_if_changed() is not None
    numpy_random.standard_normal()
    assert watch.snapshot_if_changed() is not None


@pytest.mark.parametrize("spares", [0, 1])
def test_sequences_go_on_bit_identically(watch: GeneratorsWatch, spares: int) -> None:
    """After restore both generators give what they gave after the snapshot, with and without a spare gaussian."""
    for _ in range(spares):
        random.gauss(0, 1)
        numpy_random.standard_normal()
    snapshot = snapshot_of(watch)
    expected = draws()
    GeneratorsWatch.restore(snapshot)
    assert draws() == expected


def test_both_ways_of_reading_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot read from memory equals the one that the generators' public functions give."""
    random.gauss(0, 1)
    numpy_random.standard_normal()
    quick = snapshot_of(GeneratorsWatch())
    monkeypatch.setattr(rng, "_place_of", lambda *_args: None)
    assert snapshot_of(GeneratorsWatch()) == quick


def test_memory_is_read_here() -> None:
    """On this interpreter and NumPy the quick way is found, for both generators."""
    watch = GeneratorsWatch()
    watch.snapshot_if_changed()
    assert watch._read_python.__name__ == "read"
    assert watch._read_numpy is not None
    assert watch._read_numpy.__name__ == "read"


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_other_numpy_generators_come_back(name: str) -> None:
    """A snapshot holds whichever bit generator stands behind numpy.random."""
    original = numpy_random.get_bit_generator()
    numpy_random.set_bit_generator(getattr(numpy_random, name)(7))
    numpy_random.standard_normal()
    snapshot = snapshot_of(GeneratorsWatch())
    expected = draws()
    numpy_random.set_bit_generator(original)
    GeneratorsWatch.restore(snapshot)
    assert draws() == expected


@pytest.mark.parametrize("broken", [b"", b"\x01", b"\x09" + bytes(4000)])
def test_damaged_snapshots_are_refused_and_change_nothing(broken: bytes) -> None:
    """What cannot be read raises UndecodableStateError and leaves the generators alone."""
    before = random.getstate()
    with pytest.raises(UndecodableStateError, match="rng=False"):
        GeneratorsWatch.restore(broken)
    assert random.getstate() == before


def test_numpy_is_neither_imported_by_watching_nor_missing_at_resume() -> None:
    """Watching imports no NumPy; restoring a snapshot that holds NumPy's generator does."""
    numpy_random.seed(11)
    snapshot = snapshot_of(GeneratorsWatch())
    expected = numpy_random.random(3).tolist()
    code = (
        "import sys\n"
        "from resumable.values.rng import GeneratorsWatch\n"
        "assert GeneratorsWatch().snapshot_if_changed() is not None\n"
        "assert 'numpy' not in sys.modules\n"
        "GeneratorsWatch.restore(sys.stdin.buffer.read())\n"
        "print(sys.modules['numpy.random'].random(3).tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=snapshot, capture_output=True, check=True)
    assert done.stdout.decode().strip() == repr(expected)


def test_snapshot_is_documented_size() -> None:
    """Header, generator and spare of `random`; generator and spare of NumPy."""
    assert len(snapshot_of(GeneratorsWatch())) == 3 + 2500 + 8 + 2500 + 16
