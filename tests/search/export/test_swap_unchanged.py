"""A swap of norm + ReLU for a layer that computes norm + ReLU changes nothing in a model, however it is written."""

import copy
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import layersearch


class Same(nn.BatchNorm2d):
    """The layer: what every replaced pair of these models computes."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn, self.relu = nn.BatchNorm2d(3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(x))


class AsksForTensor(Pair):
    def forward(self, x: Any) -> Tensor:
        if isinstance(x, list):
            x = torch.cat(x)
        if isinstance(x, Tensor):
            x = self.relu(x)
        return self.relu(self.bn(x))


class MatchesList(Pair):
    def forward(self, x: Any) -> Tensor:
        match x:
            case list():
                x = self.relu(torch.cat(x))
        return self.relu(self.bn(x))


class JoinsInHelper(Pair):
    def joined(self, x: Any) -> Tensor:
        return torch.cat(x) if isinstance(x, list | tuple) else x

    def forward(self, x: Any) -> Tensor:
        return F.relu(self.bn(self.joined(x)))


class DenseLayer(Pair):
    """As in torchvision's DenseNet: it asks, and yet every way goes through the pair."""

    def features(self, x: list[Tensor]) -> Tensor:
        return self.relu(self.bn(torch.cat(x)))

    def forward(self, x: Any) -> Tensor:
        return self.features([x] if isinstance(x, Tensor) else x)


class DenseLayerThatReadsOnce(Pair):
    """As before, but on one of the ways there is something between norm and activation."""

    def forward(self, x: Any) -> Tensor:
        y = self.bn(torch.cat(x) if isinstance(x, list) else x)
        if isinstance(y, Tensor):
            y = y - 1
        return self.relu(y)


class Optional(Pair):
    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return F.relu(self.bn(x if skip is None else x + skip))


class OptionalByModule(Pair):
    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.relu(self.bn(self.relu(x) if skip is None else x + skip))


class Chance(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(x if torch.rand(()) < 0.5 else self.relu(x)))


class PythonChance(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(x if random.random() < 0.5 else 2 * x**2))


class DependsOnChild(Pair):
    """The norm may be frozen while the block is not."""

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(x if self.bn.training else self.relu(x)))


class ReadsWeight(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(x)) + F.batch_norm(x, None, None, self.bn.weight, self.bn.bias, training=True)


class ReadsBuffer(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(x)) + self.bn.running_mean.view(1, -1, 1, 1)


class Context(Pair):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = F.relu(self.bn(x))
        return y + x


class Decorated(Pair):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(x))


class Keeps(Pair):
    def forward(self, x: Tensor) -> Tensor:
        self.last = x * 2
        return F.relu(self.bn(x)) + 1


class HasCompiledChild(Pair):
    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            self.drop = torch.jit.script(nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.relu(self.bn(x)))


class ParentUsesActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = Pair()

    def forward(self, x: Tensor) -> Tensor:
        return self.b.relu(self.b(x) - 1)


class ParentUsesNorm(ParentUsesActivation):
    def forward(self, x: Tensor) -> Tensor:
        return self.b.bn(self.b(x) - 1)


class UntraceableParent(ParentUsesActivation):
    def forward(self, x: Tensor) -> Tensor:
        y = self.b(x)
        return self.b.relu(y - 1) if y.sum() > 0 else y


class UntraceableAlias(ParentUsesActivation):
    def forward(self, x: Tensor) -> Tensor:
        b = self.b
        y = b(x)
        return b.relu(y - 1) if y.sum() > 0 else y


class UntraceableLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Pair(), Pair()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
            x = block.relu(x - 1) if x.sum() > 0 else x
        return x


class UntraceableStages(nn.Module):
    """Goes through the stages, and through what is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for stage in self.stages:
            for layer in stage:
                x = layer(x)
                y = y + x if x.sum() != 0 else y
        return y


class UntraceablePlain(UntraceableStages):
    """Only calls them, under whatever conditions; what else it has to do with norms is not in its forward."""

    def zero(self) -> None:
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.zeros_(m.weight)

    def forward(self, x: Tensor) -> Tensor:
        for i, stage in enumerate(self.stages):
            x = stage(x) if x.sum() != 0 or i > 0 else x
        return x


class UntraceableHelper(UntraceableStages):
    def forward(self, x: Tensor) -> Tensor:
        return first_norm(self, x) if x.sum() != 0 else x


def first_norm(model: Any, x: Tensor) -> Tensor:
    y: Tensor = model.stages[0][0](x)
    return y


class Taps(nn.Module):
    """Collects what lies between norm and activation."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for layer in self.features:
            x = layer(x)
            seen.append(x)
        return torch.cat(seen)


class UntraceableTaps(Taps):
    def forward(self, x: Tensor) -> Tensor:
        y = self.features[1](x) if x.sum() != 0 else x
        return y + self.features(x)


class ReadsWeightOfSequential(Taps):
    def forward(self, x: Tensor) -> Tensor:
        norm: Any = self.features[1]
        return self.features(x) * norm.weight.view(1, -1, 1, 1)


