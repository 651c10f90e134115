"""PyTorch: tensors, modules, optimizers, schedulers and generators, alone and through a real kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from holding import resume, save

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError, UndecodableStateError
from resumable.values.codec import Codec
from resumable.values.fingerprint import digest
from resumable.values.registry import GLOBAL

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def there_and_back(value: Any) -> Any:
    """The whole state, saved and decoded."""
    encoded = Codec().encode(value)
    return Codec().decode(encoded.tier, encoded.data, [bytearray(buffer) for buffer in encoded.buffers])


class Net(torch.nn.Module):
    """A module of the user's own: tied weights, a buffer, a layer that behaves differently in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.BatchNorm1d(40), torch.nn.Linear(40, 40))
        self.layers[2].weight = self.layers[0].weight
        self.register_buffer("mean", torch.zeros(40))
        self.note = "mine"

    def forward(self, x: Any) -> Any:
        return self.layers(x - self.mean)


def made() -> Any:
    torch.manual_seed(3)
    return Net()


def doubling(module: Any, arguments: Any, output: Any) -> Any:
    return output * 2


def step(net: Any, optimizer: Any, scheduler: Any, seed: int) -> float:
    x = torch.randn(8, 40, generator=torch.Generator().manual_seed(seed))

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        return loss

    loss = float(optimizer.step(closure).detach())
    scheduler.step()
    return loss


OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW([{"params": list(parameters), "lr": 0.02}]),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, momentum=0.5),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, history_size=3),
}
SCHEDULERS = {
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
    "one cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 20, cycle_momentum=False),
    "lambda": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
}


@pytest.mark.parametrize(
    ("kind", "schedule"), [*((kind, "cosine") for kind in OPTIMIZERS), ("sgd", "one cycle"), ("adam", "lambda")]
)
def test_training_goes_on_bit_by_bit(kind: str, schedule: str) -> None:
    """Module, optimizer and scheduler of one state belong together again, and train on to the very same numbers."""
    net = made()
    optimizer = OPTIMIZERS[kind](net.parameters())
    scheduler = SCHEDULERS[schedule](optimizer)
    for seed in range(3):
        step(net, optimizer, scheduler, seed)
    again, optimizer2, scheduler2 = there_and_back((net, optimizer, scheduler))
    assert type(again) is Net
    assert again.note == "mine"
    assert optimizer2.param_groups[0]["params"][0] is next(again.parameters())
    assert again.layers[2].weight is again.layers[0].weight
    assert scheduler2.optimizer is optimizer2
    for seed in range(3, 8):
        assert step(net, optimizer, scheduler, seed) == step(again, optimizer2, scheduler2, seed)
    for one, other in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert scheduler.get_last_lr() == scheduler2.get_last_lr()


def test_modes_and_hooks() -> None:
    """Training mode, what needs no gradient, buffers, and hooks that can be imported come back."""
    net = made().eval()
    net.layers[0].bias.requires_grad_(False)
    net.mean += 5
    net.register_forward_hook(doubling)
    again = there_and_back(net)
    x = torch.ones(2, 40)
    assert not again.training
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in net.parameters()]
    assert torch.equal(again(x), net(x))
    assert list(again._buffers) == ["mean"]


def test_optimizer_hooks_come_back() -> None:
    """Hooks of an optimizer, which torch's own pickling drops, come back."""
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    optimizer.register_step_pre_hook(counting)
    again = there_and_back((net, optimizer))[1]
    counted.clear()
    again.step()
    assert len(counted) == 1


counted: list[Any] = []


def counting(*arguments: Any) -> None:
    counted.append(arguments)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "bool", "complex64", "float8_e4m3fn", "uint16"])
