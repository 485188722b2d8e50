"""The kan space: the contract of spaces, its designs, what makes two genomes one, its settings."""

import random
from dataclasses import replace

import pytest
import torch
from space_contract import SpaceContract

from layersearch.errors import BadInputError, GenomeError
from layersearch.primitives import BASES
from layersearch.spaces.kan.choices import MLP, settings_of
from layersearch.spaces.kan.genome import KANGenome, make
from layersearch.spaces.kan.network import build, count_parameters
from layersearch.spaces.kan.published import PUBLISHED
from layersearch.spaces.kan.settings import effective
from layersearch.spaces.kan.space import KANSpace, from_settings


def space_of(data: str = "fn:f3", preset: str = "smoke", **overrides: object) -> KANSpace:
    return from_settings(effective(None, data, None, preset, {k.replace("__", "."): v for k, v in overrides.items()}))


class TestDefault(SpaceContract):
    @pytest.fixture
    def space(self) -> KANSpace:
        return space_of()


class TestOneBasisOneObjective(SpaceContract):
    @pytest.fixture
    def space(self) -> KANSpace:
        return space_of(
            "uci:concrete",
            network__bases=["laguerre"],
            network__inits=["glorot", "branch"],
            network__max_depth=1,
            network__min_width=4,
            network__max_width=4,
            funnel__objectives=["rmse"],
        )


