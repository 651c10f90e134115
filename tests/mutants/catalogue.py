"""All mutants."""

from __future__ import annotations

from typing import Final

from mutants import compiled, disk, recovery, runs, storage, transactions, work

MUTANTS: Final = [
    *compiled.MUTANTS, *storage.MUTANTS, *recovery.MUTANTS, *disk.MUTANTS, *runs.MUTANTS, *work.MUTANTS, *transactions.MUTANTS,
]  # fmt: skip
