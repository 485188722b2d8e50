"""The trained stages of the funnel on the bundled digits."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from layersearch.primitives.lowering.swap import SwappableLayers
from layersearch.spaces.contracts import Job, Outcome
from layersearch.spaces.ending import allowed_seconds
from layersearch.spaces.evonorm.calibration import MUST_FAIL, MUST_PASS, CalibrationRow, fingerprint, recorded, verdict
from layersearch.spaces.evonorm.evaluate import GRAPH_FAILED, EvonormEvaluator
from layersearch.spaces.evonorm.published import PUBLISHED, graph_of
from layersearch.spaces.evonorm.settings import effective, parse
from layersearch.spaces.evonorm.space import EvonormSpace, from_settings

TINY = {"task.fitness_steps": 12, "task.quality_steps": 8, "task.rerank_steps": 6, "funnel.stability_steps": 3}


@pytest.fixture(scope="module")
def space() -> EvonormSpace:
    loose = {"funnel.quality_chance": 0.0, "funnel.early_step": 0, "task.batch": 8, "task.validation_cap": 50}
    return from_settings(effective("b", "digits", None, "smoke", {**TINY, **loose}))


@pytest.fixture(scope="module")
def evaluator(space: EvonormSpace) -> EvonormEvaluator:
    return EvonormEvaluator(space.settings, space.load_data(), "cpu")


def run(evaluator: EvonormEvaluator, space: EvonormSpace, layer: str, stage: str, **job: object) -> Outcome:
    graph = {**PUBLISHED, **MUST_FAIL}[layer]
    return evaluator.run(Job(0, stage, space.to_json(graph), seed=3, **job))  # type: ignore[arg-type]


def test_every_stage_runs_for_a_good_layer(evaluator: EvonormEvaluator, space: EvonormSpace) -> None:
    checkpoints: dict[str | None, bytes | None] = {}
    fitness: dict[str, float] = {}
    for stage in (*space.stages, *space.rerank_stages, *space.test_stages):
        outcome = run(evaluator, space, "bn-relu", stage.id, checkpoint=checkpoints.get(stage.resumes))
        assert outcome.state == "passed", (stage.id, outcome)
        checkpoints[stage.id] = outcome.checkpoint
        fitness.update(outcome.fitness)
    assert set(fitness) == {o.name for o in space.objectives}


def test_the_same_job_gives_the_same_outcome(evaluator: EvonormEvaluator, space: EvonormSpace) -> None:
    first = run(evaluator, space, "evonorm-b0", "quality:resnet")
    assert run(evaluator, space, "evonorm-b0", "quality:resnet") == first
    assert run(evaluator, space, "evonorm-s0", "quality:resnet") != first


def test_fitness_is_the_continued_quality_training(evaluator: EvonormEvaluator, space: EvonormSpace) -> None:
    quality = run(evaluator, space, "bn-relu", "quality:resnet")
    continued = run(evaluator, space, "bn-relu", "fitness:resnet", checkpoint=quality.checkpoint)
    assert continued == run(evaluator, space, "bn-relu", "fitness:resnet")


class Graph:
    """``StepGraph`` that runs what it captured, or refuses to."""

    def __init__(self, refuses: bool) -> None:
        self.refuses = refuses

    def capture(self, run: Callable[[], None], warm_up: Callable[[], None]) -> None:
        warm_up()
        if self.refuses:
            raise RuntimeError("not permitted")
        self.run = run

    def replay(self, times: int) -> None:
        for _ in range(times):
            self.run()

    def close(self) -> None: ...


@pytest.mark.parametrize("refuses", [False, True])
def test_what_could_not_be_captured_is_marked(
    evaluator: EvonormEvaluator, space: EvonormSpace, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    plain = run(evaluator, space, "evonorm-b0", "quality:resnet")
    monkeypatch.setattr(evaluator.task, "make_graph", lambda: Graph(refuses))
    marks = {GRAPH_FAILED: 1.0} if refuses else {}
    assert run(evaluator, space, "evonorm-b0", "quality:resnet") == replace(plain, metrics={**plain.metrics, **marks})
    assert run(evaluator, space, "evonorm-b0", "stability:resnet").metrics.keys() == {"gradient_norm.resnet"}


def test_stability_rejects_with_its_numbers(evaluator: EvonormEvaluator, space: EvonormSpace) -> None:
    settings = parse(effective("b", "digits", None, "smoke", {**TINY, "funnel.stability_limit": 1e-6}))
    strict = EvonormEvaluator(settings, space.load_data(), "cpu")
    outcome = run(strict, space, "bn-relu", "stability:resnet")
    assert outcome.state == "rejected"
    assert outcome.measured is not None
    assert outcome.measured > outcome.limit == 1e-6


def test_accuracy_below_the_limit_is_rejected(space: EvonormSpace) -> None:
    settings = parse(
        effective("b", "digits", None, "smoke", {**TINY, "funnel.quality_chance": 9.9, "funnel.early_step": 0})
    )
    outcome = run(EvonormEvaluator(settings, space.load_data(), "cpu"), space, "bn-relu", "quality:resnet")
    assert outcome.state == "rejected"
    assert "accuracy below the limit after 8 steps on resnet" in outcome.reason
    assert outcome.limit == pytest.approx(0.99)


def test_slow_learners_are_stopped_early(space: EvonormSpace) -> None:
    settings = parse(
        effective("b", "digits", None, "smoke", {**TINY, "funnel.early_chance": 9.9, "funnel.early_step": 4})
    )
    outcome = run(EvonormEvaluator(settings, space.load_data(), "cpu"), space, "bn-relu", "quality:resnet")
    assert outcome.state == "rejected"
    assert "at step 4" in outcome.reason


def test_a_loss_that_is_not_finite_is_rejected(evaluator: EvonormEvaluator, space: EvonormSpace) -> None:
    explosive = graph_of(("square", 0), ("square", 4), ("exp", 5))
    outcome = evaluator.run(Job(0, "quality:resnet", space.to_json(explosive), seed=3))
    assert outcome.state == "rejected"
    assert "not finite" in outcome.reason


def test_a_time_limit_is_a_failure_not_a_rejection(evaluator: EvonormEvaluator, space: EvonormSpace) -> None:
    outcome = evaluator.run(Job(0, "quality:resnet", space.to_json(PUBLISHED["bn-relu"]), seed=3), time_limit_s=-1.0)
    assert outcome.state == "failed"
    assert "time limit" in outcome.reason


def test_an_unknown_stage_is_a_failure(evaluator: EvonormEvaluator, space: EvonormSpace) -> None:
    assert run(evaluator, space, "bn-relu", "quailty:resnet").state == "failed"


def test_time_limits_cover_every_stage(evaluator: EvonormEvaluator, space: EvonormSpace) -> None:
    limits: Mapping[str, float] = evaluator.time_limits()
    for stage in (*space.stages, *space.rerank_stages, *space.test_stages):
        assert limits[stage.id] >= 30


def table(**changes: int) -> list[dict[str, object]]:
    rows = [
        CalibrationRow("bn-relu", "quality:resnet", 5, 5, 0.5, 0.2),
        CalibrationRow("relu", "stability:resnet", 0, 5, 1e9, 1e8),
    ]
    rows.append(CalibrationRow("identity", "stability:resnet", 0, 5, 1e9, 1e8))
    return [{**vars(row), "passed": changes.get(row.layer.replace("-", "_"), row.passed)} for row in rows]


def test_a_verdict_names_what_is_wrong() -> None:
    assert verdict(table()) == []
    assert verdict(table(bn_relu=4)) == ["bn-relu must pass quality:resnet, failed 1 of 5"]
    assert "relu must fail" in verdict(table(relu=1))[0]


def test_committed_calibrations_hold_and_are_of_the_present_settings() -> None:
    assert {(r["preset"], r["data"]) for r in recorded()} >= {("smoke", "digits"), ("small", "cifar10")}
    for record in recorded():
        name = (record["preset"], record["data"])
        assert verdict(record["rows"]) == [], name
        assert record["settings"] == fingerprint(effective(record["series"], record["data"], None, record["preset"])), (
            name
        )
        assert {row["layer"] for row in record["rows"]} == {*MUST_PASS, *MUST_FAIL}, name
        assert all(row["seeds"] >= 5 for row in record["rows"]), name


def test_rungs_change_nothing_of_the_training(space: EvonormSpace) -> None:
    """0 -> 3 -> 8 -> 10 -> 12 equals 0 -> 12, wherever quality is measured on the way."""
    settings = space.settings.model_dump(mode="json") | {"fidelity": {"rungs": [3, 8, 10]}}
    cut = from_settings(settings)
    evaluator = EvonormEvaluator(cut.settings, cut.load_data(), "cpu")
    stages = [stage for stage in cut.stages if "resnet" in stage.id and stage.name in ("quality", "fitness")]
    assert [s.id for s in stages] == ["fitness:resnet@3", "quality:resnet", "fitness:resnet@10", "fitness:resnet"]
    checkpoint = None
    for stage in stages:
        outcome = run(evaluator, cut, "bn-relu", stage.id, checkpoint=checkpoint)
        assert outcome.state == "passed", outcome
        assert set(outcome.fitness) == {"resnet"}
        checkpoint = outcome.checkpoint
        assert (checkpoint is None) == (stage.rung is None)
    assert outcome == run(
        EvonormEvaluator(space.settings, space.load_data(), "cpu"), space, "bn-relu", "fitness:resnet"
    )


def test_rungs_have_time_for_their_share_of_the_training(space: EvonormSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = from_settings(space.settings.model_dump(mode="json") | {"fidelity": {"rungs": [3, 8, 10]}})
    evaluator = EvonormEvaluator(cut.settings, cut.load_data(), "cpu")
    monkeypatch.setattr(evaluator, "_seconds_per_step", lambda _: 1000.0)
    limits = evaluator.time_limits()
    assert all(limits[stage.id] >= allowed_seconds(stage.steps * 1000.0) for stage in cut.stages)


@pytest.mark.parametrize("stage", ["quality:resnet", "rerank:resnet:0"])
def test_a_stage_that_goes_on_from_the_middle_has_the_same_outcome(space: EvonormSpace, stage: str) -> None:
    evaluator = EvonormEvaluator(space.settings, space.load_data(), "cpu")
    whole = run(evaluator, space, "evonorm-b0", stage)
    saved: list[bytes] = []
    evaluator.save, evaluator.save_every_s = saved.append, 0.0
    assert run(evaluator, space, "evonorm-b0", stage) == whole, "saving changes nothing"
    assert len(saved) >= 5
    evaluator.save_every_s = 60.0
    for checkpoint in saved[:: len(saved) // 2]:
        assert run(evaluator, space, "evonorm-b0", stage, checkpoint=checkpoint) == whole


def test_saving_leaves_no_change_of_the_lowering_out(space: EvonormSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = space.settings.model_dump(mode="json") | {"lowering": {"name": "reference", "swap_step": 4}}
    evaluator = EvonormEvaluator(parse(settings), space.load_data(), "cpu")
    swapped: list[str] = []
    monkeypatch.setattr(SwappableLayers, "swap", lambda self, model, name: swapped.append(name))
    evaluator.save, evaluator.save_every_s = lambda checkpoint: None, 0.0
    run(evaluator, space, "bn-relu", "quality:resnet")
    assert swapped == ["reference"]
