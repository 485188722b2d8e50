"""Adam for tables of rows of which a step touches few: its cost does not depend on how many rows there are."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError

__all__ = ["RowAdam"]


class RowAdam(torch.optim.Optimizer):
    """Each row follows Adam on the steps at which it occurs, and decays at every step.

    What that means exactly:
        - A row that occurs (its index is in the sparse gradient) is updated as ``torch.optim.Adam`` would on the
          sequence of its own occurrences alone; moments and bias correction count those. A row that occurs at every
          step is updated as by the dense optimiser. Between occurrences the moments of a row stand still, unlike in
          the dense one, where a row without a gradient moves on by its momentum.
        - Decay is decoupled (AdamW): at step ``t`` every row is multiplied by ``1 - lr_t · weight_decay``. For rows
          that do not occur this is put off and made up, product for product, by ``catch_up`` before the next forward
          pass, or by ``flush`` at the end. Reading a row without either sees it undecayed.

    Memory is two moments, a count and a decay per row, allocated at the first step.

    Args:
        params: tables ``[rows, columns]`` whose gradients are sparse (``F.embedding(..., sparse=True)``).
    Raises: BadInputError for a dense gradient.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or weight_decay < 0 or lr * weight_decay >= 1:
            raise BadInputError(
                f"lr and weight_decay must be at least 0 and their product below 1, got {lr} and {weight_decay}; "
                "make them smaller"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step. ``closure`` is evaluated first if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._step(table, group)
        return loss

    def _step(self, table: nn.Parameter, group: dict[str, Any]) -> None:
        gradient = table.grad
        if gradient is None or not gradient.is_sparse:
            raise BadInputError("RowAdam takes sparse gradients, got a dense one; look rows up with sparse=True")
        state = self._state(table)
        lr, eps, decay = group["lr"], group["eps"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        gradient = _coalesced(gradient)
        rows, values = gradient.indices()[0], gradient.values()
        if decay:
            self._make_up(table, rows)
            state["log_decay"] += torch.log1p(torch.tensor(-lr * decay, dtype=torch.float64))
        # Not by [rows], which reads rows of 17 columns at half the speed.
        count = state["count"].index_select(0, rows) + 1
        mean = state["mean"].index_select(0, rows).mul_(beta1).add_(values, alpha=1 - beta1)
        square = state["square"].index_select(0, rows).mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["count"].index_copy_(0, rows, count)
        state["mean"].index_copy_(0, rows, mean)
        state["square"].index_copy_(0, rows, square)
        steps = count.to(torch.float64).unsqueeze(-1)
        first = (1 - beta1**steps).to(values)
        second = (1 - beta2**steps).to(values)
        change = (mean / first).div_((square / second).sqrt_().add_(eps))
        current = table.index_select(0, rows)
        if decay:
            current = current * (1 - lr * decay)
            state["decayed"].index_fill_(0, rows, float(state["log_decay"]))
        table.index_copy_(0, rows, current - lr * change)

    def _state(self, table: nn.Parameter) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[table]
        if not state:
            state["mean"] = torch.zeros_like(table)
            state["square"] = torch.zeros_like(table)
            state["count"] = torch.zeros(len(table), dtype=torch.int32, device=table.device)
            state["decayed"] = torch.zeros(len(table), dtype=torch.float64, device=table.device)
            state["log_decay"] = torch.zeros((), dtype=torch.float64)
        return state

    def _make_up(self, table: nn.Parameter, rows: Tensor) -> None:
        state = self._state(table)
        owed = state["log_decay"].to(table.device) - state["decayed"].index_select(0, rows)
        made_up = table.index_select(0, rows) * owed.exp().unsqueeze(-1).to(table.dtype)
        table.index_copy_(0, rows, made_up)
        state["decayed"].index_fill_(0, rows, float(state["log_decay"]))

    @torch.no_grad()
    def catch_up(self, table: nn.Parameter, rows: Tensor) -> None:
        """Makes up for the decay that ``rows`` (any shape, repeats allowed) are owed; free without decay."""
        if any(table is p and group["weight_decay"] for group in self.param_groups for p in group["params"]):
            self._make_up(table, torch.unique(rows))

    @torch.no_grad()
    def flush(self) -> None:
        """Makes up for the decay of all rows, in one pass: before saving, evaluating or reading a table."""
        for group in self.param_groups:
            for table in group["params"]:
                if group["weight_decay"] and self.state[table]:
                    self._make_up(table, torch.arange(len(table), device=table.device))


def _coalesced(gradient: Tensor) -> Tensor:
    """Autograd forgets that a gradient is coalesced; whether its indices rise is seen faster than they are sorted."""
    rows = gradient._indices()[0]
    return gradient._coalesced_(True) if bool((rows[1:] > rows[:-1]).all()) else gradient.coalesce()
