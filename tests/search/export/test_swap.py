"""``layersearch.swap`` on small models written as users write them."""

import copy
import cProfile
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

import layersearch
from layersearch.errors import BadInputError
from layersearch.primitives.lowering import build_layer
from layersearch.search.export.swap import SwapReport
from layersearch.spaces.evonorm.published import PUBLISHED


class EvoNormB0(nn.Module):
    """Stands for an exported class: the norm, and a mark that tells it from what was there."""

    def __new__(cls, num_features: int) -> nn.Module:  # type: ignore[misc]
        return build_layer(PUBLISHED["evonorm-b0"], num_features)


class Probe(nn.Module):
    """y = 3·x·γ + β: shows where it stands, by value."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def conv_bn_act(c_in: int, c_out: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, 1, 1, groups=groups, bias=False), nn.BatchNorm2d(c_out), nn.ReLU6())


class Inverted(nn.Module):
    """As in MobileNetV2: the projection's norm has no activation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv_bn_act(c, 2 * c),
            conv_bn_act(2 * c, 2 * c, groups=2 * c),
            nn.Conv2d(2 * c, c, 1, bias=False),
            nn.BatchNorm2d(c),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class BasicBlock(nn.Module):
    """As in ResNet: one ReLU at two sites, the second after the addition."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(c, c, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)
        self.downsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Functional(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, c, 3, 1, 1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(c), nn.BatchNorm2d(c), nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv(x)))
        x = torch.relu(self.bn2(x))
        return self.bn3(x).relu_()


class PreActivation(nn.Module):
    """Every use of its one activation follows a norm; norms are in a list."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(c, c, 1) for _ in range(3))
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(self.act(norm(x)))
        return x


def resnet(c: int = 4) -> nn.Module:
    return nn.Sequential(conv_bn_act(3, c), BasicBlock(c), BasicBlock(c), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def norms(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]


def step(model: nn.Module, channels: int = 3) -> Tensor:
    """Forward and backward in training, every gradient finite; then the output in eval mode."""
    x = torch.randn(2, channels, 8, 6, generator=torch.Generator().manual_seed(0))
    model.train()
    model(x).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.isfinite().all()), name
    y: Tensor = model.eval()(x)
    assert bool(y.isfinite().all())
    return y


def reasons(report: SwapReport) -> dict[str, str]:
    return {row.norm: row.reason for row in report.left}


def test_sequential_pairs_of_a_mobilenet() -> None:
    model = nn.Sequential(conv_bn_act(3, 4), Inverted(4), Inverted(4))
    report = layersearch.swap(model, EvoNormB0)
    assert [r.norm for r in report.replaced] == ["0.1", "1.conv.0.1", "1.conv.1.1", "2.conv.0.1", "2.conv.1.1"]
    assert norms(model) == ["1.conv.3", "2.conv.3"] == list(reasons(report))
    assert "last of its Sequential" in reasons(report)["1.conv.3"]
    assert not any(isinstance(m, nn.ReLU6) for m in model.modules())
    assert "0.1: BatchNorm2d(4) + ReLU6 (2) → Layer (γ and β copied)" in str(report)
    step(model)


def test_a_relu_that_is_used_elsewhere_keeps_working() -> None:
    model = resnet()
    before = copy.deepcopy(model)
    report = layersearch.swap(model, Probe)
    assert [r.norm for r in report.replaced] == ["0.1"]
    assert "used elsewhere" in reasons(report)["1.bn1"]
    assert "rewrite=True" in str(report)
    assert "followed by add" in reasons(report)["1.bn2"]
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(model[1].eval()(x), before[1].eval()(x))
    step(model)


