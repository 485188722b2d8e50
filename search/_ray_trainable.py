"""The parts of ``ray_tune`` that import Ray Tune: the trainable, and Optuna's searcher with its manners mended."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from layersearch.primitives.seeds import Seeds
from layersearch.search.executors._ray_actor import hold_to_share
from layersearch.search.executors.base import allowed_seconds, run_timed, settle_torch
from layersearch.search.ray_tune import FITNESS, RayTune, levels_of
from layersearch.search.rerank import mean_value
from layersearch.search.scheduling import finite, training_of
from layersearch.spaces.contracts import Evaluator, Job, Outcome, Stage

__all__ = ["PruningOptunaSearch", "StagesTrainable"]

_PROGRESS = "progress.json"


class PruningOptunaSearch(OptunaSearch):  # type: ignore[misc, unused-ignore]
    """Tells Optuna that a rejected trial is pruned, and a failed one failed, where OptunaSearch would tell it NaN."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        state = (result or {}).get("state")
        if state in ("rejected", "failed"):
            result, error = None, state == "failed"
        super().on_trial_complete(trial_id, result, error)


class StagesTrainable(tune.Trainable):  # type: ignore[misc, unused-ignore]
    """One candidate after the other, stage by stage; a step of Tune goes up to the next rung, or to the end."""

    def setup(  # type: ignore[override, unused-ignore]
        self, config: dict[str, Any], task: RayTune, data: Mapping[str, Any]
    ) -> None:
        """``task`` and ``data`` come by ``tune.with_parameters``."""
        self._task = task
        self._data = data
        self._seeds = Seeds(task.seed)
        self._levels = levels_of(task.space.stages)
        context: Any = ray.get_runtime_context()
        gpus = float(context.get_assigned_resources().get("GPU", 0.0))
        self._device = ("cuda" if gpus else "cpu") if task.device == "auto" else task.device
        hold_to_share(gpus)
        self._evaluator: Evaluator = self._fresh()
        self._limits = dict(self._evaluator.time_limits())
        self._begin(config)

    def _fresh(self) -> Evaluator:
        settle_torch()
        evaluator = self._task.space.evaluator(self._data, self._device)
        settle_torch()
        return evaluator

    def _begin(self, config: Mapping[str, Any]) -> None:
        space = self._task.space
        genome = self._task.genome(config)
        outline = space.outline(genome)
        self._genome = space.to_json(genome)
        self._key = outline.key
        self._reason = outline.reason or space.probe(genome).reason
        self._done: dict[str, Outcome] = {}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._reason is not None:
            return self._report("rejected", Stage("screen", "screen"), self._reason)
        for stage in self._task.space.stages:
            if stage.id in self._done:
                continue
            outcome = self._run(stage)
            if outcome.state != "passed":
                return self._report(outcome.state, stage, outcome.reason)
            self._done[stage.id] = outcome
            if stage.id in self._levels:
                return self._measured(stage)
        raise RuntimeError("a trial that is done must not be asked for another step")

    def _run(self, stage: Stage) -> Outcome:
        """Of a stage that raises or runs out of time, a fresh evaluator makes a second try, as in all executors."""
        checkpoint = None if stage.resumes is None else self._done[stage.resumes].checkpoint
        training = training_of(stage.id, self._task.space.stages)
        seed = self._seeds.derive("ray tune", self._key, training)
        job = Job(0, stage.id, self._genome, seed, checkpoint=checkpoint)
        limit_s = allowed_seconds(self._limits, job)
        outcome, again = run_timed(self._evaluator, job, limit_s)
        if again:
            self._evaluator = self._fresh()
            outcome, _ = run_timed(self._evaluator, replace(job, attempt=1), limit_s)
        return finite(outcome)

    def _measured(self, stage: Stage) -> dict[str, Any]:
        """The report after ``stage``: at the end with all objectives, at a rung with those that order candidates."""
        stages = self._task.space.stages
        last = stage is stages[-1]
        fitness: dict[str, float] = {}
        for other in stages:
            fitness.update(self._done[other.id].fitness if other.id in self._done else {})
        for objective in self._task.objectives:
            if objective.name not in fitness and (last or objective.weight):
                return self._report("failed", stage, f"'{objective.name}' was not measured")
        measured = {FITNESS: mean_value(fitness, self._task.objectives), **fitness}
        return self._report("evaluated" if last else "passed", stage, "", measured, done=last)

    def _report(
        self,
        state: str,
        stage: Stage,
        reason: str,
        measured: Mapping[str, float] | None = None,
        done: bool = True,
    ) -> dict[str, Any]:
        names = (FITNESS, *(o.name for o in self._task.objectives))
        n_levels = sum(level in self._done for level in self._levels)
        metrics: dict[str, float] = {}
        selected = [outcome.selection for outcome in self._done.values() if outcome.selection is not None]
        for outcome in self._done.values():
            metrics.update(outcome.metrics)
        return {
            **{name: (measured or {}).get(name, math.nan) for name in names},
            "state": state,
            "stage": stage.id,
            "reason": reason,
            "budget": self._task.eta ** (n_levels - 1) if n_levels else 0,
            "training_steps": sum(s.steps for s in self._task.space.stages if s.id in self._done),
            "metrics": metrics,
            "selection": selected[-1] if selected else None,
            "done": done,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Plain JSON, and the checkpoints that later stages continue from, each in a file by number."""
        folder = Path(checkpoint_dir)
        left = {s.resumes for s in self._task.space.stages if s.id not in self._done}
        rows = []
        for i, (stage, outcome) in enumerate(self._done.items()):
            kept = outcome.checkpoint if stage in left else None
            if kept is not None:
                (folder / f"{i}.checkpoint").write_bytes(kept)
            plain = asdict(replace(outcome, checkpoint=None, metrics=dict(outcome.metrics)))
            rows.append({"stage": stage, "outcome": plain, "kept": kept is not None})
        (folder / _PROGRESS).write_text(json.dumps({"genome": self._genome, "done": rows}))

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override, unused-ignore]
        folder = Path(checkpoint)
        progress = json.loads((folder / _PROGRESS).read_text())
        if progress["genome"] != self._genome:
            # Schedulers that copy one trial into another hand out checkpoints of other genomes.
            raise ValueError(f"a checkpoint must be one of the same genome, but {folder} is of another")
        self._done = {}
        for i, row in enumerate(progress["done"]):
            content = (folder / f"{i}.checkpoint").read_bytes() if row["kept"] else None
            self._done[row["stage"]] = Outcome(**(row["outcome"] | {"checkpoint": content}))
