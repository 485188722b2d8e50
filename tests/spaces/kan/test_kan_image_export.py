"""Exported classifiers: torch alone, equal to the genome, for every basis, domain map and kind of model."""

import random
from typing import Any

import pytest
import torch
from exported import run_exported

from layersearch.primitives import BASES
from layersearch.spaces.kan.choices import MLP, domains_of
from layersearch.spaces.kan.export import python_file
from layersearch.spaces.kan.genome import make as layer
from layersearch.spaces.kan.images.export import trained
from layersearch.spaces.kan.images.genome import ImageGenome, make, to_json
from layersearch.spaces.kan.images.space import ImageKANSpace
from layersearch.spaces.kan.settings import effective
from layersearch.spaces.kan.space import from_settings
from layersearch.spaces.tasks.images.models import ConvShape, ViTShape

CONV = ConvShape(side=8, stem=4, channels=(4, 6), kernel=3, pool="max")
VIT = ViTShape(side=8, patch=4, width=8, depth=1, heads=2, hidden=12)


def written(genome: ImageGenome, channels: int = 2) -> tuple[dict[str, Any], float]:
    file = python_file(to_json(genome), None, channels)
    assert "layersearch" not in file.body
    return run_exported(file)


@pytest.mark.parametrize("name", BASES)
def test_every_basis_and_domain_map_equals_its_genome(name: str) -> None:
    for i, domain in enumerate(domains_of(name).values):
        base = "none" if domain == "clamp" else ("silu", "identity", "tanh", "gelu")[i % 4]
        head = ("kan", "linear")[i % 2]
        for shape in (CONV, VIT):
            assert written(make(layer(name, domain=str(domain), base=base), shape, head))[1] < 1e-9, (domain, shape)


@pytest.mark.parametrize("shape", [CONV, VIT], ids=["conv", "vit"])
def test_models_run_in_half_precision(shape: ConvShape | ViTShape) -> None:
    model = written(make(layer("bspline", base="silu"), shape))[0]["Model"]()
    x = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = model.eval()(x).detach()
    y = model.half()(x.half()).detach()
    assert y.dtype is torch.float16
    assert float((y - exact).norm() / exact.norm()) < 0.02


def test_random_models_and_ordinary_ones_do() -> None:
    rng = random.Random(0)
    space = from_settings(effective(None, "digits", None, "smoke"))
    assert isinstance(space, ImageKANSpace)
    genomes = [g for g in (space.sample(rng) for _ in range(7)) if space.outline(g).reason is None]
    ordinary = [make(layer(MLP, base="relu"), CONV), make(layer(MLP, base="gelu"), VIT)]
    for genome in [*genomes, *ordinary, *space.baselines().values()]:
        assert written(genome, 1)[1] < 1e-9, genome


def test_another_number_of_channels_is_refused() -> None:
    for shape in (CONV, VIT):
        model = written(make(layer("chebyshev"), shape))[0]["Model"]()
        for images in ((4, 1, 8, 8), (4, 3, 8, 8), (2, 8, 8)):
            with pytest.raises(ValueError, match=r"x must be \[N, 2, 8, 8\], got"):
                model(torch.ones(images))


def test_a_wrong_file_is_noticed() -> None:
    file = python_file(to_json(make(layer("chebyshev"), VIT)), None, 1)
    conv = python_file(to_json(make(layer("chebyshev"), CONV)), None, 1)
    for right, old, new in (
        (file, "(2, 0, -1)", "(2, 0, -1.0001)"),
        (file, "x = x + self.attention", "x = 0.999 * x + self.attention"),
        (file, "nn.Linear(8, 24), nn.Linear(8, 8), 2", "nn.Linear(8, 24), nn.Linear(8, 8), 4"),
        (conv, "nn.MaxPool2d(2)", "nn.AvgPool2d(2)"),
        (conv, "image.movedim(1, -1)", "(0.999 * image).movedim(1, -1)"),
        (conv, "nn.BatchNorm2d(6)", "nn.BatchNorm2d(6, momentum=0.2)"),
    ):
        wrong = right.body.replace(old, new, 1)
        assert wrong != right.body
        namespace: dict[str, Any] = {}
        exec(compile(wrong, "wrong.py", "exec"), namespace)
        assert not right.check(namespace) < 1e-6, new


def test_layers_start_with_the_same_spread() -> None:
    genome = make(layer("gram"), ConvShape(side=8, stem=16, channels=(32,), kernel=3, pool="max"))
    torch.manual_seed(0)
    theirs = written(genome)[0]["Model"]().state_dict()["layers.2.weight"]
    from layersearch.spaces.kan.images.network import build

    ours = build(genome, 2, 10, generator=torch.Generator().manual_seed(1)).state_dict()["2.weight"]
    assert ours.shape == theirs.shape
    # 4,608 normal numbers per function: four standard errors of a deviation are 4 %.
    for k in range(ours.shape[1]):
        assert float(theirs[:, k].std()) == pytest.approx(float(ours[:, k].std()), rel=0.06)


def test_weights_are_those_of_the_rerank_and_take_pixels() -> None:
    steps = {"task.quality_steps": 1, "task.fitness_steps": 2, "task.rerank_steps": 2, "task.validation_cap": 20}
    settings = effective(None, "digits", None, "smoke", steps | {"network.reference_conv": [4, 4]})
    space = from_settings(settings)
    assert isinstance(space, ImageKANSpace)
    genome = space.baselines()["kacn"]
    state, measured = trained(to_json(genome), settings, 5)
    file = python_file(to_json(genome), settings, 64)
    namespace: dict[str, Any] = {}
    exec(compile(file.body, "exported.py", "exec"), namespace)
    model = namespace["Model"]()
    model.load_state_dict(state)
    arrays = space.load_data()
    task = space.evaluator(arrays, "cpu").task  # type: ignore[attr-defined]
    rows = task.parts.holdout
    with torch.no_grad():
        guess = model.eval()(torch.tensor(arrays["train_x"][rows]).float()).argmax(1)
    right = float((guess == torch.tensor(arrays["train_y"][rows])).double().mean())
    assert right == pytest.approx(measured["accuracy"], abs=1.5 / len(rows))