def test_rewrite_takes_out_one_use_of_a_shared_relu() -> None:
    model = resnet()
    before = copy.deepcopy(model[1])
    report = layersearch.swap(model, Probe, rewrite=True)
    assert [r.norm for r in report.replaced] == ["0.1", "1.bn1", "2.bn1"]
    assert report.rewritten == ("1", "2")
    block = model[1]
    assert isinstance(block, BasicBlock)
    x = torch.randn(2, 4, 5, 5)
    block.eval(), before.eval()
    out = before.bn2(before.conv2(3 * before.conv1(x)))
    torch.testing.assert_close(block(x), F.relu(out + x))
    assert set(block.state_dict()) < set(before.state_dict())
    torch.testing.assert_close(copy.deepcopy(model)[1](x), block(x))
    step(model)


@pytest.mark.parametrize("rewrite", [False, True])
def test_functional_activations_need_a_rewrite(rewrite: bool) -> None:
    model = Functional(4)
    before = copy.deepcopy(model)
    report = layersearch.swap(model, Probe, rewrite=rewrite)
    x = torch.randn(2, 3, 5, 5)
    if rewrite:
        assert [r.activation for r in report.replaced] == ["F.relu", "torch.relu", ".relu_()"]
        assert norms(model) == []
        torch.testing.assert_close(model(x), 27 * before.conv(x))
    else:
        assert report.replaced == ()
        assert all("rewrite=True" in reason for reason in reasons(report).values())
        torch.testing.assert_close(model.eval()(x), before.eval()(x))
    step(model)


def test_an_activation_whose_every_use_follows_a_norm_is_replaced() -> None:
    model = PreActivation(4)
    report = layersearch.swap(model, Probe)
    assert [r.norm for r in report.replaced] == ["norms.0", "norms.1", "norms.2"]
    assert isinstance(model.act, nn.Identity)
    assert report.rewritten == ()
    step(model, channels=4)


def test_a_child_that_shares_the_activation_keeps_it() -> None:
    class Child(nn.Module):
        def __init__(self, act: nn.Module) -> None:
            super().__init__()
            self.act = act

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x)

    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.relu = nn.BatchNorm2d(3), nn.ReLU()
            self.child = Child(self.relu)

        def forward(self, x: Tensor) -> Tensor:
            return self.child(self.relu(self.bn(x)) - 1)

    model = Parent()
    report = layersearch.swap(model, Probe)
    assert len(report.replaced) == 1
    assert isinstance(model.child.act, nn.ReLU)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(model(x), F.relu(3 * x - 1))


def test_affine_device_dtype_mode_and_gradient_flags_are_taken_over() -> None:
    bn = nn.BatchNorm2d(4).double().eval()
    with torch.no_grad():
        bn.weight.copy_(torch.arange(4.0))
        bn.bias.fill_(0.5)
    bn.weight.requires_grad_(False)
    model = nn.Sequential(bn, nn.GELU(), nn.BatchNorm2d(4, affine=False), nn.Hardswish())
    report = layersearch.swap(model, EvoNormB0)
    first, third = model[0], model[2]
    assert first.weight.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert first.bias.tolist() == [0.5] * 4
    assert first.running_var.dtype == torch.float64
    assert not first.weight.requires_grad
    assert first.bias.requires_grad
    assert not first.training
    assert third.training
    assert [r.copied for r in report.replaced] == [True, False]


def test_a_momentum_that_was_chosen_goes_over_to_layers_that_have_one() -> None:
    chosen, default, average = (nn.BatchNorm2d(4, momentum=m) for m in (0.01, 0.1, None))
    model = nn.Sequential(chosen, nn.ReLU(), default, nn.ReLU(), average, nn.ReLU())
    layersearch.swap(model, WithMomentum)
    assert [model[i].momentum for i in (0, 2, 4)] == [0.01, 0.3, 0.3]
    for lowering in ("torch", "reference"):
        norm = nn.BatchNorm2d(4, momentum=0.01)
        model = nn.Sequential(norm, nn.ReLU())
        layersearch.swap(model, lambda n: build_layer(PUBLISHED["bn-relu"], n, lowering=lowering))  # noqa: B023
        x = torch.randn(8, 4, 5, 5) + 3
        norm(x), model(x)
        moved = 0.01 if lowering == "torch" else 0.1
        torch.testing.assert_close(model[0].running_mean, moved / 0.01 * norm.running_mean)


