"""Anchor networks: the layer stands at every site, nothing shrinks below 4x4, and signals start at a sound size."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from layersearch.errors import UnknownNameError
from layersearch.spaces.tasks.images.networks import MIN_SIDE, NETWORKS, ChannelAffine
from layersearch.spaces.tasks.images.networks.blocks import scaled_channels, scaled_repeats, strides


class _Watched(nn.Sequential):
    """BN-ReLU that remembers the shapes it saw."""

    def __init__(self, num_features: int) -> None:
        super().__init__(nn.BatchNorm2d(num_features), nn.ReLU())
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return super().forward(x)  # type: ignore[no-any-return]


def _build(name: str, layer: Callable[[int], nn.Module] = _Watched, size: int = 16, **scale: float) -> nn.Module:
    width, depth = scale.get("width", 0.125), scale.get("depth", 0.2)
    return NETWORKS[name](layer, in_channels=3, classes=7, image_size=size, width=width, depth=depth)


def test_names_are_sorted_and_unknown_ones_refused() -> None:
    assert list(NETWORKS) == ["efficientnet", "mobilenetv2", "resnet"]
    with pytest.raises(UnknownNameError, match="did you mean 'resnet'"):
        NETWORKS["resent"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [4, 7, 16, 24, 28, 33])
def test_no_site_goes_below_the_smallest_side(name: str, size: int) -> None:
    network = _build(name, size=size)
    logits = network(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    shapes = [shape for module in network.modules() if isinstance(module, _Watched) for shape in module.shapes]
    assert min(min(shape[2:]) for shape in shapes) >= MIN_SIDE
    if size >= 16:
        assert min(shape[2] for shape in shapes) <= size / 2


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layer_is_the_only_nonlinearity_but_for_squeeze_excite(name: str) -> None:
    found = [type(module).__name__ for module in _build(name, lambda _: nn.Identity(), depth=1.0).modules()]
    assert not {"ReLU", "BatchNorm2d", "ReLU6"} & set(found)
    gates = found.count("Sigmoid")
    assert gates == (16 if name == "efficientnet" else 0)
    assert found.count("SiLU") == gates
    assert found.count("ChannelAffine") == {"efficientnet": 16, "mobilenetv2": 17, "resnet": 0}[name]


@pytest.mark.parametrize(
    ("name", "n_sites", "n_parameters"),
    [("efficientnet", 33, 4.0e6), ("mobilenetv2", 35, 2.2e6), ("resnet", 49, 23.5e6)],
)
def test_full_size_has_the_published_numbers_of_sites_and_parameters(
    name: str, n_sites: int, n_parameters: float
) -> None:
    with torch.device("meta"):
        network = _build(name, size=32, width=1.0, depth=1.0)
    assert sum(isinstance(module, _Watched) for module in network.modules()) == n_sites
    assert abs(sum(parameter.numel() for parameter in network.parameters()) / n_parameters - 1) < 0.03


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_multiples_of_8(name: str) -> None:
    widths: list[int] = []

    def layer(num_features: int) -> nn.Module:
        widths.append(num_features)
        return nn.Identity()

    for width in (0.1, 0.125, 0.3, 0.5, 1.0):
        _build(name, layer, width=width, depth=0.5)
    assert widths
    assert all(n % 8 == 0 and n >= 8 for n in widths)


@pytest.mark.parametrize("name", NETWORKS)
def test_signals_neither_vanish_nor_explode_at_the_start(name: str) -> None:
    torch.manual_seed(0)
    logits = _build(name, width=0.25, depth=1.0)(torch.randn(32, 3, 16, 16))
    assert 0.05 < logits.std() < 20


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    network = _build(name)
    network(torch.randn(8, 3, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_affine_is_per_channel() -> None:
    affine, x = ChannelAffine(3), torch.randn(2, 3, 4, 5)
    with torch.no_grad():
        affine.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        affine.bias.copy_(torch.tensor([0.0, -1.0, 5.0]))
    expected = torch.stack([x[:, 0], 2 * x[:, 1] - 1, 3 * x[:, 2] + 5], dim=1)
    torch.testing.assert_close(affine(x), expected)


def test_scaling_rules() -> None:
    assert strides(32, [1, 2, 2, 2]) == [1, 2, 2, 2]
    assert strides(24, [1, 2, 2, 2]) == [1, 2, 2, 1]
    assert strides(7, [2, 2]) == [2, 1]
    assert strides(4, [2]) == [1]
    assert [scaled_channels(n, 0.25) for n in (16, 24, 64, 80)] == [8, 8, 16, 24]
    assert [scaled_repeats(n, 0.2) for n in (1, 2, 3, 4, 6)] == [0, 0, 1, 1, 1]
