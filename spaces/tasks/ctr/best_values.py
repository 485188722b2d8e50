"""Which so many values a model had best keep, where those that are left out have the same row of zeros."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layersearch.spaces.tasks.ctr.review import Evidence, gained, solved

__all__ = ["best_values"]

_MOST_ROUNDS = 20


def best_values(evidence: Evidence, counts: NDArray[np.int64], n_kept: int) -> NDArray[np.bool_]:
    """The ``n_kept`` values whose loss would cost most; those that never occur only if there are no others.

    Values of a field that are left out look alike to the model, which sees a row of zeros; by moving all that it keeps
    of the field, and its bias, it can give them any one effect. So what a value costs that is left out is not its whole
    effect, but how far that is from the one that fits all of them: ``½ Rᵀ I⁻¹ R`` with ``R = U - I δ``, where ``δ``
    solves ``Σ I δ = Σ U`` over those of its field that are left out. Who these are and what fits them is found in
    turns, as the clusters of k-means are, from three starts: the rarest are out; those of the smallest effect are; all
    are. The best of what was seen on the way is kept, so that it costs no more than the first two do. (On Frappe
    rare items are nearly all of negatives: left out together they are told from others by being left out.)
    """
    never = torch.from_numpy(counts == 0).to(evidence.score.device)
    whole = gained(evidence.score, evidence.information)
    rarest_out = _largest(torch.from_numpy(counts).to(whole), never, n_kept)
    smallest_out, all_out = _largest(whole, never, n_kept), torch.zeros_like(never)
    seen = [
        (lost, kept)
        for start in (rarest_out, smallest_out, all_out)
        for kept, lost in _turns(evidence, never, n_kept, start)
    ]
    _, best = min(seen, key=lambda each: each[0])
    found: NDArray[np.bool_] = best.cpu().numpy()
    return found


def _turns(evidence: Evidence, never: Tensor, n_kept: int, kept: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Choices of ``n_kept`` values and what they cost, in nats, from one on until they stay the same."""
    for _ in range(_MOST_ROUNDS):
        far = _far(evidence, kept)
        if int(kept.sum()) == n_kept:
            yield kept, float(far.masked_fill(kept, 0.0).sum())
        before, kept = kept, _largest(far, never, n_kept)
        if bool((kept == before).all()):
            return


def _largest(cost: Tensor, never: Tensor, n_kept: int) -> Tensor:
    """The first of equal ones."""
    kept = torch.zeros(len(cost), dtype=torch.bool, device=cost.device)
    kept[torch.argsort(cost.masked_fill(never, -1.0), descending=True, stable=True)[:n_kept]] = True
    return kept


def _far(evidence: Evidence, kept: Tensor) -> Tensor:
    """What each value would cost beside those that are left out, in nats; ``[n]``."""
    shared = _shared(evidence, ~kept)[evidence.field]
    rest = evidence.score - (evidence.information @ shared.unsqueeze(-1))[..., 0]
    return gained(rest, evidence.information)


def _shared(evidence: Evidence, out: Tensor) -> Tensor:
    """Per field, the table row that fits best for all values that are left out; ``[m, w]``."""
    sizes = torch.bincount(evidence.field.cpu()).tolist()
    score = torch.split(evidence.score * out.unsqueeze(-1), sizes)
    information = torch.split(evidence.information * out[:, None, None], sizes)
    return solved(torch.stack([part.sum(0) for part in information]), torch.stack([part.sum(0) for part in score]))
