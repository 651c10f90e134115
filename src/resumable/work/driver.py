"""The Driver with all ways to write work."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, TypeVar

from resumable.runs import driver

if TYPE_CHECKING:
    from resumable.runs.settings import OnChange
    from resumable.work.items import Items

T = TypeVar("T")


class Driver(driver.Driver):
    __doc__ = driver.Driver.__doc__

    def items(
        self, items: Iterable[T] | AsyncIterable[T], *, name: str, fresh: bool = False, once: bool = False,
        on_change: OnChange = "error",
    ) -> Items[T]:
        """The items of a loop that goes on after a crash: `for item in driver.items(xs, name="...")`.

        items: anything that can be gone through, again in each life and in the same order; never asked for more than the loop
            asks for. On resume those that are done are left out; of a sequence without looking at them. They must be what they
            were, which is told by samples; more of them at the end are fine.
        name: the run's name.
        fresh: begin anew; the run that is unfinished stays readable as abandoned.
        once: if the loop is finished there is nothing to do; without it a finished loop begins anew.
        on_change: what other items mean: "error", "continue" at the same place, or "restart".

        An item is done, and that survives kill -9, when the `for` comes back for the next one; a crash repeats at most the item
        at hand. That is known of a `for` directly over the items, in the function that called this, or over `map`, `filter` or
        tqdm around them; whatever else goes over them marks nothing, and warns. `enumerate` and `zip` belong inside.

        Raises, when the first item is asked for, ChangedItemsError, ItemsConsumerError, RunLockedError and what `run` raises of
        the state directory.
        """
        # Here, so that importing the package stays light.
        from resumable.runs.identity import identify_loop
        from resumable.work.items import Items, check_items
        from resumable.work.loop import Loop, loop_job

        check_items(items)
        engine = self._open()
        identity = identify_loop(loop_job, {}, name=name, registry=engine.registry, body=sys._getframe(1).f_code)
        call = driver.given(fresh=fresh, once=once, on_change=on_change)
        return Items(Loop(engine, identity, items, call), items)


default = Driver()
"""The default Driver: `RESUMABLE_HOME`, else `.resumable` in the working directory; made at its first run."""