class WithMomentum(Probe):
    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.momentum = 0.3


@pytest.fixture
def process_group() -> Iterator[None]:
    if not dist.is_available():
        pytest.skip("torch was built without torch.distributed")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_model_that_is_wrapped_already_is_refused() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    wrapped = nn.parallel.DistributedDataParallel(inner)
    for model in (wrapped, nn.Sequential(wrapped)):
        with pytest.raises(BadInputError, match="must come before DistributedDataParallel"):
            layersearch.swap(model, Probe)
    assert norms(inner) == ["1"]
    layersearch.swap(inner, Probe)
    step(nn.parallel.DistributedDataParallel(inner))


@pytest.mark.usefixtures("process_group")
def test_a_sharded_model_is_refused() -> None:
    mesh = dist.init_device_mesh("cpu", (1,))
    sharded = fully_shard(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), mesh=mesh)
    with pytest.raises(BadInputError, match="must come before FSDPModule"):
        layersearch.swap(sharded, Probe)


def test_sync_batch_norm_and_unusual_cases() -> None:
    shared = nn.BatchNorm2d(3)
    hooked = nn.BatchNorm2d(3)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.Sequential(
        nn.SyncBatchNorm(3), nn.LeakyReLU(), shared, nn.ReLU(), shared, nn.ReLU(), hooked, nn.ReLU(),
        nn.BatchNorm2d(3), nn.Dropout(), nn.ReLU(), nn.BatchNorm2d(3), nn.Sigmoid(),
    )  # fmt: skip
    report = layersearch.swap(model, Probe)
    assert [r.norm for r in report.replaced] == ["0"]
    assert reasons(report) == {
        "2": "it is used under 2 names",
        "6": "it carries hooks",
        "8": "it is followed by Dropout (9), not by an activation",
        "11": "it is followed by Sigmoid (12), not by an activation",
    }


