"""The promise, shown: a word count is killed twenty times (SIGKILL) and ends with the counts of an undisturbed run; a loop
under the decorator is killed ten times, and the file that it writes is that of an undisturbed one.

    make demo            or            python examples/demo.py [--seed N] [--kills N]

How many files were counted twice is told by a witness outside the library: the job's process appends each file's number
to a file of its own before it starts on it.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import wordcount
from resumable import Driver, Job, checkpoint

RECORD = 4  # bytes of one file's number in the witness


# ---- the process that is killed


def work(directory: str, witness: str) -> None:
    """Run the job, telling the witness of each file before it is read."""
    paths = wordcount.sources()
    numbers = {path: number for number, path in enumerate(paths)}
    out = os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    read = wordcount.read

    def witnessed(path: str) -> str:
        os.write(out, numbers[path].to_bytes(RECORD))
        return read(path)

    wordcount.read = witnessed
    with Driver(directory) as driver:
        driver.run(wordcount.count_words, paths, name=wordcount.NAME)


def started(directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--work", str(directory / "state"), str(directory / "witness")]
    return subprocess.Popen(command)


# ---- the one that kills


def begun(directory: Path) -> int:
    """How often a file was begun, as the witness has it."""
    witness = directory / "witness"
    return witness.stat().st_size // RECORD if witness.exists() else 0


def kill_at(directory: Path, moment: int, chance: random.Random) -> None:
    """Start the job, and SIGKILL it at a random instant after `moment` files were begun."""
    process = started(directory)
    while begun(directory) < moment and process.poll() is None:
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.004))
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(f"the job ended by itself (exit code {process.returncode}) before it could be killed")


def finish(directory: Path) -> Counter[str]:
    if started(directory).wait() != 0:
        raise SystemExit("the job failed")
    with Driver(directory / "state") as driver:
        return wordcount.total(driver.results(wordcount.NAME))


def order(directory: Path) -> list[int]:
    """The numbers of the files in the order in which they were begun."""
    data = (directory / "witness").read_bytes()
    return [int.from_bytes(data[at : at + RECORD]) for at in range(0, len(data), RECORD)]


# ---- a loop under the decorator


def clean(directory: Path) -> subprocess.Popen[bytes]:
    directory.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, str(Path(__file__).with_name("clean_csv.py").resolve())], cwd=directory)


def show_loop(kills: int, chance: random.Random, where: Path) -> list[str]:
    """Kill a loop that cleans a CSV file; what is wrong with the file that it leaves."""
    calm, rough = where / "calm loop/clean.csv", where / "rough loop/clean.csv"
    if clean(calm.parent).wait() != 0:
        raise SystemExit("the loop failed")
    for moment in sorted(chance.sample(range(calm.stat().st_size // 2), kills)):
        process = clean(rough.parent)
        while process.poll() is None and (not rough.exists() or rough.stat().st_size < moment):
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise SystemExit(f"the loop ended by itself (exit code {process.returncode}) before it could be killed")
    same = clean(rough.parent).wait() == 0 and rough.read_bytes() == calm.read_bytes()
    print(f"a loop        of 50,000 rows was killed {kills} times: its file is {'' if same else 'NOT '}the undisturbed one's")
    return [] if same else ["the loop's file differs"]


# ---- what a checkpoint costs


# What an undisturbed run saved. Not an argument of the jobs below: a run's arguments are digested when it starts.
saved: list[tuple[wordcount.Progress, dict[str, int]]] = []
ROUNDS = 500


def replay(*, state: object = None) -> Job[Any, None]:
    for progress, counts in saved:
        yield checkpoint(progress, result=counts)


def replay_states(*, state: object = None) -> Job[Any, None]:
    for _ in range(ROUNDS):
        for progress, _ in saved:
            yield checkpoint(progress)


def bare_states() -> Generator[object, None, None]:
    for _ in range(ROUNDS):
        for progress, _ in saved:
            yield progress


def microseconds(work: Callable[[], object], items: int) -> float:
    """For one of the items; the best of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / items


def costs(directory: Path) -> Iterator[tuple[str, float, float]]:
    """(what, cost of a checkpoint, cost of pickle.dumps of the same), with what this job saves, in microseconds."""
    with Driver(directory / "state") as driver:
        for done, counts in enumerate(driver.results(wordcount.NAME)):
            saved.append((wordcount.Progress(files=done, lines=300 * done, words=1800 * done), counts))
        items = len(saved) * ROUNDS
        bare = microseconds(lambda: deque(bare_states(), maxlen=0), items)
        cost = microseconds(lambda: driver.run(replay_states, fresh=True), items) - bare
        pickled = microseconds(lambda: [pickle.dumps(progress) for progress, _ in saved], len(saved))
        yield "the state", cost, pickled
        cost = microseconds(lambda: driver.run(replay, fresh=True), len(saved))
        pickled = microseconds(lambda: [pickle.dumps(pair) for pair in saved], len(saved))
        yield "the state and a file's counts", cost, pickled


def show(files: int, seed: int, kills: int, where: Path) -> list[str]:
    """Do it all; gives back what is wrong."""
    chance = random.Random(seed)
    calm, rough = where / "undisturbed", where / "killed"
    calm.mkdir()
    rough.mkdir()

    start = time.perf_counter()
    expected = finish(calm)
    print(f"undisturbed   {files:,} files, {expected.total():,} words in {time.perf_counter() - start:.1f} s")

    start = time.perf_counter()
    moments = sorted(chance.sample(range(1, files - kills), kills))
    for number, moment in enumerate(moments):
        kill_at(rough, moment + number, chance)  # what was repeated so far stands in the witness too
    found = finish(rough)
    print(f"killed        {kills} times, after {', '.join(map(str, moments))} files")
    print(f"              all in {time.perf_counter() - start:.1f} s")

    numbers = order(rough)
    steps = [after - before for before, after in pairwise([-1, *numbers])]
    same, again = found == expected, steps.count(0)
    print(f"counts        {'equal to' if same else 'DIFFERENT FROM'} the undisturbed run's")
    print(f"repeated      {again} files in {kills} kills (promised: at most one a kill)")
    for what, cost, pickled in costs(calm):
        print(f"a checkpoint  {cost:.3f} us, pickle.dumps {pickled:.3f} us ({cost / pickled:.2f} x): {what}")
    return [
        text
        for text, wrong in {
            "the counts differ": not same,
            "a kill cost more than the one file in flight, or left one out": set(steps) - {0, 1} or again > kills,
            "the witness did not see the last file": numbers[-1] != files - 1,
        }.items()
        if wrong
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="replays the kill moments")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--work", nargs=2, metavar=("STATE", "WITNESS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(*given.work)
        return
    print(f"seed          {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="resumable-demo-", dir=".") as where:
        wrong = show(len(wordcount.sources()), given.seed, given.kills, Path(where).resolve())
        wrong += show_loop(given.kills // 2, random.Random(given.seed), Path(where).resolve())
    if wrong:
        raise SystemExit("WRONG: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
