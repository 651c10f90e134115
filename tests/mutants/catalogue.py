"""All mutants."""

from __future__ import annotations

from typing import Final

from mutants import compiled, disk, runs, storage

MUTANTS: Final = [*compiled.MUTANTS, *storage.MUTANTS, *disk.MUTANTS, *runs.MUTANTS]
