"""Exported S-ConvKANs: torch alone, equal to the pruned network, for every basis and every domain map."""

import random
from typing import Any

import pytest
from exported import run_exported

from layersearch.errors import BadInputError, GenomeError
from layersearch.primitives import BASES
from layersearch.spaces.skan.choices import DOMAINS
from layersearch.spaces.skan.export import python_file
from layersearch.spaces.skan.genome import make as layer
from layersearch.spaces.skan.images.genome import SelectingGenome, make, to_json
from layersearch.spaces.skan.images.published import single_conv
from layersearch.spaces.skan.settings import effective
from layersearch.spaces.tasks.images.models import ConvShape

NAMES = list(BASES)
CONV = ConvShape(side=8, stem=6, channels=(7, 6), kernel=3, pool="max")


def written(genome: SelectingGenome, layers: list[list[str]]) -> tuple[str, float]:
    file = python_file(to_json(genome), None, 2, {"layers": layers})
    return file.body, run_exported(file)[1]


@pytest.mark.parametrize("domain", DOMAINS.values)
def test_every_basis_and_domain_map_equals_its_network(domain: str) -> None:
    rng = random.Random(0)
    for first in range(0, len(NAMES), 5):
        pool = {NAMES[(first + j) % len(NAMES)]: {} for j in range(5)}
        head = ("kan", "linear")[first % 2]
        genome = make(layer(pool, domain=domain, base="none" if first % 3 else "silu"), CONV, head)
        layers = [[rng.choice(genome.layer.bases) for _ in range(n)] for n in ((6, 7, 6) if head == "kan" else (6, 7))]
        assert written(genome, layers)[1] < 1e-9, pool


def test_a_file_holds_only_what_was_selected_and_a_wrong_one_is_noticed() -> None:
    genome = make(layer({"chebyshev": {}, "dog": {}, "rbf": {}}), CONV)
    layers = [["rbf", "chebyshev"] * 3, ["rbf"] * 7]
    body, _ = written(genome, layers)
    assert "class MixedKANConv2d" in body
    assert "class MixedKANLinear" not in body
    assert "class Dog" not in body
    file = python_file(to_json(genome), None, 2, {"layers": layers})
    for old, new in (
        ("(2, 0, -1)", "(2, 0, -1.0001)"),
        ("image.movedim(1, -1)[..., self.order]", "image.movedim(1, -1)"),
        ("self.padding = kernel // 2", "self.padding = 0"),
        ("nn.MaxPool2d(2)", "nn.AvgPool2d(2)"),
    ):
        wrong = file.body.replace(old, new, 1)
        assert wrong != file.body
        namespace: dict[str, Any] = {}
        exec(compile(wrong, "wrong.py", "exec"), namespace)
        assert not file.check(namespace) < 1e-6, new


def test_what_cannot_be_exported_is_one_sentence() -> None:
    genome = to_json(make(layer({"chebyshev": {}, "rbf": {}}), CONV))
    with pytest.raises(BadInputError, match="no training of this genome is recorded"):
        python_file(genome, None, 2, None)
    with pytest.raises(GenomeError, match="must be of the pool"):
        python_file(genome, None, 2, {"layers": [["sine"] * 6, ["rbf"] * 7]})
    with pytest.raises(GenomeError, match="a row for each of 2 layers, got 1"):
        python_file(genome, None, 2, {"layers": [["rbf"] * 6]})


def test_networks_of_one_basis_are_exported_as_in_kan_with_the_images_of_the_run() -> None:
    settings = effective(None, "cifar10", None, "smoke")
    file = python_file(to_json(single_conv("rbf", ConvShape(16, 4, (4,), 3, "max"))), settings, 64, None)
    assert "nn.Conv2d(3, 4, 3, 1, 1, bias=False)" in file.body
    assert "averages over 2x2 pixels" in file.body
    assert "KANConv2d(" in file.body
