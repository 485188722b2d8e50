"""Networks are read as what they are: edges that add up, pruning that is measured, formulas that compute the same."""

import json
import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from planted import planted_layer, trained_network
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives import BASES, KANLinear, MixedKANLinear, SelectiveKANLinear
from layersearch.primitives.layers.domain_map import DOMAINS
from layersearch.primitives.symbolic.chain import chain_of
from layersearch.primitives.symbolic.equations import Units
from layersearch.primitives.symbolic.prune import connected, prune, shares
from layersearch.primitives.symbolic.read import MOST_EDGES, read_network


def points(count: int = 400, inputs: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, inputs, generator=generator, dtype=torch.float64) * 2 - 1


def formula_network() -> nn.Sequential:
    """exp(sin(pi x1) / 2 + x2²), where that is at most e, and three edges that do nothing."""
    first = planted_layer(2, 2, {(0, 0): lambda x: torch.sin(math.pi * x) / 2, (0, 1): torch.square})
    return nn.Sequential(first, planted_layer(2, 1, {(0, 0): torch.exp}))


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_edges_of_a_network_add_up_to_it(domain: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in ("bspline", "rational", "laguerre"):
        for base in ("silu", None):
            layers = [KANLinear(i, o, name, base=base, domain=domain, generator=generator) for i, o in ((3, 4), (4, 2))]
            network = nn.Sequential(*layers)
            x = points(50, 3).float()
            network(x)  # minmax tracks its range
            network.eval()
            torch.testing.assert_close(chain_of(network)(x.double()), network(x).double(), rtol=1e-4, atol=1e-4)
            assert chain_of(network).widths == (3, 4, 2)
    assert BASES  # all are read alike: an edge is what the layer's own basis and weights make of one input


@pytest.mark.parametrize("domain", [None, *DOMAINS])
def test_the_edges_of_nodes_with_bases_of_their_own_add_up(domain: str | None) -> None:
    generator = torch.Generator().manual_seed(0)
    pool, choices = ("bspline", "chebyshev", "rbf"), ((2, 0, 2), (1, 0, 2, 1))
    for base in ("silu", None):
        layers = [
            MixedKANLinear(len(choice), o, pool, choice, base=base, domain=domain, generator=generator)
            for choice, o in zip(choices, (4, 2), strict=True)
        ]
        network = nn.Sequential(*layers)
        x = points(50, 3).float()
        network(x)
        network.eval()
        chain = chain_of(network)
        torch.testing.assert_close(chain(x.double()), network(x).double(), rtol=1e-4, atol=1e-4)
        for layer, read in zip(layers, chain.layers, strict=True):
            assert tuple(source.basis for source in read.sources[: read.in_features]) == layer.selected()


def test_a_network_of_several_bases_is_read_with_the_basis_of_every_node() -> None:
    pool = (BASES["chebyshev"].configure(degree=16), BASES["fourier"].configure(grid=1, frequency=math.pi))
    layer = MixedKANLinear(2, 1, pool, (1, 0), base=None, domain="none", dtype=torch.float64)
    x = points()
    with torch.no_grad():  # features are those of the second input, then those of the first
        columns = layer.features(x)
        target = torch.sin(math.pi * x[:, :1]) + torch.exp(x[:, 1:])
        layer.weight.copy_(torch.linalg.lstsq(columns, target, driver="gelsd").solution.T)
    reading = read_network(layer, x)
    assert reading.formula == "y = exp(x2) + sin(pi*x1)"
    assert reading.bases == (("fourier", "chebyshev"),)
    assert [edge.basis for edge in reading.edges] == ["fourier", "chebyshev"]
    assert reading.to_json()["bases"] == [["fourier", "chebyshev"]]
    assert "fourier: sin" in reading.svg()
    assert reading.by_basis() == ["bases of layer 1: chebyshev x2 | fourier x1"]
    alone = read_network(planted_layer(2, 1, {(0, 0): torch.exp}), x)
    assert alone.bases == (("chebyshev", "chebyshev"),)
    assert "basis of all nodes: chebyshev" in alone.svg()
    assert "chebyshev: exp" not in alone.svg()


def test_bases_of_one_name_are_told_apart_by_their_settings() -> None:
    grids = [BASES["bspline"].configure(grid=grid) for grid in (5, 12)]
    layer = MixedKANLinear(3, 1, [*grids, "rbf"], (1, 0, 1))
    assert layer.selected() == ("bspline(grid=12)", "bspline(grid=5)", "bspline(grid=12)")
    reading = read_network(layer, points(100, 3), refit=False)
    assert reading.by_basis() == ["bases of layer 1: bspline(grid=12) x1, x3 | bspline(grid=5) x2"]
    assert reading.to_json()["bases"] == [list(layer.selected())]
    assert "bspline(grid=5): " in reading.svg()
    alone = read_network(MixedKANLinear(2, 1, grids, (1, 1)), points(100), refit=False)
    assert alone.by_basis() == ["basis of all nodes: bspline(grid=12)"]
    orders = [grids[0], grids[1].configure(order=2)]
    mixed = MixedKANLinear(2, 1, [*orders, "rbf"], (1, 2))
    assert mixed.selected() == ("bspline(grid=12, order=2)", "rbf")


def test_a_reading_changes_nothing_of_the_network() -> None:
    network = formula_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    read_network(network, points())
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_planted_formula_is_found_and_printed() -> None:
    reading = read_network(formula_network(), points() / 2)
    assert reading.formula == "y = exp(x2**2 + 0.5*sin(pi*x1))"
    assert reading.latex is not None
    assert "e^{x_{2}^{2}" in reading.latex
    assert len(reading.live) == 3
    assert {edge.match.form for edge in reading.live if edge.match} == {"sin", "x^2", "exp"}
    assert max(reading.errors.values()) < 2e-3


def test_a_formula_is_in_the_units_of_the_data_and_computes_what_it_says() -> None:
    units = Units((5.0, 0.0), (2.0, 10.0), 100.0, 3.0)
    x = points() / 2
    reading = read_network(formula_network(), x, units=units, names=["mass", "v"], tolerance=0.0)
    at = x.numpy() * units.scale + np.array(units.shift)
    expected = 100 + 3 * np.exp(np.sin(np.pi * (at[:, 0] - 5) / 2) / 2 + (at[:, 1] / 10) ** 2)
    assert reading.equations is not None
    assert reading.formula is not None
    assert "mass" in reading.formula
    np.testing.assert_allclose(reading.equations(at)[:, 0], expected, atol=0.02)


def test_a_formula_that_cannot_be_worked_out_is_none() -> None:
    """exp(2000 (x - 0.9)) is read, but its factor in a formula would be 1e-782."""
    layer = KANLinear(1, 1, "chebyshev", degree=12, base=None, domain="none", dtype=torch.float64)
    x = torch.linspace(0.9, 0.9005, 300, dtype=torch.float64).unsqueeze(1)
    columns = layer.functions.columns(x)[:, :, 0]
    with torch.no_grad():
        solution = torch.linalg.lstsq(columns, torch.exp(2000 * (x - 0.9)), driver="gelsd").solution
        layer.weight.copy_(solution.T.unsqueeze(-1))
    reading = read_network(layer, x)
    assert reading.live[0].match is not None
    assert reading.live[0].match.form == "exp"
    assert reading.formula is None
    assert "double precision" in reading.reason
    assert reading.errors["symbolic"] < 1e-3


def test_shares_hand_the_spread_of_the_output_back() -> None:
    layer = planted_layer(2, 1, {(0, 0): lambda x: 3 * x, (0, 1): lambda x: 4 * x})
    (share,) = shares(chain_of(layer), points(5000))
    assert share[0].tolist() == pytest.approx([0.6, 0.8], abs=0.03)  # deviations of a sum of independent inputs
    first = planted_layer(2, 2, {(0, 0): lambda x: x, (1, 1): lambda x: x})
    deep = shares(chain_of([first, layer]), points(5000))
    assert deep[0].diagonal().tolist() == pytest.approx(deep[1][0].tolist())
    assert deep[0].trace() == deep[0].sum()


def test_pruning_is_measured_and_drops_what_hangs_in_the_air() -> None:
    small = 1e-2
    first = planted_layer(2, 2, {(0, 0): torch.square, (1, 1): lambda x: x})
    second = planted_layer(2, 1, {(0, 0): lambda x: x, (0, 1): lambda x: small * x})
    chain, x = chain_of([first, second]), points(2000)
    y = chain(x)

    def error(live: Any, means: Any) -> float:
        return float((chain.run(x, live, means)[-1][2] - y).square().mean().sqrt())

    share = shares(chain, x)
    for most, expected in ((1e-9, [[True, False], [False, True]]), (2 * small, [[True, False], [False, False]])):
        pruned = prune(chain, x, share, error, most)
        assert pruned.live[0].tolist() == expected
        assert error(pruned.live, pruned.means) <= most
    assert error(pruned.live, pruned.means) == pytest.approx(small * float(x[:, 1].std(correction=0)), rel=0.05)
    assert prune(chain, x, share, error, 1e3).n_live == 0


def test_edges_from_and_to_nowhere_are_dropped() -> None:
    chain = chain_of([KANLinear(2, 3), KANLinear(3, 2), KANLinear(2, 1)])
    live = [torch.ones(3, 2).bool(), torch.ones(2, 3).bool(), torch.tensor([[True, False]])]
    live[0][2] = False  # the third hidden node is a constant
    first, second, third = connected(chain, live)
    assert third.tolist() == [[True, False]]
    assert second.tolist() == [[True, True, False], [False, False, False]]
    assert first.tolist() == [[True, True], [True, True], [False, False]]
    assert live[1].all()  # what was given stays as it was


def test_noise_stays_numeric_and_gives_no_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = KANLinear(2, 1, "bspline", grid=40, base=None, domain="none", generator=generator)
    reading = read_network(layer, points(2000))
    assert [edge.symbolic for edge in reading.edges] == [False, False]
    assert reading.formula is None
    assert "no edge is a function" in reading.reason
    assert "no formula: no edge is a function" in reading.svg()


def test_a_numeric_edge_stays_in_the_formula_by_name() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = planted_layer(2, 1, {(0, 0): torch.exp})
    rough = KANLinear(1, 1, "bspline", grid=40, base=None, domain="none", generator=generator, dtype=torch.float64)
    with torch.no_grad():
        x = points(1000)[:, 1:]
        columns = layer.functions.columns(x.expand(-1, 2))[:, :, 1]
        layer.weight[0, :, 1] = torch.linalg.lstsq(columns, rough(x).detach()).solution[:, 0]
    reading = read_network(layer, points(1000))
    assert reading.formula is not None
    assert reading.formula == "y = phi_1_1_2(x2) + exp(x1)"
    assert reading.errors["formula"] < 0.01


def test_behind_a_layer_norm_functions_are_of_the_normalised_inputs() -> None:
    generator = torch.Generator().manual_seed(3)
    layer = KANLinear(3, 1, "taylor", degree=2, base="silu", domain="layernorm", generator=generator)
    reading = read_network(layer, points(500, 3), tolerance=0.0)
    assert {edge.normalised for edge in reading.live} == {True, False}
    assert reading.formula is not None
    assert "s1 = sqrt(" in reading.formula
    assert "m1 = " in reading.formula
    assert reading.errors["formula"] < 0.02
    assert "stroke-dasharray" in reading.svg()


def test_the_picture_is_self_contained_and_shows_every_edge_that_is_left() -> None:
    reading = read_network(formula_network(), points() / 2)
    text = reading.svg('a <b> & "c"')
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{space}polyline")) == len(reading.live)
    shown = " ".join("".join(node.itertext()) for node in root.iter(f"{space}text"))
    for part in ('a <b> & "c"', "sin", "x^2", "exp", "x1", "3 of 6 edges left", "y = exp(x2**2 + 0.5*sin(pi*x1))"):
        assert part in shown, part
    assert text.count("http") == 1  # the name space alone
    numbers = [
        float(n) for line in root.iter(f"{space}polyline") for n in line.get("points", "").replace(",", " ").split()
    ]
    assert all(0 <= n <= max(float(root.get("width", 0)), float(root.get("height", 0))) for n in numbers)


def test_plain_data_has_everything_but_the_curves() -> None:
    found = json.loads(json.dumps(read_network(formula_network(), points() / 2).to_json(), allow_nan=False))
    assert found["widths"] == [2, 2, 1]
    assert found["errors"].keys() == {"network", "pruned", "symbolic", "refitted", "formula"}
    live = [edge for edge in found["edges"] if edge["live"]]
    assert {(edge["from"], edge["to"]) for edge in live} == {("x1", "h1_1"), ("x2", "h1_1"), ("h1_1", "y")}
    assert all(edge["match"]["constants"].keys() == set("abcd") for edge in live)
    assert all(edge["match"] is None for edge in found["edges"] if not edge["live"])


@pytest.mark.parametrize(
    ("layers", "arguments", "sentence"),
    [
        (nn.Sequential(nn.Linear(2, 1)), {}, "KANLinear or MixedKANLinear layers in a row, got Linear"),
        (SelectiveKANLinear(2, 1), {}, r"give what its pruned\(\) is"),
        (nn.Sequential(), {}, "must have a KANLinear layer, got none"),
        ([KANLinear(2, 3), KANLinear(2, 1)], {}, "got 3 outputs before 2 inputs"),
        ([KANLinear(2, 251), KANLinear(251, 1)], {}, f"at most {MOST_EDGES} edges, got 753"),
        (KANLinear(2, 1), {"x": torch.zeros(50, 3)}, r"x must be \[at least 50, 2\], got \[50, 3\]"),
        (KANLinear(2, 1), {"x": torch.full((50, 2), math.nan)}, "x must be finite"),
        (KANLinear(2, 1), {"y": torch.zeros(50, 2)}, r"y must be \[400, 1\]"),
        (KANLinear(2, 1), {"names": ["a", "a"]}, "names must be 2 different ones"),
        (KANLinear(2, 1), {"names": ["a", "__import__('os')"]}, "short word"),
        (KANLinear(2, 1), {"limit": 0.0}, "limit of R²"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(layers: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        read_network(layers, **{"x": points(), **arguments})


@pytest.mark.slow
def test_a_trained_network_is_read_as_the_formula_it_was_trained_on() -> None:
    network, x, y = trained_network()
    reading = read_network(network, x, y)
    assert reading.formula == "y = exp(x2**2 + sin(pi*x1))"
    assert all(edge.match is not None and edge.match.r2 > 0.99 for edge in reading.live)
    assert reading.errors["formula"] < reading.errors["network"]
