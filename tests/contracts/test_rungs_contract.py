"""What rungs and savings must keep in every space: they change no training; a rung measures what is to be compared."""

import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from layersearch.errors import BadInputError
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import Arrays, Evaluator, Genome, Job, Outcome, SavingEvaluator, Space, Stage
from layersearch.spaces.ending import allowed_seconds
from layersearch.spaces.kan.genome import make as layer
from layersearch.spaces.kan.images.genome import make as image_model
from layersearch.spaces.kan.published import PUBLISHED
from layersearch.spaces.optfs.genome import OptFSGenome
from layersearch.spaces.skan.genome import make as skan_genome
from layersearch.spaces.skan.images.genome import make as selecting_model
from layersearch.spaces.tasks.ctr.arrays import to_arrays
from layersearch.spaces.tasks.ctr.planted import PlantedSettings, planted
from layersearch.spaces.tasks.images.models import ConvShape

Overrides = Mapping[str, Any]

REGRESSION: Overrides = {
    "task.points": 100, "task.test_points": 50, "task.quality_steps": 4, "task.fitness_steps": 12,
    "funnel.quality_rmse": 50.0,
}  # fmt: skip
IMAGES: Overrides = {
    "task.quality_steps": 2, "task.fitness_steps": 6, "task.validation_cap": 30, "task.batch": 8,
    "network.reference_conv": [4, 4], "funnel.quality_chance": 0.0, "funnel.objectives": ["accuracy", "memory"],
}  # fmt: skip
CLICKS: Overrides = {
    "search.models": ["dcn", "lr"], "search.reference": "lr", "search.search_epochs": [4, 5],
    "search.lr": [0.001, 0.05], "task.warm_epochs": 1, "task.reviews": 1, "task.batch": 200, "task.epochs": 2,
    "task.decay": 0.0, "task.std": 0.1, "task.hidden": [4], "task.gate_lr": 0.05, "funnel.quality_auc": 0.0,
    "funnel.objectives": ["auc", "log_loss", "ratio", "parameters"],
}  # fmt: skip
PLANTED = PlantedSettings(
    mains=1, couples=0, noise=2, values=24, every=3, main_effect=2.0, exponent=0.3, rows=(1000, 400, 400)
)
LR = OptFSGenome(model="lr", search_epochs=4, price=2.0, lr=0.02).tidy()
SKAN = skan_genome({"chebyshev": {}, "rbf": {}}, shares=(0.2, 0.3, 0.5), hidden=(4,))


@dataclass(frozen=True)
class Case:
    """A space, and a genome whose training is cut.

    Args:
        rungs: settings of them.
        places: the stages that follow, with their rungs.
        early: objectives that are known at each rung.
    """

    space: str
    data: str
    overrides: Overrides
    genome: Genome
    rungs: Overrides
    places: Mapping[str, int | None]
    early: tuple[set[str], ...]

    def make(self, overrides: Overrides) -> Space:
        entry = SPACES[self.space]
        series = next(iter(entry.series), None)
        settings = entry.settings_of(series, self.data, None, "smoke", dict(self.overrides | overrides), None, "torch")
        space: Space = entry.resolve(entry.entry)(settings)
        return space

    def arrays(self, space: Space) -> Arrays:
        return to_arrays(planted(0, PLANTED).with_holdout()) if self.space == "optfs" else space.load_data()


