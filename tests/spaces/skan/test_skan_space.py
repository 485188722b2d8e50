"""The skan space: the contract of spaces, its designs, what makes two genomes one, its settings and schedule."""

import random
from dataclasses import replace

import pytest
import torch
from space_contract import SpaceContract

from layersearch.errors import BadInputError, GenomeError
from layersearch.spaces.contracts import SelectingSpace
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.skan.formula import selected
from layersearch.spaces.skan.genome import SKANGenome, make
from layersearch.spaces.skan.network import build, most_parameters, pruned_network
from layersearch.spaces.skan.published import PUBLISHED
from layersearch.spaces.skan.schedule import Schedule
from layersearch.spaces.skan.selection import choices_of
from layersearch.spaces.skan.settings import effective
from layersearch.spaces.skan.space import SKANSpace, from_settings


def space_of(data: str = "fn:f3", preset: str = "smoke", **overrides: object) -> SKANSpace:
    return from_settings(effective(None, data, None, preset, {k.replace("__", "."): v for k, v in overrides.items()}))


class TestDefault(SpaceContract):
    @pytest.fixture
    def space(self) -> SKANSpace:
        return space_of()


class TestNarrow(SpaceContract):
    """Two bases, one kind of gates, fixed shares: nearly nothing is asked for."""

    @pytest.fixture
    def space(self) -> SKANSpace:
        return space_of(
            "uci:concrete",
            pool__bases=["laguerre", "rational"],
            pool__gates=["gumbel"],
            pool__shares=[0.25, 0.25, 0.5],
            network__max_depth=1,
            network__min_width=4,
            network__max_width=4,
            funnel__objectives=["rmse"],
        )


def test_pools_of_every_size_and_basis_are_sampled() -> None:
    space, rng = space_of(), random.Random(0)
    genomes = [space.sample(rng) for _ in range(300)]
    assert {len(g.pool) for g in genomes} == {2, 3, 4}
    assert {name for g in genomes for name in g.bases} == set(space.settings.pool.bases)
    assert all(abs(sum(g.shares) - 1) < 1e-9 for g in genomes)
    assert isinstance(space, SelectingSpace)


def test_mutation_changes_something_and_stays_within_the_limits() -> None:
    space, rng = space_of(), random.Random(3)
    sizes = set()
    for _ in range(300):
        genome = space.sample(rng)
        mutant = space.mutate(genome, rng)
        assert mutant != genome
        assert space.generator.holds(mutant)
        assert space.from_json(space.to_json(mutant)) == mutant
        sizes.add(len(mutant.pool) - len(genome.pool))
    assert sizes == {-1, 0, 1}
    assert isinstance(space.mutate(next(iter(space.baselines().values())), rng), SKANGenome)


@pytest.mark.parametrize("name", PUBLISHED)
def test_designs_are_legal_and_recognised(name: str) -> None:
    space, genome = space_of(), PUBLISHED[name].with_widths((5,))
    assert space.known_as(genome) == name
    assert space.known_as(replace(genome, init="power")) == name
    assert space.known_as(replace(genome, base="tanh")) is None


def test_baselines_are_each_basis_alone_and_linear_networks() -> None:
    space = space_of(pool__bases=["rbf", "fourier"])
    baselines = space.baselines()
    assert list(baselines) == ["fourier", "rbf", "efficient-kan", "mlp", "mlp-most"]
    assert all(isinstance(genome, KANGenome) for genome in baselines.values())
    assert space.parameters(baselines["rbf"]) is None
    assert space.known_as(baselines["rbf"]) is None
    assert not space.same(baselines["rbf"], PUBLISHED["skan"])


def test_parameters_of_a_pruned_network_are_bounded() -> None:
    space, rng = space_of("fn:r6"), random.Random(1)
    for _ in range(20):
        genome = space.sample(rng)
        choices = tuple(tuple(rng.randrange(len(genome.pool)) for _ in range(n)) for n in (10, *genome.hidden))
        if genome.domain == "layernorm" and 1 in genome.hidden:
            continue
        network = pruned_network(genome, 10, 1, choices)
        assert sum(p.numel() for p in network.parameters()) <= most_parameters(genome, 10, 1)
    largest = make({"bspline": {"grid": 9}, "chebyshev": {}}, hidden=(6,))
    network = pruned_network(largest, 10, 1, choices_of(largest, [["bspline"] * 10, ["bspline"] * 6]))
    assert sum(p.numel() for p in network.parameters()) == most_parameters(largest, 10, 1)


def test_how_it_learns_makes_a_genome_new() -> None:
    space, genome = space_of(), PUBLISHED["skan"]
    changes = {"gate": "gumbel", "cold": 0.2, "cooling": "linear", "pruning": "gate", "shares": (0.0, 0.3, 0.7)}
    keys = {space.outline(genome).key, *(space.outline(replace(genome, **{k: v})).key for k, v in changes.items())}  # type: ignore[arg-type]
    assert len(keys) == len(changes) + 1
    assert space.probe(genome).key != space.probe(replace(genome, gate="straight")).key
    assert not space.same(genome, replace(genome, gate="straight"))
    flat = replace(genome, domain="layernorm", hidden=())
    assert space.outline(flat).key == space.outline(replace(flat, domain="none")).key
    assert space.outline(replace(genome, domain="layernorm", hidden=(1,))).reason == "layer norm of one feature"
    assert "parameters" in str(space.outline(genome.with_widths((64, 64))).reason)


