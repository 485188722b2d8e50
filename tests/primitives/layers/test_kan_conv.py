"""KAN convolutions are KAN layers on patches of features."""

import pytest
import torch
from torch.nn import functional as F

from layersearch.errors import BadInputError
from layersearch.primitives import BASES, KANConv1d, KANConv2d


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", list(BASES))
def test_conv_is_a_linear_layer_on_unfolded_features(name: str, groups: int) -> None:
    layer = KANConv2d(4, 6, (3, 2), stride=2, padding=1, groups=groups, basis=name, dtype=torch.float64)
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = layer.functions(x.movedim(1, -1)).movedim((-2, -1), (1, 2))  # [N, C, K, H, W]
        expected = []
        for group in range(groups):
            channels, outputs = slice(4 // groups * group, 4 // groups * (group + 1)), 6 // groups
            rows = slice(outputs * group, outputs * (group + 1))
            patches = F.unfold(features[:, channels].flatten(1, 2), (3, 2), padding=1, stride=2)
            weight = layer.weight[rows].transpose(1, 2).flatten(1)
            y = weight @ patches
            assert layer.base_weight is not None
            y += layer.base_weight[rows].flatten(1) @ F.unfold(F.silu(x[:, channels]), (3, 2), padding=1, stride=2)
            expected.append(y)
        got = layer(x)
    torch.testing.assert_close(got, torch.cat(expected, dim=1).view_as(got))


def test_conv1d_is_conv2d_of_height_one() -> None:
    flat = KANConv1d(3, 5, 4, padding=2, dilation=2, basis="chebyshev", dtype=torch.float64)
    deep = KANConv2d(3, 5, (1, 4), padding=(0, 2), dilation=(1, 2), basis="chebyshev", dtype=torch.float64)
    x = torch.randn(2, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, value in flat.named_parameters():
            dict(deep.named_parameters())[name].copy_(value.unsqueeze(-2) if "weight" in name else value)
    torch.testing.assert_close(flat(x), deep(x.unsqueeze(2)).squeeze(2))


def test_a_pixel_is_evaluated_once() -> None:
    layer = KANConv2d(2, 3, 5, padding=2, basis="legendre")
    seen = []
    layer.functions.domain.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].shape))
    layer(torch.randn(1, 2, 8, 8))
    assert seen == [(1, 8, 8, 2)]


@pytest.mark.parametrize("groups", [1, 2])
def test_conv_grids_move_with_the_data_and_keep_the_function(groups: int) -> None:
    layer = KANConv2d(4, 6, 3, groups=groups, basis="bspline", domain="none", grid=12, dtype=torch.float64)
    x = 2 * torch.rand(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    with torch.no_grad():
        before = layer(x)
        assert layer.extend_grid(24) < 1e-8
        torch.testing.assert_close(layer(x), before, rtol=1e-7, atol=1e-7)
        assert layer.weight.shape == (6, 27, 4 // groups, 3, 3)
        assert layer.update_grid(0.5 * x) < 1e-3
        assert float(layer.functions.state["low"].min()) > -0.52


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(BadInputError, match="groups must divide in_channels and out_channels, got 3 for 4 and 6"):
        KANConv2d(4, 6, 3, groups=3)
    with pytest.raises(BadInputError, match="kernel_size must have 2 numbers"):
        KANConv2d(4, 6, (3,))
    with pytest.raises(BadInputError, match="kernel_size must be a whole number"):
        KANConv1d(4, 6, 0)
