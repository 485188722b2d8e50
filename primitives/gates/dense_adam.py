"""Adam for tables with a penalty on all rows, which no optimiser of single rows can have."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["DenseAdam"]


class DenseAdam(torch.optim.Adam):
    """``torch.optim.Adam`` that takes sparse gradients of tables and adds that of ``weight_decay / 2 · ‖table‖²``.

    At every step all rows move, by their momentum and by the penalty, which is part of what Adam divides by its root
    mean square: rows whose gradient is smaller than ``weight_decay`` times themselves shrink. This is the
    regularisation of embeddings that BARS' click models are tuned with (github.com/reczoo/BARS), and unlike decoupled
    decay it holds rare rows near 0. ``catch_up`` and ``flush`` stand for those of ``RowAdam`` and have nothing to do.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; ``closure`` is evaluated first if given."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    table.grad = _dense(table.grad.coalesce())
        super().step()
        return loss

    def catch_up(self, table: Tensor, rows: Tensor) -> None:
        """Rows are never behind."""

    def flush(self) -> None:
        """Rows are never behind."""


def _dense(gradient: Tensor) -> Tensor:
    """Of a coalesced one; ``to_dense`` of torch 2.13 gives zeros for one row whose values are a view of one number."""
    return gradient.new_zeros(gradient.shape, layout=torch.strided).index_copy_(
        0, gradient.indices()[0], gradient.values()
    )
