"""Runs the stages of the kan funnel on images in a worker: quality, fitness, re-rank, test."""

import time
from collections.abc import Mapping

import torch

from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays, Job, Outcome
from layersearch.spaces.costs import measured_costs
from layersearch.spaces.ending import EndedError, allowed_seconds, check_finished, settled
from layersearch.spaces.fidelity import is_rung, place_of
from layersearch.spaces.kan.images.genome import ImageGenome, from_json
from layersearch.spaces.kan.images.network import build, count_parameters
from layersearch.spaces.kan.images.published import known, plain_like
from layersearch.spaces.kan.images.settings import ImageKANSettings
from layersearch.spaces.tasks.images.classifier import ClassifierTask, Part, TrainResult

__all__ = ["ImageKANEvaluator"]

_TIMED_STEPS = 3
_REFERENCES = ("kan-conv", "kat-vit")


class ImageKANEvaluator:
    """``layersearch.spaces.contracts.Evaluator`` of the kan space on images: holds the data of one worker.

    At a rung the model is measured as it is, its accuracy by weights that the rest of the training would still change.

    Args:
        settings: of the run.
        data: arrays of the image set.
        device: ``cpu`` or ``cuda[:i]``.
    """

    def __init__(self, settings: ImageKANSettings, data: Arrays, device: str) -> None:
        self.settings = settings
        self.task = ClassifierTask(data, settings.task, device)
        self.chance = 1 / self.task.classes

    def time_limits(self) -> Mapping[str, float]:
        """Seconds per stage id: ten times what the slower of two published designs would take, at least 30 s."""
        task = self.settings.task
        per_step = max(map(self._seconds_per_step, _REFERENCES))
        evaluation = task.validation_cap / task.batch * per_step
        needed = {
            "quality": task.quality_steps * per_step + evaluation,
            "fitness": (task.fitness_steps - task.quality_steps) * per_step + evaluation,
        }
        needed = dict.fromkeys((cut.stage for cut in self.settings.cuts), max(needed.values())) | needed
        for k in range(self.settings.funnel.rerank_seeds):
            rerank = task.rerank_steps * per_step + 5 * evaluation
            needed |= {f"rerank:{k}": rerank, f"test:{k}": 10 * evaluation}
        return {stage: allowed_seconds(seconds) for stage, seconds in needed.items()}

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        """Runs ``job.stage``, ``name[:repeat]``. An exception of the candidate is a failed outcome."""
        return settled(lambda deadline: self._run(job, deadline), time_limit_s)

    def _run(self, job: Job, deadline: float | None) -> Outcome:
        genome = from_json(job.genome)
        steps = self.settings.task.rerank_steps
        match place_of(job.stage):
            case "quality", "":
                return self._quality(genome, job, deadline)
            case "fitness", "":
                return self._fitness(genome, job, deadline)
            case "fitness", step:
                return self._rung(genome, job, deadline, int(step))
            case "rerank", "":
                result, accuracy = self._measured(genome, job, deadline, steps, steps, "holdout")
                return Outcome("passed", fitness={"accuracy": accuracy}, checkpoint=result.checkpoint())
            case "test", "":
                _, accuracy = self._measured(genome, job, deadline, steps, steps, "test")
                return Outcome("passed", fitness={"accuracy": accuracy})
        raise ValueError(f"unknown stage '{job.stage}'; the kan space has no such stage")

    def _quality(self, genome: ImageGenome, job: Job, deadline: float | None) -> Outcome:
        """The first steps of the fitness training, which goes on from this checkpoint; a rung, if one is there."""
        task, limit = self.settings.task, self.settings.funnel.quality_chance * self.chance
        result, accuracy = self._measured(genome, job, deadline, task.quality_steps, task.fitness_steps, "validation")
        if accuracy < limit:
            return Outcome("rejected", f"accuracy below the limit after {task.quality_steps} steps", accuracy, limit)
        early = is_rung(job.stage, self.settings.cuts)
        fitness = {"accuracy": accuracy} | self._costs(genome) if early else {}
        metrics = {"quality_accuracy": accuracy}
        return Outcome("passed", metrics=metrics, fitness=fitness, checkpoint=result.checkpoint())

    def _rung(self, genome: ImageGenome, job: Job, deadline: float | None, until_step: int) -> Outcome:
        steps = self.settings.task.fitness_steps
        result, accuracy = self._measured(genome, job, deadline, until_step, steps, "validation")
        metrics, fitness = {f"train_accuracy@{until_step}": result.accuracy}, {"accuracy": accuracy}
        fitness |= self._costs(genome)
        return Outcome("passed", metrics=metrics, fitness=fitness, checkpoint=result.checkpoint())

    def _fitness(self, genome: ImageGenome, job: Job, deadline: float | None) -> Outcome:
        steps = self.settings.task.fitness_steps
        result, accuracy = self._measured(genome, job, deadline, steps, steps, "validation")
        fitness = {"accuracy": accuracy} | self._costs(genome)
        return Outcome("passed", metrics={"train_accuracy": result.accuracy}, fitness=fitness)

    def _costs(self, genome: ImageGenome) -> dict[str, float]:
        """Those that are objectives, against the ordinary network of the same shape, on a batch of the training."""
        task, side = self.task, genome.shape.side
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.settings.task.batch, task.in_channels, side, side, generator=generator).to(task.device)
        x = x.contiguous(memory_format=torch.channels_last)
        model, reference = (self._model(one, 0).train() for one in (genome, plain_like(genome)))
        count = count_parameters(genome, task.in_channels, task.classes)
        return measured_costs(self.settings.funnel.objectives, model, reference, x, count)

    def _measured(
        self, genome: ImageGenome, job: Job, deadline: float | None, until_step: int, total_steps: int, part: Part
    ) -> tuple[TrainResult, float]:
        """The model of a job, trained from its checkpoint, and its accuracy on ``part``.

        Raises: EndedError if the training did not reach its goal, or a logit is not finite.
        """
        model = self._model(genome, job.seed)
        result = self.task.train(
            model,
            until_step=until_step,
            total_steps=total_steps,
            seed=job.seed,
            checkpoint=job.checkpoint,
            deadline=deadline,
        )
        check_finished(result)
        cap = self.settings.task.validation_cap if part == "validation" else None
        accuracy = self.task.evaluate(model, part, cap).accuracy
        if accuracy is None:
            raise EndedError(Outcome("rejected", "logits are not finite"))
        return result, accuracy

    def _model(self, genome: ImageGenome, seed: int) -> torch.nn.Module:
        """The initial weights depend on ``seed`` alone."""
        generator = torch.Generator().manual_seed(Seeds(seed).derive("init"))
        return build(genome, self.task.in_channels, self.task.classes, generator=generator, device=self.task.device)

    def _seconds_per_step(self, name: str) -> float:
        genome = known(name, self.settings.reference_conv, self.settings.reference_vit)
        model = self._model(genome, 0)
        ends: list[float] = []
        self.task.train(
            model,
            until_step=_TIMED_STEPS + 1,
            total_steps=_TIMED_STEPS + 1,
            seed=0,
            on_step=lambda *_: ends.append(time.monotonic()),
            graphed=False,
        )
        return (ends[-1] - ends[0]) / _TIMED_STEPS  # the first step pays for warming up
