"""The public API against a model in plain Python, with kills, failing calls and power cuts as rules."""

from __future__ import annotations

import math
from collections import Counter

import hypothesis
import pytest
from figures import Figures, amount, share
from harness import Server
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky, FlakyFailure
from hypothesis.stateful import run_state_machine_as_test
from model_machine import Machine
from model_reports import Wrong

pytestmark = pytest.mark.crash

STEPS = 50 if share() else 30
EXAMPLES = math.ceil(amount("M1", 150) / STEPS)
# The others are rarer, or need a power cut at the right moment.
QUICK_TO_FIND = ("mix results", "ignore arguments", "history off by one", "acknowledge early")
SLOW_TO_FIND = ("forget migrations", "lock nothing", "sync nothing", "begin batches anew")


def play(seed: int, examples: int, steps: int, plant: str | None = None, *, shrink: bool = True) -> Counter[str]:
    """Have the machine play; what it did. Raises Wrong."""

    @hypothesis.seed(seed)
    class Played(Machine):
        pass

    Played.plant, Played.done = plant, Counter()
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    with Server("model_jobs", "model_plants", shim=True) as one, Server("model_jobs", "model_plants", shim=True) as other:
        Played.servers = one, other
        Wrong.told.clear()
        try:
            run_state_machine_as_test(
                Played, settings=settings(
                    max_examples=examples, stateful_step_count=steps, phases=phases, deadline=None, database=None,
                    suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
                ),
            )
        except (Flaky, FlakyFailure) as error:
            if Wrong.told:
                raise Wrong(f"not each time: {Wrong.told}") from error
            raise
    return Played.done


def test_the_api_is_the_model(seed: int, figures: Figures) -> None:
    """Whatever is called, and whatever becomes of the processes that do it, every report and resumption is the model's."""
    done = play(seed, EXAMPLES, STEPS, shrink=bool(share()))
    figures("M1", **done)


@pytest.mark.parametrize("plant", (*QUICK_TO_FIND, *SLOW_TO_FIND) if share() else QUICK_TO_FIND)
def test_control_planted_bugs(seed: int, plant: str) -> None:
    """A library with this bug is told from the model."""
    with pytest.raises(Wrong):
        play(seed, 1000 if share() else 100, 30, plant, shrink=False)
