"""The skan space on images: the contract of spaces, its designs and baselines, what is screened out, its settings."""

import random
from dataclasses import replace

import pytest
import torch
from space_contract import SpaceContract

from layersearch.errors import BadInputError, GenomeError
from layersearch.spaces.contracts import SelectingSpace
from layersearch.spaces.kan.genome import make as kan_layer
from layersearch.spaces.kan.images.genome import make as make_kan
from layersearch.spaces.kan.images.network import ELEMENTWISE, count_parameters
from layersearch.spaces.kan.images.published import of_parameters
from layersearch.spaces.skan.genome import make as layer
from layersearch.spaces.skan.images.genome import make, selects
from layersearch.spaces.skan.images.network import build, most_parameters, operations, pruned_network
from layersearch.spaces.skan.images.published import DESIGNS, single_conv
from layersearch.spaces.skan.images.space import ImageSKANSpace
from layersearch.spaces.skan.network import pool_of
from layersearch.spaces.skan.selection import choices_of
from layersearch.spaces.skan.settings import effective
from layersearch.spaces.skan.space import SKANSpace, from_settings
from layersearch.spaces.tasks.checkpoint import state_of
from layersearch.spaces.tasks.images import IMAGE_SETS
from layersearch.spaces.tasks.images.models import ConvShape

CONV = ConvShape(side=16, stem=4, channels=(4, 8), kernel=3, pool="max")
LAYER = layer({"chebyshev": {"degree": 3}, "rbf": {"grid": 5}})
SMALL = {"network__max_channels": 4, "pool__largest": 3, "network__max_blocks": 2, "network__reference_conv": [4, 4]}


def shrunk(factor: int, side: int) -> dict[str, object]:
    return {"task__shrink": factor, "task__image_size": side, "task__crop": side, "task__eval_size": side}


def space_of(data: str = "digits", preset: str = "smoke", **overrides: object) -> ImageSKANSpace:
    space = from_settings(effective(None, data, None, preset, {k.replace("__", "."): v for k, v in overrides.items()}))
    assert isinstance(space, ImageSKANSpace)
    return space


class TestDefault(SpaceContract):
    @pytest.fixture
    def space(self) -> ImageSKANSpace:
        return space_of(**SMALL, **shrunk(2, 8))


class TestNarrow(SpaceContract):
    """Two bases, one kind of gates, fixed shares, one size of channels: nearly nothing is asked for."""

    @pytest.fixture
    def space(self) -> ImageSKANSpace:
        narrow = {"pool__bases": ["laguerre", "rational"], "pool__gates": ["gumbel"], "pool__shares": [0.25, 0.25, 0.5]}
        sizes = {"network__max_channels": 4, "network__max_blocks": 2, "network__reference_conv": [4, 4]}
        return space_of("cifar10", funnel__objectives=["accuracy"], **narrow, **sizes, **shrunk(4, 8))


def test_the_data_decide_what_is_searched() -> None:
    assert isinstance(from_settings(effective(None, "fn:f3", None, "smoke")), SKANSpace)
    for name in IMAGE_SETS:
        space = space_of(name)
        assert space.settings.in_channels == (3 if name == "cifar10" else 1)
        assert isinstance(space, SelectingSpace)


def test_pools_shapes_and_heads_are_sampled_and_mutated_within_the_limits() -> None:
    space, rng = space_of(), random.Random(0)
    changed = {"layer": 0, "shape": 0, "head": 0}
    heads, pools = set(), set()
    for _ in range(200):
        genome = space.sample(rng)
        mutant = space.mutate(genome, rng)
        assert mutant != genome
        assert space.generator.holds(mutant)
        parts = [name for name in changed if getattr(mutant, name) != getattr(genome, name)]
        assert len(parts) == 1
        changed[parts[0]] += 1
        heads.add(genome.head)
        pools.add(len(genome.layer.pool))
    assert (heads, pools) == ({"kan", "linear"}, {2, 3, 4})
    assert min(changed.values()) > 5
    assert selects(space.mutate(space.baselines()["conv-relu"], rng))


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_are_recognised(name: str) -> None:
    space = space_of()
    genome = space.seeds()[name]
    assert space.known_as(genome) == name
    assert space.known_as(replace(genome, layer=replace(genome.layer, init="power"), shape=CONV)) == name
    assert space.known_as(replace(genome, layer=replace(genome.layer, base="tanh"))) is None