def test_every_basis_is_in_the_space() -> None:
    assert space_of().settings.network.bases == tuple(BASES)
    rng = random.Random(0)
    assert {space_of().sample(rng).basis for _ in range(400)} == set(BASES)
    assert all(settings_of(name) for name in BASES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_designs_are_legal_and_recognised(name: str) -> None:
    space = space_of()
    genome = PUBLISHED[name].with_widths((5,))
    assert space.known_as(genome) == name
    assert space.known_as(replace(genome, init="power")) == name
    assert space.known_as(replace(genome, base="tanh")) is None
    assert space.from_json(space.to_json(genome)) == genome


def test_parameters_are_counted_without_building() -> None:
    space, rng = space_of("fn:r6"), random.Random(1)
    genomes = [space.sample(rng) for _ in range(40)] + list(space.baselines().values())
    for genome in genomes:
        built = sum(p.numel() for p in build(genome, 10, 1).parameters())
        assert count_parameters(genome, 10, 1) == built, space.formula(genome)


def test_the_mlp_has_the_parameters_of_the_splines() -> None:
    space = space_of()
    count = {name: count_parameters(genome, 2, 1) for name, genome in space.baselines().items()}
    assert 0.93 < count["mlp"] / count["efficient-kan"] <= 1
    assert 0.93 < count["mlp-most"] / space.settings.network.most_parameters <= 1


def test_weights_follow_the_generator_alone() -> None:
    genome = make(MLP, hidden=(4,))
    for one in (genome, PUBLISHED["kat"], PUBLISHED["fastkan"]):
        before = torch.get_rng_state()
        a, b, c = (build(one, 2, generator=torch.Generator().manual_seed(s)).state_dict() for s in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(a[name].equal(b[name]) for name in a)
        assert not all(a[name].equal(c[name]) for name in a)


def test_what_makes_no_difference_is_dropped_from_the_key() -> None:
    space = space_of()
    kat = PUBLISHED["kat"]

    def groups(n: int, hidden: tuple[int, ...]) -> KANGenome:
        return make("rational", dict(kat.settings) | {"groups": n}, base="none", hidden=hidden)

    assert space.outline(groups(4, (2,))).key == space.outline(groups(2, (2,))).key
    assert space.outline(groups(4, (4,))).key != space.outline(groups(2, (4,))).key
    flat = make("legendre", domain="layernorm", hidden=())
    assert space.outline(flat).key == space.outline(replace(flat, domain="none")).key


def test_equal_functions_are_found_by_the_probe() -> None:
    space = space_of()
    a = make("chebyshev", {"degree": 3})
    assert space.probe(a).key != space.probe(make("legendre", {"degree": 3})).key
    trained, fixed = (make("rbf", {"learn": learn}) for learn in (True, False))
    assert space.probe(trained).key != space.probe(fixed).key  # equal at first, but one trains its centres
    groups = [make("rational", {"groups": n, "start": "silu"}, hidden=(2,)) for n in (2, 8)]
    assert space.probe(groups[0]).key == space.probe(groups[1]).key
    assert space.same(*groups)
    assert not space.same(trained, a)
    alone = [make("chebyshev", base="none", init=init) for init in ("variance", "branch")]
    assert space.probe(alone[0]).key == space.probe(alone[1]).key
    assert space.same(*alone)
    assert space.probe(replace(a, init="branch")).key != space.probe(a).key


def test_networks_that_cannot_work_are_screened_out() -> None:
    space = space_of()
    assert space.outline(make("rbf", domain="layernorm", hidden=(1,))).reason == "layer norm of one feature"
    assert "parameters" in str(space.outline(make("bspline", {"grid": 32}, hidden=(64, 64))).reason)


def test_mutation_changes_one_thing_and_stays_within_the_limits() -> None:
    space, rng = space_of(), random.Random(3)
    for _ in range(300):
        genome = space.sample(rng)
        mutant = space.mutate(genome, rng)
        assert mutant != genome
        assert space.generator.holds(mutant)
        assert space.from_json(space.to_json(mutant)) == mutant


def test_seeds_beyond_the_limits_are_left_out() -> None:
    assert list(space_of().seeds()) == ["efficient-kan", "fastkan", "chebykan", "kat"]
    assert list(space_of(network__bases=["rational", "rbf"]).seeds()) == ["fastkan", "kat"]
    assert not space_of(network__max_width=4).seeds()
    assert set(space_of(network__most_parameters=200).seeds()) == {"kat"}


LEGAL = {
    "format": 1, "basis": "chebyshev", "settings": {"degree": 4}, "base": "silu", "domain": "tanh", "init": "variance",
    "hidden": [8],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"basis": "chebychev"}, "did you mean 'chebyshev'"),
        ({"basis": 3}, "must be a text"),
        ({"settings": {"degree": 99}}, "degree of basis 'chebyshev' must be a whole number in"),
        ({"settings": {"degree": True}}, "degree"),
        ({"settings": {}}, "must be given"),
        ({"settings": {"degree": 4, "grid": 3}}, "unknown setting of basis"),
        ({"settings": []}, "must be an object"),
        ({"base": "relu"}, "base must be one of"),
        ({"domain": "softplus"}, "domain must be one of"),
        ({"init": "zero"}, "init must be one of"),
        ({"hidden": [0]}, "widths"),
        ({"hidden": [True]}, "widths"),
        ({"hidden": [10**9]}, "widths"),
        ({"hidden": [2] * 9}, "at most 8"),
        ({"hidden": "8"}, "a list of at most"),
        ({"format": 2}, "format"),
        ({"more": 1}, "must be an object with"),
    ],
    ids=str,
)
def test_illegal_genomes_get_one_sentence(changes: dict[str, object], sentence: str) -> None:
    space = space_of()
    space.from_json(LEGAL)
    with pytest.raises(GenomeError, match=sentence) as caught:
        space.from_json(LEGAL | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"network__bases": ["bsplin"]}, "did you mean 'bspline'"),
        ({"network__bases": []}, "bases"),
        ({"network__max_dept": 2}, "did you mean 'network.max_depth'"),
        ({"network__min_width": 20}, "at most network.max_width"),
        ({"network__reference": [1]}, "reference"),
        ({"funnel__objectives": ["parameters"]}, "must have rmse"),
        ({"funnel__objectives": ["speed"]}, r"unknown objective 'speed' \(known: rmse, latency, memory, parameters\)"),
        ({"funnel__objectives": ["rmse", "memory", "memory"]}, "each name once, got rmse, memory, memory"),
        ({"funnel__quality_rmse": float("inf")}, "finite"),
        ({"task__batch": -1}, "batch"),
        ({"task__split": 1}, "no published splits"),
        ({"task__data": "fn:f9"}, "unknown data set"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence(overrides: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence) as caught:
        space_of(**overrides)
    assert "\n" not in str(caught.value)


def test_what_the_space_has_not_is_refused() -> None:
    for arguments, sentence in (
        (("b", "fn:f3", None, "smoke"), "series"),
        ((None, "fn:f3", None, "smoke", {}, ["fastkn"]), "did you mean 'fastkan'"),
        ((None, "fn:f3", None, "smoke", {}, None, "c"), "unknown lowering"),
    ):
        with pytest.raises(BadInputError, match=sentence):
            effective(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
def test_presets_make_spaces_for_every_kind_of_data(preset: str) -> None:
    for data in ("fn:f3", "fn:r6", "feynman:I.6.2a", "uci:wine_quality_red"):
        space = space_of(data, preset)
        assert len(space.seeds()) == 4
        assert "mlp" in space.baselines()


def test_networks_run_by_torch_alone() -> None:
    genomes = [*PUBLISHED.values()]
    networks = [build(genome.with_widths((4,)), 3) for genome in genomes]
    lowerings = {part.lowering for network in networks for part in network.modules() if hasattr(part, "lowering")}
    assert lowerings == {"torch"}
