"""The evonorm space: the contract of spaces, its two series, its settings."""

import random

import pytest
from space_contract import SpaceContract

from layersearch.errors import BadInputError, GenomeError, RecipeError
from layersearch.primitives.graph_json import MAX_DEPTH
from layersearch.spaces.evonorm.published import EVONORMS, PUBLISHED, graph_of
from layersearch.spaces.evonorm.settings import effective
from layersearch.spaces.evonorm.space import EvonormSpace, from_settings

LEARNING = ("quality", "fitness")


def make(series: str = "b", **kwargs: object) -> EvonormSpace:
    return from_settings(effective(series, "digits", None, "smoke", **kwargs))  # type: ignore[arg-type]


class TestBSeries(SpaceContract):
    @pytest.fixture
    def space(self) -> EvonormSpace:
        return make("b")


class TestWithRungs(SpaceContract):
    @pytest.fixture
    def space(self) -> EvonormSpace:
        return make("b", overrides={"fidelity.rungs": [10, 100, 110]})


class TestSSeries(SpaceContract):
    @pytest.fixture
    def space(self) -> EvonormSpace:
        return make("s")

    def test_no_genome_depends_on_the_batch(self, space: EvonormSpace) -> None:
        rng = random.Random(0)
        assert not any(space.sample(rng).uses_batch_moments() for _ in range(300))

    def test_batch_moments_are_refused(self, space: EvonormSpace) -> None:
        with pytest.raises(GenomeError, match="S-series"):
            space.from_json(make("b").to_json(make("b", seed_layers=["evonorm-b1"]).seeds()["evonorm-b1"]))


def test_default_seeds_are_hand_designed_and_legal() -> None:
    assert list(make("b").seeds()) == ["bn-relu", "gn-relu", "bn-silu", "frn-tlu"]
    assert list(make("s").seeds()) == ["gn-relu", "frn-tlu"]


def test_evonorms_are_seeds_only_where_named() -> None:
    assert not set(make("b").seeds()) & set(EVONORMS)
    assert list(make("b", seed_layers=["evonorm-s0", "bn-relu"]).seeds()) == ["evonorm-s0", "bn-relu"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_layers_are_recognised(name: str) -> None:
    space = make("b", seed_layers=[name])
    assert space.known_as(space.seeds()[name]) == name


def test_an_unknown_layer_is_not() -> None:
    space = make("b")
    assert space.known_as(graph_of(("std_layer", 0), ("div", 0, 4), ("tanh", 5))) is None


def test_fitness_continues_from_quality() -> None:
    stages = {s.id: s for s in make("b").stages}
    for network in make("b").settings.task.networks:
        assert stages[f"fitness:{network}"].resumes == f"quality:{network}"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"funnel.stabilty_rate": 0.1}, "did you mean 'funnel.stability_rate'"),
        ({"funnel.stability_rate": -1}, "stability_rate"),
        ({"funnel.stability_rate": float("nan")}, "finite"),
        ({"funnel.stability_rate": "fast"}, "stability_rate"),
        ({"graph.nodes": 0}, "nodes"),
        ({"graph.eps": 0}, "eps"),
        ({"task.batch": -5}, "batch"),
        (
            {"task.anchors": ["resnet"]},
            r"as \{network: resnet, width: 0.25, depth: 1.0\}, got 'resnet'; correct the setting",
        ),
        (
            {"funnel.stability_networks": ["vgg"]},
            "different anchors, of resnet, mobilenetv2, efficientnet, got",
        ),
        ({"funnel.stability_networks": ["resnet", "resnet"]}, "different anchors"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence(overrides: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence) as caught:
        make("b", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_overrides_reach_the_space() -> None:
    space = make("b", overrides={"graph.nodes": 6, "funnel.quality_chance": 3.0, "task.groups": 4})
    assert space.generator.nodes == 6
    assert space.settings.funnel.quality_chance == 3.0
    assert space.generator.numerics.groups == 4


def test_the_longest_genomes_can_be_stored() -> None:
    knobs = {"graph.p_aggregate": 0, "graph.p_connect": 1}  # one chain through all nodes
    with pytest.raises(BadInputError, match="nodes"):
        make("b", overrides={"graph.nodes": MAX_DEPTH, **knobs})
    space = make("b", overrides={"graph.nodes": MAX_DEPTH - 1, **knobs})
    genome = space.sample(random.Random(0))
    assert space.from_json(space.to_json(genome)) == genome


def test_an_unknown_seed_layer_is_refused() -> None:
    with pytest.raises(RecipeError, match="did you mean 'evonorm-s0'"):
        make("b", seed_layers=["evonorms0"])


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ({}, ()),
        ({"fidelity.ratio": 3}, (100,)),
        ({"fidelity.ratio": 3, "task.fitness_steps": 2000}, (100, 222, 666)),
        ({"fidelity.ratio": 2, "task.fitness_steps": 2000}, (100, 250, 500, 1000)),
        ({"fidelity.ratio": 3, "task.fitness_steps": 100}, ()),
        ({"fidelity.ratio": 3, "fidelity.rungs": [14, 42]}, (14, 42)),
    ],
    ids=str,
)
def test_rungs_are_geometric_from_the_quality_steps_on(overrides: dict[str, object], steps: tuple[int, ...]) -> None:
    space = make("b", overrides=overrides)
    assert space.settings.rung_steps == steps
    for network in space.settings.task.networks:
        mine = [s for s in space.stages if s.id.split(":")[1].split("@")[0] == network and s.name in LEARNING]
        assert [s.resumes for s in mine] == [None, *(s.id for s in mine[:-1])], "one training, cut where it is measured"
        assert sum(s.steps for s in mine) == space.settings.task.fitness_steps
        assert [s.rung for s in mine if s.rung is not None] == list(range(len(steps)))
        assert mine[-1].id == f"fitness:{network}"
        assert mine[-1].rung is None


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"fidelity.ratio": 1}, "fidelity.ratio must be 0 or at least 2, got 1"),
        ({"fidelity.rungs": [20, 10]}, "fidelity.rungs must rise and end before step 125 of the training, got 20, 10"),
        ({"fidelity.rungs": [10, 125]}, "end before step 125"),
        ({"fidelity.rungs": [0]}, "rungs"),
    ],
    ids=str,
)
def test_bad_rungs_get_one_sentence(overrides: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        make("b", overrides=overrides)
