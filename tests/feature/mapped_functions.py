"""Functions that the tests map: importable, so that worker processes find them, and light."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any


def square(number: int) -> int:
    return number * number


async def square_later(number: int) -> int:
    await asyncio.sleep(0.001 * (number % 3))
    return number * number


def fail_at_five(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


async def fail_at_five_later(number: int) -> int:
    await asyncio.sleep(0)
    return fail_at_five(number)


def told(job: tuple[str, int]) -> int:
    """Adds a line to the file, which is the test's oracle."""
    path, number = job
    with open(path, "a") as file:
        file.write(f"{number}\n")
    return number


def die_once(job: tuple[str, int]) -> int:
    """The first worker that has number 3 is killed."""
    path, number = job
    if number == 3 and not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def exit_at_three(number: int) -> int:
    if number == 3:
        raise SystemExit(7)
    return number


def unsavable_at_three(number: int) -> Any:
    return (digit for digit in "3") if number == 3 else number


class Odd(Exception):
    """Can be pickled, and not be made again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def raise_odd(number: int) -> int:
    raise Odd(1, 2)


def pid_and_sleep(job: tuple[str, float]) -> int:
    """Says who works, and works on for long."""
    folder, seconds = job
    open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(seconds)
    return 0