def test_weights_follow_the_generator_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = (build(PUBLISHED["skan"], 2, generator=torch.Generator().manual_seed(s)).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(a[name].equal(b[name]) for name in a)
    assert not all(a[name].equal(c[name]) for name in a)


@pytest.mark.parametrize("cooling", ["exponential", "linear"])
def test_the_schedule_follows_its_shares(cooling: str) -> None:
    schedule = Schedule(replace(PUBLISHED["skan"], shares=(0.2, 0.3, 0.5), cold=0.1, cooling=cooling), 100)
    assert (schedule.select_at, schedule.prune_at) == (20, 50)
    assert schedule.temperature(19) is None
    falling = [schedule.temperature(step) for step in range(20, 50)]
    assert falling == sorted(falling, reverse=True)  # type: ignore[type-var]
    assert falling[0] == pytest.approx(1.0)
    assert falling[-1] == pytest.approx(0.1)
    for shares in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.001, 0.999)):
        for total in (1, 2, 7):
            tiny = Schedule(replace(PUBLISHED["skan"], shares=shares), total)
            assert 0 <= tiny.select_at < tiny.prune_at <= total


def test_selections_are_told_compactly() -> None:
    names = [["rbf", "rbf"], ["rbf", "dog", "dog", "rbf", "dog", "sine"], ["dog"] * 60 + ["rbf"] * 40]
    assert selected(names) == "2: rbf all | 6: dog 1-2,4, rbf 0,3, sine 5 | 100: dog ×60, rbf ×40"


LEGAL = {
    "format": 1, "pool": {"chebyshev": {"degree": 4}, "gram": {"degree": 3, "learn": True}}, "gate": "softmax",
    "cooling": "linear", "cold": 0.05, "shares": {"full": 0.1, "selective": 0.2, "pruning": 0.7}, "pruning": "fit",
    "base": "silu", "domain": "own", "init": "variance", "hidden": [8],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pool": {"chebychev": {}, "rbf": {}}}, "did you mean 'chebyshev'"),
        ({"pool": {"chebyshev": {"degree": 4}}}, "2 to 8 bases, got chebyshev"),
        ({"pool": {}}, "got none"),
        ({"pool": []}, "must be an object"),
        ({"pool": {"chebyshev": 4, "gram": {}}}, "must be an object"),
        ({"pool": LEGAL["pool"] | {"chebyshev": {}}}, "must be given"),  # type: ignore[operator]
        ({"pool": LEGAL["pool"] | {"chebyshev": {"degree": 99}}}, "degree of basis 'chebyshev'"),  # type: ignore[operator]
        ({"pool": LEGAL["pool"] | {"rational": {"degree": 5, "groups": 2}}}, "unknown setting"),  # type: ignore[operator]
        ({"gate": "hard"}, "gate must be one of"),
        ({"gate": []}, "gate must be one of"),
        ({"cooling": "fast"}, "cooling must be one of"),
        ({"cold": 0}, "cold must be a temperature"),
        ({"cold": True}, "cold must be a temperature"),
        ({"shares": {"full": 0.1, "selective": 0.2, "pruning": 0.8}}, "must add to 1, got 0.1 \\+ 0.2 \\+ 0.8 = 1.1"),
        ({"shares": {"full": 0.5, "selective": 0, "pruning": 0.5}}, "selective stage must be above 0"),
        ({"shares": {"full": -0.5, "selective": 0.5, "pruning": 1}}, "three numbers in"),
        ({"shares": {"full": "a", "selective": 0.5, "pruning": 1}}, "three numbers in"),
        ({"shares": [0.1, 0.2, 0.7]}, "object with full, selective, pruning"),
        ({"pruning": "cut"}, "pruning must be one of"),
        ({"base": "relu"}, "base must be one of"),
        ({"domain": "softplus"}, "domain must be one of"),
        ({"hidden": [0]}, "widths"),
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
        ({"pool__bases": ["bsplin", "rbf"]}, "did you mean 'bspline'"),
        ({"pool__bases": ["bspline", "bspline"]}, "at least 2 bases, got bspline"),
        ({"pool__bases": []}, "got none"),
        ({"pool__smallest": 3, "pool__largest": 2}, "at most pool.largest"),
        ({"pool__largest": 99}, "largest"),
        ({"pool__gates": ["sofmax"]}, "did you mean 'softmax'"),
        ({"pool__shares": [0.2, 0.3, 0.6]}, "must add to 1"),
        ({"pool__shares": [0.5, 0.5]}, "shares"),
        ({"pool__share": 1}, "did you mean 'pool.shares'"),
        ({"network__min_width": 20}, "at most network.max_width"),
        ({"funnel__objectives": ["parameters"]}, "must have rmse"),
        ({"task__data": "fn:f9"}, "unknown data set"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence(overrides: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence) as caught:
        space_of(**overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
def test_presets_make_spaces_for_every_kind_of_data(preset: str) -> None:
    for data in ("fn:f3", "fn:r6", "feynman:I.6.2a", "uci:wine_quality_red"):
        space = space_of(data, preset)
        assert len(space.seeds()) == 3
        assert {"mlp", "efficient-kan", "bspline"} <= set(space.baselines())
