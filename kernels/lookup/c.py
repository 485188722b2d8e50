"""Gated lookups as generated C for the CPU: float32, one thread, the bits of the torch form.

Forward reads ids, gates and rows once and writes once. Backward sorts the ids (radix, stable), then walks once through
the gradients, row after row, and writes the sum for each row that occurs together with the gradients of the gates.
Sums over occurrences go in order of occurrence, products over columns are added by halves, and the compiler may neither
reorder nor contract them: whoever does the same in float32 has the same bits.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from layersearch.kernels.codegen._compile import library
from layersearch.kernels.lookup.gradients import Gradients

__all__ = ["EXACT", "CLookup", "c_text"]

_EMITTER = "lookup/1"
EXACT = ("-fno-associative-math", "-fno-reciprocal-math", "-ffp-contract=off")
_MOST = 2**32 - 1
"""Ids and places are sorted as one 64-bit word."""

_TEXT = r"""
#include <stdint.h>
#include <string.h>

#define AHEAD 16
#define DIGIT 11

/* y[i] = (gates[i] values[ids[i]]) table[ids[i]]; both gates may be null. 1 for an id outside the table. */
long forward(const float *restrict table, const int64_t *restrict ids, const float *restrict gates,
             const float *restrict values, float *restrict y, long n, long rows) {
    for (long i = 0; i < n; i++) {
        const int64_t id = ids[i];
        if (id < 0 || id >= rows) return 1;
        if (i + AHEAD < n && ids[i + AHEAD] >= 0 && ids[i + AHEAD] < rows) {
            const float *later = table + ids[i + AHEAD] * D;
            for (long j = 0; j < D; j += 16) __builtin_prefetch(later + j);
        }
        const float *from = table + id * D;
        if (!gates && !values) {
            memcpy(y + i * D, from, sizeof(float) * D);
            continue;
        }
        const float w = !values ? gates[i] : gates ? gates[i] * values[id] : values[id];
        for (long j = 0; j < D; j++) y[i * D + j] = from[j] * w;
    }
    return 0;
}

/* Sorts words (id << 32 | place) stably by id; there: for use inside. The number of different ids; result in words. */
long sort(const int64_t *restrict ids, uint64_t *words, uint64_t *there, long n, long rows) {
    for (long i = 0; i < n; i++) words[i] = (uint64_t)ids[i] << 32 | (uint64_t)i;
    uint64_t *from = words, *to = there;
    for (int shift = 32; shift < 64 && (uint64_t)(rows - 1) >> (shift - 32); shift += DIGIT) {
        long count[1 << DIGIT] = {0}, sum = 0;
        for (long i = 0; i < n; i++) count[from[i] >> shift & ((1 << DIGIT) - 1)]++;
        for (long k = 0; k < 1 << DIGIT; k++) { const long c = count[k]; count[k] = sum; sum += c; }
        for (long i = 0; i < n; i++) to[count[from[i] >> shift & ((1 << DIGIT) - 1)]++] = from[i];
        uint64_t *const swap = from; from = to; to = swap;
    }
    if (from != words) memcpy(words, from, sizeof *words * n);
    long distinct = n > 0;
    for (long i = 1; i < n; i++) distinct += words[i] >> 32 != words[i - 1] >> 32;
    return distinct;
}

