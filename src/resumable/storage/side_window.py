"""Which side files of a run are needed, so that the others can go.

Needed are those of the last two large states that the log names, and of all that it does not name yet: the state's own
and, of each, the earlier ones in which parts of it stand.
"""

from __future__ import annotations

import threading

from resumable.storage.folder import Folder
from resumable.storage.side import reference_names, side_name

# Large states that may wait for the log: each is one that nobody can ask for any more.
CROWD = 16
_KEPT = 2


class SideWindow:
    """The side files of a run's states while it goes on: the job's thread adds some, the one that hands over takes away."""

    def __init__(self, folder: Folder, number: int, reached: int) -> None:
        """`reached` is the run's last checkpoint. What stands there for a later one was never acknowledged, and goes."""
        self._number = number
        self._lock = threading.Lock()
        found = {seq: name for name in folder.sides(number) if (seq := _seq_of(name)) is not None}
        folder.remove_sides(name for seq, name in found.items() if seq > reached)
        self._files = {name for seq, name in found.items() if seq <= reached}
        # By checkpoint, the files that it needs; None where damage keeps that from being told.
        self._needs: dict[int, set[str] | None] = {
            seq: folder.other_sides(name) for seq, name in found.items() if seq <= reached
        }

    def written(self, seq: int, reference: bytes) -> bool:
        """Checkpoint `seq` is in side files. True when so many wait for the log that it is time to hand over."""
        names = reference_names(reference)
        with self._lock:
            self._needs[seq] = set(names[1:])   # first: Ctrl-C in between must not leave a file that nobody seems to need
            self._files.add(names[0])
            return len(self._needs) > CROWD

    def spent(self, logged: int) -> list[str]:
        """The files that can go now that the log has checkpoint `logged`; this tells them once."""
        with self._lock:
            for seq in sorted(seq for seq in self._needs if seq <= logged)[:-_KEPT]:
                del self._needs[seq]
            needed = {side_name(self._number, seq) for seq in self._needs}
            for others in self._needs.values():
                if others is None:
                    return []       # until that state is out of the window
                needed |= others
            gone = self._files - needed
            self._files &= needed
            return sorted(gone)


def _seq_of(name: str) -> int | None:
    """The checkpoint whose file this is; None for those of results and return values, and for unfinished ones."""
    _, _, what = name.partition(".side.")
    return int(what) if what.isdecimal() else None