@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
@pytest.mark.parametrize("data", IMAGE_SETS)
def test_presets_have_all_seeds_and_baselines_of_equal_parameters(preset: str, data: str) -> None:
    space = space_of(data, preset)
    seeds, baselines = space.seeds(), space.baselines()
    assert tuple(seeds) == DESIGNS
    assert set(baselines) == {*space.settings.pool.bases, "conv-relu", "conv-relu-most"}
    channels = space.settings.in_channels
    most = most_parameters(seeds["sconvkan"], channels, 10)  # type: ignore[arg-type]
    for name, genome in baselines.items():
        assert not selects(genome)
        count = count_parameters(genome, channels, 10)
        if name == "conv-relu-most":
            assert count <= space.settings.network.most_parameters
            assert count > 1.5 * most
        else:
            assert 0.8 * most < count <= most, name


def test_a_size_more_is_too_many_parameters() -> None:
    genome = of_parameters(single_conv("rbf", CONV), 5000, 1, 10)
    assert genome is not None
    shape = genome.shape
    assert isinstance(shape, ConvShape)
    wider = replace(genome, shape=replace(shape, stem=shape.stem + 1, channels=(shape.stem + 1, 2 * shape.stem + 2)))
    assert count_parameters(genome, 1, 10) <= 5000 < count_parameters(wider, 1, 10)


def test_what_is_too_large_at_its_smallest_is_no_baseline() -> None:
    least = single_conv("rbf", replace(CONV, stem=1, channels=(1, 1)))
    n = count_parameters(least, 1, 10)
    assert of_parameters(least, n, 1, 10) == least
    assert of_parameters(least, n - 1, 1, 10) is None
    space = space_of(network__reference_conv=[1, 1])
    baselines = set(space.baselines())
    assert {*space.settings.pool.bases, "conv-relu", "conv-relu-most"} - baselines == {"fourier"}


@pytest.mark.parametrize("head", ["kan", "linear"])
def test_parameters_of_a_pruned_network_are_bounded(head: str) -> None:
    rng, genome = random.Random(1), make(LAYER, CONV, head)
    widths = (4, 4, 8) if head == "kan" else (4, 4)
    for _ in range(5):
        choices = tuple(tuple(rng.randrange(2) for _ in range(n)) for n in widths)
        built = sum(p.numel() for p in pruned_network(genome, 3, 10, choices).parameters())
        assert built <= most_parameters(genome, 3, 10)
    largest = pruned_network(genome, 3, 10, choices_of(genome.layer, [["rbf"] * n for n in widths]))
    assert sum(p.numel() for p in largest.parameters()) == most_parameters(genome, 3, 10)


def test_operations_are_the_mean_over_the_stages() -> None:
    genome = make(replace(LAYER, shares=(0.25, 0.25, 0.5), base="none"), CONV)
    cheap, dear = pool_of(genome.layer, {})
    assert (cheap.n_functions, dear.n_functions) == (4, 5)
    stem, edges, inputs = 256 * 9 * 4, 9 * 4 * (256 * 4 + 64 * 8), 256 * 4 + 64 * 4
    products = 2 * edges * (0.5 * (4 + 5) + 0.5 * 5)
    functions = ELEMENTWISE * inputs * (0.5 * (cheap.flops + dear.flops) + 0.5 * max(cheap.flops, dear.flops))
    assert operations(genome, 1, 10) == pytest.approx(2 * stem + products + functions + 2 * 8 * 10)


def test_what_learns_or_counts_otherwise_is_new_and_what_cannot_work_is_screened_out() -> None:
    space, genome = space_of(), make(LAYER, CONV)
    changed = [replace(genome, layer=replace(LAYER, hidden=(), **{key: value})) for key, value in (
        ("gate", "gumbel"), ("cold", 0.2), ("pruning", "gate"), ("shares", (0.0, 0.3, 0.7)),
    )]  # fmt: skip
    assert len({space.outline(one).key for one in [genome, make(LAYER, CONV, "kan"), *changed]}) == 6
    assert space.probe(genome).key != space.probe(changed[0]).key
    assert not space.same(genome, changed[0])
    assert not space.same(genome, space.baselines()["rbf"])
    tiny = [make(LAYER, replace(CONV, side=6, pool=pool)) for pool in ("max", "average")]
    assert space.outline(tiny[0]).key == space.outline(tiny[1]).key, "nothing is pooled"
    thin = make(replace(LAYER, domain="layernorm"), replace(CONV, channels=(1, 8)))
    assert space.outline(thin).reason == "layer norm of one feature"
    assert "parameters" in str(space_of(network__most_parameters=1000).outline(genome).reason)
    assert "operations" in str(space_of(network__most_operations=10_000).outline(genome).reason)