/* found: the ids that occur; dtable [distinct, D], dgates [n], dvalues [distinct]: null where not wanted. */
void backward(const float *restrict grad, const float *restrict table, const uint64_t *restrict words,
              const float *restrict gates, const float *restrict values, int64_t *restrict found,
              float *restrict dtable, float *restrict dgates, float *restrict dvalues, long n) {
    const int dots = dgates || dvalues;
    long at = -1;
    for (long k = 0; k < n; k++) {
        const int64_t id = words[k] >> 32;
        const long i = words[k] & 0xffffffff;
        const int is_first = k == 0 || (int64_t)(words[k - 1] >> 32) != id;
        if (is_first) found[++at] = id;
        if (k + AHEAD < n) {
            const float *later = grad + (words[k + AHEAD] & 0xffffffff) * D;
            for (long j = 0; j < D; j += 16) __builtin_prefetch(later + j);
            if (dots) {
                later = table + (words[k + AHEAD] >> 32) * D;
                for (long j = 0; j < D; j += 16) __builtin_prefetch(later + j);
            }
        }
        const float *g = grad + i * D;
        if (dtable) {
            const float w = (gates ? gates[i] : 1.0f) * (values ? values[id] : 1.0f);
            float *to = dtable + at * D;
            if (is_first) for (long j = 0; j < D; j++) to[j] = g[j] * w;
            else for (long j = 0; j < D; j++) to[j] += g[j] * w;
        }
        if (dots) {
            const float *row = table + id * D;
            float p[PADDED];
            for (long j = 0; j < D; j++) p[j] = g[j] * row[j];
            for (long j = D; j < PADDED; j++) p[j] = 0.0f;
HALVES
            if (dgates) dgates[i] = values ? p[0] * values[id] : p[0];
            if (dvalues) {
                const float dot = gates ? p[0] * gates[i] : p[0];
                dvalues[at] = is_first ? dot : dvalues[at] + dot;
            }
        }
    }
}
"""


def c_text(columns: int) -> str:
    """The translation unit for rows of so many columns."""
    padded = 1 << (columns - 1).bit_length()
    halves = []
    width = padded // 2
    while width:
        halves.append(f"            for (long j = 0; j < {width}; j++) p[j] += p[j + {width}];")
        width //= 2
    sizes = f"#define D {columns}\n#define PADDED {padded}\n"
    return sizes + _TEXT.replace("HALVES", "\n".join(halves))


_POINTER, _LONG = ctypes.c_void_p, ctypes.c_long
_SIGNATURES = {
    "forward": (*[_POINTER] * 5, _LONG, _LONG),
    "sort": (*[_POINTER] * 3, _LONG, _LONG),
    "backward": (*[_POINTER] * 9, _LONG),
}


class CLookup:
    """Forward and backward for rows of so many columns. Raises: KernelError if they cannot be built.

    Tensors lie without gaps: table float32 ``[rows, columns]``, ids int64 ``[n]``, gates float32 ``[n]`` or None,
    values float32 ``[rows]`` or None. No Python lock is held while C runs.
    """

    def __init__(self, columns: int) -> None:
        loaded = library(c_text(columns), _EMITTER, EXACT)
        self._functions: dict[str, Any] = {}
        for name, arguments in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, _LONG
            self._functions[name] = function

    @staticmethod
    def takes(ids: Tensor, table: Tensor, *gates: Tensor) -> bool:
        is_single = all(t.dtype is torch.float32 for t in (table, *gates))
        return is_single and max(len(table), ids.numel()) <= _MOST

    def forward(self, table: Tensor, ids: Tensor, gates: Tensor | None, values: Tensor | None) -> Tensor:
        """``[n, columns]``. Raises: IndexError for an id outside the table."""
        y = table.new_empty(len(ids), table.shape[1])
        read = (table.data_ptr(), ids.data_ptr(), _address(gates), _address(values))
        if self._functions["forward"](*read, y.data_ptr(), len(ids), len(table)):
            raise IndexError("an id is outside the table")
        return y

    def backward(
        self,
        g: Tensor,
        table: Tensor,
        ids: Tensor,
        gates: Tensor | None,
        values: Tensor | None,
        wanted: tuple[bool, bool, bool],
    ) -> Gradients:
        """For a gradient ``[n, columns]``, what is ``wanted`` of table, gates and values. Ids as in ``forward``."""
        n = len(ids)
        words, there = (torch.empty(n, dtype=torch.int64, device="cpu") for _ in range(2))
        distinct = self._functions["sort"](ids.data_ptr(), words.data_ptr(), there.data_ptr(), n, len(table))
        rows = torch.empty(distinct, dtype=torch.int64, device="cpu")
        dtable = table.new_empty(distinct, table.shape[1]) if wanted[0] else None
        dgates = table.new_empty(n) if wanted[1] else None
        dvalues = table.new_empty(distinct) if wanted[2] else None
        read = (g.data_ptr(), table.data_ptr(), words.data_ptr(), _address(gates), _address(values))
        written = (rows.data_ptr(), _address(dtable), _address(dgates), _address(dvalues))
        self._functions["backward"](*read, *written, n)
        return Gradients(rows, dtable, dgates, dvalues)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
