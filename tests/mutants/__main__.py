"""`make mutants`: shows that every mutant is killed by a test that is named for it, and that the tests pass without any.

Arguments are parts of names: only mutants with one of them are tried. RESUMABLE_SEED replays what is random in the tests.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from mutants.catalogue import MUTANTS
from mutants.trial import LONGEST, TREE, Outcome, Tree, try_mutant


def main(wanted: list[str]) -> int:
    """Try the mutants, print the table; 0 when all of them were killed."""
    mutants = [mutant for mutant in MUTANTS if not wanted or any(part in mutant.name for part in wanted)]
    seed = os.environ.setdefault("RESUMABLE_SEED", str(secrets.randbelow(1 << 32)))
    workers = os.cpu_count() or 1
    print(f"{len(mutants)} mutants, {workers} at once; RESUMABLE_SEED={seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="resumable-mutants-") as place:
        sound = Tree.copy(TREE, Path(place) / "sound")
        sound.build()
        killers = sorted({killer for mutant in mutants for killer in mutant.killers})
        found = sound.test(killers, "-n", str(workers), "--dist", "loadfile", "-rs", longest=4 * LONGEST)
        print(f"without a mutant: {len(killers)} tests and groups of them, {found.seconds:.0f} s, {found.summary}", flush=True)
        if not found.passed:
            print(found.output)
            return 1
        outcomes: dict[str, Outcome] = {}
        with ThreadPoolExecutor(workers) as pool:
            try:
                for trial in as_completed([pool.submit(try_mutant, mutant, sound) for mutant in mutants]):
                    outcome = trial.result()
                    outcomes[outcome.mutant.name] = outcome
                    print(outcome.line(), flush=True)
            finally:
                pool.shutdown(cancel_futures=True)      # after Ctrl-C those that wait are not begun
    table = [outcomes[mutant.name] for mutant in mutants]
    print("\n| mutant | what it breaks | killed by | seconds |\n|---|---|---|---|")
    for outcome in table:
        print(f"| {outcome.mutant.name} | {outcome.mutant.breaks} | {outcome.killer or 'nothing'} | {outcome.seconds:.1f} |")
    survivors = [outcome for outcome in table if outcome.killer is None]
    for outcome in survivors:
        print(f"\n==== {outcome.mutant.name} was not killed: {outcome.how}\n{outcome.output}")
    print(f"\n{len(table) - len(survivors)} of {len(table)} mutants killed in {time.monotonic() - began:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
