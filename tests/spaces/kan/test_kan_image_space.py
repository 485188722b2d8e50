"""The kan space on images: the contract of spaces, its models and designs, what is screened out, its settings."""

import json
import random
from dataclasses import replace

import pytest
import torch
from space_contract import SpaceContract

from layersearch.errors import BadInputError, GenomeError
from layersearch.primitives import BASES
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.genome import make as layer
from layersearch.spaces.kan.images.choices import Multiples, patches
from layersearch.spaces.kan.images.genome import ImageGenome, make
from layersearch.spaces.kan.images.network import ELEMENTWISE, build, count_parameters, operations
from layersearch.spaces.kan.images.published import DESIGNS
from layersearch.spaces.kan.images.space import ImageKANSpace
from layersearch.spaces.kan.settings import effective
from layersearch.spaces.kan.space import KANSpace, from_settings
from layersearch.spaces.tasks.images import IMAGE_SETS
from layersearch.spaces.tasks.images.models import ConvShape, ViTShape

CONV = ConvShape(side=16, stem=4, channels=(8, 8), kernel=3, pool="max")
VIT = ViTShape(side=16, patch=4, width=16, depth=2, heads=2, hidden=24)


def space_of(data: str = "digits", preset: str = "smoke", **overrides: object) -> ImageKANSpace:
    space = from_settings(effective(None, data, None, preset, {k.replace("__", "."): v for k, v in overrides.items()}))
    assert isinstance(space, ImageKANSpace)
    return space


SMALL = {"network__max_channels": 8, "network__max_blocks": 2, "network__max_width": 16, "network__max_depth": 1}


def shrunk(factor: int, side: int) -> dict[str, object]:
    return {"task__shrink": factor, "task__image_size": side, "task__crop": side, "task__eval_size": side}


class TestDefault(SpaceContract):
    @pytest.fixture
    def space(self) -> ImageKANSpace:
        return space_of(**SMALL, **shrunk(2, 8), network__reference_conv=[4, 8])


class TestTransformersOfOneBasis(SpaceContract):
    @pytest.fixture
    def space(self) -> ImageKANSpace:
        one = {"network__bases": ["rational"], "network__inits": ["power"], "network__kinds": ["kat"]}
        return space_of("mnist", **SMALL, **one, funnel__objectives=["accuracy"], **shrunk(4, 7))


class TestConvolutionsOfTwoBases(SpaceContract):
    @pytest.fixture
    def space(self) -> ImageKANSpace:
        two = {"network__bases": ["gram", "laguerre"], "network__kinds": ["conv"], "network__max_channels": 4}
        return space_of("cifar10", **(SMALL | two), **shrunk(4, 8), network__reference_conv=[4, 4])


def test_the_data_decide_what_is_searched() -> None:
    assert isinstance(from_settings(effective(None, "fn:f3", None, "smoke")), KANSpace)
    for name in IMAGE_SETS:
        assert space_of(name).settings.in_channels == (3 if name == "cifar10" else 1)


def test_every_basis_and_kind_is_in_the_space() -> None:
    rng, space = random.Random(0), space_of()
    found = [space.sample(rng) for _ in range(500)]
    assert {genome.layer.basis for genome in found} == set(BASES)
    assert {genome.kind for genome in found} == {"conv", "kat"}
    assert {genome.head for genome in found} == {"kan", "linear"}


@pytest.mark.parametrize("name", DESIGNS)
def test_published_designs_are_recognised(name: str) -> None:
    space = space_of()
    genome = space.baselines()[name]
    assert space.known_as(genome) == name
    assert space.known_as(replace(genome, layer=replace(genome.layer, init="power"))) == name
    assert space.known_as(replace(genome, layer=replace(genome.layer, base="tanh"))) is None
    other = VIT if genome.kind == "conv" else CONV
    assert space.known_as(replace(genome, shape=other)) is None


