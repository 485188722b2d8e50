"""Adam on the rows that occur, as generated C for the CPU: float32, one thread, the bits of the torch form.

One pass: moments, count, decay made up, value. What a row has of moments, count and decay lies side by side, so that a
row of 17 columns costs the two cache lines of its value and three more, and those of later rows are asked for ahead.
Nothing is left to the mathematics library, whose last bits are not torch's: powers of β come from a table, the
exponential is a sum by Horner's rule; the compiler may neither reorder nor contract them.
"""

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layersearch.kernels.codegen._compile import library
from layersearch.kernels.lookup.c import EXACT

__all__ = ["DIGIT", "EXPONENTIAL", "LEAST", "LN2", "LOG2E", "CRowAdam", "RowStep", "c_text", "fresh_state"]

_EMITTER = "row_adam/2"

DIGIT = 2048
"""Counts are numbers of three digits of this base; each digit has a table of powers of β."""
EXPONENTIAL = tuple(1 / math.factorial(k) for k in range(14))
"""Of ``e^r``, ``|r| <= ln 2 / 2``, to the rounding of float64."""
LN2 = (float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33"))
"""Of which the first times an integer below 2^20 is exact."""
LOG2E = 1 / math.log(2)
LEAST = -700.0
"""An exponent below it is taken for it: both give 0 in float32."""

_TEXT = r"""
#include <math.h>
#include <stdint.h>

#define AHEAD 16

typedef struct {
    double decayed;
    int32_t count, unused;
    float mean[D], square[D];
} __attribute__((aligned(32))) State;

static inline void ahead(const void *place, long bytes) {
    for (long j = 0; j < bytes; j += 64) __builtin_prefetch((const char *)place + j, 1);
    __builtin_prefetch((const char *)place + bytes - 1, 1);
}

static double exponential(double x) {
    static const double term[] = {TERMS};
    const long last = sizeof term / sizeof *term - 1;
    x = x < LEAST ? LEAST : x;
    const double n = floor(x * LOG2E + 0.5);
    const double r = (x - n * LN2_HIGH) - n * LN2_LOW;
    double p = term[last];
    for (long k = last - 1; k >= 0; k--) p = p * r + term[k];
    return ldexp(p, (int)n);
}

static inline void make_up_one(float *restrict row, State *restrict s, double log_decay) {
    const double owed = log_decay - s->decayed;
    if (owed == 0) return;
    const float factor = (float)exponential(owed);
    for (long j = 0; j < D; j++) row[j] *= factor;
    s->decayed = log_decay;
}

/* Repeats allowed; ids null: rows 0 to n - 1. 1, and nothing is changed, for an id outside the table. */
long make_up(float *restrict table, State *restrict states, const int64_t *restrict ids, long n, long rows,
             double log_decay) {
    if (ids == 0 && n > rows) return 1;
    for (long i = 0; ids && i < n; i++) if (ids[i] < 0 || ids[i] >= rows) return 1;
    for (long i = 0; i < n; i++) {
        const int64_t id = ids ? ids[i] : i;
        if (ids && i + AHEAD < n) {
            __builtin_prefetch(states + ids[i + AHEAD], 1);
            ahead(table + ids[i + AHEAD] * D, sizeof(float) * D);
        }
        make_up_one(table + id * D, states + id, log_decay);
    }
    return 0;
}

/* found: each row once; grad [n, D]; powers [3, DIGIT, 2] of both betas. keep: what the decay of this step leaves,
   log_after: log_decay after it. 1, and nothing is changed, for a row outside the table. */
long step(float *restrict table, State *restrict states, const int64_t *restrict found, const float *restrict grad,
          const double *restrict powers, long n, long rows, float beta1, float rest1, float beta2, float rest2,
          float eps, float lr, float keep, double log_decay, double log_after) {
    for (long i = 0; i < n; i++) if (found[i] < 0 || found[i] >= rows) return 1;
    for (long i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            ahead(states + found[i + AHEAD], sizeof(State));
            ahead(table + found[i + AHEAD] * D, sizeof(float) * D);
        }
        State *const s = states + found[i];
        make_up_one(table + found[i] * D, s, log_decay);
        s->decayed = log_after;
        const uint32_t count = (uint32_t)++s->count;
        const double *const low = powers + 2 * (count % DIGIT);
        const double *const middle = powers + 2 * (DIGIT + count / DIGIT % DIGIT);
        const double *const high = powers + 2 * (2 * DIGIT + count / DIGIT / DIGIT);
        const float first = (float)(1 - low[0] * middle[0] * high[0]);
        const float second = (float)(1 - low[1] * middle[1] * high[1]);
        float *restrict const row = table + found[i] * D;
        float *restrict const mean = s->mean;
        float *restrict const square = s->square;
        const float *restrict const g = grad + i * D;
        for (long j = 0; j < D; j++) {
            mean[j] = mean[j] * beta1 + g[j] * rest1;
            square[j] = square[j] * beta2 + g[j] * rest2 * g[j];
            const float change = mean[j] / first / (sqrtf(square[j] / second) + eps);
            row[j] = row[j] * keep - change * lr;
        }
    }
    return 0;
}
"""


def c_text(columns: int) -> str:
    """The translation unit for rows of so many columns."""
    terms = ", ".join(term.hex() for term in EXPONENTIAL)
    sizes = {"D": columns, "DIGIT": DIGIT, "LEAST": LEAST, "LOG2E": LOG2E.hex()}
    sizes |= {"LN2_HIGH": LN2[0].hex(), "LN2_LOW": LN2[1].hex(), "TERMS": terms}
    return "".join(f"#define {name} {value}\n" for name, value in sizes.items()) + _TEXT


def fresh_state(table: Tensor) -> dict[str, Tensor]:
    """That of a table before its first step, beside it; each tensor one of its own."""
    n, device = len(table), table.device
    return {
        "mean": torch.zeros_like(table),
        "square": torch.zeros_like(table),
        "count": torch.zeros(n, dtype=torch.int32, device=device),
        "decayed": torch.zeros(n, dtype=torch.float64, device=device),
    }


@dataclass(frozen=True)
class RowStep:
    """Numbers of a step: ``keep`` of a value is what its decay leaves, ``log_decay`` what that of all steps before
    left, as a logarithm, ``log_after`` that after this one."""

    lr: float
    betas: tuple[float, float]
    eps: float
    keep: float
    log_decay: float
    log_after: float


_POINTER, _LONG, _FLOAT, _DOUBLE = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_double
_SIGNATURES = {
    "make_up": (*[_POINTER] * 3, _LONG, _LONG, _DOUBLE),
    "step": (*[_POINTER] * 5, _LONG, _LONG, *[_FLOAT] * 7, _DOUBLE, _DOUBLE),
}
_ALIGNED = 32


class CRowAdam:
    """A step for tables float32 ``[rows, columns]`` without gaps. Raises: KernelError if it cannot be built.

    State is a dict of ``mean`` and ``square`` ``[rows, columns]``, ``count`` int32 ``[rows]`` and ``decayed`` float64
    ``[rows]``, as ``adjacent`` gives it. No Python lock is held while C runs.
    """

    def __init__(self, columns: int) -> None:
        loaded = library(c_text(columns), _EMITTER, EXACT)
        self._functions: dict[str, Any] = {}
        for name, arguments in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, _LONG
            self._functions[name] = function
        size = 16 + 8 * columns
        self._lanes = (size + -size % _ALIGNED) // 4
        self._columns = columns

    @staticmethod
    def takes(table: Tensor) -> bool:
        return table.dtype is torch.float32 and table.is_contiguous()

    def fresh(self, table: Tensor) -> dict[str, Tensor]:
        return self._views(torch.zeros(len(table), self._lanes, dtype=torch.float32, device="cpu"))

    def adjacent(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same numbers as views of one tensor, those of a row side by side; ``state`` itself if it is so."""
        if self._is_adjacent(state):
            return state
        views = self.fresh(state["mean"])
        for name, view in views.items():
            view.copy_(state[name])
        return views

    def _views(self, states: Tensor) -> dict[str, Tensor]:
        second = 4 + self._columns
        return {
            "decayed": states.view(torch.float64)[:, 0],
            "count": states.view(torch.int32)[:, 2],
            "mean": states[:, 4:second],
            "square": states[:, second : second + self._columns],
        }

    def _is_adjacent(self, state: dict[str, Tensor]) -> bool:
        first = state["decayed"].data_ptr()
        places = {"decayed": 0, "count": 8, "mean": 16, "square": 16 + 4 * self._columns}
        return first % _ALIGNED == 0 and all(
            state[name].data_ptr() == first + place
            and state[name].stride(0) * state[name].element_size() == 4 * self._lanes
            for name, place in places.items()
        )

    def step(
        self,
        table: Tensor,
        state: dict[str, Tensor],
        rows: Tensor,
        gradient: Tensor,
        powers: Tensor,
        by: RowStep,
    ) -> None:
        """Changes ``table`` and ``state`` in place.

        Args:
            rows: int64 ``[u]``, each once.
            gradient: float32 ``[u, columns]``.
            powers: float64 ``[3, DIGIT, 2]``: of both betas, by each digit of the count.
        Raises: IndexError for a row outside the table, or beyond its state.
        """
        read = (rows.data_ptr(), gradient.data_ptr(), powers.data_ptr(), len(rows), _size(table, state))
        betas = [x for beta in by.betas for x in (beta, 1 - beta)]
        numbers = (*betas, by.eps, by.lr, by.keep, by.log_decay, by.log_after)
        if self._functions["step"](table.data_ptr(), state["decayed"].data_ptr(), *read, *numbers):
            raise IndexError("a row is outside the table")

    def make_up(self, table: Tensor, state: dict[str, Tensor], ids: Tensor | None, log_decay: float) -> None:
        """For ``ids`` int64 ``[n]``, repeats allowed; None for all. Raises: IndexError for an id outside the table."""
        read = (None, len(table)) if ids is None else (ids.data_ptr(), len(ids))
        states = state["decayed"].data_ptr()
        if self._functions["make_up"](table.data_ptr(), states, *read, _size(table, state), log_decay):
            raise IndexError("an id is outside the table")


def _size(table: Tensor, state: dict[str, Tensor]) -> int:
    return min(len(table), len(state["count"]))