class Awkward(nn.Module):
    """One norm and ReLU, in a forward of some kind that must not be misread."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.relu = nn.BatchNorm2d(3), nn.ReLU()


class DependsOnValues(Awkward):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(x)) if x.sum() > 0 else x


class DependsOnMode(Awkward):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(x)) if self.training else self.bn(x)


class ReadTwice(Awkward):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(x)
        return self.relu(y) + y


class CalledTwice(Awkward):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.relu(self.bn(x))))


class AsksForType(Awkward):
    def forward(self, x: Tensor | list[Tensor]) -> Tensor:
        x = x * 2 if isinstance(x, Tensor) else x[0]
        return F.relu(self.bn(x))


class DropsOut(Awkward):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(F.relu(self.bn(x)), 0.5, self.training)


class MakesTensors(Awkward):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(x)) + torch.tensor([1.0])


class OtherArgument(Awkward):
    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.bn(x))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (DependsOnValues(), "cannot read DependsOnValues.forward"),
        (DependsOnMode(), "otherwise in eval mode"),
        (ReadTwice(), "read 2 times"),
        (CalledTwice(), "calls it 2 times"),
        (AsksForType(), "uses isinstance"),
        (DropsOut(), "differs between training and eval"),
        (MakesTensors(), "makes tensors"),
        (OtherArgument(), "reads more than its output"),
        (nn.BatchNorm2d(3), "no owner"),
        (nn.ModuleList([nn.BatchNorm2d(3), nn.ReLU()]), "no forward applies it"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_what_cannot_be_done_safely_is_left_and_said(model: nn.Module, reason: str) -> None:
    attributes = set(model.__dict__)
    report = layersearch.swap(model, Probe, rewrite=True)
    assert report.replaced == ()
    assert len(report.left) == 1
    assert reason in report.left[0].reason
    assert reason in str(report)
    assert set(model.__dict__) == attributes
    assert norms(model) != []


def test_norms_of_other_kinds_are_told() -> None:
    model = nn.Sequential(
        nn.GroupNorm(2, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.ReLU(), nn.BatchNorm3d(8), nn.ReLU(), nn.InstanceNorm2d(8),
        nn.ReLU(), nn.LayerNorm([8, 4]), nn.ReLU(), nn.LazyBatchNorm2d(), nn.ReLU(), nn.SyncBatchNorm(8), nn.ReLU(),
    )  # fmt: skip
    report = layersearch.swap(model, Probe)
    assert [r.norm for r in report.replaced] == ["12"]
    told = {row.norm_type: row.reason for row in report.left}
    assert told.pop("LazyBatchNorm2d(0)") == "it has no channels yet; run a batch through the model first"
    assert set(told) == {"GroupNorm(8)", "BatchNorm1d(8)", "BatchNorm3d(8)", "InstanceNorm2d(8)", "LayerNorm(8, 4)"}
    assert set(told.values()) == {"only BatchNorm2d is replaced"}
    assert "left 6 norms" in str(report)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
def test_norms_that_torch_jit_has_compiled_are_told() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval()
    for compiled in (torch.jit.script(model), torch.jit.trace(model, torch.zeros(1, 3, 2, 2))):
        report = layersearch.swap(compiled, Probe)
        assert report.replaced == ()
        assert [(row.norm, row.norm_type[:11]) for row in report.left] == [("0", "BatchNorm2d")]
        assert "compiled by torch.jit; swap before that" in report.left[0].reason


def test_a_profiler_of_the_user_goes_on() -> None:
    profile = cProfile.Profile()
    profile.enable()
    try:
        report = layersearch.swap(resnet(), Probe, rewrite=True)
        len(norms(resnet()))
    finally:
        profile.disable()
    assert len(report.replaced) == 3
    assert any(code.code is norms.__code__ for code in profile.getstats())


def test_a_model_without_norms_gives_an_empty_report() -> None:
    report = layersearch.swap(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), Probe)
    assert (report.replaced, report.left, report.rewritten) == ((), (), ())
    assert str(report) == "replaced 0 norm + activation pairs, left 0 norms"


def test_a_dry_run_changes_nothing_and_says_the_same() -> None:
    model = resnet()
    keys, kinds = list(model.state_dict()), [type(m) for m in model.modules()]
    dry = layersearch.swap(model, Probe, rewrite=True, dry_run=True)
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == kinds
    wet = layersearch.swap(model, Probe, rewrite=True)
    assert (dry.replaced, dry.left, dry.rewritten) == (wet.replaced, wet.left, wet.rewritten)
    assert str(dry).startswith("would replace 3 ")


def test_a_layer_by_name_is_taken_and_a_module_is_refused() -> None:
    layer = layersearch.known("evonorm", "bn-relu")
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    for bad, named in ((layer.module(3, "torch"), "a module, Layer"), (Probe(3), "a module, Probe"), (64, "got int")):
        with pytest.raises(TypeError, match=f"num_features -> torch module, .*{named}.*pass its class or layer.module"):
            layersearch.swap(model, bad)  # type: ignore[arg-type]
    assert norms(model) == ["0"]
    assert len(layersearch.swap(model, layer).replaced) == 1
    assert model[0](torch.zeros(2, 3, 4, 4)).shape == (2, 3, 4, 4)


def test_a_factory_that_gives_no_module_leaves_the_model_as_it_was() -> None:
    model = resnet()
    made: list[int] = []

    def broken(num_features: int) -> nn.Module:
        made.append(num_features)
        return Probe(num_features) if len(made) < 2 else None  # type: ignore[return-value]

    kinds = [type(m) for m in model.modules()]
    with pytest.raises(TypeError, match="must be a function num_features -> torch module"):
        layersearch.swap(model, broken, rewrite=True)
    assert [type(m) for m in model.modules()] == kinds
    with pytest.raises(TypeError, match="takes a torch module, got int"):
        layersearch.swap(3, Probe)  # type: ignore[arg-type]