def test_weights_follow_the_generator_alone_and_gates_are_not_decayed() -> None:
    before = torch.get_rng_state()
    genome = make(LAYER, CONV, "kan")
    a, b, c = (build(genome, 1, 10, generator=torch.Generator().manual_seed(s)).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(a[name].equal(b[name]) for name in a)
    assert not all(a[name].equal(c[name]) for name in a)
    model = build(genome, 1, 10)
    exempt = model.no_weight_decay()
    gates = {name for name in state_of(model) if "gates" in name}
    assert {name for name in exempt if "gates" in name} == gates
    assert gates == {name for name in a if name.endswith("gates.logits")}, "checkpoints hold what they held"


LEGAL = space_of().to_json(make(LAYER, CONV))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "kat", "shape": {"side": 16, "patch": 4, "width": 8, "depth": 1, "heads": 2, "hidden": 8}}, "'conv'"),
        ({"kind": "cnn"}, "unknown kind of a genome 'cnn'"),
        ({"format": 2}, "format"),
        ({"more": 1}, "must be an object with"),
        ({"head": "mlp"}, "head of a genome must be one of"),
        ({"layer": 3}, "layer of a genome must be"),
        ({"layer": {"pool": {}}}, "layer of a genome must be an object with pool, gate"),
        ({"layer": {**LEGAL["layer"], "hidden": [8]}}, "layer of a genome must be an object with"),
        ({"layer": {**LEGAL["layer"], "pool": {"rbf": {}}}}, "2 to 8 bases, got rbf"),
        ({"layer": {**LEGAL["layer"], "gate": "hard"}}, "gate must be one of"),
        ({"shape": {**LEGAL["shape"], "channels": []}}, "channels of a genome must be 1 to 8"),
        ({"shape": {**LEGAL["shape"], "side": 28}}, "must be that of the images, 16, got 28"),
    ],
    ids=str,
)
def test_illegal_genomes_get_one_sentence(changes: dict[str, object], sentence: str) -> None:
    space = space_of()
    space.from_json(LEGAL)
    with pytest.raises(GenomeError, match=sentence) as caught:
        space.from_json(LEGAL | changes)
    assert "\n" not in str(caught.value)


def test_a_selection_has_a_row_for_each_layer_that_selects() -> None:
    genome = make(LAYER, CONV, "kan")
    with pytest.raises(GenomeError, match="a row for each of 3 layers, got 2"):
        pruned_network(genome, 1, 10, ((0,) * 4, (0,) * 4))
    with pytest.raises(GenomeError, match="must fit its sizes and selection"):
        pruned_network(genome, 1, 10, ((0,) * 4, (0,) * 4, (0,) * 7))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"pool__bases": ["bsplin", "rbf"]}, "did you mean 'bspline'"),
        ({"pool__bases": ["rbf"]}, "at least 2 bases, got rbf"),
        ({"pool__shares": [0.2, 0.3, 0.6]}, "must add to 1"),
        ({"network__reference_conv": [8]}, "reference_conv must be 2 to 9 channels"),
        ({"network__kinds": ["kat"]}, "unknown setting 'network.kinds'"),
        ({"network__max_width": 8}, "unknown setting 'network.max_width'"),
        ({"funnel__objectives": ["rmse"]}, "unknown objective 'rmse'"),
        ({"task__crop": 12}, "crop and eval_size must be image_size 16"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence(overrides: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence) as caught:
        space_of(**overrides)
    assert "\n" not in str(caught.value)


def test_designs_of_images_are_refused_elsewhere_and_the_other_way_round() -> None:
    for data, name in (("digits", "skan"), ("fn:f3", "sconvkan")):
        with pytest.raises(BadInputError, match="unknown design"):
            effective(None, data, None, "smoke", {}, [name])


def test_networks_of_one_basis_have_the_settings_of_the_pool() -> None:
    assert single_conv("bspline", CONV) == make_kan(kan_layer("bspline", {"grid": 5, "order": 3}), CONV)
