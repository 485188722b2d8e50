"""Exported networks of skan: torch alone, equal to the pruned network, for every basis and every domain map."""

import random
from typing import Any

import pytest
import torch
from exported import run_exported

from layersearch.errors import BadInputError, GenomeError
from layersearch.primitives import BASES
from layersearch.spaces.skan.choices import DOMAINS
from layersearch.spaces.skan.export import python_file
from layersearch.spaces.skan.genome import SKANGenome, make, to_json
from layersearch.spaces.skan.published import PUBLISHED, single
from layersearch.spaces.skan.settings import effective
from layersearch.spaces.skan.space import from_settings

NAMES = list(BASES)


def written(genome: SKANGenome, rng: random.Random, inputs: int = 3) -> tuple[str, float]:
    layers = [[rng.choice(genome.bases) for _ in range(n)] for n in (inputs, *genome.hidden)]
    file = python_file(to_json(genome), None, inputs, {"layers": layers})
    return file.body, run_exported(file)[1]


@pytest.mark.parametrize("domain", DOMAINS.values)
def test_every_basis_and_domain_map_equals_its_network(domain: str) -> None:
    rng = random.Random(0)
    for first in range(0, len(NAMES), 6):
        pool = {NAMES[(first + j) % len(NAMES)]: {} for j in range(7)}
        base = "none" if first % 12 else "silu"
        genome = make(pool, domain=domain, base=base, hidden=(9, 8))
        assert written(genome, rng)[1] < 1e-9, pool


def test_a_network_runs_in_half_precision() -> None:
    file = python_file(
        to_json(make({"bspline": {}, "rbf": {}}, hidden=(4,))),
        None,
        3,
        {"layers": [["bspline", "rbf", "rbf"], ["rbf"] * 4]},
    )
    model = run_exported(file)[0]["Model"]()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    exact = model.eval()(x).detach()
    y = model.half()(x.half()).detach()
    assert y.dtype is torch.float16
    assert float((y - exact).norm() / exact.norm()) < 0.02


def test_random_genomes_do_and_hold_only_what_was_selected() -> None:
    rng = random.Random(0)
    space = from_settings(effective(None, "fn:f3", None, "smoke"))
    for genome in (space.sample(rng) for _ in range(15)):
        if genome.domain != "layernorm" or 1 not in genome.hidden:
            assert written(genome, rng)[1] < 1e-9, genome
    skan = PUBLISHED["skan"].with_widths((4,))
    body = python_file(to_json(skan), None, 2, {"layers": [["rbf"] * 2, ["rbf"] * 4]}).body
    assert "class Rbf" in body
    assert "class Chebyshev" not in body


def test_a_wrong_file_is_noticed() -> None:
    genome = make({"chebyshev": {}, "rbf": {}}, hidden=(4,))
    file = python_file(to_json(genome), None, 2, {"layers": [["rbf", "chebyshev"], ["rbf", "rbf", "chebyshev", "rbf"]]})
    for wrong in (
        file.body.replace("(2, 0, -1)", "(2, 0, -1.0001)", 1),
        file.body.replace("(1, 0),", "(0, 1),"),
        file.body.replace("x = x[..., self.order]", "x = x"),
    ):
        assert wrong != file.body
        namespace: dict[str, Any] = {}
        exec(compile(wrong, "wrong.py", "exec"), namespace)
        assert not file.check(namespace) < 1e-6


def test_what_cannot_be_exported_is_one_sentence() -> None:
    skan = to_json(PUBLISHED["skan"])
    with pytest.raises(BadInputError, match="no training of this genome is recorded"):
        python_file(skan, None, 2, None)
    with pytest.raises(GenomeError, match="must be of the pool"):
        python_file(skan, None, 2, {"layers": [["sine"] * 2, ["rbf"] * 8, ["rbf"] * 8]})
    with pytest.raises(GenomeError, match="a row for each of 3 layers, got 1"):
        python_file(skan, None, 2, {"layers": [["rbf"] * 2]})
    with pytest.raises(GenomeError, match="must fit the layers"):
        python_file(skan, None, 2, {"layers": [["rbf"] * 3, ["rbf"] * 8, ["rbf"] * 8]})


def test_networks_of_one_basis_are_exported_as_in_kan() -> None:
    file = python_file(to_json(single("rbf", (4,))), effective(None, "fn:r6", None, "smoke"), 64, None)
    assert "KANLinear(10, 4," in file.body
