"""Layers change hands in mid-training: optimizer, weights, buffers, mode and hooks go on as if nothing had been."""

import time
from collections.abc import Callable

import pytest
import torch
from lowered import batch
from lowering_contract import KNOWN, Subject, subjects
from torch import Tensor, nn

from layersearch.errors import KernelError
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import build_layer, swap
from layersearch.primitives.lowering.swap import SwappableLayers

GRAPH = KNOWN["evonorm-b0"]
compiled = pytest.mark.parametrize(
    "subject", [p for p in subjects(torch.float32) if p.values[0].name != "torch"], indirect=True
)


class Network(nn.Module):
    """Two layers of different widths, one of them nested."""

    def __init__(self, layers: SwappableLayers) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(8, 6, 3), layers.make(6))
        self.head, self.norm = nn.Conv2d(6, 4, 1), layers.make(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.head(self.stem(x))).mean((1, 2, 3))


class Training:
    """Six steps of Adam on random data; ``at`` is called before the step that it names."""

    def __init__(self, subject: Subject, lowering: str = "torch") -> None:
        self.layers = SwappableLayers(GRAPH, groups=4, lowering=lowering)
        torch.manual_seed(3)
        self.network = Network(self.layers).to(subject.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.01)
        self.device = subject.device

    def run(self, at: dict[int, Callable[[], None]]) -> list[float]:
        losses: list[float] = []
        for step in range(6):
            at.get(step, lambda: None)()
            self.optimizer.zero_grad()
            loss = (self.network(batch((4, 8, 6, 6), seed=step).float().to(self.device)) - 1).square().mean()
            loss.backward()
            self.optimizer.step()
            losses.append(float(loss.detach()))
        return losses

    def swap(self, lowering: str) -> None:
        self.layers.swap(self.network, lowering)


@compiled
@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "unprepared"])
def test_training_goes_on_by_another_lowering(subject: Subject, prepared: bool) -> None:
    plain, swapped = Training(subject), Training(subject)
    expected = plain.run({})
    before = [type(swapped.network.stem[1]), type(swapped.network.norm)]
    tensors = {**dict(swapped.network.named_parameters()), **dict(swapped.network.named_buffers())}
    prepare = {1: lambda: swapped.layers.prepare(subject.name)} if prepared else {}
    losses = swapped.run({**prepare, 3: lambda: swapped.swap(subject.name)})
    assert swapped.layers.failure is None
    assert swapped.layers.lowering == subject.name
    kernels = type(build_layer(GRAPH, 4, lowering=subject.name))
    assert before == [type(plain.network.norm)] * 2
    assert [type(swapped.network.stem[1]), type(swapped.network.norm)] == [kernels] * 2
    after = {**dict(swapped.network.named_parameters()), **dict(swapped.network.named_buffers())}
    assert after.keys() == tensors.keys()
    assert all(after[name] is t for name, t in tensors.items())
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(swapped.network.state_dict(), plain.network.state_dict(), rtol=1e-2, atol=1e-4)


@compiled
def test_mode_frozen_parameters_and_hooks_stay(subject: Subject) -> None:
    training = Training(subject)
    network, seen = training.network, []
    network.stem.eval()
    network.norm.weight.requires_grad_(False)
    handle = network.norm.register_forward_hook(lambda module, args, y: seen.append(("after", tuple(y.shape))))
    network.norm.register_forward_pre_hook(lambda module, args: seen.append(("before", tuple(args[0].shape))))
    training.swap(subject.name)
    assert [network.stem[1].training, network.norm.training] == [False, True]
    assert not network.norm.weight.requires_grad
    network(batch((4, 8, 6, 6)).float().to(subject.device))
    assert seen == [("before", (4, 4, 4, 4)), ("after", (4, 4, 4, 4))]
    handle.remove()
    network(batch((4, 8, 6, 6)).float().to(subject.device))
    assert len(seen) == 3


@compiled
def test_a_layer_used_twice_stays_one(subject: Subject) -> None:
    layers = SwappableLayers(GRAPH, groups=4, lowering="torch")
    shared = layers.make(8)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    layers.swap(network, subject.name)
    assert network[0] is network[2]
    assert network[0] is not shared


def fails_from(monkeypatch: pytest.MonkeyPatch, lowering: str) -> None:
    """Kernels of ``lowering`` cannot be built from now on."""

    def build(graph: Graph, num_features: int, *, lowering: str, groups: int | None = None) -> nn.Module:
        if lowering == broken:
            time.sleep(0.1)  # longer than a step: who swaps has to wait for it
            raise KernelError("the compiler says: no")
        return build_layer(graph, num_features, lowering=lowering, groups=groups)

    broken = lowering
    monkeypatch.setattr(swap, "build_layer", build)


@compiled
def test_kernels_that_cannot_be_built_before_the_first_step(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_from(monkeypatch, subject.name)
    training = Training(subject, lowering=subject.name)
    assert training.layers.failure == "the compiler says: no"
    assert training.run({}) == Training(subject).run({})


@compiled
@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "unprepared"])
def test_kernels_that_cannot_be_built_in_mid_training(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, prepared: bool
) -> None:
    """Training goes on by the torch lowering, to the same bits, and ``failure`` says why.

    If that is known before the swap, the layers stay where they are.
    """
    expected = Training(subject).run({})
    fails_from(monkeypatch, subject.name)
    training = Training(subject)
    before = training.network.norm
    prepare = {1: lambda: training.layers.prepare(subject.name)} if prepared else {}
    assert training.run({**prepare, 3: lambda: training.swap(subject.name)}) == expected
    assert training.layers.failure == "the compiler says: no"
    assert type(training.network.norm) is type(build_layer(GRAPH, 4))
    assert not prepared or training.network.norm is before


@compiled
def test_what_evaluating_needs_is_built_or_left_to_torch(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = KNOWN["evonorm-b1"]
    layers = SwappableLayers(graph, groups=4, lowering=subject.name)
    network = Network(layers).to(subject.device)
    weight = network.norm.weight

    def refused(programs: object) -> None:
        raise KernelError("no kernel today")

    mode = type(network.norm)._evaluation_mode
    vars(mode).pop("kernel", None)  # another test may have built it
    monkeypatch.setattr(mode.fusion, "kernel", refused)
    layers.prepare_evaluation(network)
    assert layers.failure == "no kernel today"
    assert type(network.norm) is type(build_layer(graph, 4, lowering="torch"))
    assert network.norm.weight is weight
    assert network.norm.training
