"""A converted model does what it did; the report says how nearly, and the model itself stays as it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives import GroupRational, to_group_rational


class Mlp(nn.Module):
    """Feed-forward part with the names that vision libraries use."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.act(self.fc1(x)))
        return y


class Vit(nn.Module):
    """Patches, two blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 16, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(4))
        self.attention = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2))
        self.mlp = nn.ModuleList(Mlp(16, 32) for _ in range(2))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for i in range(2):
            y = self.norms[2 * i](x)
            x = x + self.attention[i](y, y, y)[0]
            x = x + self.mlp[i](self.norms[2 * i + 1](x))
        out: Tensor = self.head(x.mean(1))
        return out


def seeded(model: type[nn.Module] | nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return model() if isinstance(model, type) else model


@pytest.fixture(autouse=True)
def _own_generator() -> object:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_a_vit_keeps_its_function_on_data_like_the_example() -> None:
    model = seeded(Vit)
    images = torch.randn(32, 1, 16, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done = to_group_rational(model, images[:16])
    assert [layer.name for layer in done.layers] == ["mlp.0.act", "mlp.1.act"]
    for layer in done.layers:
        assert (layer.activation, layer.channels, layer.groups) == ("GELU", 32, 8)
        assert layer.low < 0 < layer.high
        assert layer.max_deviation <= 1e-3
    assert 0 < done.output_deviation < 1e-3
    assert float((done.model(images) - model(images)).abs().max().detach()) < 1e-3
    assert isinstance(done.model.mlp[0].act, GroupRational)  # type: ignore[index, union-attr]
    assert isinstance(done.model.mlp[0].fc1[0], GroupRational)  # type: ignore[index, union-attr]
    assert done.model.training
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    done.model(images).sum().backward()
    assert done.model.mlp[1].act.denominator.grad.abs().max() > 0  # type: ignore[index, union-attr]


def test_the_reported_deviation_is_the_largest_on_the_range_seen() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x = 3 * torch.randn(64, 4, dtype=torch.float64)
    done = to_group_rational(model, x, identity=False, tolerance=1e-2, groups=4)
    (layer,) = done.layers
    seen = model[0](x).detach()
    assert layer.low == pytest.approx(float(seen.min()))
    assert layer.high == pytest.approx(float(seen.max()))
    u = torch.linspace(layer.low, layer.high, 999, dtype=torch.float64).unsqueeze(-1).expand(-1, 8)
    worst = float((done.model[1](u) - torch.tanh(u)).abs().max().detach())  # type: ignore[index, operator]
    assert 0.5 * layer.max_deviation < worst < 1.01 * layer.max_deviation
    assert isinstance(done.model[0], nn.Linear)  # type: ignore[index]


def test_encoder_layers_of_torch_lose_their_fused_path_and_keep_their_function() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    x = torch.randn(8, 5, 16)
    done = to_group_rational(model, x)
    assert [found.name for found in done.layers] == ["layers.0.activation"]
    assert done.output_deviation < 1e-3
    changed = copy.deepcopy(done.model.eval())
    with torch.no_grad():
        next(m for m in changed.modules() if isinstance(m, GroupRational) and m.start == "fit").numerator.mul_(2)
        assert float((changed(x) - done.model(x)).abs().max()) > 1e-2


@pytest.mark.slow
def test_images_are_grouped_by_channel_and_a_kink_is_reported_not_hidden() -> None:
    model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Conv2d(12, 2, 3))
    done = to_group_rational(model, torch.randn(4, 1, 9, 9))
    (layer,) = done.layers
    assert (layer.channels, layer.groups, layer.degree) == (12, 6, 9)
    assert 1e-3 < layer.max_deviation < 2e-2
    assert done.model[2].dim == 1  # type: ignore[index, union-attr]


class Between(nn.Module):
    """An activation between a layer and what is done to its output."""

    def __init__(self, layer: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.change, self.act = layer, change, nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.change(self.layer(x)))
        return y


def same(x: Tensor) -> Tensor:
    return x


class ChannelsFirst(nn.LayerNorm):
    """Layer norm of images, as vision libraries have it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize(
    ("layer", "change", "shape", "other", "dim"),
    [
        (nn.Linear(8, 16), same, (2, 6, 7, 8), (2, 3, 3, 8), -1),
        (nn.Linear(8, 16), same, (2, 16, 16, 8), (2, 3, 3, 8), -1),
        (nn.Linear(8, 16), lambda x: 2 * x, (2, 6, 8), (2, 5, 8), -1),
        (nn.LayerNorm(8), same, (2, 6, 7, 8), (2, 3, 3, 8), -1),
        (nn.Conv1d(8, 16, 1), same, (2, 8, 6), (2, 8, 7), 1),
        (nn.Conv2d(8, 16, 1), lambda x: x + x, (2, 8, 6, 6), (2, 8, 5, 5), 1),
        (nn.Conv3d(8, 16, 1), same, (2, 8, 3, 2, 2), (2, 8, 1, 1, 1), 1),
        (nn.BatchNorm1d(8), same, (2, 8, 6), (2, 8, 5), 1),
        (nn.BatchNorm1d(8), same, (6, 8), (2, 8), -1),
        (nn.GroupNorm(2, 8), same, (2, 8, 6), (2, 8, 5), 1),
    ],
)
def test_channels_are_where_the_layer_before_has_them(
    layer: nn.Module, change: Callable[[Tensor], Tensor], shape: tuple[int, ...], other: tuple[int, ...], dim: int
) -> None:
    model = Between(layer, change)
    done = to_group_rational(model, torch.randn(shape), tolerance=1e-2)
    act = done.model.act
    assert isinstance(act, GroupRational)
    assert act.dim == dim
    assert act.channels == done.layers[0].channels == model(torch.randn(shape)).shape[dim]
    assert done.model(torch.randn(other)).shape == model(torch.randn(other)).shape


