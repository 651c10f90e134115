"""A live resource deep inside a state, saved and taken up again by the codec: what the tests of every handler start from."""

from __future__ import annotations

from typing import Any

from resumable.values.codec import Codec, Encoded

CANARY = "hunter2-c4nary"  # a secret that must never be found in what is stored


class Holder:
    """A plain object, which is pickled by its attributes."""

    def __init__(self, held: Any) -> None:
        self.held = held


def save(resource: Any, codec: Codec | None = None) -> Encoded:
    """A checkpoint with the resource deep inside, twice."""
    return (codec or Codec()).encode({"a": [Holder((resource,))], "b": resource})


def resume(encoded: Encoded, codec: Codec | None = None) -> Any:
    """The resource from a checkpoint, after seeing that both places hold the same one."""
    state = (codec or Codec()).decode(*_as_read(encoded))
    assert state["a"][0].held[0] is state["b"]
    return state["b"]


async def resume_in_loop(encoded: Encoded, codec: Codec | None = None) -> Any:
    """`resume` as under `arun`."""
    state = await (codec or Codec()).decode_in_loop(*_as_read(encoded))
    assert state["a"][0].held[0] is state["b"]
    return state["b"]


def _as_read(encoded: Encoded) -> tuple[int, bytes, list[bytearray]]:
    return encoded.tier, encoded.data, [bytearray(buffer) for buffer in encoded.buffers]
