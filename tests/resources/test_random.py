"""Random generators in a state: they go on where they were."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from holding import resume, save

from resumable.values.codec import Codec

BIT_GENERATORS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


class Counting(random.Random):
    """A subclass with attributes, and with an argument that it needs."""

    def __init__(self, label: str) -> None:
        super().__init__(3)
        self.label = label
        self.friends = [self]


class Slotted(random.Random):
    """A subclass with a slot, beside the attributes that every subclass has."""

    __slots__ = ("__drawn",)

    def draw(self) -> list[float]:
        self.__drawn = [*getattr(self, "_Slotted__drawn", ()), self.random()]
        return self.__drawn


class Halves(random.Random):
    """A subclass that draws in its own way."""

    def random(self) -> float:
        return super().random() / 2


class Sealed(random.Random):
    """A subclass that says itself how it is pickled."""

    def __reduce__(self) -> Any:
        return Sealed, (99,)


def there_and_back(value: Any) -> Any:
    encoded = Codec().encode(value)
    return Codec().decode(encoded.tier, encoded.data, [bytearray(buffer) for buffer in encoded.buffers])


@pytest.mark.parametrize("cls", [random.Random, Halves])
def test_a_generator_draws_on(cls: type[random.Random]) -> None:
    """A generator of `random` draws the same numbers after a resume, a spare gaussian too, and keeps its class."""
    generator = cls(7)
    generator.gauss(0, 1)
    again = resume(save(generator))
    assert type(again) is cls
    for _ in range(700):
        assert generator.gauss(0, 1) == again.gauss(0, 1)
        assert generator.getrandbits(70) == again.getrandbits(70)
        assert generator.random() == again.random()


def test_a_subclass_keeps_its_attributes() -> None:
    """Attributes of a subclass come back, where pickle alone drops them or cannot call the class."""
    generator = Counting("mine")
    again = there_and_back({"generator": generator})["generator"]
    assert type(again) is Counting
    assert again.label == "mine"
    assert again.friends == [again]
    assert again.random() == generator.random()


def test_a_subclass_keeps_its_slots() -> None:
    """What stands in the slots of a subclass comes back too, one that is empty stays empty."""
    generator = Slotted(5)
    assert resume(save(generator)).draw() == Slotted(5).draw() == generator.draw()
    again = resume(save(generator))
    assert again.draw() == generator.draw()


def test_a_subclass_with_its_own_way_is_believed() -> None:
    """A subclass that says how it is pickled is pickled like that."""
    assert there_and_back(Sealed(1)).random() == Sealed(99).random()


def test_system_random_comes_back() -> None:
    """A SystemRandom, which has no state, comes back as another one with its attributes."""
    generator = random.SystemRandom()
    generator.note = "mine"  # type: ignore[attr-defined]
    again = resume(save(generator))
    assert type(again) is random.SystemRandom
    assert again.note == "mine"
    assert 0 <= again.random() < 1


@pytest.mark.parametrize("cls", BIT_GENERATORS)
def test_numpy_generators_draw_on(cls: Any) -> None:
    """Generators and RandomStates on every kind of bit generator draw and spawn the same after a resume."""
    generator, legacy = np.random.Generator(cls(5)), np.random.RandomState(cls(6))
    generator.integers(0, 10, 3, dtype=np.uint8)        # half of a word is left for the next
    legacy.standard_normal()
    state = there_and_back([generator, legacy, cls(7)])
    for one, other in zip([generator, legacy], state[:2], strict=True):
        assert type(one) is type(other)
        assert (one.standard_normal(700) == other.standard_normal(700)).all()
    assert (generator.integers(0, 10, 33, dtype=np.uint8) == state[0].integers(0, 10, 33, dtype=np.uint8)).all()
    assert generator.spawn(2)[1].random() == state[0].spawn(2)[1].random()
    assert (cls(7).random_raw(5) == state[2].random_raw(5)).all()


def test_a_shared_bit_generator_stays_shared() -> None:
    """Two Generators on one BitGenerator draw from one stream after a resume as before."""
    bits = np.random.PCG64(1)
    held = [np.random.Generator(bits), np.random.Generator(bits), bits]
    again = there_and_back(held)
    assert again[0].bit_generator is again[1].bit_generator is again[2]
    for _ in range(5):
        assert [one.random() for one in held[:2]] == [one.random() for one in again[:2]]


def test_seed_sequences_go_on() -> None:
    """A SeedSequence gives the same words, and goes on counting its children."""
    seeds = np.random.SeedSequence(42, spawn_key=(3,))
    seeds.spawn(4)
    again = resume(save(seeds))
    assert (again.generate_state(8) == seeds.generate_state(8)).all()
    assert again.spawn(1)[0].spawn_key == seeds.spawn(1)[0].spawn_key == (3, 4)


DRAWING = """
import os, random, signal, sys
import numpy as np
from resumable import Driver, checkpoint

def draw(n, kill_at, state=None):
    if state is None:
        bits = np.random.PCG64(4)
        state = [random.Random(1), np.random.Generator(bits), np.random.Generator(bits), np.random.RandomState(2), []]
    one, two, three, four, drawn = state
    while len(drawn) < n:
        drawn.append((one.gauss(0, 1), two.random(), float(three.standard_normal()), int(four.randint(1000))))
        if len(drawn) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        yield checkpoint(state)
    return drawn

with Driver(sys.argv[1]) as driver:
    print(driver.run(draw, 40, int(sys.argv[2]), name="drawing", on_change="continue"))
"""


def test_numbers_through_real_kills(tmp_path: Path) -> None:
    """The numbers that a job draws are those of an undisturbed run, however often it is killed."""
    script = tmp_path / "drawing.py"
    script.write_text(DRAWING)

    def life(home: str, kill_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(tmp_path / home), str(kill_at)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    undisturbed = life("undisturbed", 0)
    assert undisturbed.returncode == 0, undisturbed.stderr
    for kill_at in (1, 2, 9, 17, 18, 31, 40):
        assert life("killed", kill_at).returncode == -signal.SIGKILL
    assert life("killed", 0).stdout == undisturbed.stdout
