"""Exported networks: torch alone, equal to the genome, for every basis and every domain map."""

import random
from typing import Any

import pytest
import torch
from exported import run_exported

from layersearch.primitives import BASES
from layersearch.spaces.kan.basis_source import basis_source
from layersearch.spaces.kan.choices import domains_of
from layersearch.spaces.kan.export import python_file
from layersearch.spaces.kan.export_check import exported_name
from layersearch.spaces.kan.genome import KANGenome, make, to_json
from layersearch.spaces.kan.network import build
from layersearch.spaces.kan.published import PUBLISHED, mlp_of
from layersearch.spaces.kan.settings import effective
from layersearch.spaces.kan.space import from_settings


def written(genome: KANGenome, inputs: int = 3) -> tuple[dict[str, Any], float]:
    return run_exported(python_file(to_json(genome), None, inputs))


@pytest.mark.parametrize("name", BASES)
def test_every_basis_and_domain_map_equals_its_genome(name: str) -> None:
    for domain in domains_of(name).values:
        base = "none" if domain == "clamp" else "silu"
        assert written(make(name, domain=str(domain), base=base, hidden=(6, 4)))[1] < 1e-9, domain


@pytest.mark.parametrize("name", BASES)
def test_a_nan_stays_one_and_touches_no_other_row(name: str) -> None:
    domain = "tanh" if "tanh" in domains_of(name).values else "none"
    model = written(make(name, domain=domain, base="none"))[0]["Model"]()
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    holed = x.clone()
    holed[2, 1] = torch.nan
    y, got = model(x), model(holed)
    assert bool(got[2].isnan().all())
    got[2] = y[2]
    assert torch.equal(got, y)


@pytest.mark.parametrize("name", BASES)
def test_half_precision_is_that_of_our_network(name: str) -> None:
    """Functions in float32, products in the dtype of the weights."""
    for domain in domains_of(name).values:
        genome = make(name, domain=str(domain), hidden=(6,))
        theirs = written(genome)[0]["Model"]()
        x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        for dtype in (torch.float16, torch.bfloat16):
            ours = build(genome, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
            theirs.to(dtype).load_state_dict({exported_name(k): t for k, t in ours.state_dict().items()}, strict=False)
            for training in (True, False):
                y = theirs.train(training)(x.to(dtype))
                expected = ours.train(training)(x.to(dtype))
                assert y.dtype is dtype
                error = (y - expected).detach().float().norm() / expected.detach().float().norm()
                assert float(error) < 8 * torch.finfo(dtype).eps, (domain, dtype, training)


def test_random_genomes_and_linear_networks_do() -> None:
    rng = random.Random(0)
    space = from_settings(effective(None, "fn:f3", None, "smoke"))
    for genome in [*(space.sample(rng) for _ in range(15)), mlp_of(300, 3, 1), mlp_of(3, 3, 1, depth=0)]:
        assert written(genome)[1] < 1e-9, genome


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_designs_do_and_start_with_the_same_spread(name: str) -> None:
    namespace, difference = written(PUBLISHED[name], 16)
    assert difference < 1e-9
    torch.manual_seed(0)
    theirs = namespace["Model"]().state_dict()
    ours = build(PUBLISHED[name], 16, generator=torch.Generator().manual_seed(1)).state_dict()
    for key, tensor in ours.items():
        if key.endswith("0.weight"):  # 16 * 8 * K numbers: four standard errors of a deviation are less than 30 %
            other = theirs[exported_name(key)]
            assert other.std() == pytest.approx(float(tensor.std()), rel=0.4)
            assert (other.std((0, 2)) == 0).equal(tensor.std((0, 2)) == 0)


def test_a_wrong_file_is_noticed() -> None:
    genome = PUBLISHED["chebykan"]
    file = python_file(to_json(genome), None, 2)
    for wrong in (
        file.body.replace("(2, 0, -1)", "(2, 0, -1.0001)", 1),
        file.body.replace("torch.tanh(x)", "torch.tanh(1.001 * x)"),
        file.body.replace("KANLinear(8, 8,", "KANLinear(8, 9,"),
        file.body.replace("self.weight = ", "self.w = self.weight = "),
    ):
        assert wrong != file.body
        namespace: dict[str, Any] = {}
        exec(compile(wrong, "wrong.py", "exec"), namespace)
        assert not file.check(namespace) < 1e-6


def test_another_number_of_inputs_is_refused() -> None:
    for genome in (PUBLISHED["fastkan"], mlp_of(300, 3, 1)):
        model = written(genome)[0]["Model"]()
        for shape in ((5, 1), (5, 4), (3, 1)):
            with pytest.raises(ValueError, match=r"x must be \[..., 3\], got"):
                model(torch.ones(shape))
        assert model(torch.ones(2, 5, 3)).shape == (2, 5, 1)


def test_the_run_says_how_many_inputs_there_are() -> None:
    settings = effective(None, "fn:r6", None, "smoke")
    assert "KANLinear(10, 8," in python_file(to_json(PUBLISHED["chebykan"]), settings, 64).body
    assert "KANLinear(64, 8," in python_file(to_json(PUBLISHED["chebykan"]), None, 64).body


def test_a_file_holds_the_formula_of_its_basis_alone() -> None:
    for row in BASES.values():
        source = basis_source(row)
        assert "BASES" not in source.columns
        assert len(source.columns.split("\n")) <= 15