def test_parameters_are_counted_without_building() -> None:
    space, rng = space_of("cifar10", **SMALL), random.Random(1)
    genomes = [space.sample(rng) for _ in range(40)] + list(space.baselines().values())
    for genome in genomes:
        built = sum(p.numel() for p in build(genome, 3, 10).parameters())
        assert count_parameters(genome, 3, 10) == built, space.formula(genome)


def test_operations_are_those_of_the_products() -> None:
    plain = make(layer(MLP, base="relu"), CONV)
    stem, first, second, head = 256 * 9 * 4, 256 * 9 * 4 * 8, 64 * 9 * 8 * 8, 8 * 10
    assert operations(plain, 1, 10) == 2 * (stem + first + second + head)
    kan = make(layer("chebyshev", {"degree": 3}, base="none"), CONV)
    functions = ELEMENTWISE * BASES["chebyshev"].configure(degree=3).flops * (256 * 4 + 64 * 8)
    assert operations(kan, 1, 10) == 2 * (stem + 4 * (first + second) + head) + functions
    tokens, width = 16, 16
    attention = tokens * (4 * width * width) + 2 * tokens * tokens * width
    mlp = 2 * tokens * width * 24
    embedding = tokens * 16 * width
    gelu = make(layer(MLP, base="gelu"), VIT)
    assert operations(gelu, 1, 10) == 2 * (embedding + 2 * (attention + mlp) + width * 10)


@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
@pytest.mark.parametrize("data", IMAGE_SETS)
def test_presets_have_all_seeds_and_fair_baselines(preset: str, data: str) -> None:
    space = space_of(data, preset)
    assert list(space.seeds()) == ["kan-conv", "fastkan-conv", "kagn", "kat-vit"]
    count = {n: count_parameters(g, space.settings.in_channels, 10) for n, g in space.baselines().items()}
    assert set(count) == {*DESIGNS, "conv-relu", "vit-gelu"}
    assert 0.95 < count["conv-relu"] / count["kan-conv"] <= 1
    assert 0.99 < count["vit-gelu"] / count["kat-vit"] <= 1


def test_weights_follow_the_generator_alone() -> None:
    for genome in (make(layer(MLP, base="relu"), CONV), make(layer("rational"), VIT), make(layer("rbf"), CONV, "kan")):
        before = torch.get_rng_state()
        a, b, c = (build(genome, 1, 10, generator=torch.Generator().manual_seed(s)).state_dict() for s in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(a[name].equal(b[name]) for name in a)
        assert not all(a[name].equal(c[name]) for name in a)


def test_inputs_of_the_searched_layers_have_variance_one() -> None:
    seen: list[float] = []
    for shape in (CONV, VIT):
        model = build(make(layer("chebyshev"), shape), 1, 10, generator=torch.Generator().manual_seed(0))
        for module in model.modules():
            if type(module).__name__ in ("KANConv2d", "KANLinear"):
                module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().std().item()))
        model(torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(1)))
    assert len(seen) == 2 + 4
    # Pooling takes some of it away; layer norm and, behind it, the variance-preserving start do not.
    assert all(0.5 < deviation < 2 for deviation in seen), seen


def test_a_rational_before_the_first_layer_of_a_block_starts_as_the_identity() -> None:
    model = build(make(layer("rational", base="none"), VIT), 1, 10)
    first, second = model[1].mlp  # type: ignore[union-attr,misc]
    x = torch.linspace(-2, 2, 7).unsqueeze(-1).expand(7, 16)
    torch.testing.assert_close(first.functions.columns(x).squeeze(-2), x)
    assert second.functions.basis.start == "silu"


def test_bases_and_places_are_not_decayed() -> None:
    exempt = build(make(layer("rational", base="none"), VIT), 1, 10).no_weight_decay()
    assert exempt == {
        "0.position",
        *(f"{i}.mlp.{j}.functions.{n}" for i in (1, 2) for j in (0, 1) for n in ("numerator", "denominator")),
    }
    assert build(make(layer("chebyshev"), CONV), 1, 10).no_weight_decay() == set()


