"""Runs the stages of the optfs funnel in a worker: quality, rungs, fitness, re-rank, test."""

import functools
import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from layersearch.errors import DataError
from layersearch.primitives.cost import time_ratio
from layersearch.primitives.gates.base import RELAXATIONS
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays, Job, Outcome
from layersearch.spaces.ending import SAVE_EVERY_S, EndedError, allowed_seconds, settled, sooner
from layersearch.spaces.fidelity import Place, is_rung, place_of
from layersearch.spaces.optfs.choices import CONTROLS, NO_GATES, OWN
from layersearch.spaces.optfs.generate import Generator
from layersearch.spaces.optfs.genome import OptFSGenome, from_json
from layersearch.spaces.optfs.settings import THE_CUT, OptFSSettings, TaskSettings
from layersearch.spaces.tasks.ctr.arrays import from_arrays
from layersearch.spaces.tasks.ctr.checkpoint import read_checkpoint, write_checkpoint
from layersearch.spaces.tasks.ctr.data import CTRData, PartName
from layersearch.spaces.tasks.ctr.learning import Learner, Score
from layersearch.spaces.tasks.ctr.models.base import ModelSettings
from layersearch.spaces.tasks.ctr.placed import Placed
from layersearch.spaces.tasks.ctr.selection import by_frequency, by_random, pairs_by_frequency, pairs_by_random
from layersearch.spaces.tasks.ctr.settings import LearnSettings
from layersearch.spaces.tasks.ctr.sources import load_source

__all__ = ["OptFSEvaluator", "learn_settings", "load_data", "make_learner"]

_TIMED_STEPS = 3
_SLOWEST_MODEL = 6.0
"""A training of the slowest base model against the reference: DCN-V2 on 22 fields, 8 numbers each, against FM."""
_LATENCY_ROWS = 512


def load_data(settings: OptFSSettings) -> CTRData:
    """The data of a run, its validation part split in two. Raises: DataError with one sentence."""
    task = settings.task
    data = load_source(
        task.data,
        data_dir=settings.data_path,
        seed=task.seed,
        schema=task.table_schema,
        validation=task.validation,
        test=task.test,
        content=task.content,
    )
    data = data.with_holdout()
    if task.batch > len(data.train):
        raise DataError(
            f"task.batch must be at most the {len(data.train)} training rows, got {task.batch}; make it smaller"
        )
    return data


def learn_settings(genome: OptFSGenome, task: TaskSettings) -> LearnSettings:
    """How the candidate is trained. Raises: BadInputError."""
    shared = ("batch", "epochs", "patience", "slowing", "growth", "gate_lr", "decay", "penalty")
    given = {name: getattr(task, name) for name in shared}
    sizes = ModelSettings(
        dim=genome.dim,
        hidden=task.hidden,
        n_cross=task.n_cross,
        activation=task.activation,
        batch_norm=task.batch_norm,
        dropout=task.dropout,
        std=task.std,
        operator="inner" if genome.operator == OWN else genome.operator,
    )
    learned = {}
    if genome.kinds:
        reviews = task.reviews if "value" in genome.kinds else 0
        first = RELAXATIONS[genome.relaxation]().first
        learned = {
            "price": genome.price if genome.pressure == "price" else 0.0,
            "ratio": genome.ratio if genome.pressure == "ratio" else None,
            "last": max(first, genome.temperature),
            "search_epochs": genome.search_epochs,
            "rewind_epoch": genome.rewind_epoch,
            "warm_epochs": task.warm_epochs,
            "reviews": reviews,
            "review_factor": task.review_factor,
        }
    return LearnSettings(
        model=genome.model,
        sizes=sizes,
        gates=genome.kinds,
        relaxation=genome.relaxation,
        lr=genome.lr,
        **given,
        **learned,  # type: ignore[arg-type]
    )


def make_learner(
    genome: OptFSGenome, task: TaskSettings, data: CTRData, seed: int, placed: Placed | None = None
) -> Learner:
    """The training of a candidate, from its start; what is random in a control follows from ``seed``.

    ``placed`` is ``data`` on the device to train on; None for the CPU.
    """
    keep = None
    if genome.is_control:
        chosen, kind = CONTROLS[genome.gates]
        frequent, drawn = chosen == "frequency", Seeds(seed).derive("control")
        keep = {kind: by_frequency(data, genome.ratio) if frequent else by_random(data, genome.ratio, drawn)}
        if genome.pair_ratio:
            share = genome.pair_ratio
            keep["pair"] = pairs_by_frequency(data, share) if frequent else pairs_by_random(data, share, drawn)
    return Learner(data, learn_settings(genome, task), seed, keep, placed)


