"""A second look at each value: what the log loss of the training rows would gain if the value was fitted exactly.

Gates are learned with noise: a rare value that shut by chance has no gradient that would open it again. The review asks
of every value, open or shut, the same question, of the same model, in one pass and without a random number.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layersearch.primitives.gates.gate_set import Gated, GateSet
from layersearch.spaces.tasks.ctr.data import CTRData
from layersearch.spaces.tasks.ctr.models.base import CTRModel
from layersearch.spaces.tasks.ctr.placed import Batch, Placed

__all__ = ["MOST_DIRECTIONS", "Evidence", "evidence", "gained", "solved", "worth"]

MOST_DIRECTIONS = 4
"""Of embeddings that are wider, so many directions are looked at: those along which the logit varies most."""

_BATCH = 8192
_CALIBRATIONS = 6
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the training rows say of the table row of each of ``n`` values, from where the value has none.

    Args:
        score: ``U`` ``[n, w]``, by the first-order weight, if there is one, and the directions of embeddings.
        information: ``I`` ``[n, w, w]``.
        has_first: whether the first column is that of a first-order weight.
        field: ``[n]``, of each value; those of a field are in a row.
    """

    score: Tensor
    information: Tensor
    has_first: bool
    field: Tensor

    @property
    def directions(self) -> int:
        """Of embeddings: degrees of freedom of a gain in company."""
        return self.score.shape[1] - self.has_first

    def gains(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Nats that each value gains alone, and those that it gains more in company; ``[n]`` each.

        A value gains ``½ Uᵀ I⁻¹ U``: the score test of Rao. *Alone* is its share along the first-order weight (for
        models without one, along the embedding of no company: all of it), *in company* the rest.
        """
        whole = gained(self.score, self.information)
        alone = torch.zeros_like(whole)
        if self.has_first:
            alone = self.score[:, 0].square() / (2 * (self.information[:, 0, 0] + _RIDGE))
        more = (whole - alone).clamp_min(0) if self.directions else torch.zeros_like(alone)
        return alone.double().cpu().numpy(), more.double().cpu().numpy()


def gained(score: Tensor, information: Tensor) -> Tensor:
    """``½ Uᵀ I⁻¹ U``, ``[n]``."""
    return 0.5 * (score * solved(information, score)).sum(-1)


def solved(information: Tensor, score: Tensor) -> Tensor:
    """``I⁻¹ U``, ``[n, w]``: the table rows that fit best."""
    ridge = _RIDGE * torch.eye(score.shape[-1], device=score.device)
    found: Tensor = torch.linalg.solve(information + ridge, score.unsqueeze(-1))[..., 0]
    return found


def evidence(model: CTRModel, gates: GateSet, data: CTRData, placed: Placed | None = None) -> Evidence:
    """Of every value.

    Let ``z`` be the logits of the training rows, ``x`` the derivative of a row's logit by the table row of value ``k``
    and ``z'`` what the logit is without ``k`` (linear in that table row: exact for LR and FM). Then
    ``U = Σ (y - σ(z')) x`` and ``I = Σ σ'(z') x xᵀ`` over the rows where it occurs.

    Before that ``z`` is calibrated as ``a + b z``, and ``U`` loses what an average value of its field has of the
    residuals: a model that is off by a little on the whole would otherwise make all frequent values look useful.

    ``placed`` is the data beside the model; without it they are put there for this call.
    """
    placed = placed or Placed(data, model.bias.device)
    device = placed.device
    was_training = model.training
    model.eval()
    logits, labels = _logits(model, gates, placed)
    a, b = _calibrated(logits, labels)
    n, m = sum(data.sizes), len(data.sizes)
    first = int(model.has_first)
    basis = _basis(model, gates, placed, first)
    width = first + basis.shape[1]
    score, information = torch.zeros(n, width, device=device), torch.zeros(n, width, width, device=device)
    of_field = torch.zeros(m, width, device=device)
    for low in range(0, len(labels), _BATCH):
        batch = placed.batch("train", slice(low, low + _BATCH))
        ids = batch.ids.ravel()
        z, x, there = _derivatives(model, gates, batch)
        without = a + b * (z.unsqueeze(1) - (x * there).sum(-1))
        x = torch.cat([x[..., :first], x[..., first:] @ basis], -1)
        y = batch.labels.unsqueeze(1)
        p = torch.sigmoid(without)
        _add_rows(score, ids, ((y - p).unsqueeze(-1) * x).flatten(0, 1))
        weighted = (p * (1 - p)).unsqueeze(-1) * x
        _add_rows(information, ids, (weighted.unsqueeze(-1) * x.unsqueeze(-2)).flatten(0, 1))
        of_field += torch.einsum("b,bmc->mc", batch.labels - torch.sigmoid(a + b * z), x)
    model.train(was_training)
    field = torch.repeat_interleave(torch.arange(m), torch.tensor(data.sizes)).to(device)
    share = torch.from_numpy(data.counts).to(device).float().unsqueeze(1) / len(labels)
    score -= share * of_field[field]
    return Evidence(score, information, bool(first), field)


def worth(alone: NDArray[np.float64], more: NDArray[np.float64], directions: int, price: float) -> NDArray[np.float64]:
    """Gain over what is asked for, the larger of the two; above 1 a value is worth its price.

    Of a value that is useless the gain alone is half a ``χ²`` of one degree of freedom, that in company of
    ``directions``: the latter must be as unlikely as a gain of ``price`` alone is.
    """
    if not directions:
        return alone / price
    from scipy import stats

    in_company = float(stats.chi2.isf(stats.chi2.sf(2 * price, 1), directions)) / 2
    found: NDArray[np.float64] = np.maximum(alone / price, more / in_company)
    return found


def _add_rows(to: Tensor, rows: Tensor, each: Tensor) -> None:
    """Adds ``each[k]`` to row ``rows[k]``, in the same order each time."""
    if to.device.type == "cpu":
        to.index_add_(0, rows, each)
    else:  # CUDA sorts for it, where index_add would have threads add as they come
        to.index_put_((rows,), each, accumulate=True)


@torch.no_grad()
def _logits(model: CTRModel, gates: GateSet, placed: Placed) -> tuple[Tensor, Tensor]:
    """Of all training rows, and their labels."""
    logits, labels = [], []
    for low in range(0, len(placed.data.train), _BATCH):
        batch = placed.batch("train", slice(low, low + _BATCH))
        logits.append(_forward(model, gates, batch)[0])
        labels.append(batch.labels)
    return torch.cat(logits), torch.cat(labels)


def _derivatives(model: CTRModel, gates: GateSet, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, their derivatives by the gated table rows ``[B, m, columns]``, and those rows."""
    with torch.enable_grad():
        z, there = _forward(model, gates, batch)
        (x,) = torch.autograd.grad(z.sum(), there)
    return z.detach(), x, there.detach()


def _forward(model: CTRModel, gates: GateSet, batch: Batch) -> tuple[Tensor, Tensor]:
    gated = gates(batch.ids, history=batch.history)
    there = model.table(batch.ids).detach()
    if gated.features is not None:
        there = there * gated.features.unsqueeze(-1)
    there.requires_grad_(True)
    z: Tensor = model.from_rows(there, Gated(None, gated.pairs, gated.history), batch.history)
    return z, there


def _calibrated(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """``a`` and ``b`` of the logistic regression on the logits, by Newton's method."""
    x = torch.stack([torch.ones_like(logits), logits], 1).double()
    y = labels.double()
    w = torch.tensor([0.0, 1.0], dtype=torch.float64).to(x.device)
    for _ in range(_CALIBRATIONS):
        p = torch.sigmoid(x @ w)
        hessian = (x * (p * (1 - p)).unsqueeze(1)).T @ x + _RIDGE * torch.eye(2, device=x.device)
        w = w + torch.linalg.solve(hessian, x.T @ (y - p))
    return float(w[0]), float(w[1])


def _basis(model: CTRModel, gates: GateSet, placed: Placed, first: int) -> Tensor:
    """Orthonormal directions of embeddings ``[d, directions]``, from the first rows."""
    d = model.table.weight.shape[1] - first
    if d <= MOST_DIRECTIONS:
        return torch.eye(d, device=placed.device)
    _, x, _ = _derivatives(model, gates, placed.batch("train", slice(0, _BATCH)))
    flat = x[..., first:].flatten(0, 1)
    vectors: Tensor = torch.linalg.eigh(flat.T @ flat)[1]
    return vectors[:, -MOST_DIRECTIONS:]
