"""The optfs space: genomes, how they are made and read, settings, controls."""

import random
from dataclasses import replace

import pytest
from space_contract import SpaceContract

from layersearch.errors import BadInputError, GenomeError, RecipeError
from layersearch.spaces.contracts import ControlledSpace, TunableSpace
from layersearch.spaces.optfs.choices import GATES_OF
from layersearch.spaces.optfs.evaluate import learn_settings
from layersearch.spaces.optfs.genome import OptFSGenome, genome_key
from layersearch.spaces.optfs.published import DESIGNS
from layersearch.spaces.optfs.settings import effective
from layersearch.spaces.optfs.space import OptFSSpace, from_settings
from layersearch.spaces.tasks.ctr.models.base import MODELS


def space_of(data: str = "planted", preset: str = "smoke", **overrides: object) -> OptFSSpace:
    return from_settings(effective(None, data, None, preset, {k.replace("__", "."): v for k, v in overrides.items()}))


class TestDefault(SpaceContract):
    @pytest.fixture
    def space(self) -> OptFSSpace:
        return space_of()


class TestAllModels(SpaceContract):
    @pytest.fixture
    def space(self) -> OptFSSpace:
        return space_of("grocery", "small")


class TestOneOfEach(SpaceContract):
    @pytest.fixture
    def space(self) -> OptFSSpace:
        return space_of(
            search__models=["lr"],
            search__reference="lr",
            search__gates=["value"],
            search__pressures=["price"],
            search__relaxations=["continuation"],
            search__search_epochs=[7],
            search__rewind_epochs=[1],
        )


def test_every_model_and_gate_is_in_the_space() -> None:
    space, rng = space_of("grocery", "paper"), random.Random(0)
    genomes = [space.sample(rng) for _ in range(500)]
    assert {g.model for g in genomes} == set(MODELS)
    assert {g.gates for g in genomes} == set(GATES_OF)
    assert {g.operator for g in genomes if g.model == "ipnn"} == {"inner", "matrix", "weighted"}
    assert isinstance(space, TunableSpace)
    assert isinstance(space, ControlledSpace)


def test_mutation_changes_something_and_stays_within_the_limits() -> None:
    space, rng = space_of("grocery", "small"), random.Random(3)
    changed = set()
    for _ in range(300):
        genome = space.sample(rng)
        mutant = space.mutate(genome, rng)
        assert mutant != genome
        assert space.generator.holds(mutant)
        assert space.from_json(space.to_json(mutant)) == mutant
        changed |= {name for name in OptFSGenome.__dataclass_fields__ if getattr(genome, name) != getattr(mutant, name)}
    assert changed >= {"model", "gates", "relaxation", "pressure", "price", "temperature", "lr", "dim", "search_epochs"}


def test_named_designs_are_seeds_and_recognised() -> None:
    space = space_of()
    assert list(space.seeds()) == list(DESIGNS)
    for name, genome in space.seeds().items():
        assert space.known_as(genome) == name
        assert space.known_as(replace(genome, lr=0.011)) == name
    assert space.known_as(space.baselines()["full"]) is None
    assert list(space_of(search__gates=["field"], search__pressures=["ratio"]).seeds()) == ["autofield"]


def test_what_makes_no_difference_is_dropped_from_the_key() -> None:
    by_price = OptFSGenome()
    assert genome_key(by_price) == genome_key(replace(by_price, ratio=0.2))
    assert genome_key(by_price) != genome_key(replace(by_price, price=0.2))
    full = OptFSGenome(gates="none")
    assert genome_key(full) == genome_key(replace(full, price=9.0, temperature=3.0, search_epochs=9))
    assert genome_key(OptFSGenome(model="lr", dim=4)) == genome_key(OptFSGenome(model="lr", dim=8))


def test_controls_are_of_the_winner_and_its_ratio() -> None:
    space = space_of()
    winner = replace(space.seeds()["optfs"], lr=0.025)
    found = space.controls(winner, {"ratio": 0.123456789, "pair_ratio": 1.0})
    assert set(found) == set(space.control_names) == {"full", "frequency", "random"}
    assert {g.lr for g in found.values()} == {0.025}
    assert found["frequency"].ratio == found["random"].ratio == pytest.approx(0.123457)
    assert set(space.controls(space.seeds()["optfs"], {"ratio": 0.1})) == {"frequency", "random"}  # full is a baseline
    pairs = space.controls(space.seeds()["optfs-pairs"], {"ratio": 0.1, "pair_ratio": 0.02})
    assert pairs["random"].pair_ratio == 0.02
    assert not set(space.controls(space.seeds()["optfs"], {"ratio": 1.0})) & {"frequency", "random"}
    for genome in found.values():
        assert space.from_json(space.to_json(genome)) == genome


