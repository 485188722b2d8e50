"""Layers take inputs of the width that they were built for, and refuse others where torch would broadcast them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives import (
    BASES,
    GRKANLinear,
    GroupRational,
    KANConv2d,
    KANLinear,
    KArAt,
    MixedKANConv2d,
    MixedKANLinear,
    SelectiveKANConv2d,
    SelectiveKANLinear,
)

POOL = ("bspline", "rbf")
LINEAR: dict[str, Callable[[], nn.Module]] = {
    **{
        name: (lambda name=name: KANLinear(4, 3, name, base=None, domain="none")) for name in ("rbf", "bspline", "gram")
    },
    "layernorm": lambda: KANLinear(4, 3, domain="layernorm"),
    "torch": lambda: KANLinear(4, 3, "rbf", base=None, lowering="torch"),
    "selective": lambda: SelectiveKANLinear(4, 3, POOL, base=None),
    "mixed": lambda: MixedKANLinear(4, 3, POOL, (1, 0, 1, 1), base=None),
    "mixed in order": lambda: MixedKANLinear(4, 3, POOL, (0, 0, 1, 1), base=None),
    "rational": lambda: GroupRational(4, 2),
}
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: KANConv2d(4, 3, 3, basis="rbf", base=None),
    "selective": lambda: SelectiveKANConv2d(4, 3, 3, POOL, base=None),
    "mixed": lambda: MixedKANConv2d(4, 3, 3, POOL, (1, 0, 1, 1), base=None),
    "rational": lambda: GroupRational(4, 2, dim=1),
}


@pytest.mark.parametrize("name", LINEAR)
def test_another_width_is_refused(name: str) -> None:
    made = LINEAR[name]()
    for shape in ((2, 1), (2, 8), (2, 3), (4, 2), (2, 100_000), ()):
        with pytest.raises(BadInputError, match="must have 4 features on the last axis, got"):
            made(torch.ones(shape))
    for shape in ((4,), (0, 4), (2, 3, 4)):
        assert made(torch.ones(shape)).shape[:-1] == shape[:-1]


@pytest.mark.parametrize("name", IMAGES)
def test_another_number_of_channels_is_refused(name: str) -> None:
    made = IMAGES[name]()
    shapes: list[tuple[int, ...]] = [(2, 1, 5, 5), (2, 8, 5, 4), (4,)]
    shapes += [(4, 4, 4)] if name != "rational" else []  # without a batch, rows would be taken for channels
    for shape in shapes:
        with pytest.raises(BadInputError, match="4 features on axis 1, got"):
            made(torch.ones(shape))
    assert made(torch.ones(2, 4, 5, 5)).shape[0] == 2


@pytest.mark.parametrize("of", [np.int64, np.uint8, torch.tensor])
def test_sizes_may_be_integers_of_numpy_and_torch(of: Callable[[int], int]) -> None:
    two, four = of(2), of(4)
    layers = [
        KANLinear(four, two),
        KANConv2d(four, two, two, groups=two),
        MixedKANLinear(four, two, POOL, (1, 0, 1, 1)),
        SelectiveKANConv2d(four, two, (two, two), POOL),
        GRKANLinear(four, two, two),
        GroupRational(four, two),
        KArAt(two, four, rank=two),
    ]
    for made in layers:
        sizes = {name: value for name, value in vars(made).items() if isinstance(value, np.generic | Tensor)}
        assert sizes == {}
        assert "int64" not in repr(made)
    for wrong in (True, np.bool_(True), 2.0, np.float64(2), torch.tensor(2.0), "2", None):
        with pytest.raises(BadInputError, match="in_features must be a whole number of at least 1, got"):
            KANLinear(wrong, 2)  # type: ignore[arg-type]


def test_data_of_another_width_are_refused() -> None:
    with pytest.raises(BadInputError, match="must have 4 features"):
        KANLinear(4, 3, "bspline").update_grid(torch.randn(9, 8))
    with pytest.raises(BadInputError, match="must have 4 axes and 4 features"):
        KANConv2d(4, 3, 3, basis="bspline").update_grid(torch.randn(9, 8, 5, 5))
    with pytest.raises(BadInputError, match="must have 4 features"):
        SelectiveKANLinear(4, 3, POOL).pruned("fit", torch.randn(9, 8))


@pytest.mark.parametrize("layer", [GroupRational(4, 2), KANLinear(4, 3), SelectiveKANLinear(4, 3, POOL)], ids=repr)
def test_whole_numbers_and_truth_values_are_refused(layer: torch.nn.Module) -> None:
    for dtype in (torch.long, torch.bool):
        with pytest.raises(BadInputError, match="must be floating-point numbers, got torch"):
            layer(torch.ones(2, 4, dtype=dtype))


def test_a_basis_does_not_read_beyond_its_tensors() -> None:
    row = BASES["rbf"]
    one = {name: value.float() for name, value in row.state(1).items()}
    x = torch.linspace(-1, 1, 10).view(2, 5)
    assert torch.equal(row.columns(x, one), row.columns(x, one, "torch"))
    with pytest.raises(RuntimeError, match="size"):
        row.columns(torch.ones(2, 100_000), {name: value.float() for name, value in row.state(3).items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rbf", "selective", "rational"])
def test_a_layer_is_compiled_exported_and_mapped_as_before(name: str) -> None:
    made, x = LINEAR[name](), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    y = made(x)
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(made, (x[:3],), dynamic_shapes=({0: batch},)).module()
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "compile": torch.compile(made, backend="eager", fullgraph=True),
        "export": exported,
        "vmap": torch.vmap(made),
    }
    for way, run in ways.items():
        torch.testing.assert_close(run(x), y, msg=way)
