"""The script that is killed: downloads files as users would. `python download_script.py HOW STATE FOLDER PORT FILES [PLANT]`"""

from __future__ import annotations

import http.client
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from resumable import Driver, backoff, loop
from resumable.work.loop import Loop

HOW, STATE, FOLDER, PORT, FILES = sys.argv[1:6]
FAILURES = (OSError, http.client.HTTPException)


def download(url: str) -> None:
    with urllib.request.urlopen(url, timeout=30) as answer:
        data = answer.read()
    Path(FOLDER, url.rpartition("/")[2]).write_bytes(data)


@loop(name="downloads", driver=STATE, keep_on_success=True)
def download_all(urls: Iterable[str]) -> None:
    for url in urls:
        download(url)


def called_again(urls: list[str]) -> None:
    """The loop is called again until nothing fails."""
    while True:
        try:
            return download_all(urls)
        except FAILURES:
            continue


def attempts(urls: list[str]) -> None:
    """Each item is tried again in its place."""
    with Driver(STATE) as driver:
        items = driver.items(
            urls, name="downloads", once=True, on_error=lambda url, error, attempt: "retry", backoff=backoff.constant(0.001)
        )
        for url in items:
            with items.attempt():
                download(url)


def skip_one_more() -> None:
    """A bug: on resume the item at hand counts as done."""
    whole = Loop._behind

    def behind(self: Loop, items: Iterable[Any], recorded: Any, done: int) -> Iterator[Any]:
        return whole(self, items, recorded, min(done + 1, len(items)) if done else done)    # type: ignore[arg-type]

    Loop._behind = behind  # type: ignore[method-assign]


def mark_nothing() -> None:
    """A bug: marks are not published."""
    from resumable.work import loop as module

    module.Loop.save = lambda self, done: None  # type: ignore[method-assign]
    whole = Loop._opened

    def opened(self: Loop) -> Iterator[Any]:
        source = whole(self)
        self.marks.slowly = True
        return source

    Loop._opened = opened  # type: ignore[method-assign]


if __name__ == "__main__":
    {"": lambda: None, "skip one more": skip_one_more, "mark nothing": mark_nothing}[(sys.argv[6:] or [""])[0]]()
    {"called again": called_again, "attempts": attempts}[HOW]([f"http://127.0.0.1:{PORT}/{n}" for n in range(int(FILES))])
