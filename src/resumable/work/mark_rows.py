"""The table of ours in a user's database: one row for each loop that goes on there, as far as it is.

A row has all that its loop saves with a mark, in plain bytes: nothing that a database gives back is ever unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from resumable._fastlog import encode_plain
from resumable.errors import TransactionError, UnsavableStateError
from resumable.runs.live import LiveRun
from resumable.storage.records import decode_kept, digest16
from resumable.values.codec import Codec
from resumable.work.databases import Database
from resumable.work.mark_keys import KeysMark
from resumable.work.parts import State

TABLE: Final = "resumable_loops"
_WHOSE: Final = "WHERE id = :id AND number = :number AND begun = :begun"
_READ: Final = f"SELECT number, begun, done, state FROM {TABLE} WHERE id = :id"
_WRITE: Final = f"UPDATE {TABLE} SET done = :done, state = :state {_WHOSE}"
_REMOVE: Final = f"DELETE FROM {TABLE} {_WHOSE}"
_REMOVE_ANY: Final = f"DELETE FROM {TABLE} WHERE id = :id"
_ADD: Final = f"INSERT INTO {TABLE} (id, run, number, begun, done, state) VALUES (:id, :run, :number, :begun, :done, :state)"
_CODEC: Final = Codec("plain")
_FIELDS: Final = frozenset(("state", "results", "last", "keys"))

Plain = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a loop is: its state, how many results it had by then, the encoded result of the last item, if it had one, and
    the keys of a loop that has some."""

    state: State
    results: int
    last: Plain | None = None
    keys: KeysMark = KeysMark()  # noqa: RUF009 - a tuple

    def encode(self) -> bytes:
        """Raises UnsavableStateError."""
        state = plain(self.state, "state")[1]
        return bytes(encode_plain({"state": state, "results": self.results, "last": self.last, "keys": tuple(self.keys)}))

    @classmethod
    def decode(cls, data: bytes, run: str) -> Mark:
        """Raises DamagedLogError."""
        found = decode_kept(data, f"the mark of loop {run!r} in the database", _FIELDS)
        state = decode_kept(found["state"], f"the state of loop {run!r} in the database")
        return cls(state, found["results"], found["last"], KeysMark(*found["keys"]))


@dataclass(frozen=True, slots=True)
class Row:
    """A loop's row, of which run it is, told by number and time of its beginning, and its mark, still encoded."""

    number: int
    begun: int
    done: int
    data: bytes


def state_of(saved: Any) -> State:
    """What a loop has saved with a mark, in its long form."""
    return saved if isinstance(saved, tuple) else (saved or 0, None, {})


def plain(value: object, root: str) -> Plain:
    """The value in plain bytes, and their tier. `root` names it. Raises UnsavableStateError."""
    try:
        tier, data, _ = _CODEC.encode(value, root=root)
    except UnsavableStateError as error:
        path, kind = error.__dict__["path"], error.__dict__["type_name"]
        reason = "what a loop in a transaction saves stands in the database, which holds plain values alone"
        raise UnsavableStateError(
            f"{path} ({kind}) cannot be saved: {reason} (keep numbers, texts, lists and the like)", path=path, type_name=kind,
            reason=reason,
        ) from None
    return tier, data


def unplain(found: Plain) -> Any:
    """The value that `plain` took. Raises UndecodableStateError."""
    return _CODEC.decode(*found)


class MarkRow:
    """The row of one run of a loop."""

    def __init__(self, database: Database, run: LiveRun) -> None:
        self.database = database
        self.run = run
        self._whose = {"id": digest16(run.identity.name).hex(), "number": run.number, "begun": run.begun}

    def read(self) -> Row | None:
        """The row that is there for this name, whose ever it is. The table is made if it is missing."""
        self.database.make_table(TABLE)
        self.database.open()
        found = self.database.run(_READ, {"id": self._whose["id"]})[1]
        self.database.roll_back()
        if not found:
            return None
        number, begun, done, data = found[0]
        return Row(number, begun, done, bytes(data))

    def is_own(self, row: Row) -> bool:
        """Whether it is of this run."""
        return (row.number, row.begun) == (self._whose["number"], self._whose["begun"])

    def replace(self, mark: Mark) -> None:
        """Put a row of this run in the place of whatever is there. Commits."""
        name = self.run.identity.name
        self.database.open()
        self.database.run(_REMOVE_ANY, {"id": self._whose["id"]})
        self.database.run(_ADD, {**self._whose, "run": name, "done": mark.state[0], "state": mark.encode()})
        self.database.commit()

    def write(self, mark: Mark) -> None:
        """With what is open. Raises TransactionError if the row is not there any more, or another run's."""
        changed, _ = self.database.run(_WRITE, {**self._whose, "done": mark.state[0], "state": mark.encode()})
        if changed != 1:
            name = self.run.identity.name
            raise TransactionError(
                f"the row of loop {name!r} in {TABLE} is gone, or another process on another state directory has taken it (let "
                f"one process at a time run this loop on this database, or give the loops two names); the item at hand is "
                "rolled back",
                run=name,
            )

    def remove(self) -> None:
        """The run is finished: the row goes. Commits."""
        self.database.open()
        self.database.run(_REMOVE, self._whose)
        self.database.commit()