class OptFSEvaluator:
    """``layersearch.spaces.contracts.SavingEvaluator`` of the optfs space: holds the data of one worker.

    Args:
        settings: of the run.
        data: arrays of ``to_arrays``.
        device: ``cpu`` or ``cuda[:i]``. A step on a small vocabulary touches some thousand rows, and may be over on a
            CPU before a GPU has begun.
    """

    def __init__(self, settings: OptFSSettings, data: Arrays, device: str) -> None:
        self.settings = settings
        self.data = from_arrays(data)
        self.placed = Placed(self.data, device)
        self.save: Callable[[bytes], None] | None = None
        self.save_every_s = SAVE_EVERY_S

    def time_limits(self) -> Mapping[str, float]:
        """Seconds per stage id: ten times what the slowest model would take, as measured on the reference."""
        task = self.settings.task
        per_epoch = self._seconds_per_epoch() * _SLOWEST_MODEL
        longest = self.settings.search.search_epochs[-1] + task.epochs
        needed = {"quality": task.quality_epochs * per_epoch, "fitness": longest * per_epoch}
        needed = dict.fromkeys((cut.stage for cut in self.settings.cuts), longest * per_epoch) | needed
        for k in range(self.settings.funnel.rerank_seeds):
            needed |= {f"rerank:{k}": longest * per_epoch, f"test:{k}": per_epoch}
        return {stage: allowed_seconds(seconds) for stage, seconds in needed.items()}

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        """Runs ``job.stage``, ``name[:repeat][@rung]``. An exception of the candidate is a failed outcome."""
        return settled(lambda deadline: self._run(job, deadline), time_limit_s)

    def _run(self, job: Job, deadline: float | None) -> Outcome:
        genome = from_json(job.genome)
        learner = self._learner(genome, job.seed)
        if job.checkpoint is not None:
            read_checkpoint(job.checkpoint, learner)
        match place_of(job.stage):
            case Place("quality", rung=""):
                return self._quality(genome, learner, deadline)
            case Place("fitness", rung=""):
                return self._through(genome, learner, deadline, "validation")
            case Place("fitness", rung=place):
                return self._rung(genome, learner, deadline, place)
            case Place("rerank", rung=""):
                return self._through(genome, learner, deadline, "holdout", keep=True)
            case Place("test", rung=""):
                return self._through(genome, learner, deadline, "test")
        raise ValueError(f"unknown stage '{job.stage}'; the optfs space has no such stage")

    def _learner(self, genome: OptFSGenome, seed: int) -> Learner:
        return make_learner(genome, self.settings.task, self.data, seed, self.placed)

    def _quality(self, genome: OptFSGenome, learner: Learner, deadline: float | None) -> Outcome:
        """The first epochs of the training, which goes on from this checkpoint; a control is measured in any case."""
        epochs, limit = self.settings.task.quality_epochs, self.settings.funnel.quality_auc
        self._advance(learner, deadline, epochs)
        value = float(learner.history[-1]["auc"])
        if value <= limit and not genome.is_control:
            return Outcome("rejected", f"AUC at the limit or below after {epochs} epochs", value, limit)
        fitness = self._early(_latest(learner)) if is_rung("quality", self.settings.cuts) else {}
        metrics = {"quality_auc": value}
        return Outcome("passed", metrics=metrics, fitness=fitness, checkpoint=write_checkpoint(learner))

    def _rung(self, genome: OptFSGenome, learner: Learner, deadline: float | None, place: str) -> Outcome:
        """To the cut, or to the end of an epoch of the search; see ``CutFidelity`` for what is measured there.

        A training without gates has no cut: it is measured where the stage before left it.
        """
        if place != THE_CUT:
            epochs = int(place)
        elif genome.kinds:
            epochs = learner.settings.search_epochs
        else:
            epochs = max(self.settings.task.quality_epochs, *self.settings.fidelity.rungs, 0)
        self._advance(learner, deadline, epochs)
        checkpoint = write_checkpoint(learner)
        measured = _latest(learner)
        if place == THE_CUT:
            if learner.cut_score is not None:
                measured = _of_score(learner.cut_score)
            measured["ratio"] = _kept(learner)
            measured |= self._of_pruned(learner) if self._counts_pruned else {}
        return Outcome("passed", fitness=self._early(measured), checkpoint=checkpoint)

    @property
    def _counts_pruned(self) -> bool:
        return any(name in self.settings.funnel.objectives for name in ("parameters", "latency"))

    def _early(self, measured: Mapping[str, float]) -> dict[str, float]:
        """The objectives that are known before the end."""
        return {name: measured[name] for name in self.settings.funnel.objectives if name in measured}

    def _through(
        self, genome: OptFSGenome, learner: Learner, deadline: float | None, part: PartName, keep: bool = False
    ) -> Outcome:
        """The whole training, and what it is worth on a part; ``keep`` its end as a checkpoint."""
        self._advance(learner, deadline)
        measured, metrics = self._measured(learner, part)
        if self._counts_pruned:
            measured |= self._of_pruned(learner)
        if genome.kinds:
            metrics |= self._of_planted(learner)
            if learner.cut_score is not None and learner.cut_score.auc is not None:
                metrics["cut_auc"] = learner.cut_score.auc
        fitness = {name: measured[name] for name in self.settings.funnel.objectives}
        metrics |= {name: value for name, value in measured.items() if name not in fitness}
        checkpoint = write_checkpoint(learner) if keep else None
        return Outcome("passed", metrics=metrics, fitness=fitness, checkpoint=checkpoint)

    def _advance(self, learner: Learner, deadline: float | None, epochs: float = math.inf) -> None:
        """Trains until so many epochs, of search and retraining, are finished, or the training is over.

        Where it stands is saved now and then. Raises: EndedError if time or the loss does not allow it.
        """
        while learner.phase != "done" and (left := epochs - len(learner.history)) > 0:
            per_epoch = learner.steps_per_epoch
            steps = None if left == math.inf else int(left) * per_epoch - learner.step % per_epoch
            until = sooner(deadline, None if self.save is None else self.save_every_s)
            try:
                over = learner.run(steps, until)
            except FloatingPointError:
                raise EndedError(Outcome("rejected", "loss is not finite", measured=float(learner.step + 1))) from None
            if over or len(learner.history) >= epochs:
                return
            if self.save is None or until == deadline:
                raise EndedError(Outcome("failed", "the time limit was reached", measured=float(learner.step)))
            self.save(write_checkpoint(learner))

    def _measured(self, learner: Learner, part: PartName) -> tuple[dict[str, float], dict[str, float]]:
        measured = _of_score(learner.score(part)) | {"ratio": _kept(learner)}
        metrics = {f"kept_{name}": share for name, share in learner.gates.kept_ratios().items()}
        metrics["pair_ratio"] = float(learner.gates.selection().pairs.double().mean())
        metrics["epochs"] = float(len(learner.history))
        return measured, metrics

    def _of_pruned(self, learner: Learner) -> dict[str, float]:
        """Size and speed of what would be exported."""
        model = learner.pruned() if learner.gates.gates else learner.model
        found = {"parameters": float(model.n_parameters())}
        if "latency" in self.settings.funnel.objectives:
            found["latency"] = _latency(model.eval(), self._reference, self.placed)
        return found

    @functools.cached_property
    def _reference(self) -> nn.Module:
        """The reference model with all values, untrained."""
        genome = Generator(self.settings.search).reference(gates=NO_GATES)
        return self._learner(genome, 0).model.eval()

    def _of_planted(self, learner: Learner) -> dict[str, float]:
        """Precision and recall of what was planted: reported, never an objective."""
        truth, selection = self.data.truth, learner.gates.selection()
        if truth is None:
            return {}
        precision, recall = truth.precision_recall(selection.rows().numpy(), self.data.counts)
        found = {"precision": precision, "recall": recall}
        if "pair" in learner.gates.gates:
            of_pairs = truth.pair_precision_recall(selection.pairs.numpy())
            found |= dict(zip(("pair_precision", "pair_recall"), of_pairs, strict=True))
        return found

    def _seconds_per_epoch(self) -> float:
        genome = Generator(self.settings.search).reference(gates=NO_GATES)
        learner = self._learner(genome, 0)
        learner.run(max_steps=1)  # pays for warming up
        begin = time.monotonic()
        learner.run(max_steps=_TIMED_STEPS)
        return (time.monotonic() - begin) / _TIMED_STEPS * learner.steps_per_epoch


def _latest(learner: Learner) -> dict[str, float]:
    """What the latest epoch measured on the validation part, with gates as they were."""
    return {name: float(learner.history[-1][name]) for name in ("auc", "log_loss")}


def _of_score(score: Score) -> dict[str, float]:
    if score.auc is None or not np.isfinite(score.log_loss):
        raise EndedError(Outcome("rejected", "outputs are not finite, or the same for all"))
    return {"auc": score.auc, "log_loss": score.log_loss}


def _kept(learner: Learner) -> float:
    """Share of the rows of the table that are selected."""
    return float(learner.gates.selection().rows().numpy().mean()) if learner.gates.gates else 1.0


def _latency(model: nn.Module, reference: nn.Module, placed: Placed) -> float:
    """Time of a prediction for some rows, forward alone, as a multiple of that of ``reference``; both in eval mode."""
    batch = placed.batch("train", slice(0, _LATENCY_ROWS))
    with torch.no_grad():
        return time_ratio(
            lambda: model(batch.ids, history=batch.history),
            lambda: reference(batch.ids, history=batch.history),
            batch.ids.device,
        )
