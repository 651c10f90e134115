"""What a Driver was made with, and what one call of it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from resumable.values.codec import Codec

OnChange = Literal["error", "continue", "restart"]
Durability = Literal["process", "disk"]
Migrations = Mapping[int, Callable[[Any], Any]]
BatchMark = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Settings:
    """A Driver's settings, as its runs need them."""

    codec: Codec
    durability: Durability
    sync_every: float
    save_every: int
    keep_states: int | None
    keep_runs: int
    rng: bool
    failure_locals: bool


@dataclass(frozen=True, slots=True)
class Request:
    """The keywords of one call of `run`, the batch it stands in, (name, how often it was begun), and what is to be kept."""

    fresh: bool = False
    once: bool = False
    on_change: OnChange = "error"
    version: int | None = None
    migrate: Migrations | None = None
    batch: BatchMark | None = None
    about: Mapping[str, Any] | None = None      # kept in the description of a run that begins