class CallsMethod(nn.Module):
    """Above a module of which another method is called than its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.b = Backbone()

    def forward(self, x: Tensor) -> Tensor:
        return self.b.stem(x) - 1


class Backbone(Pair):
    def stem(self, x: Tensor) -> Tensor:
        return self.relu(x)


class Doubled(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class NormWithActivation(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


def hooked(where: int) -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    model[where].register_forward_hook(lambda module, args, y: y + 1)
    return model


def hooked_in_forward() -> nn.Module:
    model = Pair()
    model.relu.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return model


def patched() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    model[1].forward = lambda x: F.silu(x)  # type: ignore[method-assign]
    return model


def patched_sequential() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    model.forward = lambda x: model[0](x) - 1  # type: ignore[method-assign, misc]
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
    model[3].weight = model[0].weight
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "pair": (Pair, 1, 1),
    "asks for a tensor": (AsksForTensor, 0, 0),
    "matches a list": (MatchesList, 0, 0),
    "asks in a helper": (JoinsInHelper, 0, 0),
    "asks, and goes one way": (DenseLayer, 1, 1),
    "asks between": (DenseLayerThatReadsOnce, 0, 0),
    "optional argument": (Optional, 0, 0),
    "optional argument, module": (OptionalByModule, 0, 0),
    "chance": (Chance, 0, 0),
    "chance of Python": (PythonChance, 0, 0),
    "mode of the norm": (DependsOnChild, 0, 0),
    "reads the weight": (ReadsWeight, 0, 0),
    "reads a buffer": (ReadsBuffer, 0, 0),
    "context": (Context, 0, 0),
    "decorated": (Decorated, 0, 0),
    "keeps an attribute": (Keeps, 0, 0),
    "child of torch.jit": (HasCompiledChild, 1, 1),
    "parent uses the activation": (ParentUsesActivation, 0, 1),
    "parent uses the norm": (ParentUsesNorm, 0, 0),
    "untraceable parent": (UntraceableParent, 0, 1),
    "untraceable parent with an alias": (UntraceableAlias, 0, 0),
    "untraceable parent with a loop": (UntraceableLoop, 0, 2),
    "untraceable parent with nested loops": (UntraceableStages, 0, 0),
    "untraceable parent that only calls": (UntraceablePlain, 2, 2),
    "untraceable parent with a helper": (UntraceableHelper, 0, 0),
    "taps": (Taps, 0, 0),
    "untraceable taps": (UntraceableTaps, 0, 0),
    "reads the weight in a Sequential": (ReadsWeightOfSequential, 0, 0),
    "calls another method": (CallsMethod, 0, 1),
    "subclass of ReLU": (lambda: nn.Sequential(nn.BatchNorm2d(3), Doubled()), 0, 0),
    "subclass of the norm": (lambda: nn.Sequential(NormWithActivation(3), nn.ReLU()), 0, 0),
    "hook on the activation": (lambda: hooked(1), 0, 0),
    "hook on the norm": (lambda: hooked(0), 0, 0),
    "hook in a forward": (hooked_in_forward, 0, 0),
    "activation replaced by hand": (patched, 0, 0),
    "Sequential replaced by hand": (patched_sequential, 0, 0),
    "tied weights": (tied, 0, 0),
}


def inputs() -> list[tuple[Any, ...]]:
    """One tensor, with and without an optional one, and a list of tensors."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 3, 4, 4, generator=draw) for _ in range(2))
    return [(x,), (x, y), ([x, y],)]


def results(model: nn.Module) -> list[Any]:
    """Outputs on all that it takes, under several seeds, in training, with its norms frozen and in eval mode."""
    found: list[Any] = []
    for seed in range(4):
        model.train(seed < 3)
        if seed == 2:
            for module in model.modules():
                module.training = module.training and not isinstance(module, nn.BatchNorm2d)
        for args in inputs():
            torch.manual_seed(seed)
            random.seed(seed)
            try:
                y = model(*args)
            except (TypeError, AttributeError) as error:
                found.append(type(error))
                continue
            found += [y.detach(), y.requires_grad, getattr(model, "last", None)]
            if y.requires_grad:
                _train_on(model, y)
    return found


def _train_on(model: nn.Module, y: Tensor) -> None:
    named = [p for p in model.parameters() if p.requires_grad]
    for p, g in zip(named, torch.autograd.grad(y.square().mean(), named, allow_unused=True), strict=True):
        if g is not None:
            p.data.sub_(g, alpha=0.5)


@pytest.mark.parametrize("rewrite", [False, True], ids=["", "rewrite"])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_changes(name: str, rewrite: bool) -> None:
    make, *counts = MODELS[name]
    torch.manual_seed(0)
    model = make()
    attributes = {n: {"training": m.training, **vars(m)} for n, m in model.named_modules()}
    layersearch.swap(model, Same, rewrite=rewrite, dry_run=True)
    assert {n: {"training": m.training, **vars(m)} for n, m in model.named_modules()} == attributes
    state = copy.deepcopy(model.state_dict())
    expected = results(model)
    assert any(isinstance(value, Tensor) for value in expected)
    torch.manual_seed(0)
    swapped = make()
    swapped.load_state_dict(state)
    report = layersearch.swap(swapped, Same, rewrite=rewrite)
    assert len(report.replaced) == counts[rewrite], report
    for value, other in zip(results(swapped), expected, strict=True):
        if isinstance(other, Tensor):
            torch.testing.assert_close(value, other)
        else:
            assert value == other