def test_what_makes_no_difference_is_dropped_from_the_key() -> None:
    space = space_of()
    for shape in (CONV, VIT):
        eight = make(layer("rational", {"groups": 8}, base="none"), replace(shape, **_narrow(shape)))
        two = replace(eight, layer=layer("rational", {"groups": 4}, base="none").with_widths(()))
        assert space.outline(eight).key == space.outline(two).key
    tiny = replace(CONV, side=6)
    pools = [make(layer("gram"), replace(tiny, pool=pool)) for pool in ("max", "average")]
    assert space.outline(pools[0]).key == space.outline(pools[1]).key, "nothing is pooled"
    assert space.outline(make(layer("gram"), CONV)).key != space.outline(make(layer("gram"), CONV, "kan")).key


def _narrow(shape: ConvShape | ViTShape) -> dict[str, object]:
    return {"stem": 4, "channels": (4, 4)} if isinstance(shape, ConvShape) else {"width": 4, "hidden": 4}


def test_models_that_cannot_work_or_cost_too_much_are_screened_out() -> None:
    space = space_of()
    thin = make(layer("rbf", domain="layernorm"), replace(CONV, channels=(1, 8)))
    assert space.outline(thin).reason == "layer norm of one feature"
    few = space_of(network__most_parameters=2000)
    assert "2000 parameters" in str(few.outline(make(layer("bspline"), replace(CONV, channels=(24, 24)))).reason)
    wide = make(layer("chebyshev", {"degree": 12}), replace(CONV, stem=12, channels=(12, 4)))
    assert "8000000 operations" in str(space.outline(wide).reason)


def test_mutation_changes_one_thing_and_stays_within_the_limits() -> None:
    space, rng = space_of(), random.Random(3)
    changed = {"layer": 0, "shape": 0, "head": 0, "kind": 0}
    for _ in range(400):
        genome = space.sample(rng)
        mutant = space.mutate(genome, rng)
        assert mutant != genome
        assert space.generator.holds(mutant)
        assert space.from_json(json.loads(json.dumps(space.to_json(mutant)))) == mutant
        changed["kind"] += mutant.kind != genome.kind
        if mutant.kind == genome.kind:
            parts = [name for name in ("layer", "shape", "head") if getattr(mutant, name) != getattr(genome, name)]
            assert len(parts) == 1
            changed[parts[0]] += 1
    assert min(changed.values()) > 5


def test_ordinary_networks_are_not_searched_from() -> None:
    space, rng = space_of(), random.Random(0)
    mutant = space.mutate(space.baselines()["conv-relu"], rng)
    assert mutant.layer.basis in BASES
    assert space.parameters(space.baselines()["vit-gelu"]) is None


def test_multiples_stay_multiples() -> None:
    choice, rng = Multiples(8, 48, step=8), random.Random(0)
    drawn = {choice.draw(rng) for _ in range(200)}
    assert drawn == {8, 16, 24, 32, 40, 48}
    for value in drawn:
        near = {choice.near(value, rng) for _ in range(50)}
        assert all(map(choice.holds, near))
        assert near - {value}
    assert not choice.holds(12)


@pytest.mark.parametrize(("side", "known"), [(4, (1, 2)), (7, (1,)), (14, (2, 7)), (16, (2, 4, 8)), (28, (4, 7, 14))])
def test_patches_divide_the_image(side: int, known: tuple[int, ...]) -> None:
    assert patches(side) == known


