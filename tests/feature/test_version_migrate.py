"""`version` and `migrate`: an older state is brought up to date, once."""

from __future__ import annotations

import pytest

from resumable import checkpoint
from resumable.errors import VersionError


class Call:
    """What the job of the next call does; what a job closes over would be the run's identity."""

    version = None
    steps = 1
    stop = True


def job(state=None):
    for i in range(Call.steps):
        yield checkpoint(f"v{Call.version} {i}")
    if Call.stop:
        raise KeyError
    return state


def run(driver, version, *, steps=1, stop=True, migrate=None):
    """A run whose states name their version; it stops after `steps` checkpoints."""
    Call.version, Call.steps, Call.stop = version, steps, stop
    if not stop:
        return driver.run(job, name="job", version=version, migrate=migrate)
    with pytest.raises(KeyError):
        driver.run(job, name="job", version=version, migrate=migrate)
    return None


STEPS = {1: "({})->2".format, 2: "({})->3".format, 0: "({})->1".format}


def test_a_chain_of_migrations(driver):
    """A state of version 1 goes through migrate[1] and migrate[2] to a job of version 3."""
    run(driver, 1)
    assert run(driver, 3, stop=False, migrate=STEPS) == "((v1 0)->2)->3"


def test_states_before_the_first_version_are_version_zero(driver):
    """A state saved without version= is migrated by migrate[0]."""
    run(driver, None)
    assert run(driver, 1, stop=False, migrate=STEPS) == "(vNone 0)->1"


def test_a_migrated_state_is_not_migrated_again(driver):
    """Once a checkpoint of the new version is saved, it is taken as it is."""
    run(driver, 1)
    run(driver, 2, migrate=STEPS)
    assert run(driver, 2, stop=False, migrate=STEPS) == "v2 0"
    assert driver.info("job").version == 2


def test_a_crash_between_migration_and_checkpoint(driver):
    """Without a checkpoint since the migration, the old state is there, and is migrated again."""
    run(driver, 1)
    for _ in range(3):
        run(driver, 2, steps=0, migrate=STEPS)
    assert run(driver, 3, stop=False, migrate=STEPS) == "((v1 0)->2)->3"


def test_going_back_before_a_checkpoint(driver):
    """A version that was tried and never had a checkpoint leaves nothing: the old one goes on, and stays in force."""
    run(driver, 1)
    run(driver, 2, steps=0, migrate=STEPS)
    run(driver, 1)
    assert run(driver, 2, stop=False, migrate=STEPS) == "(v1 0)->2"


def test_a_crash_before_the_first_checkpoint(driver):
    """A run without a checkpoint takes any version."""
    run(driver, 3, steps=0)
    run(driver, 1)
    assert run(driver, 2, stop=False, migrate=STEPS) == "(v1 0)->2"


@pytest.mark.parametrize(
    ("saved", "asked", "migrate", "part"),
    [
        (1, 2, None, r"migrate=\{1"),
        (1, 3, {1: STEPS[1]}, r"migrate=\{2"),
        (2, 1, STEPS, "version=2"),
        (2, None, None, "version=2"),
    ],
    ids=["no migration", "a gap", "older", "none"],
)
def test_a_version_that_cannot_be_taken(driver, saved, asked, migrate, part):
    """A missing migration, an older version or none raise VersionError that says what to give; nothing is lost."""
    run(driver, saved)
    with pytest.raises(VersionError, match=part) as caught:
        run(driver, asked, migrate=migrate)
    assert (caught.value.recorded, caught.value.given) == (saved, asked)
    assert run(driver, saved, stop=False) == f"v{saved} 0"


def test_a_failing_migration_changes_nothing(driver):
    """An exception of a migration comes out with the run's note, and a mended one gets the old state."""

    def broken(state):
        raise ZeroDivisionError

    run(driver, 1)
    with pytest.raises(ZeroDivisionError) as caught:
        run(driver, 2, stop=False, migrate={1: broken})
    assert "checkpoint 1" in caught.value.__notes__[-1]
    assert run(driver, 2, stop=False, migrate=STEPS) == "(v1 0)->2"


def test_fresh_ignores_the_version(driver):
    """fresh=True needs no migration."""
    run(driver, 2)
    Call.steps, Call.stop = 0, False
    assert driver.run(job, name="job", version=1, fresh=True) is None
