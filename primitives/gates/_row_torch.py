"""``RowAdam`` op by op: what runs without a compiler, in other dtypes and on other devices.

Each operation is rounded by itself, and powers and exponentials are those of the C kernel, so that both give the same
bits in float32. Rows are read by ``index_select``: indexing reads rows of 17 columns at half the speed.
"""

import torch
from torch import Tensor

from layersearch.kernels.lookup.row_adam import DIGIT, EXPONENTIAL, LEAST, LN2, LOG2E, RowStep, fresh_state

__all__ = ["TorchRowAdam"]


class TorchRowAdam:
    """A step for tables of any float dtype on any device; as ``CRowAdam``."""

    def fresh(self, table: Tensor) -> dict[str, Tensor]:
        return fresh_state(table)

    def adjacent(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state

    def step(
        self,
        table: Tensor,
        state: dict[str, Tensor],
        rows: Tensor,
        gradient: Tensor,
        powers: Tensor,
        by: RowStep,
    ) -> None:
        if by.log_decay:
            self.make_up(table, state, rows, by.log_decay)
        (beta1, beta2), keep = by.betas, by.keep
        count = state["count"].index_select(0, rows) + 1
        mean = state["mean"].index_select(0, rows).mul_(beta1).add_(gradient * (1 - beta1))
        square = state["square"].index_select(0, rows).mul_(beta2).add_((gradient * (1 - beta2)).mul_(gradient))
        state["count"].index_copy_(0, rows, count)
        state["mean"].index_copy_(0, rows, mean)
        state["square"].index_copy_(0, rows, square)
        first, second = (1 - _power(powers, count)).to(gradient.dtype).unsqueeze(-1).unbind(1)
        # By way of float64: torch's root of float32 is off by a unit for one number in six (2.13, MKL).
        root = (square / second).double().sqrt_().to(square.dtype)
        change = (mean / first).div_(root.add_(by.eps)).mul_(by.lr)
        table.index_copy_(0, rows, table.index_select(0, rows).mul_(keep).sub_(change))
        if by.log_after:
            state["decayed"].index_fill_(0, rows, by.log_after)

    def make_up(self, table: Tensor, state: dict[str, Tensor], ids: Tensor | None, log_decay: float) -> None:
        # A row that is repeated is written as often, with the same bits: to find repeats a GPU would be waited for.
        rows = torch.arange(len(table), device=table.device) if ids is None else ids
        owed = log_decay - state["decayed"].index_select(0, rows)
        made_up = table.index_select(0, rows) * _exponential(owed).unsqueeze(-1).to(table.dtype)
        table.index_copy_(0, rows, made_up)
        state["decayed"].index_fill_(0, rows, log_decay)


def _power(powers: Tensor, count: Tensor) -> Tensor:
    """``[u, 2]``: both betas to the power of ``count``."""
    low, middle, high = powers.unbind()
    n = count.long()
    found = low.index_select(0, n % DIGIT) * middle.index_select(0, n // DIGIT % DIGIT)
    return found.mul_(high.index_select(0, n // DIGIT**2))


def _exponential(x: Tensor) -> Tensor:
    """``e^x`` of float64 ``x <= 0``: reduced by multiples of ``ln 2``, then a sum by Horner's rule."""
    x = x.clamp_min(LEAST)
    n = (x * LOG2E).add_(0.5).floor_()
    r = (x - n * LN2[0]).sub_(n * LN2[1])
    p = torch.full_like(r, EXPONENTIAL[-1])
    for term in reversed(EXPONENTIAL[:-1]):
        p = p.mul_(r).add_(term)
    return (n.long() + 1023 << 52).view(torch.float64).mul_(p)
