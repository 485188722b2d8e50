"""Learns a selection together with the weights, cuts it, goes back and trains the rest: one training, two phases.

All of it follows from data, settings and seed; it can be stopped after any step and continued bit for bit
(``checkpoint``). The first weights, the order of rows and the noise of gates are drawn on the CPU: a training on a GPU
begins as one on the CPU does, and differs by how sums are rounded. A step on a GPU waits for it where sparse gradients
are made and taken, which have as many rows as occur, and in DIN where padding is left out; nowhere else.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from layersearch.errors import DataError
from layersearch.primitives.ctr.dropout import Dropout, drawing_from
from layersearch.primitives.gates.base import HARD, RELAXATIONS, Gates
from layersearch.primitives.gates.controller import RatioController
from layersearch.primitives.gates.dense_adam import DenseAdam
from layersearch.primitives.gates.gate_set import OPEN, Gated, GateSet
from layersearch.primitives.gates.rewind import Rewind
from layersearch.primitives.gates.row_adam import RowAdam
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.tasks.ctr.best_values import best_values
from layersearch.spaces.tasks.ctr.course import GateCourse
from layersearch.spaces.tasks.ctr.data import CTRData, PartName
from layersearch.spaces.tasks.ctr.metrics import auc, log_loss
from layersearch.spaces.tasks.ctr.models.base import MODELS, CTRModel
from layersearch.spaces.tasks.ctr.placed import Batch, Order, Placed
from layersearch.spaces.tasks.ctr.review import evidence, worth
from layersearch.spaces.tasks.ctr.settings import LearnSettings
from layersearch.spaces.tasks.drawing import seeded

__all__ = ["Learner", "Score", "predict"]

CONTROL_EVERY = 20
"""Batches between two updates of the controller: one pass over the gates each."""

EVAL_BATCH = 8192

LOSSES_AHEAD = 256
"""Steps on a GPU after which the host looks at their losses at the latest, all at once."""

_OPENED_STD = 0.05


@dataclass(frozen=True)
class Score:
    """AUC (None if a part has no two classes) and log loss in nats."""

    auc: float | None
    log_loss: float


class Learner:
    """One training.

    Args:
        data: whose test part is never read here, but by ``score("test")``.
        settings: of the training.
        seed: of weights, noise and the order of rows.
        keep: a selection to train with from the start, instead of a learned one: for controls. Which gates are open,
            bool ``[gates]``, by name of their kind.
        placed: the data on the device to train on; None for the CPU.

    Attributes:
        phase: ``search``, ``retrain`` or ``done``.
        step: steps done in this phase.
        history: per finished epoch its phase, mean loss, validation AUC and kept ratio.
    """

    def __init__(
        self,
        data: CTRData,
        settings: LearnSettings,
        seed: int = 0,
        keep: Mapping[str, NDArray[np.bool_]] | None = None,
        placed: Placed | None = None,
    ) -> None:
        self.data, self.settings, self.seeds = data, settings, Seeds(seed)
        self.placed = placed or Placed(data)
        self.device = self.placed.device
        self.steps_per_epoch = len(data.train) // settings.batch
        if self.steps_per_epoch == 0:
            raise DataError(
                f"batch must be at most the {len(data.train)} training rows, got {settings.batch}; make it smaller"
            )
        kinds = settings.gates
        row = RELAXATIONS[settings.relaxation]
        chosen = {k: v for k, v in (("first", settings.first), ("last", settings.last)) if v is not None}
        relaxation = row(**chosen)
        with seeded(self.seeds.derive("weights")):
            self.model: CTRModel = MODELS[settings.model](data.sizes, replace(settings.sizes, target=data.target))
        counts = torch.from_numpy(data.counts)
        self.gates = GateSet(kinds, data.sizes, relaxation, target=data.target)
        if keep is not None:
            self.gates = GateSet(tuple(keep), data.sizes, relaxation, target=data.target)
            for name, mask in keep.items():
                _set(self.gates.gates[name], mask)
        self._reviews = settings.reviews if "value" in self.gates.gates else 0
        self.course = GateCourse(
            settings.warm_epochs * self.steps_per_epoch,
            (settings.search_epochs - self._reviews) * self.steps_per_epoch,
            relaxation,
        )
        with torch.no_grad():
            # What never occurs is never trained: a row that a model knows nothing of adds nothing and is not kept.
            unseen = counts == 0
            self.model.table.weight[unseen] = 0
            for gates in self.gates.gates.values():
                if gates.per_value:
                    gates.logits[unseen] = -relaxation.start
        self.model.to(self.device)
        self.gates.to(self.device)
        self.counts = counts.to(self.device)
        self._draws = None
        if any(isinstance(layer, Dropout) for layer in self.model.modules()):
            self._draws = torch.Generator(self.device)
        self.phase: Literal["search", "retrain", "done"] = "search" if kinds and keep is None else "retrain"
        self.step = 0
        self.history: list[dict[str, float | str]] = []
        self.start: Rewind | None = Rewind(self.model) if self.phase == "search" else None
        self.best: Rewind | None = None
        self.best_auc, self.best_epoch = -math.inf, 0
        self.losses = 0.0
        self._unread: list[Tensor] = []
        self.cut_score: Score | None = None
        self.controller = None if settings.ratio is None else RatioController(settings.ratio)
        self._fresh_optimisers()
        self._order: tuple[tuple[str, int], Order] | None = None

    def run(self, max_steps: int | None = None, deadline: float | None = None) -> bool:
        """Trains on, to the end or for ``max_steps`` steps or until ``time.monotonic()`` is ``deadline``.

        Returns: whether the training is over. Raises: FloatingPointError if the loss is not finite; ``step`` is then
            that of this loss, which on a GPU some further ones may have followed.
        """
        done = 0
        while self.phase != "done":
            if (max_steps is not None and done >= max_steps) or (deadline is not None and time.monotonic() >= deadline):
                self._read_losses()
                return False
            self._train_step()
            self.step += 1
            done += 1
            if self.step % self.steps_per_epoch == 0:
                self._end_of_epoch()
        return True

    def score(self, part: PartName, *, temperature: float = HARD, limit: int | None = None) -> Score:
        """Of the model as it is, with its gates at ``temperature``."""
        rows = self.data.part(part)
        logits = self.logits(part, temperature=temperature, limit=limit)
        labels = rows.labels[:limit]
        return Score(auc(labels, logits), log_loss(labels, logits))

    def logits(self, part: PartName, *, temperature: float = HARD, limit: int | None = None) -> NDArray[np.float32]:
        """Of the rows of a part, in order."""
        self.table_optimiser.flush()
        return predict(self.model, self.data, part, self.gates, temperature, limit, self.placed)

    def pruned(self) -> CTRModel:
        """The trained model without gates and with a smaller table."""
        self.table_optimiser.flush()
        return self.model.pruned(self.gates.selection())

    def _fresh_optimisers(self) -> None:
        s = self.settings
        table = self.model.table.weight
        dense = [p for p in self.model.parameters() if p is not table]
        self.table_optimiser = self._fresh_table_optimiser()
        self.dense_optimiser = torch.optim.Adam(dense, lr=s.lr)
        sparse = [g.logits for g in self.gates.gates.values() if g.sparse]
        whole = [g.logits for g in self.gates.gates.values() if not g.sparse]
        self.gate_optimisers: list[torch.optim.Optimizer] = []
        if sparse:
            self.gate_optimisers.append(RowAdam(sparse, lr=s.gate_lr))
        if whole:
            self.gate_optimisers.append(torch.optim.Adam(whole, lr=s.gate_lr))

    def _fresh_table_optimiser(self) -> RowAdam | DenseAdam:
        s, table = self.settings, self.model.table.weight
        if s.penalty:
            return DenseAdam([table], lr=s.lr, weight_decay=s.penalty)
        return RowAdam([table], lr=s.lr, weight_decay=s.decay)

    def _batch(self) -> Batch:
        epoch, i = divmod(self.step, self.steps_per_epoch)
        key = (self.phase, epoch)
        if self._order is None or self._order[0] != key:
            rng = np.random.Generator(np.random.PCG64(self.seeds.derive("order", *key)))
            self._order = (key, self.placed.order("train", rng.permutation(len(self.data.train))))
        return self.placed.batch("train", self._order[1][i * self.settings.batch : (i + 1) * self.settings.batch])

    def _temperature(self) -> float | None:
        """Of this batch; None while gates are not learned."""
        return self.course.temperature(self.step) if self.phase == "search" else None

    @property
    def _is_cut(self) -> bool:
        """Whether gates are at their limit."""
        return self.phase != "search" or self.step >= self.course.end

    def _train_step(self) -> None:
        batch = self._batch()
        ids, past = batch.ids, batch.history
        temperature = self._temperature()
        if self.phase == "search" and self._is_cut:
            self._settle()
        self.model.train()
        self.table_optimiser.catch_up(self.model.table.weight, ids)
        if past is not None:
            # On a GPU the row that padding stands at is caught up with, too: how many others there are is not known.
            some = past[past >= 0] if past.device.type == "cpu" else past.clamp_min(0)
            self.table_optimiser.catch_up(self.model.table.weight, some)
        gated: Gated = OPEN
        if temperature is not None:
            noise = torch.Generator().manual_seed(self.seeds.derive("noise", self.step))
            gated = self.gates(ids, temperature, noise, past)
        elif self._is_cut and self.gates.gates:
            gated = self.gates(ids, HARD, history=past)
        with self._dropping_out():
            loss = F.binary_cross_entropy_with_logits(self.model(ids, gated, past), batch.labels)
        self._unread.append(loss.detach())
        if self.device.type == "cpu" or len(self._unread) == LOSSES_AHEAD:
            self._read_losses(self.step + 1)
        if temperature is not None:
            price = self.gates.price(ids, temperature, self.counts, len(self.data.train), self.settings.growth)
            loss = loss + self.settings.price * price
        optimisers: list[torch.optim.Optimizer] = [self.table_optimiser, self.dense_optimiser]
        if temperature is not None:
            optimisers += self.gate_optimisers
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
        if temperature is not None and self.controller is not None and self.step % CONTROL_EVERY == 0:
            self.controller.update(self._valued(), self.course.progress(self.step))

    @contextmanager
    def _dropping_out(self) -> Iterator[None]:
        """Draws of this step."""
        if self._draws is None:
            yield
            return
        self._draws.manual_seed(self.seeds.derive("dropout", self.phase, self.step))
        with drawing_from(self._draws, self.model):
            yield

    def _read_losses(self, through: int | None = None) -> None:
        """Adds up those of the steps before ``through`` (default: of all that are done), which are waited for."""
        values = torch.stack(self._unread).cpu().tolist() if self._unread else []
        first = (self.step if through is None else through) - len(values)
        self._unread.clear()
        for k, value in enumerate(values):
            if not math.isfinite(value):
                self.step = first + k
                raise FloatingPointError(f"the loss is not finite at step {self.step + 1} of {self.phase}")
            self.losses += value

    def _valued(self) -> Gates:
        for gates in self.gates.gates.values():
            if gates.per_value:
                return gates
        return next(iter(self.gates.gates.values()))

    def _end_of_epoch(self) -> None:
        self._read_losses()
        epoch = self.step // self.steps_per_epoch
        temperature = self.course.temperature_after(self.step) if self.phase == "search" else HARD
        score = self.score("validation", temperature=temperature)
        kept = self.gates.kept_ratios()
        entry: dict[str, float | str] = {
            "phase": self.phase,
            "epoch": epoch,
            "loss": self.losses / self.steps_per_epoch,
        }
        entry |= {"auc": score.auc or 0.0, "log_loss": score.log_loss} | {f"kept_{k}": v for k, v in kept.items()}
        self.history.append(entry)
        self.losses = 0.0
        if self.phase == "search":
            if epoch == self.settings.rewind_epoch:
                self.start = Rewind(self.model)
            if self._reviews and self.step >= self.course.end:
                self._review()
            if epoch == self.settings.search_epochs:
                self._cut()
            return
        if score.auc is not None and score.auc > self.best_auc:
            self.best, self.best_auc, self.best_epoch = Rewind(self.model), score.auc, epoch
        else:
            self.set_rate(self.rate * self.settings.slowing)
        if epoch >= self.settings.epochs or epoch - self.best_epoch >= self.settings.patience:
            if self.best is not None:
                self.best.restore(self.model)
            self.phase = "done"

    @property
    def rate(self) -> float:
        """Of the weights, at their last step or, after an epoch, at the next one."""
        return float(self.dense_optimiser.param_groups[0]["lr"])

    def set_rate(self, rate: float) -> None:
        """From the next step on."""
        for optimiser in (self.table_optimiser, self.dense_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = rate

    def _settle(self) -> None:
        """Rates of the weights fall to 0 within each epoch: a review needs weights that stand still."""
        self.set_rate(self.settings.lr * (1 - (self.step % self.steps_per_epoch) / self.steps_per_epoch))

    @torch.no_grad()
    def _review(self) -> None:
        """Opens and shuts values by what they are worth; those that open begin anew."""
        s, values = self.settings, self.gates.gates["value"]
        self.table_optimiser.flush()
        found, counts = evidence(self.model, self.gates, self.data, self.placed), self.data.counts
        was = values.selected()
        if s.ratio is None:
            kept = (worth(*found.gains(), found.directions, s.review_factor * s.price) > 1) & (counts > 0)
        else:
            kept = best_values(found, counts, round(s.ratio * len(counts)))
        _set(values, kept)
        opened = values.selected() & ~was
        table = self.model.table.weight
        fresh = torch.Generator().manual_seed(self.seeds.derive("opened", self.step))
        # Small, so that the model stays what it was, but not 0, from where embeddings that meet 0 would never move.
        drawn = torch.randn(int(opened.sum()), table.shape[1], generator=fresh) * _OPENED_STD
        table[opened] = drawn.to(self.device)
        self.table_optimiser = self._fresh_table_optimiser()
        self.dense_optimiser = torch.optim.Adam(self.dense_optimiser.param_groups[0]["params"], lr=s.lr)

    def _cut(self) -> None:
        """The end of the search: a hard selection, weights as they were early on, fresh optimisers."""
        if self.controller is not None and not self._reviews:
            self._valued().keep(self.controller.target)
        self.cut_score = self.score("validation")
        assert self.start is not None
        self.start.restore(self.model)
        self._fresh_optimisers()
        self.gates.requires_grad_(False)
        self.phase, self.step, self.start = "retrain", 0, None


@torch.no_grad()
def _set(gates: Gates, mask: NDArray[np.bool_]) -> None:
    """Opens and shuts for good."""
    gates.logits.copy_(torch.from_numpy(np.where(mask, 1.0, -1.0)).unsqueeze(-1))


@torch.no_grad()
def predict(
    model: CTRModel,
    data: CTRData,
    part: PartName,
    gates: GateSet | None = None,
    temperature: float = HARD,
    limit: int | None = None,
    placed: Placed | None = None,
) -> NDArray[np.float32]:
    """Logits of the rows of a part, in order, in evaluation mode; ``gates`` None for a plain or pruned model.

    ``placed`` is the data beside the model; without it they are put there for this call.
    """
    placed = placed or Placed(data, model.bias.device)
    was_training = model.training
    model.eval()
    found = []
    n = len(data.part(part))
    n = n if limit is None else min(limit, n)
    for low in range(0, n, EVAL_BATCH):
        batch = placed.batch(part, slice(low, min(n, low + EVAL_BATCH)))
        ids, past = batch.ids, batch.history
        gated = OPEN if gates is None or not gates.gates else gates(ids, temperature, history=past)
        found.append(model(ids, gated, past))
    model.train(was_training)
    logits: NDArray[np.float32] = torch.cat(found).cpu().numpy()
    return logits
