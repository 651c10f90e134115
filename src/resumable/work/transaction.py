"""A loop whose marks are rows of the user's own database: an item's rows and its mark are committed together, or not at all.

With each mark the loop's row is written in the transaction of the item and committed, and then the mark is published in the
journal. So a kill in between leaves the database ahead by that item, and a power cut by more; one that lost its last commits is
behind. On resume the row counts, in both directions.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from resumable._fastlog import NOTHING, checkpoint, take_checkpoint
from resumable.errors import TransactionError
from resumable.runs.live import LiveRun
from resumable.values import outputs
from resumable.work import keyed, mark_keys, parts
from resumable.work.databases import adapted
from resumable.work.mark_keys import KeysMark, MarkedKeys
from resumable.work.mark_rows import TABLE, Mark, MarkRow, Row, plain, state_of, unplain
from resumable.work.parts import TRANSACTION, OpenLoop, State


class Transaction:
    """The block `with driver.transaction(...)`, and a part of each loop that starts in it, one after another."""

    key: Final = TRANSACTION
    leads: Final = True

    def __init__(self, connections: tuple[object, ...]) -> None:
        if not connections:
            raise TypeError("transaction takes a connection, or several, of which the first has the loop's marks")
        if len({id(connection) for connection in connections}) < len(connections):
            raise ValueError("transaction takes each connection once")
        self._databases = [adapted(connection) for connection in connections]
        self._loop: OpenLoop | None = None
        self._row: MarkRow | None = None        # of that loop, also when it is over
        self._keys: MarkedKeys | None = None    # of that loop, if it has some
        self._outer: parts.Part | None = None   # the transaction that this one stands in
        self._around = ""                       # the loop of which an item is at hand around the block
        self._going = False                     # the transaction of an item is open
        self._trouble: Exception | None = None

    # ---- the block

    def __enter__(self) -> None:
        self._refuse_busy("the block")
        loop = parts.current()
        self._around = loop.name if loop is not None and loop.marks.at_hand else ""
        self._loop = self._row = self._trouble = None
        self._outer = parts.leader()
        if self._outer is not None:
            parts.stop_waiting(self._outer)
        parts.wait(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        parts.stop_waiting(self)
        if self._outer is not None:
            parts.wait(self._outer)
        if error is not None or self._has_item():
            self._roll_back()
        self._going = False
        if error is None:
            self._refuse_stray()
            if self._trouble is not None:
                raise self._trouble
            for database in reversed(self._databases):      # what came after the loop
                database.commit()
            self._tidy()
        elif self._trouble is not None:
            error.add_note(f"resumable: the transaction could not be rolled back: {self._trouble}")

    def _refuse_stray(self) -> None:
        """What was written in an item of a loop that the transaction does not go around would come twice after a crash."""
        if self._around and self._row is None and any(database.busy() for database in self._databases):
            self._roll_back()
            raise TransactionError(
                f"an item of loop {self._around!r} is at hand, and no loop began in the transaction: put `with "
                f"driver.transaction(...)` around the loop, so that it knows on resume what the database has; what the block "
                "wrote is rolled back",
                run=self._around,
            )

    def _refuse_busy(self, before: str) -> None:
        for database in self._databases:
            if (why := database.busy()) is not None:
                raise TransactionError(
                    f"{database!r} cannot take part in a transaction: {why} (commit or roll back before {before})",
                )

    def _roll_back(self) -> None:
        """Undo what is open. Where that fails, as when the server is gone, the block says so at its end."""
        self._going = False
        for database in self._databases:
            try:
                database.roll_back()
            except Exception as error:  # noqa: BLE001 - of whatever library; it is raised, or noted, when the block ends
                self._trouble = self._trouble or error

    def _has_item(self) -> bool:
        return self._loop is not None and self._loop.marks.at_hand > 0

    def _tidy(self) -> None:
        """The row of a loop that is through goes; where the run of its function goes on, when the log has all that it has."""
        row, self._row = self._row, None
        if row is not None and self._loop is not None and not row.run.finished:
            row.run.describe(TRANSACTION, None)
            row.run.secure()
        elif row is None or not row.run.finished:
            return
        row.remove()

    # ---- a loop begins

    def joined(self, loop: OpenLoop, saved: object) -> State | None:
        """Make log and database agree. Raises TransactionError, UnsavableStateError, and what the database does."""
        parts.wait(self)        # for the next loop in the block; a loop inside an item of this one is refused here
        if self._loop is loop:
            self._roll_back()   # it is begun anew
        elif self._has_item():
            raise TransactionError(
                f"loop {loop.name!r} begins in an item of another that is in a transaction: its marks would outlive rows that "
                f"are rolled back with that item (put `with driver.transaction(...)` around the inner loop alone; or go over "
                f"those items without driver.items, for they are part of one)", run=loop.name,
            )
        self._refuse_busy(f"loop {loop.name!r}")
        assert loop.run is not None
        if loop.out_of_turn:
            raise TransactionError(
                f"{loop.name!r} is no loop whose items are done one after another, so it cannot be in a transaction: write `for "
                f"item in driver.items(...):`", run=loop.name,
            )
        self._tidy()
        self._row = MarkRow(self._databases[0], loop.run)
        try:
            state = self._agreed(loop, loop.run, self._row)
            self.marked()
        except BaseException:
            self._roll_back()
            raise
        self._loop = loop
        return state

    def _agreed(self, loop: OpenLoop, run: LiveRun, own: MarkRow) -> State | None:
        """The state that the database has, None if it had none for this run, and now has the log's."""
        continues = run.request.on_change == "continue"
        row, known = own.read(), run.described(TRANSACTION) is not None
        if row is not None and own.is_own(row):
            mark = Mark.decode(row.data, loop.name)
            self._keys = mark_keys.resumed(loop, run, mark.state[0], mark.keys, continues=continues)
            self._append_result(loop, run, mark, continues)
            return mark.state
        if known and not continues:
            raise _is_gone(loop, run, row)
        strange = row is not None and row.done and not run.request.fresh and run.beginning_of(row.number) != row.begun
        self._keys = mark_keys.begun(run, loop.state[0])
        if row is None or not strange or known:
            mark = Mark(loop.state, run.write.results, keys=self._keys_upto(loop.state[0]))
        elif continues and self._keys is None:
            mark = replace(Mark.decode(row.data, loop.name), results=run.write.results, last=None, keys=KeysMark())
        else:
            raise _is_strange(run, row)
        run.secure_beginning()      # first, so that a power cut leaves no row of a run that the log does not know
        own.replace(mark)
        run.describe(TRANSACTION, TABLE)
        return mark.state

    def _append_result(self, loop: OpenLoop, run: LiveRun, mark: Mark, continues: bool) -> None:
        """Give the log the result that a kill after the commit kept from it."""
        missing = mark.results - run.write.results
        if missing == 1 and mark.last is not None:
            made = checkpoint(mark.state, result=unplain(mark.last))
            if not take_checkpoint(run.write, made):
                run.save(made)
        elif missing and not continues:
            what = "a power cut took results from the log" if missing > 0 else "the database lost its last commits"
            raise TransactionError(
                f"loop {run.identity.name!r} has {mark.results} results as the database has it, and {run.write.results} in the "
                f'log: {what} (on_change="continue" goes on at item {mark.state[0]} with the results as they are, fresh=True '
                f'begins anew; a Driver with durability="disk" loses none)',
                run=run.identity.name, database=mark.state[0], log=loop.state[0],
            )

    def _keys_upto(self, done: int) -> KeysMark:
        """What the row has of the loop's keys when so many items are done."""
        return KeysMark() if self._keys is None else self._keys.upto(done)

    # ---- an item is done

    def mark(self, done: int) -> object:
        """Commit the item's rows with the loop's mark. Raises TransactionError, UnsavableStateError, what the database does."""
        loop, row = self._loop, self._row
        if loop is None or row is None or not self._going:
            raise TransactionError(
                "a loop goes on outside its transaction, whose block has ended: the item at hand is rolled back, and comes again "
                "when the loop is called anew (end the loop before its block)"
            )
        last = None if loop.marks.result is NOTHING else plain(loop.marks.result, "result")
        results = row.run.write.results + (last is not None)
        mark = Mark(state_of(loop.marks.state(done)), results, last, self._keys_upto(done))
        for database in self._databases:
            if not database.still_going():
                raise TransactionError(
                    f"item {loop.marks.done} of loop {loop.name!r}: the transaction of {database!r} was committed or rolled "
                    f"back in the loop's body, and is the loop's to end (leave out commit, rollback and `with connection:` "
                    f"there); what was committed may be written again when the loop goes on", run=loop.name,
                )
        row.write(mark)
        outputs.sync()      # the database is on disk when it says so, and must not be ahead of files
        for database in reversed(self._databases):
            database.commit()
        self._going = False
        return TABLE

    def marked(self) -> None:
        """The next item's transaction."""
        for database in self._databases:
            database.begin()
        self._going = True

    def again(self) -> None:
        """What an attempt at the item wrote goes."""
        for database in self._databases:
            database.roll_back()
        self.marked()

    def missed(self, saved: object) -> None:
        """Not told to those that lead."""

    def left(self) -> None:
        """The item at hand comes again: its rows go."""
        self._loop = None
        if self._going:
            self._roll_back()


def _is_gone(loop: OpenLoop, run: LiveRun, row: Row | None) -> TransactionError:
    done = loop.state[0]
    found = "has no row of it" if row is None else f"has the row of another run, {_shown(row)}"
    return TransactionError(
        f"run {run.number} of loop {loop.name!r} is marked in the table {TABLE} of a database, and this database {found}: it is "
        f'another one, or one that was restored (give the first one; on_change="continue" goes on in this one at item {done}, as '
        f"the log has it, fresh=True begins anew)", run=loop.name, database=None if row is None else row.done, log=done,
    )


def _is_strange(run: LiveRun, row: Row) -> TransactionError:
    name = run.identity.name
    way = "" if keyed.has_keys(run) else 'on_change="continue" goes on where the database is, '      # else nobody knows its keys
    return TransactionError(
        f"the table {TABLE} of this database has loop {name!r} as {_shown(row)}, of which this state directory knows nothing: "
        f"it is another one, or was emptied (give the Driver the first one, or the loop another name; {way}fresh=True begins "
        f"anew)", run=name, database=row.done, log=None,
    )


def _shown(row: Row) -> str:
    return f"run {row.number} of {datetime.fromtimestamp(row.begun / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC with {row.done} items done"
