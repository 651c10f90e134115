"""PyTorch: tensors, storages, optimizers and generators. Modules and schedulers are ordinary objects that are made of them.

Kept: values, dtype (bfloat16 too), shape, strides, `requires_grad`, `.grad`, class and attributes of a tensor; which of
them share memory, so that tied weights stay tied, views stay views, and an optimizer has the parameters of the module
beside it; the device; shared memory as such. Of modules: training mode, buffers, hooks that can be imported. Of
optimizers: all of their attributes, also what torch's own pickling drops. The states of generators.

Not kept: pinned memory; what autograd knows of views. Refused: a tensor that has a graph behind it, hooks on tensors,
the generator of the whole process.

Pitfalls: a small view keeps all of the memory that it is a view of. Gradients are saved where there are any, so call
zero_grad() before the checkpoint. Memory that did not change is not written again; see storage/side.py. Resuming takes
twice the memory for a moment. Nothing is read with torch.load.

Cost: 25 µs for a tensor, 65 µs for a parameter with a gradient, and then what its bytes cost.
"""

from __future__ import annotations

import copyreg
import ctypes
import pickle
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from resumable.errors import UndecodableStateError
from resumable.values.registry import Handler, alive

_PROTOCOL: Final = 5

# Untyped, as its type hints differ from version to version.
torch: Final[Any] = import_module("torch")


# ---- tensors: torch takes them apart itself, down to their storages


def reduce_tensor(tensor: Any) -> tuple[Any, ...]:
    """What torch says of it, and its gradient, which torch leaves out. Raises LiveResourceError."""
    if tensor.grad_fn is not None:
        raise alive(tensor, "it was computed from parameters, and the graph behind it ends with the process (detach() it)")
    # Both are private; a version of torch that has them no more is an error here, not a hook that is lost.
    if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
        raise alive(tensor, "it has hooks (remove them before the checkpoint, and register them when the job starts)")
    reduced: tuple[Any, ...] = tensor.__reduce_ex__(_PROTOCOL)
    if len(reduced) == 2:
        reduced = (reduced[0], _readable(*reduced))
    if tensor.grad is None:
        return reduced
    function, arguments = reduced
    return function, arguments, tensor.grad, None, None, set_gradient


def _readable(function: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments as torch's function wants them: for newer dtypes it gives another kind of storage than it takes."""
    if function is torch._tensor._rebuild_from_type_v2:
        inner, cls, inner_arguments, state = arguments
        return inner, cls, _readable(inner, inner_arguments), state
    if arguments and type(arguments[0]) is torch.UntypedStorage:
        return make_typed(arguments[0], torch.uint8), *arguments[1:]
    return arguments


def set_gradient(tensor: Any, gradient: Any) -> None:
    """Called by pickle: its name and module are part of the format."""
    tensor.grad = gradient


def identify_tensor(tensor: Any) -> dict[str, Any]:
    """Its values, shape and dtype."""
    plain = tensor.detach().cpu()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    content = plain.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format).untyped_storage()
    return {"dtype": str(tensor.dtype), "shape": tuple(tensor.shape), "content": bytes(_bytes_of(content))}


# ---- storages


def reduce_untyped(storage: Any) -> tuple[Any, ...]:
    """Its bytes as they lie in memory: a buffer of its own can go out of band, beside the state."""
    on_cpu = storage.device.type == "cpu"
    content = _bytes_of(storage if on_cpu else storage.cpu())
    return make_untyped, (str(storage.device), on_cpu and storage.is_shared(), pickle.PickleBuffer(content))


def make_untyped(device: str, shared: bool, content: Any) -> Any:
    """Called by pickle: its name and module are part of the format. Raises UndecodableStateError without the device."""
    size = memoryview(content).nbytes
    memory = torch.empty(size, dtype=torch.uint8, device="cpu")
    if size:
        memory.copy_(torch.frombuffer(content, dtype=torch.uint8))
    if device != "cpu":
        memory = _moved(memory, device)
    storage = memory.untyped_storage()
    return storage.share_memory_() if shared else storage


