"""Jobs with a network client in their state, for tests that kill them: `network_jobs.py kind home address`.

Each hands item after item to the server, and prints a line for the test to count.
"""

from __future__ import annotations

import asyncio
import os
import random
import smtplib
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from resumable import Driver, checkpoint

ITEMS = 60


def run_with_kills(kind: str, home: Path, address: str, kills: int, rng: random.Random) -> None:
    """Run a job below to its end, after that many real SIGKILLs, each some items after the job went on."""
    command = [sys.executable, __file__, kind, str(home), address]
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randint(1, ITEMS // kills - 1)):
                assert process.stdout.readline()
            process.kill()
            process.stdout.read()
        assert process.returncode == -9
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def assert_done(seen: Iterable[int], kills: int) -> None:
    """The server saw every item, and in excess of an undisturbed run at most one item per kill."""
    counts = Counter(seen)
    assert set(counts) == set(range(ITEMS))
    assert counts.total() - ITEMS <= kills


def files_with(secret: str, home: Path) -> list[Path]:
    """Which files of a state directory hold it."""
    return [path for path in home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def mail(address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    if state is None:
        smtp = smtplib.SMTP("127.0.0.1", int(address))
        smtp.login("me", os.environ["MAIL_PASSWORD"])
        state = 0, smtp
    done, smtp = state
    with smtp:
        for item in range(done, ITEMS):
            smtp.sendmail("a@here.example", ["b@there.example"], f"Subject: x\r\n\r\nnumber {item}\r\n")
            print(item, flush=True)
            yield checkpoint((item + 1, smtp))


def with_requests(address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import requests

    if state is None:
        state = 0, requests.Session()
        state[1].headers["Authorization"] = f"Bearer {os.environ['APP_SECRET']}"
    done, session = state
    with session:
        for item in range(done, ITEMS):
            session.get(f"{address}{item}").raise_for_status()
            print(item, flush=True)
            yield checkpoint((item + 1, session))


def with_httpx(address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import httpx

    token = {"Authorization": f"Bearer {os.environ['APP_SECRET']}"}
    done, client = state or (0, httpx.Client(base_url=address, headers=token))
    with client:
        for item in range(done, ITEMS):
            client.get(str(item)).raise_for_status()
            print(item, flush=True)
            yield checkpoint((item + 1, client))


async def with_httpx_async(address: str, state: tuple[int, Any] | None = None) -> AsyncIterator[Any]:
    import httpx

    token = {"Authorization": f"Bearer {os.environ['APP_SECRET']}"}
    done, client = state or (0, httpx.AsyncClient(base_url=address, headers=token))
    async with client:
        for item in range(done, ITEMS):
            (await client.get(str(item))).raise_for_status()
            print(item, flush=True)
            yield checkpoint((item + 1, client))


async def with_aiohttp(address: str, state: tuple[int, Any] | None = None) -> AsyncIterator[Any]:
    import aiohttp

    token = {"Authorization": f"Bearer {os.environ['APP_SECRET']}"}
    done, session = state or (0, aiohttp.ClientSession(base_url=address, headers=token, raise_for_status=True))
    async with session:
        for item in range(done, ITEMS):
            async with session.get(str(item)) as answer:
                await answer.read()
            print(item, flush=True)
            yield checkpoint((item + 1, session))


if __name__ == "__main__":
    kind, home, address = sys.argv[1:]
    with Driver(home) as driver:
        job = globals()[kind]
        if kind in ("with_httpx_async", "with_aiohttp"):
            asyncio.run(driver.arun(job, address))
        else:
            driver.run(job, address)