def _json(genome: ImageGenome) -> dict[str, object]:
    return space_of().to_json(genome)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "cnn"}, "unknown kind of a genome 'cnn'"),
        ({"kind": ["conv"]}, "unknown kind"),
        ({"format": 2}, "format"),
        ({"more": 1}, "must be an object with"),
        ({"head": "mlp"}, "head of a genome must be one of"),
        ({"layer": {"basis": "gram"}}, "layer of a genome must be an object with"),
        ({"layer": 3}, "layer of a genome must be"),
        ({"shape": []}, "shape of a conv genome must be"),
        ({"shape": {"patch": 4}}, "shape of a conv genome must be"),
        ({"side": 28}, "must be that of the images, 16, got 28"),
        ({"side": 10**9}, "side of a genome"),
        ({"stem": 0}, "stem of a genome"),
        ({"stem": True}, "stem of a genome"),
        ({"channels": []}, "channels of a genome must be 1 to 8"),
        ({"channels": "ab"}, "channels of a genome must be a list"),
        ({"channels": [4] * 9}, "channels of a genome must be 1 to 8"),
        ({"channels": [4, 2.5]}, "channels of a genome"),
        ({"kernel": 4}, "kernel of a genome must be one of"),
        ({"pool": "min"}, "pool of a genome must be one of"),
    ],
    ids=str,
)
def test_illegal_convolutions_get_one_sentence(changes: dict[str, object], sentence: str) -> None:
    space, legal = space_of(), _json(make(layer("gram"), CONV))
    space.from_json(legal)
    if set(changes) & set(legal["shape"]):  # type: ignore[call-overload]
        changes = {"shape": {**legal["shape"], **changes}}  # type: ignore[dict-item]
    with pytest.raises(GenomeError, match=sentence) as caught:
        space.from_json(legal | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch": 3}, "patch of a genome must divide the side 16"),
        ({"patch": 0}, "patch of a genome"),
        ({"heads": 3}, "heads of a genome must divide the width 16"),
        ({"depth": 99}, "depth of a genome"),
        ({"hidden": 0}, "hidden of a genome"),
        ({"width": 10**7}, "width of a genome"),
    ],
    ids=str,
)
def test_illegal_transformers_get_one_sentence(changes: dict[str, object], sentence: str) -> None:
    space, legal = space_of(), _json(make(layer("gram"), VIT))
    space.from_json(legal)
    with pytest.raises(GenomeError, match=sentence):
        space.from_json(legal | {"shape": {**legal["shape"], **changes}})  # type: ignore[dict-item]


def test_a_head_needs_a_basis() -> None:
    with pytest.raises(GenomeError, match="head of a genome without a basis"):
        make(layer(MLP, base="relu"), CONV, "kan")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"network__bases": ["bsplin"]}, "did you mean 'bspline'"),
        ({"network__kinds": ["vit"]}, "kinds"),
        ({"network__kinds": []}, "kinds"),
        ({"network__max_chanels": 8}, "did you mean 'network.max_channels'"),
        ({"network__reference_conv": [8]}, "reference_conv must be 2 to 9 channels"),
        ({"network__reference_vit": {"width": 10, "depth": 1, "heads": 3, "hidden": 8}}, "heads that divide"),
        ({"network__max_blocks": 1}, "max_blocks"),
        ({"funnel__objectives": ["parameters"]}, "must have accuracy"),
        ({"funnel__objectives": ["rmse"]}, "unknown objective 'rmse'"),
        ({"funnel__quality_chance": float("inf")}, "finite"),
        ({"task__batch": 1}, "batch"),
        ({"task__crop": 12}, "crop and eval_size must be image_size 16"),
        ({"task__data": "digit"}, "unknown data set"),
        ({"task__quality_steps": 10_000}, "quality_steps must be at most"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence(overrides: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence) as caught:
        space_of(**overrides)
    assert "\n" not in str(caught.value)


def test_designs_of_images_are_refused_elsewhere_and_the_other_way_round() -> None:
    for data, name in (("digits", "fastkan"), ("fn:f3", "fastkan-conv")):
        with pytest.raises(BadInputError, match="unknown design"):
            effective(None, data, None, "smoke", {}, [name])