def _moved(memory: Any, device: str) -> Any:
    try:
        return memory.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = f"it holds tensors on the device {device!r}, which is not to be had here: {error}"
        raise UndecodableStateError(
            f"a saved state cannot be read: {reason} (resume where that device is, or keep tensors on the CPU in the state)",
            reason=reason,
        ) from error


def _bytes_of(storage: Any) -> Any:
    """The memory of a storage on the CPU, as a buffer that keeps it alive."""
    size = storage.nbytes()
    if size == 0:
        return bytearray()
    memory = _array_type(size).from_address(storage.data_ptr())
    memory.owner = storage
    return memory


@lru_cache(1024)
def _array_type(size: int) -> Any:
    # Making the type takes ten times as long as making the array.
    return ctypes.c_char * size


def reduce_typed(storage: Any) -> tuple[Any, ...]:
    """The way in which torch refers to a storage from a tensor."""
    return make_typed, (storage._untyped_storage, storage.dtype)


def make_typed(untyped: Any, dtype: Any) -> Any:
    """Called by pickle: its name and module are part of the format."""
    # As torch.load does it; said in any other way it warns.
    return torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)


# ---- optimizers and generators


def reduce_optimizer(optimizer: Any) -> Any:
    """All of its attributes: torch's own way leaves out hooks, and what an LBFGS cannot do a step without."""
    cls = type(optimizer)
    if cls.__getstate__ is not torch.optim.Optimizer.__getstate__:
        return optimizer.__reduce_ex__(_PROTOCOL)
    state = dict(vars(optimizer))
    # A scheduler puts it there, to see whether steps are made at all.
    if hasattr(state.get("step"), "_wrapped_by_lr_sched"):
        del state["step"]
    return copyreg.__newobj__, (cls,), state  # type: ignore[attr-defined]


def identify_optimizer(optimizer: Any) -> dict[str, Any]:
    """Its state and settings, as `state_dict` tells them."""
    state: dict[str, Any] = optimizer.state_dict()
    return state


def reduce_generator(generator: Any) -> tuple[Any, ...]:
    """Its device and state. Raises LiveResourceError for one that is not the state's own."""
    if generator is torch.default_generator or any(generator is other for other in torch.cuda.default_generators):
        raise alive(
            generator,
            "it is the generator of the whole process (keep torch.get_rng_state() and set it when the job starts, or "
            "draw from a torch.Generator of your own)",
        )
    return make_generator, (str(generator.device), generator.get_state())


def make_generator(device: str, state: Any) -> Any:
    """Called by pickle: its name and module are part of the format."""
    generator = torch.Generator(device)
    generator.set_state(state)
    return generator


def identify_generator(generator: Any) -> dict[str, Any]:
    """Its seed; what was drawn from it meanwhile does not count."""
    return {"device": str(generator.device), "seed": generator.initial_seed()}


def _value(key: str, reduce: Any, identify: Any) -> Handler:
    return Handler(key, reduce, _never, identify, is_value=True)


def _never(description: Any) -> Any:
    raise AssertionError("values come back by what they were reduced to")


def _identify_storage(storage: Any) -> bytes:
    return bytes(_bytes_of(storage.cpu()))


HANDLERS: Final = {
    handler.key: handler
    for handler in (
        _value("torch:Tensor", reduce_tensor, identify_tensor),
        _value("torch.nn.parameter:Parameter", reduce_tensor, identify_tensor),
        _value("torch.storage:UntypedStorage", reduce_untyped, _identify_storage),
        _value("torch.storage:TypedStorage", reduce_typed, lambda storage: _identify_storage(storage._untyped_storage)),
        _value("torch.optim.optimizer:Optimizer", reduce_optimizer, identify_optimizer),
        _value("torch._C:Generator", reduce_generator, identify_generator),
    )
}
