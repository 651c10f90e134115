"""The Driver with all ways to write work."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from resumable.runs import driver
from resumable.work.mapper import Mapper

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from resumable.backoff import Backoff
    from resumable.runs.progress import Progress
    from resumable.runs.settings import OnChange
    from resumable.values.dead_letter import DeadLetter
    from resumable.work.items import Items
    from resumable.work.policy import OnError
    from resumable.work.seen import SeenKeys

T = TypeVar("T")


class Driver(Mapper):
    __doc__ = driver.Driver.__doc__

    def items(
        self, items: Iterable[T] | AsyncIterable[T], *, name: str, key: Callable[[T], object] | None = None,
        fresh: bool = False, once: bool = False, on_change: OnChange = "error", max_attempts: int | None = None,
        on_error: OnError | None = None, backoff: Backoff | None = None, progress: Progress = None, verbose: bool = False,
    ) -> Items[T]:
        """The items of a loop that goes on after a crash: `for item in driver.items(xs, name="...")`.

        items: anything that can be gone through, again in each life and in the same order; never asked for more than the loop
            asks for. On resume those that are done are left out; of a sequence without looking at them. They must be what they
            were, which is told by samples; more of them at the end are fine.
        name: the run's name.
        key: a function of an item that says which one it is, for items that change between lives: an item is done if the one
            with its key is, wherever it stands; new ones are done, those that are gone are not missed. Keys are a str, an int,
            bytes, a tuple of these, or another value with a digest that is equal in every process; those of one type that are
            equal are the same. That another function gives other keys in a later life cannot be noticed: it must not.
            About 16 bytes on disk and 11 to 34 in memory for each item that was ever done.
        fresh: begin anew; the run that is unfinished stays readable as abandoned.
        once: if the loop is finished there is nothing to do, and `items.state` is as it was at the end; without it a finished
            loop begins anew. A call behind a kill at the very end finds the loop finished, too.
        on_change: what other items mean: "error", "continue" at the same place, or "restart".
        max_attempts: how often an item is tried, over all lives of the loop, before it is kept as a DeadLetter among the results
            and counts as done. None: an exception stops the loop, and the item comes again.
        on_error: asked about each exception, `on_error(item, exc, attempt)`, with the number of the attempt from 1 on: "retry" (a
            dead letter if that was the last attempt), "skip", "dead_letter" or "fail".
        backoff: seconds between attempts, by `resumable.backoff`; whoever asks for more by `Retry-After` gets it, up to an hour.
        progress: how far the loop is, shown at most ten times a second: True (a line on stderr), a tqdm or rich.progress.Progress
            (the class, or one of yours), or a function that is called with a ProgressInfo, in the loop's thread. It begins where
            the loop goes on; a line on stderr says how many items are left out then, and the time that saves.
        verbose: tell on stderr when the loop begins, goes on, fails or stops, and is complete.
            RESUMABLE_QUIET=1 silences whatever we write; a bar or function of yours is shown all the same.

        An item is done, and that survives kill -9, when the `for` comes back for the next one; a crash repeats at most the item
        at hand. That is known of a `for` directly over the items, in the function that called this, or over `map`, `filter` or
        tqdm around them; whatever else goes over them marks nothing, and warns. `enumerate` and `zip` belong inside.

        An item is tried again within the loop if the whole body stands in `with items.attempt():`. Otherwise an exception leaves
        the loop, with a note that says what becomes of the item at the next call. Ctrl-C, exits, cancellation and a state
        directory that cannot be written are never an item's failure.

        Raises, when the first item is asked for, ChangedItemsError, ItemsConsumerError, RunLockedError and what `run` raises of
        the state directory; when an item is, DuplicateKeyError and UnstableArgumentError of its key.
        """
        # Here, so that importing the package stays light.
        from resumable.runs.identity import identify_loop
        from resumable.work.items import Items, check_items
        from resumable.work.keyed import check_key
        from resumable.work.loop import Loop, loop_job
        from resumable.work.policy import Policy

        check_items(items)
        check_key(key)
        engine = self._open()
        identity = identify_loop(loop_job, {}, name=name, registry=engine.registry, body=sys._getframe(1).f_code)
        call = driver.given(fresh=fresh, once=once, on_change=on_change)
        policy = Policy(max_attempts, on_error, backoff)
        made = Loop(engine, identity, items, call, policy=policy, key=key)
        made.watch.show(progress, verbose)
        return Items(made, items)

    def dead_letters(self, name: str, *, run: int | None = None) -> list[DeadLetter]:
        """The items of a loop or map that were given up, in the order of that; without those that `retry_dead_letters` has taken.

        run: an older run, by number. Raises RunNotFoundError.
        """
        # Here, so that importing the package stays light.
        from resumable.work.requeue import dead_letters

        return dead_letters(self._open(), name, run)

    def retry_dead_letters(self, name: str) -> int:
        """The next call of this loop or map does the items of its dead letters again, then goes on; gives back how many it were.

        If it is finished, its next call is a new run that does those items alone: a loop's with what the finished one carried
        in `items.state`, a map's with its results, so that it gives back those of all items, the new ones in their places. An
        item that fails again is a dead letter again. With `key=` the items are those with the keys of the letters, wherever
        they stand now, among the others; in a finished loop's next run new ones are left for the run after it. Whatever kills
        the process, what was asked for is done, and nothing but an item in flight is done twice. Raises RunNotFoundError,
        RunLockedError while it is running, RunNameError for a run of a job.
        """
        # Here, so that importing the package stays light.
        from resumable.work.requeue import retry

        return retry(self._open(), name)

    def transaction(self, *connections: object) -> AbstractContextManager[None]:
        """Commits each item's rows together with its done mark: `with driver.transaction(conn):` around a loop over `items`.

        connections: of sqlite3, of psycopg, or a Connection or Session of SQLAlchemy over SQLite or PostgreSQL; none with an open
            transaction. The first one's database gets a table `resumable_loops`, with a row for each loop that is not finished:
            it says on resume how far the loop is, and with `key=` which items are done, whatever a kill or a power cut took from
            the log. So no item's rows are there twice or not at all. More connections are committed before it, each by itself: a
            crash in between leaves the item's rows in those, and the item comes again.

        It holds for each loop that starts in the block, one after another, and a batch of `items.batches(n)` is one transaction.
        The body neither commits nor rolls back. An item that raises, or that `break` leaves, is rolled back. What the block does
        after the loop is committed at its end, and rolled back if it raises. What the loop saves must be plain values.

        Raises TransactionError, at the loop's first item too: for a database that is not the one the loop was begun with, for
        instance, or a state directory that was put back and has lost keys. `on_change="continue"` and `fresh=True` of `items`
        are the ways out. TypeError for other connections.
        """
        # Here, so that importing the package stays light.
        from resumable.work.transaction import Transaction

        return Transaction(connections)

    def seen(self, name: str) -> SeenKeys:
        """The keys that were marked as seen under this name, in whatever life: `if key in seen: continue ... seen.mark(key)`.

        Raises RunLockedError while another process, or another place in this one, has them open.
        """
        # Here, so that importing the package stays light.
        from resumable.work.seen import SeenKeys

        return SeenKeys(self._open(), name)


default = Driver()
"""The default Driver: `RESUMABLE_HOME`, else `.resumable` in the working directory; made at its first run."""