def test_dtypes(dtype: str) -> None:
    """Tensors of every dtype come back bit by bit, of any shape, empty ones too."""
    for shape in [(), (0,), (3, 0), (5, 7)]:
        tensor = torch.zeros(shape).to(getattr(torch, dtype))
        if tensor.numel():
            tensor.untyped_storage()[0] = 1
        tensor.note = "kept"
        again = resume(save(tensor))
        assert again.note == "kept"
        assert (again.dtype, again.shape, again.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
        assert bytes(again.untyped_storage()) == bytes(tensor.untyped_storage())


def test_views_share_memory_again() -> None:
    """Views of one tensor, also transposed or with an offset, are views of one memory again, which can still grow."""
    tensor = torch.arange(100_000.0).reshape(100, 1000)
    state = {"all": tensor, "row": tensor[3], "turned": tensor.T, "typed": tensor.untyped_storage()}
    encoded = Codec().encode(state)
    assert [buffer.nbytes for buffer in encoded.buffers] == [400_000]
    again = there_and_back(state)
    again["row"][5] = -1
    assert float(again["all"][3, 5]) == float(again["turned"][5, 3]) == -1
    assert again["typed"].data_ptr() == again["all"].data_ptr()
    assert again["turned"].stride() == (1, 1000)
    assert again["all"].resize_(200, 1000).shape == (200, 1000)


@pytest.mark.parametrize("kind", ["sparse", "conjugate", "negative", "expanded", "meta", "lazy", "shared", "attribute"])
def test_tensors_of_other_kinds(kind: str) -> None:
    """Sparse, conjugated, expanded, meta, uninitialized and shared tensors, and those with attributes, are what they were."""
    tensor = {
        "sparse": lambda: torch.eye(4).to_sparse(),
        "conjugate": lambda: torch.tensor([1 + 2j]).conj(),
        "negative": lambda: torch.tensor([1 + 2j]).conj().imag,
        "expanded": lambda: torch.ones(1, 3).expand(5, 3),
        "meta": lambda: torch.ones(3, device="meta"),
        "lazy": lambda: torch.nn.LazyLinear(3).weight,
        "shared": lambda: torch.ones(3).share_memory_(),
        "attribute": lambda: torch.nn.Parameter(torch.ones(3)),
    }[kind]()
    if kind == "attribute":
        tensor.note = ["mine"]
    again = there_and_back(tensor)
    assert type(again) is type(tensor)
    assert (again.layout, again.device, again.requires_grad) == (tensor.layout, tensor.device, tensor.requires_grad)
    assert vars(again) == vars(tensor)
    if kind == "lazy":
        return
    assert (again.is_conj(), again.is_neg()) == (tensor.is_conj(), tensor.is_neg())
    assert (again.shape, again.stride() if kind != "sparse" else 0) == (tensor.shape, tensor.stride() if kind != "sparse" else 0)
    if kind != "meta":
        assert torch.equal(again.to_dense(), tensor.to_dense())
        assert kind == "sparse" or again.is_shared() == tensor.is_shared()


def test_gradients_come_back() -> None:
    """What was accumulated in `.grad` is there after a resume, where torch's own pickling drops it."""
    net = made()
    net(torch.ones(2, 40)).sum().backward()
    again = there_and_back(net)
    for one, other in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    net.zero_grad()
    assert all(parameter.grad is None for parameter in there_and_back(net).parameters())


def test_what_cannot_come_back_is_refused() -> None:
    """A tensor with a graph, one with hooks, and the global generator are refused with what to do."""
    parameter = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(LiveResourceError, match=r"graph.*\(detach\(\) it\)") as caught:
        save(parameter * 2)
    assert caught.value.path == 'state["a"][0].held[0]'
    for register in (parameter.register_hook, parameter.register_post_accumulate_grad_hook):
        handle = register(print)
        with pytest.raises(LiveResourceError, match="hooks"):
            save(parameter)
        handle.remove()
    save(parameter)
    with pytest.raises(LiveResourceError, match=r"torch\.get_rng_state\(\)"):
        save(torch.default_generator)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state with tensors of a device that this machine lacks is an error that names it."""
    from resumable.values.handlers import torch_state

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UndecodableStateError, match=r"cuda:0.*resume where that device is"):
        torch_state.make_untyped("cuda:0", False, bytearray(10))


def test_generators_go_on() -> None:
    """A generator draws the same numbers after a resume as without one, and is one generator in both places."""
    generator = torch.Generator().manual_seed(11)
    torch.rand(3, generator=generator)
    again = resume(save(generator))
    assert torch.equal(torch.rand(50, generator=generator), torch.rand(50, generator=again))
    assert again.initial_seed() == 11


def test_grad_scaler() -> None:
    """A GradScaler comes back with its scale."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert there_and_back({"scaler": scaler})["scaler"].state_dict() == scaler.state_dict()


def test_arguments_are_told_apart() -> None:
    """Tensors count as arguments by dtype, shape and values, however they lie in memory."""

    def of(value: Any) -> bytes:
        return digest(value, path="args[0]", registry=GLOBAL)

    tensor = torch.arange(6.0).reshape(2, 3)
    same = torch.arange(6.0).reshape(3, 2).T.contiguous().T.reshape(-1).reshape(2, 3)
    assert of(tensor) == of(tensor.clone()) == of(torch.cat([torch.ones(1, 3), tensor])[1:]) == of(same)
    others = [tensor + 1, tensor.reshape(3, 2), tensor.to(torch.float64), torch.Generator().manual_seed(1)]
    assert len({of(tensor), *map(of, others)}) == 5


def sides(state_dir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in state_dir.glob("runs/*/*.side.*")}


def test_a_frozen_model_is_written_once(tmp_path: Path) -> None:
    """Over 100 checkpoints a model that does not change writes its bytes once; a layer changed through `.data` is seen."""
    net = torch.nn.Sequential(*(torch.nn.Linear(300, 300) for _ in range(4)))

    def job(state: Any = None) -> Any:
        for i in range(100):
            yield checkpoint({"net": net, "i": i})
        driver.sync()
        frozen.update(sides(tmp_path))
        version = net[2].weight._version
        net[2].weight.data.numpy()[7, 7] = 5.0
        assert net[2].weight._version == version
        yield checkpoint({"net": net, "i": 100})
        assert driver.state("job")["net"][2].weight.detach()[7, 7] == 5.0

    frozen: dict[str, int] = {}
    with Driver(tmp_path) as driver:
        driver.run(job, name="job")
    assert set(frozen) == {"1.side.1", "1.side.99", "1.side.100"}
    assert frozen["1.side.1"] > 4 * 360_000
    assert frozen["1.side.99"] < 20_000
    assert 360_000 < sides(tmp_path)["1.side.101"] < 400_000


TRAINING = """
import os, signal, sys
import torch, torch._dynamo     # the second by every optimizer
from resumable import Driver, checkpoint

def train(steps, kill_at, state=None):
    if state is None:
        torch.manual_seed(5)
        net = torch.nn.Sequential(torch.nn.Linear(200, 200), torch.nn.Dropout(0.0), torch.nn.Linear(200, 200))
        optimizer = torch.optim.Adam(net.parameters(), 0.001)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
        state = {"net": net, "optimizer": optimizer, "scheduler": scheduler, "rng": torch.Generator().manual_seed(9), "step": 0}
    while state["step"] < steps:
        x = torch.randn(16, 200, generator=state["rng"])
        state["optimizer"].zero_grad()
        (state["net"](x) - x).square().mean().backward()
        state["optimizer"].step()
        state["scheduler"].step()
        state["step"] += 1
        if state["step"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        yield checkpoint(state)
    return sum(float(p.double().sum()) for p in state["net"].parameters()).hex()

def life(home, kill_at):
    with Driver(home) as driver:
        print(driver.run(train, 20, kill_at, name="training", on_change="continue"), flush=True)

# Each life is a process of its own. They share the import, which takes seconds, and nothing else.
home, *kills = sys.argv[1:]
for kill_at in map(int, kills):
    if os.fork() == 0:
        life(home, kill_at)
        os._exit(0)
    _, status = os.wait()
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if kill_at else 0), status
"""


def test_training_through_real_kills(tmp_path: Path) -> None:
    """A training that is killed five times ends with the weights of an undisturbed one, to the last bit."""
    script = tmp_path / "training.py"
    script.write_text(TRAINING)

    def trained(home: str, *kills: int) -> str:
        command = [sys.executable, str(script), str(tmp_path / home), *map(str, kills)]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert trained("killed", 1, 2, 7, 13, 20, 0) == trained("undisturbed", 0)


def test_torch_is_not_imported_unasked() -> None:
    """Saving and resuming a state without tensors does not import torch."""
    script = """
import sys, pickle
from resumable import Driver, checkpoint
class Mine: pass
def job(state=None):
    yield checkpoint([Mine(), {1}])
Driver(":memory:").run(job)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_container_of_tensors() -> None:
    """Tensors as dict values, in an OrderedDict as state_dict gives it, and as parts of tuples are ordinary values."""
    state = OrderedDict(a=torch.ones(2), b=(torch.zeros(1), [torch.ones(20_000)]))
    again = there_and_back(state)
    assert type(again) is OrderedDict
    assert torch.equal(again["b"][1][0], torch.ones(20_000))