@pytest.mark.parametrize(
    ("layer", "change", "dim"),
    [
        (nn.Conv2d(8, 8, 1), lambda x: x.movedim(1, -1), -1),
        (nn.Linear(6, 6), lambda x: x.transpose(1, 3), 1),
        (ChannelsFirst(8), same, 1),
        (nn.Identity(), same, 1),
    ],
)
def test_an_axis_that_no_layer_tells_is_asked_for(
    layer: nn.Module, change: Callable[[Tensor], Tensor], dim: int
) -> None:
    model, x = Between(layer, change), torch.randn(2, 8, 5, 6)
    with pytest.raises(BadInputError, match=r"the layer before activation .act. must tell the axis of the channels of"):
        to_group_rational(model, x)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    done = to_group_rational(model, x, dim=dim, tolerance=1e-2)
    assert done.model.act.dim == dim  # type: ignore[union-attr]
    with pytest.raises(BadInputError, match="and it is not 4; give dim"):
        to_group_rational(model, x, dim=4)


def test_every_module_keeps_its_mode() -> None:
    act = nn.Tanh()
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 8), act, nn.Dropout(), nn.Linear(8, 8), act)
    model.train()
    model[0].eval()
    model[4].eval()
    new = to_group_rational(model, torch.randn(16, 4), tolerance=1e-2).model
    modes = {name: module.training for name, module in new.named_modules()}
    frozen = {"0", "4", "4.0", "4.1"}
    assert modes == {name: name not in frozen for name in modes}
    assert frozen < set(modes)
    model.eval()
    model[3].train()
    new = to_group_rational(model, torch.randn(16, 4), tolerance=1e-2).model
    assert [name for name, module in new.named_modules() if module.training] == ["3"]


def test_an_activation_used_twice_is_replaced_in_both_places() -> None:
    act = nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 8), act)
    done = to_group_rational(model, torch.randn(16, 4), identity=False, tolerance=1e-2)
    assert done.model[1] is done.model[3]  # type: ignore[index]
    with pytest.raises(BadInputError, match="activation '1' is used on 8 and 16 channels"):
        to_group_rational(nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 16), act), torch.randn(16, 4))


def test_what_cannot_be_converted_says_so() -> None:
    with pytest.raises(BadInputError, match="no activation module was used on the example"):
        to_group_rational(nn.Linear(3, 2), torch.randn(4, 3))
    with pytest.raises(BadInputError, match="inputs of activation '1' are not finite"):
        to_group_rational(nn.Sequential(nn.Linear(3, 2), nn.GELU()), torch.full((4, 3), float("nan")))