def test_controls_of_products_are_of_the_share_of_their_gates() -> None:
    space = space_of()
    winner = replace(space.seeds()["optfs"], gates="product")
    found = space.controls(winner, {"ratio": 1.0, "pair_ratio": 1.0, "kept_product": 0.25})
    assert {name: (g.gates, g.ratio) for name, g in found.items()} == {
        "frequency": ("product-frequency", 0.25),
        "random": ("product-random", 0.25),
    }
    assert "pairs of most frequent values at ratio 0.25" in space.formula(found["frequency"])
    assert not space.controls(winner, {"ratio": 1.0, "pair_ratio": 1.0, "kept_product": 1.0})
    for genome in found.values():
        assert space.from_json(space.to_json(genome)) == genome


def test_decay_and_penalty_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match=r"only one of task\.decay and task\.penalty.*add --set task\.decay=0"):
        effective(None, "planted", None, "smoke", {"task.penalty": 0.05})
    settings = effective(None, "planted", None, "smoke", {"task.penalty": 0.05, "task.decay": 0, "task.slowing": 0.1})
    space = from_settings(settings)
    learned = learn_settings(space.seeds()["optfs"], space.settings.task)
    assert (learned.penalty, learned.decay, learned.slowing) == (0.05, 0, 0.1)


def test_reviews_take_epochs_of_gates_on_values_alone() -> None:
    space = space_of()  # three epochs to warm up, two of review
    short = replace(space.seeds()["optfs"], search_epochs=4, rewind_epoch=0)
    assert "no epoch for gates" in (space.outline(short).reason or "")
    assert space.outline(replace(short, gates="pair")).reason is None


LEGAL = {
    "format": 1, "model": "fm", "gates": "value", "relaxation": "gumbel", "operator": "weighted", "pressure": "price",
    "price": 2.0, "ratio": 1.0, "temperature": 100.0, "rewind_epoch": 1, "search_epochs": 6, "lr": 0.01, "dim": 8,
    "pair_ratio": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "fmm"}, "did you mean 'fm'"),
        ({"model": 3}, "must be a text"),
        ({"gates": "values"}, "did you mean 'value'"),
        ({"model": "lr", "operator": "own", "gates": "pair"}, "'lr' has none; use value or field"),
        ({"model": "lr", "operator": "own", "gates": "product-random"}, "'lr' has none"),
        ({"operator": "own"}, "must be chosen"),
        ({"model": "dcn"}, "must be 'own'"),
        ({"ratio": 0.0}, "ratio of a genome must be a number in"),
        ({"ratio": 1.5}, "ratio of a genome"),
        ({"price": float("nan")}, "price"),
        ({"rewind_epoch": 6}, "rewind_epoch must be below search_epochs, got 6 of 6"),
        ({"rewind_epoch": True}, "rewind_epoch"),
        ({"dim": 0}, "dim of a genome must be a whole number"),
        ({"dim": 8.0}, "dim"),
        ({"pair_ratio": 2}, "pair_ratio"),
        ({"format": 2}, "format"),
        ({"more": 1}, "must be an object with"),
    ],
    ids=str,
)
def test_illegal_genomes_get_one_sentence(changes: dict[str, object], sentence: str) -> None:
    space = space_of()
    space.from_json(LEGAL)
    assert space.from_json(LEGAL | {"lr": 1}) == space.from_json(LEGAL | {"lr": 1.0})
    with pytest.raises(GenomeError, match=sentence) as caught:
        space.from_json(LEGAL | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"search__models": ["dfm"]}, "unknown model 'dfm'"),
        ({"search__models": []}, "models"),
        ({"search__reference": "lr"}, "must be one of search.models"),
        ({"search__models": ["din", "fm"]}, "the model din needs a sequence, and 'planted' has none"),
        ({"search__gates": ["pair"], "search__models": ["fm", "lr"]}, "value or field for the model 'lr'"),
        ({"search__ratio": [0.0, 0.5]}, "search.ratio must be least and most"),
        ({"search__ratio": [0.5, 1.2]}, "search.ratio must be least and most"),
        ({"search__price": [3, 1]}, "search.price must be least and most"),
        ({"search__rewind_epochs": [1, 7]}, "must be below search.search_epochs, got 7 of 7"),
        ({"search__dims": [8, 4]}, "rising"),
        ({"search__search_epochs": [1, 1]}, r"must be rising, each a whole number in \[2, 100\], got \[1, 1\]; "),
        ({"task__warm_epochs": 7}, "must together be fewer than search.search_epochs"),
        ({"task__batch": 1}, "batch"),
        ({"task__activation": "gelu"}, "unknown activation"),
        ({"task__schema": "a.yaml"}, "is for tables"),
        ({"funnel__objectives": ["ratio"]}, "must have auc"),
        ({"funnel__objectives": ["auc", "speed"]}, r"unknown objective 'speed' \(known: auc, .*latency\)"),
        ({"funnel__quality_auc": float("inf")}, "finite"),
        ({"task__warm_epoch": 3}, "did you mean 'task.warm_epochs'"),
        ({"task__hidden": [64, 0]}, "'task.hidden.1' must be greater than or equal to 1, got 0"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence(overrides: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence) as caught:
        space_of(**overrides)
    assert "\n" not in str(caught.value)
