"""How a state becomes bytes and comes back: in tiers, recorded with each state, never a silent fallback.

0. Plain data of exact builtin types, in the format of `_fastlog`.
1. What the C pickler can do (protocol 5). The reconnect registry is asked before any object is taken apart; buffers of
   64 KiB and more (NumPy, Arrow) are handed out as they lie in memory, not copied.
2. dill, imported when first needed: lambdas, local classes. What is importable goes by reference here too, also out of
   `__main__`, as the same script resumes it.

3. A result alone: an item that was given up (dead_letter.py), in plain form.

What none of them can save is an UnsavableStateError that names its place. Reading tiers 1 and 2 runs code that the
bytes name: trust is a matter of the directory they lie in, and `mode="plain"` is for directories that have none.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, Literal, NamedTuple

from resumable._fastlog import decode_plain, encode_plain
from resumable.errors import PluginError, ReconnectError, ResumableError, UndecodableStateError, UnsavableStateError
from resumable.values import explain
from resumable.values.dead_letter import DeadLetter, freeze_letter, thaw_letter
from resumable.values.picklers import Kit, python_pickler, state_pickler
from resumable.values.rebuild import AtOnce, InLoop, NotReady, placed
from resumable.values.registry import GLOBAL, Registry, rebuilding, type_name
from resumable.values.secrets import mask_text

Bytes = bytes | bytearray | memoryview

PLAIN: Final = 0
PICKLE: Final = 1
DILL: Final = 2
LETTER: Final = 3

_REUSABLE: Final = 64 * 1024  # bytes up to which a pickler is kept: its memo stays as large as it once was
_NOT_FOR_PICKLE: Final = (pickle.PicklingError, TypeError, AttributeError)  # what it says of lambdas and the like


class Encoded(NamedTuple):
    """A value in bytes. The buffers are views of its own memory: to be written before the job goes on."""

    tier: int
    data: bytes
    buffers: tuple[memoryview, ...]


_tuple_new: Final = tuple.__new__  # Encoded(...) goes through a Python function


class Codec:
    """Encodes and decodes states. Thread-safe, and re-entrant: an `extract` may encode."""

    def __init__(self, mode: Literal["auto", "plain"] = "auto", registry: Registry = GLOBAL) -> None:
        if mode not in ("auto", "plain"):
            raise ValueError(f'codec must be "auto" or "plain", not {mode!r}')
        self.mode: Final = mode
        self.registry: Final = registry
        self._idle: list[Kit] = []  # as many as threads encoded at once; one in use is in nobody's reach

    def encode(self, value: Any, *, root: str = "state") -> Encoded:
        """The value in the first tier that can hold it. `root` names it in errors.

        Raises UnsavableStateError (or LiveResourceError, SecretError) with path, type_name and reason.
        """
        data = encode_plain(value)
        if data is not None:
            return _tuple_new(Encoded, (PLAIN, data, ()))
        if type(value) is DeadLetter and root == "result":
            return Encoded(LETTER, freeze_letter(value, partial(self.encode, root="item")), ())
        if self.mode == "plain":
            path, part, reason = explain.unplain(value, root)
            raise _unsavable(path, part, f"{reason}, and codec='plain' saves nothing else")
        idle = self._idle
        try:
            kit = idle.pop()
        except IndexError:
            kit = state_pickler(self.registry)
        dump, clear_memo, chunks, buffers = kit
        try:
            dump(value)
        except UnsavableStateError as error:
            raise self._located(error, value, root, dill=False) from error.__cause__
        except PluginError:
            raise
        except _NOT_FOR_PICKLE:
            return self._dilled(value, root)
        except RecursionError as error:
            raise _unsavable(root, value, "it is nested too deeply") from error
        except Exception as error:
            raise self._located(error, value, root, dill=False) from error
        data = chunks.pop()
        if chunks or buffers:  # large
            return Encoded(PICKLE, b"".join([*chunks, data]), tuple(buffers))
        clear_memo()
        if len(data) <= _REUSABLE:
            idle.append(kit)
        return _tuple_new(Encoded, (PICKLE, data, ()))

    def decode(
        self, tier: int, data: Bytes, buffers: Sequence[Any] = (), *, rebuild: Callable[[str, Any], Any] | None = None
    ) -> Any:
        """The value back, live resources connected again. Writable buffers make writable arrays.

        `rebuild` is called with key and description of each live resource; without it they are rebuilt at once. Raises
        UndecodableStateError, or ReconnectError (with the place in the state) for one that cannot be rebuilt.
        """
        if tier in (PLAIN, LETTER):
            try:
                return decode_plain(data) if tier == PLAIN else thaw_letter(data, partial(self.decode, rebuild=rebuild))
            except (ValueError, TypeError, OverflowError) as error:     # TypeError: a list as a key, a range of texts
                raise _undecodable(f"the bytes are damaged: {error}") from error
        if self.mode == "plain":
            raise _undecodable("it was pickled, and codec='plain' never unpickles (open it with codec='auto')")
        if tier not in (PICKLE, DILL):
            raise _undecodable(f"its tier {tier} is not known (a newer version of the package wrote it)")
        if rebuild is not None:
            return _unpickled(tier, data, buffers, rebuild)
        at_once = AtOnce(self.registry)
        try:
            at_once.root = _unpickled(tier, data, buffers, at_once)
        except BaseException as error:
            for ending in at_once.drop():
                ending.close()
            if type(error) is ReconnectError:
                raise _placed(error, at_once.met, tier, data, buffers) from error.__cause__
            raise
        return at_once.root

    async def decode_in_loop(self, tier: int, data: Bytes, buffers: Sequence[Any] = ()) -> Any:
        """`decode` for a job in an event loop: a `reconnect` may be a coroutine function."""
        if tier == PLAIN or self.mode == "plain":
            return self.decode(tier, data, buffers)
        rebuild = InLoop(self.registry)
        try:
            while True:
                try:
                    rebuild.root = _unpickled(tier, data, buffers, rebuild)
                    return rebuild.root
                except NotReady as missing:
                    await rebuild.fetch(missing)
        except BaseException as error:
            await rebuild.drop_in_loop()
            if type(error) is ReconnectError:
                raise _placed(error, rebuild.met, tier, data, buffers) from error.__cause__
            raise

    def _dilled(self, value: Any, root: str) -> Encoded:
        pickler = python_pickler(dill=True)(self.registry)
        try:
            pickler.dump(value)
        except UnsavableStateError as error:
            raise self._located(error, value, root, dill=True) from error.__cause__
        except RecursionError as error:
            raise _unsavable(root, value, "it is nested too deeply") from error
        except Exception as error:
            raise self._located(error, value, root, dill=True) from error
        return Encoded(DILL, pickler.data(), tuple(pickler.buffers))

    def _located(self, error: Exception, value: Any, root: str, *, dill: bool) -> UnsavableStateError:
        """The failure with its place in the state: found by failing once more, in Python."""
        pickler = python_pickler(dill)(self.registry)
        path, part = explain.locate(pickler, value, root)
        if isinstance(error, UnsavableStateError):
            # One that an `extract` of the user's own raised may have no fields, or speak of a place in something else.
            fields = {} if hasattr(error, "path") else vars(error)
            return _unsavable(path, part, kind=type(error), **{"reason": str(error), **fields})
        advice = "(keep what it is made from, or describe it by register_reconnector)"
        return _unsavable(path, part, f"{mask_text(str(error)) or type(error).__name__} {advice}")


def _unpickled(tier: int, data: Bytes, buffers: Sequence[Any], rebuild: Callable[[str, Any], Any]) -> Any:
    outer, rebuilding.now = rebuilding.now, rebuild
    try:
        return pickle.loads(data, buffers=buffers) if tier == PICKLE else _undill(data, buffers)
    except (ResumableError, MemoryError):
        raise
    except Exception as error:
        raise _undecodable(
            f"{type(error).__name__}: {mask_text(str(error))} (classes and modules that a state needs must stay "
            "importable under their names)"
        ) from error
    finally:
        rebuilding.now = outer


def _placed(error: ReconnectError, number: int, tier: int, data: Bytes, buffers: Sequence[Any]) -> ReconnectError:
    """The error with the place of the resource that was met as `number`: decoded once more, with nothing rebuilt."""
    met: list[object] = []

    def hold_the_place(key: str, description: Any) -> object:
        met.append(SimpleNamespace())
        return met[-1]

    path = None
    with suppress(Exception):  # objects that want the true resource when they are made: then it has no name
        root = _unpickled(tier, data, buffers, hold_the_place)
        path = explain.find(met[number - 1], root, "state")
    return placed(error, path)


def _undill(data: Bytes, buffers: Sequence[Any]) -> Any:
    import dill

    # ignore=True: the classes are already the right ones.
    return dill.Unpickler(io.BytesIO(data), ignore=True, buffers=buffers).load()


def _unsavable(
    path: str, part: Any, reason: str, kind: type[UnsavableStateError] = UnsavableStateError, **fields: Any
) -> UnsavableStateError:
    fields = {"type_name": type_name(part), **fields, "path": path, "reason": reason}
    return kind(f"{path} ({fields['type_name']}) cannot be saved: {reason}", **fields)


def _undecodable(reason: str) -> UndecodableStateError:
    return UndecodableStateError(f"a saved state cannot be read: {reason}", reason=reason)