KAN = Case(
    "kan", "fn:r1", REGRESSION, replace(PUBLISHED["chebykan"], domain="minmax", hidden=(4,)),
    {"fidelity.rungs": [2, 4, 7], "funnel.objectives": ["rmse", "memory", "parameters"]},
    {"fitness@2": 0, "quality": 1, "fitness@7": 2, "fitness": None}, ({"rmse", "memory", "parameters"},) * 3,
)  # fmt: skip
CASES = {
    "kan": KAN,
    "kan, ratio": replace(KAN, genome=layer("fourier", hidden=()), rungs={"fidelity.ratio": 2},
        places={"quality": 0, "fitness@6": 1, "fitness": None}, early=({"rmse", "parameters"},) * 2),
    "kan, images": Case(
        "kan", "digits", IMAGES, image_model(layer("gram"), ConvShape(16, 4, (4, 4), 3, "max")),
        {"fidelity.rungs": [1, 2, 4]}, {"fitness@1": 0, "quality": 1, "fitness@4": 2, "fitness": None},
        ({"accuracy", "memory"},) * 3,
    ),
    "skan": Case(  # full before step 2, selective before 6
        "skan", "fn:r1", REGRESSION, SKAN, {"fidelity.rungs": [1, 5, 6, 9]},
        {"fitness@1": 0, "quality": None, "fitness@5": 1, "fitness@6": 2, "fitness@9": 3, "fitness": None},
        ({"rmse"},) * 4,
    ),
    "skan, not pruned": Case(
        "skan", "fn:r1", REGRESSION, replace(SKAN, gate="gumbel", shares=(0.0, 1.0, 0.0)), {"fidelity.ratio": 3},
        {"quality": 0, "fitness": None}, ({"rmse"},),
    ),
    "skan, images": Case(  # full before step 2, pruned at 3
        "skan", "digits", IMAGES, selecting_model(replace(SKAN, hidden=()), ConvShape(16, 4, (4, 4), 3, "max"), "kan"),
        {"fidelity.rungs": [1, 2, 4]}, {"fitness@1": 0, "quality": 1, "fitness@4": 2, "fitness": None},
        ({"accuracy"},) * 3,
    ),
    "optfs": Case(  # one epoch without gates, two with, one after a review
        "optfs", "planted", CLICKS, LR, {"fidelity.rungs": [1, 2, 3]},
        {"quality": 0, "fitness@2": 1, "fitness@3": 2, "fitness@cut": 3, "fitness": None},
        ({"auc", "log_loss"},) * 3 + ({"auc", "log_loss", "ratio", "parameters"},),
    ),
    "optfs, ratio": Case(
        "optfs", "planted", CLICKS, replace(LR, model="dcn", operator="own", pressure="ratio", ratio=0.3).tidy(),
        {"fidelity.ratio": 3, "task.reviews": 0}, {"quality": None, "fitness@cut": 0, "fitness": None},
        ({"auc", "log_loss", "ratio", "parameters"},),
    ),
    "optfs, no gates": Case(
        "optfs", "planted", CLICKS, replace(LR, gates="none").tidy(), {"fidelity.ratio": 3},
        {"quality": None, "fitness@cut": 0, "fitness": None}, ({"auc", "log_loss", "ratio", "parameters"},),
    ),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def runner(space: Space, evaluator: Evaluator, genome: Genome) -> Callable[[str, bytes | None], Outcome]:
    data = json.loads(json.dumps(space.to_json(genome)))
    return lambda stage, checkpoint: evaluator.run(Job(0, stage, data, 7, checkpoint=checkpoint))


def test_every_space_with_rungs_is_tested() -> None:
    """Those of evonorm, whose candidates have several trainings, are in its own tests; other tests add spaces."""
    ours = {name for name, entry in SPACES.items() if entry.entry.startswith("layersearch.")}
    assert {name for name in ours if SPACES[name].rungs is not None} - {"evonorm"} == {
        one.space for one in CASES.values()
    }


def test_a_training_cut_at_rungs_is_the_same_training(case: Case) -> None:
    """Bit for bit, checkpoints included; and at each rung what is to be compared there is measured."""
    space = case.make(case.rungs)
    data = case.arrays(space)
    run = runner(space, space.evaluator(data, "cpu"), case.genome)
    assert {stage.id: stage.rung for stage in space.stages} == case.places
    weighted = {o.name for o in space.objectives if o.weight}
    early, checkpoint = [], None
    for stage, before in zip(space.stages, (None, *space.stages), strict=False):
        assert stage.resumes == (None if before is None else before.id)
        outcome = run(stage.id, checkpoint)
        assert outcome.state == "passed", outcome.reason
        assert outcome == run(stage.id, None), f"{stage.id} from its checkpoint and in one piece"
        if stage.rung is not None:
            assert weighted <= set(outcome.fitness)
            early.append(set(outcome.fitness))
        checkpoint = outcome.checkpoint
    assert tuple(early) == case.early
    assert checkpoint is None
    assert set(outcome.fitness) == {o.name for o in space.objectives}
    plain = case.make({key: value for key, value in case.rungs.items() if not key.startswith("fidelity")})
    run = runner(plain, plain.evaluator(data, "cpu"), case.genome)
    quality = run("quality", None)
    assert not quality.fitness
    assert run("fitness", quality.checkpoint) == outcome, "without rungs"


def test_a_training_that_is_saved_goes_on_as_if_it_had_not_been(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, from any of the checkpoints, and the checkpoint at its end included."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))  # which is looked at once a step
    space = case.make({key: value for key, value in case.rungs.items() if not key.startswith("fidelity")})
    evaluator = space.evaluator(case.arrays(space), "cpu")
    assert isinstance(evaluator, SavingEvaluator)
    run, saved = runner(space, evaluator, case.genome), []
    for stage in ("quality", "fitness"):
        whole = run(stage, None)
        assert whole.state == "passed", whole.reason
        saved.clear()
        vars(evaluator).update(save=saved.append, save_every_s=1.5)
        assert run(stage, None) == whole, "saving changes nothing"
        vars(evaluator).update(save=None)
        assert len(saved) >= (1 if stage == "quality" else 5)
        for checkpoint in {saved[0], saved[len(saved) // 2], saved[-1]}:
            assert run(stage, checkpoint) == whole


def shares(space: Any) -> dict[str, int]:
    """Steps of each stage of the search; of optfs, whose stages tell none, epochs where the search is the longest."""
    if all(stage.steps for stage in space.stages):
        return {stage.id: stage.steps for stage in space.stages}
    task, longest = space.settings.task, space.settings.search.search_epochs[-1]
    known = {"quality": task.quality_epochs, "fitness@cut": longest, "fitness": longest + task.epochs}
    ends = [known.get(stage.id) or int(stage.id.removeprefix("fitness@")) for stage in space.stages]
    return {stage.id: end - begin for stage, begin, end in zip(space.stages, (0, *ends), ends, strict=False)}


def test_every_stage_has_time_for_its_share_of_the_training(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    space = case.make(case.rungs)
    evaluator = space.evaluator(case.arrays(space), "cpu")
    of_a_unit = "_seconds_per_epoch" if case.space == "optfs" else "seconds_per_step"
    monkeypatch.setattr(evaluator, of_a_unit, lambda *_: 1000.0)
    monkeypatch.setattr("layersearch.spaces.optfs.evaluate._SLOWEST_MODEL", 1.0)
    limits = evaluator.time_limits()
    assert set(limits) == {stage.id for stage in (*space.stages, *space.rerank_stages, *space.test_stages)}
    for stage, units in shares(space).items():
        assert units > 0
        assert limits[stage] >= allowed_seconds(units * 1000.0), stage


@pytest.mark.parametrize("name", ["kan", "kan, images", "skan", "skan, images", "optfs"])
def test_stages_without_rungs_are_what_they_were(name: str) -> None:
    """Stores of earlier runs go on with them."""
    space = CASES[name].make({})
    assert space.stages == (Stage("quality", "quality"), Stage("fitness", "fitness", resumes="quality"))
    assert "rungs" not in dict(space.describe())
    assert "rungs" in dict(CASES[name].make(CASES[name].rungs).describe())


@pytest.mark.parametrize("name", ["kan", "kan, images", "skan", "skan, images", "optfs"])
def test_settings_of_earlier_runs_have_none(name: str) -> None:
    one, entry = CASES[name], SPACES[CASES[name].space]
    settings = entry.settings_of(None, one.data, None, "smoke", dict(one.overrides), None, "torch")
    del settings["fidelity"]
    assert entry.resolve(entry.entry)(settings).stages == one.make({}).stages


@pytest.mark.parametrize(
    ("name", "overrides", "sentence"),
    [
        ("kan", {"fidelity.rungs": [12]}, "end before step 12 of the training, got 12; correct the setting"),
        ("kan, images", {"fidelity.rungs": [4, 2]}, "fidelity.rungs must rise and end before step 6"),
        ("skan", {"fidelity.ratio": 1}, "fidelity.ratio must be 0 or at least 2, got 1"),
        ("optfs", {"fidelity.rungs": [4]}, "end before epoch 4, the end of the shortest search, got 4"),
        ("optfs", {"fidelity.ratio": 1}, "fidelity.ratio must be 0 or at least 2, got 1"),
        ("skan", {"fidelity.rung": [4]}, "did you mean 'fidelity.rungs'"),
    ],
)
def test_bad_rungs_get_one_sentence(name: str, overrides: Overrides, sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence) as caught:
        CASES[name].make(overrides)
    assert "\n" not in str(caught.value)
