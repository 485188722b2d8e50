"""Adam for tables of rows of which a step touches few: its cost does not depend on how many rows there are."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError, KernelError
from layersearch.kernels.lookup.row_adam import DIGIT, CRowAdam, RowStep
from layersearch.primitives.gates._row_torch import TorchRowAdam
from layersearch.primitives.layers._lowered import chosen, lowering_name
from layersearch.primitives.lowering.base import say_once

__all__ = ["RowAdam"]

if TYPE_CHECKING:
    from layersearch.kernels.lookup.row_adam_triton import TritonRowAdam

_Form: TypeAlias = "CRowAdam | TorchRowAdam | TritonRowAdam"

_TYPES = {"count": torch.int32, "decayed": torch.float64, "log_decay": torch.float64}
"""Of what is not in the table's own type."""
_ON_HOST = "log_decay"
"""What is read at every step, and lies on the CPU wherever the table is."""


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

    Memory is two moments, a count and a decay per row, allocated at the first step. On the CPU, with a compiler,
    float32 tables are stepped in one pass of C over the rows that occur, what a row has of state lying side by side:
    the bits are those of the torch form. On CUDA a step of float32 tables is one Triton kernel, equal to the other
    forms within rounding, and waited for once: it must be seen that each row of a gradient is there once. A state dict
    holds the same tensors in each form, and is taken by the others.

    Args:
        params: tables ``[rows, columns]`` whose gradients are sparse (``F.embedding(..., sparse=True)``).
        lowering: ``auto``, ``c``, ``triton`` or ``torch``, which is also what runs where the others cannot.
    Raises: BadInputError for a gradient that is not of rows; UnknownNameError for the lowering; KernelError if a
        lowering was named, and what there is cannot build it.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        lowering: str = "auto",
    ) -> None:
        if lr < 0 or weight_decay < 0 or lr * weight_decay >= 1:
            raise BadInputError(
                f"lr and weight_decay must be at least 0 and their product below 1, got {lr} and {weight_decay}; "
                "make them smaller"
            )
        numbers = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, numbers | {"lowering": lowering_name(lowering)})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults.setdefault("lowering", "auto")
        for group in self.param_groups:
            group.setdefault("lowering", "auto")

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"state": defaultdict(dict, _apart(self.state))}

    def state_dict(self) -> dict[str, Any]:
        """As any optimiser's; each tensor is one of its own, as torch would not save views of several types."""
        found = super().state_dict()
        return found | {"state": _apart(found["state"])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimiser's, but counts and decays have types of their own: torch gives them the table's."""
        super().load_state_dict(state_dict)
        places = [place for group in state_dict["param_groups"] for place in group["params"]]
        tables = [table for group in self.param_groups for table in group["params"]]
        for place, table in zip(places, tables, strict=True):
            for name, value in state_dict["state"].get(place, {}).items():
                if name in _TYPES:
                    device = _place(name, table)
                    self.state[table][name] = value.detach().to(device, _TYPES[name], copy=True)

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
        if table.dim() != 2 or gradient.sparse_dim() != 1:
            shape = list(table.shape)
            raise BadInputError(
                f"RowAdam takes tables [rows, columns] and gradients that are sparse in rows alone, got {shape} with "
                f"{gradient.sparse_dim()} sparse dimensions; look rows up with F.embedding(..., sparse=True)"
            )
        form = _form(group["lowering"], table)
        state = self._state(table, form)
        gradient = _coalesced(gradient)
        before = float(state["log_decay"])
        lr, betas = float(group["lr"]), tuple(group["betas"])
        lost = lr * group["weight_decay"]
        after = state["log_decay"] + torch.log1p(torch.tensor(-lost, dtype=torch.float64, device="cpu"))
        by = RowStep(lr, betas, group["eps"], 1 - lost, before, float(after))
        powers = _powers(betas, table.device)
        rows, values = gradient.indices()[0].contiguous(), gradient.values().contiguous()
        form.step(table, state, rows, values, powers, by)
        state["log_decay"] = after

    def _state(self, table: nn.Parameter, form: _Form) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[table]
        if state:
            state.update(form.adjacent(state))
        else:
            owed = torch.zeros((), dtype=torch.float64, device="cpu")
            state.update(form.fresh(table), log_decay=owed)
        return state

    @torch.no_grad()
    def catch_up(self, table: nn.Parameter, rows: Tensor) -> None:
        """Makes up for the decay that ``rows`` (any shape, repeats allowed) are owed; free without decay."""
        for group in self.param_groups:
            if any(table is p for p in group["params"]):
                self._make_up(table, group, rows)

    @torch.no_grad()
    def flush(self) -> None:
        """Makes up for the decay of all rows, in one pass: before saving, evaluating or reading a table."""
        for group in self.param_groups:
            for table in group["params"]:
                self._make_up(table, group, None)

    def _make_up(self, table: nn.Parameter, group: dict[str, Any], ids: Tensor | None) -> None:
        state = self.state.get(table)
        if state and (owed := float(state["log_decay"])):
            form = _form(group["lowering"], table)
            flat = None if ids is None else ids.reshape(-1).long().contiguous()
            form.make_up(table, self._state(table, form), flat, owed)


def _apart(states: Mapping[Any, dict[str, Tensor]]) -> dict[Any, dict[str, Tensor]]:
    def apart(tensor: Tensor) -> Tensor:
        return tensor.clone(memory_format=torch.contiguous_format)

    return {place: {name: apart(t) for name, t in state.items()} for place, state in states.items()}


def _form(lowering: str, table: nn.Parameter) -> _Form:
    """What steps a table: C or Triton where it is chosen, can be built and takes it, else torch."""
    by = chosen(lowering, table)
    if by == "triton":
        from layersearch.kernels.lookup.row_adam_triton import TritonRowAdam

        return TritonRowAdam() if TritonRowAdam.takes(table) else TorchRowAdam()
    if by == "c" and CRowAdam.takes(table):
        made = _built(table.shape[1])
        if isinstance(made, CRowAdam):
            return made
        if lowering != "auto":
            raise KernelError(made)
        say_once(made)
    return TorchRowAdam()


@functools.cache
def _built(columns: int) -> CRowAdam | str:
    """The kernel for rows of so many columns, or why there is none."""
    try:
        return CRowAdam(columns)
    except KernelError as error:
        return str(error)


@functools.lru_cache(maxsize=64)
def _powers(betas: tuple[float, float], device: torch.device) -> Tensor:
    """``[3, DIGIT, 2]``: what each digit of a count of steps makes of each beta."""
    digits = [[[beta ** (d * DIGIT**place) for beta in betas] for d in range(DIGIT)] for place in range(3)]
    return torch.tensor(digits, dtype=torch.float64, device="cpu").to(device)


def _place(name: str, table: Tensor) -> torch.device:
    return torch.device("cpu") if name == _ON_HOST else table.device


def _coalesced(gradient: Tensor) -> Tensor:
    """Autograd forgets that a gradient is coalesced; whether its indices rise is seen faster than they are sorted."""
    rows = gradient._indices()[0]
    return gradient._coalesced_(True) if bool((rows[1:] > rows[:-1]).all()) else gradient.coalesce()
