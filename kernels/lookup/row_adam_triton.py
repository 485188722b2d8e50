"""Adam on the rows that occur, as Triton kernels: float32, one program for some rows, no atomics.

A step is one kernel, as in C. Making up for decay is one for all rows, and two where ids may repeat: what is written
must not be read by another program in between. Numbers of a step come in a tensor of float64: Triton would pass them as
float32, and a decay summed up over many steps has more digits.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from layersearch.kernels.codegen.triton import Kernel
from layersearch.kernels.launch import Launch, jit, run
from layersearch.kernels.lookup.row_adam import RowStep, fresh_state
from layersearch.kernels.lookup.triton import row_launch
from layersearch.kernels.transfer import sent

__all__ = ["TritonRowAdam", "plan_all", "plan_made_up", "plan_put", "plan_step"]

_PLACE = [
    "u = tl.program_id(0) * TALL + tl.arange(0, TALL)",
    "j = tl.arange(0, LANES)",
    "lane = (j < D)[None, :]",
]
_OF_IDS = [
    *_PLACE,
    "id = tl.load(ids_ptr + u, mask=u < n, other=-1)",
    "inside = (id >= 0) & (id < rows)",
    "here = inside[:, None] & lane",
    "at = id[:, None] * D + j[None, :]",
    "beside = u.to(tl.int64)[:, None] * D + j[None, :]",
]
_MADE_UP = [
    "owed = log_decay - tl.load(decayed_ptr + id, mask=inside, other=0.0)",
    "row = tl.load(table_ptr + at, mask=here, other=0.0) * tl.exp(owed).to(tl.float32)[:, None]",
]
_BESIDE = ["table_ptr", "decayed_ptr", "ids_ptr", "numbers_ptr", "out_ptr", "n", "rows"]
_BLOCKS = ["D", "LANES", "TALL"]
_DOUBLES = ("log_decay", "log_after", "log_beta1", "log_beta2")
_FLOATS = ("beta1", "rest1", "beta2", "rest2", "eps", "lr", "keep")


@functools.cache
def _step_kernel() -> Kernel:
    body = [
        *_OF_IDS,
        *(f"{name} = tl.load(numbers_ptr + {k})" for k, name in enumerate(_DOUBLES)),
        *(f"{name} = tl.load(numbers_ptr + {k}).to(tl.float32)" for k, name in enumerate(_FLOATS, len(_DOUBLES))),
        *_MADE_UP,
        "count = tl.load(count_ptr + id, mask=inside, other=0) + 1",
        "first = (1 - tl.exp(count.to(tl.float64) * log_beta1)).to(tl.float32)[:, None]",
        "second = (1 - tl.exp(count.to(tl.float64) * log_beta2)).to(tl.float32)[:, None]",
        "g = tl.load(grad_ptr + beside, mask=here, other=0.0)",
        "mean = tl.load(mean_ptr + at, mask=here, other=0.0) * beta1 + g * rest1",
        "square = tl.load(square_ptr + at, mask=here, other=0.0) * beta2 + g * rest2 * g",
        "change = tl.div_rn(tl.div_rn(mean, first), tl.sqrt_rn(tl.div_rn(square, second)) + eps)",
        "tl.store(count_ptr + id, count, mask=inside)",
        "tl.store(decayed_ptr + id, log_after, mask=inside)",
        "tl.store(mean_ptr + at, mean, mask=here)",
        "tl.store(square_ptr + at, square, mask=here)",
        "tl.store(table_ptr + at, row * keep - change * lr, mask=here)",
    ]
    state = ["table_ptr", "mean_ptr", "square_ptr", "count_ptr", "decayed_ptr"]
    arguments = [*state, "ids_ptr", "grad_ptr", "numbers_ptr", "n", "rows"]
    return jit("row_adam_step", arguments, _BLOCKS, body, ("n", "rows"))


@functools.cache
def _made_up_kernel() -> Kernel:
    """Rows of ids, with what they are owed, beside the table."""
    body = [
        *_OF_IDS,
        "log_decay = tl.load(numbers_ptr)",
        *_MADE_UP,
        "tl.store(out_ptr + beside, row, mask=here)",
    ]
    return jit("row_adam_made_up", _BESIDE, _BLOCKS, body, ("n", "rows"))


@functools.cache
def _put_kernel() -> Kernel:
    """Those rows into the table; programs that write the same one write the same numbers."""
    body = [
        *_OF_IDS,
        "tl.store(table_ptr + at, tl.load(out_ptr + beside, mask=here, other=0.0), mask=here)",
        "tl.store(decayed_ptr + id, tl.load(numbers_ptr), mask=inside)",
    ]
    return jit("row_adam_put", _BESIDE, _BLOCKS, body, ("n", "rows"))


@functools.cache
def _all_kernel() -> Kernel:
    """Every row once, in place."""
    body = [
        *_PLACE,
        "id = u.to(tl.int64)",
        "inside = id < n",
        "here = inside[:, None] & lane",
        "at = id[:, None] * D + j[None, :]",
        "log_decay = tl.load(numbers_ptr)",
        *_MADE_UP,
        "tl.store(table_ptr + at, row, mask=here)",
        "tl.store(decayed_ptr + id, log_decay, mask=inside)",
    ]
    return jit("row_adam_all", ["table_ptr", "decayed_ptr", "numbers_ptr", "n"], _BLOCKS, body, ("n",))


def plan_step(n: int, rows: int, columns: int) -> Launch:
    return row_launch(_step_kernel(), n, columns, {"n": n, "rows": rows})


def plan_made_up(n: int, rows: int, columns: int) -> Launch:
    return row_launch(_made_up_kernel(), n, columns, {"n": n, "rows": rows})


def plan_put(n: int, rows: int, columns: int) -> Launch:
    return row_launch(_put_kernel(), n, columns, {"n": n, "rows": rows})


def plan_all(rows: int, columns: int) -> Launch:
    return row_launch(_all_kernel(), rows, columns, {"n": rows})


class TritonRowAdam:
    """A step for tables float32 ``[rows, columns]`` without gaps; as ``CRowAdam``.

    Nothing waits for the device. A row outside the table, which a lookup has answered by NaN, is left out. Results are
    those of the other forms within rounding.
    """

    @staticmethod
    def takes(table: Tensor) -> bool:
        return table.dtype is torch.float32 and table.is_contiguous() and len(table) < 2**31

    def fresh(self, table: Tensor) -> dict[str, Tensor]:
        return fresh_state(table)

    def adjacent(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without gaps, which states of C have."""
        return {name: value.contiguous() for name, value in state.items()}

    def step(
        self,
        table: Tensor,
        state: dict[str, Tensor],
        rows: Tensor,
        gradient: Tensor,
        powers: Tensor,
        by: RowStep,
    ) -> None:
        """``powers`` are not used: exponentials are the device's."""
        if not len(rows):
            return
        (beta1, beta2), logs = by.betas, [math.log(beta) if beta else -math.inf for beta in by.betas]
        floats = (beta1, 1 - beta1, beta2, 1 - beta2, by.eps, by.lr, by.keep)
        numbers = _numbers([by.log_decay, by.log_after, *logs, *floats], table)
        tensors = {"table_ptr": table, **_pointers(state), "ids_ptr": rows, "grad_ptr": gradient}
        run(plan_step(len(rows), len(table), table.shape[1]), {**tensors, "numbers_ptr": numbers})

    def make_up(self, table: Tensor, state: dict[str, Tensor], ids: Tensor | None, log_decay: float) -> None:
        n, columns = len(table), table.shape[1]
        tensors = {"table_ptr": table, **_pointers(state), "numbers_ptr": _numbers([log_decay], table)}
        if ids is None:
            run(plan_all(n, columns), tensors)
        elif len(ids):
            tensors |= {"ids_ptr": ids, "out_ptr": table.new_empty(len(ids), columns)}
            for plan in (plan_made_up, plan_put):
                run(plan(len(ids), n, columns), tensors)


def _pointers(state: dict[str, Tensor]) -> dict[str, Any]:
    return {f"{name}_ptr": state[name] for name in ("mean", "square", "count", "decayed")}


def _numbers(values: list[float], table: Tensor) -> Tensor:
    return sent(torch.tensor(values, dtype=torch.float64, device="cpu"), table.device)
