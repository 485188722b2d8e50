"""Grouped quotients of polynomials as generated C for the CPU: float32, one thread, equal bits for equal input.

Forward reads x once, backward x and the upstream gradient once; nothing but x is kept in between. Where a group is a
long run of memory, a vector of lanes walks along the run and its sums stay in registers. Where it is short (channels
last), the lanes of a vector stand for channels, each with its own coefficients, and walk down the rows: no lane is idle
whatever the width of a group. Sums of one block of rows are float32, sums of blocks double.
"""

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from layersearch.kernels.codegen._compile import library
from layersearch.kernels.quotient.shape import Degrees, Extents

__all__ = ["CQuotient", "c_text"]

_EMITTER = "quotient/2"
_LANES = 16
"""Rows are taken together until they fill vectors of this many lanes; no processor has longer ones."""
_BLOCK = 1 << 15
"""Elements of x in a block of rows: with g and dx it fits a second-level cache."""

_HEAD = r"""
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define W 16
#elif defined(__AVX__)
#define W 8
#else
#define W 4
#endif
typedef float vec __attribute__((vector_size(4 * W)));
typedef int32_t mask __attribute__((vector_size(4 * W)));
#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *p) { vec v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(float *p, vec v) { memcpy(p, &v, sizeof v); }
INLINE vec load_some(const float *p, long n) { vec v = {0}; memcpy(&v, p, 4 * n); return v; }
INLINE void store_some(float *p, vec v, long n) { memcpy(p, &v, 4 * n); }
INLINE vec pick(mask m, vec a, vec b) { return (vec)((m & (mask)a) | (~m & (mask)b)); }
INLINE vec magnitude(vec a) { return (vec)((mask)a & 0x7fffffff); }
INLINE vec sign(vec a) {
    const vec one = (vec){0} + 1.0f;
    return (vec)((a > 0.0f) & (mask)one) - (vec)((a < 0.0f) & (mask)one);
}
/* A NaN is neither below nor above: it comes through. */
INLINE vec held(vec x, float reach) {
    const vec top = (vec){0} + reach;
    return pick(x > top, top, pick(x < -top, -top, x));
}
"""

_DRIVERS = r"""
static void finish(const double *sums, float *dP, float *dQ, long groups) {
    double shared[COUNT - N] = {0};
    for (long g = 0; g < groups; g++) {
        for (long k = 0; k < COUNT - N; k++) shared[k] += sums[g * COUNT + k];
        for (long j = 0; j < N; j++) dQ[g * N + j] = (float)sums[g * COUNT + COUNT - N + j];
    }
    for (long k = 0; k < COUNT - N; k++) dP[k] = (float)shared[k];
}

/* P: coefficients of P, shared; Q: [groups, N]. */
void forward_runs(const float *restrict x, const float *P, const float *Q, float reach, float *restrict y,
                  long outer, long groups, long inner) {
    for (long o = 0; o < outer; o++)
        for (long g = 0; g < groups; g++) {
            const float *from = x + (o * groups + g) * inner;
            float *to = y + (o * groups + g) * inner;
            vec b[N];
            for (long j = 0; j < N; j++) b[j] = (vec){0} + Q[g * N + j];
            long i = 0;
            for (; i + W <= inner; i += W) store(to + i, value(load(from + i), P, b, reach));
            if (i < inner) store_some(to + i, value(load_some(from + i, inner - i), P, b, reach), inner - i);
        }
}

/* sums: [groups, COUNT], for use inside; gradients of P, shared, and of Q. */
void backward_runs(const float *restrict grad, const float *restrict x, const float *P, const float *Q, float reach,
                   float *restrict dx, float *dP, float *dQ, double *restrict sums, long outer, long groups,
                   long inner) {
    memset(sums, 0, sizeof *sums * groups * COUNT);
    for (long o = 0; o < outer; o++)
        for (long g = 0; g < groups; g++) {
            const long at = (o * groups + g) * inner;
            vec b[N];
            for (long j = 0; j < N; j++) b[j] = (vec){0} + Q[g * N + j];
            for (long first = 0; first < inner; first += BLOCK) {
                const long end = inner < first + BLOCK ? inner : first + BLOCK;
                vec s[COUNT];
                for (long k = 0; k < COUNT; k++) s[k] = (vec){0};
                long i = first;
                for (; i + W <= end; i += W)
                    store(dx + at + i, slope(load(grad + at + i), load(x + at + i), P, b, reach, s));
                if (i < end) {
                    const vec g_left = load_some(grad + at + i, end - i), x_left = load_some(x + at + i, end - i);
                    store_some(dx + at + i, slope(g_left, x_left, P, b, reach, s), end - i);
                }
                for (long k = 0; k < COUNT; k++)
                    for (long l = 0; l < W; l++) sums[g * COUNT + k] += s[k][l];
            }
        }
    finish(sums, dP, dQ, groups);
}

/* [N, width]: the coefficients of every lane. */
static void spread(const float *Q, float *restrict lane, long width, long groups, long inner) {
    for (long c = 0; c < width;)
        for (long g = 0; g < groups; g++)
            for (long i = 0; i < inner; i++, c++)
                for (long j = 0; j < N; j++) lane[j * width + c] = Q[g * N + j];
}

/* Lanes: rows of `width` elements, a multiple of W and of groups * inner. lane: [N, width], for use inside. */
void forward_lanes(const float *restrict x, const float *P, const float *Q, float reach, float *restrict y,
                   float *restrict lane, long total, long width, long groups, long inner) {
    spread(Q, lane, width, groups, inner);
    const long rows = total / width, left = total - rows * width, tall = width < BLOCK ? BLOCK / width : 1;
    for (long r0 = 0; r0 < rows; r0 += tall) {
        const long r1 = rows < r0 + tall ? rows : r0 + tall;
        for (long c = 0; c < width; c += W) {
            vec b[N];
            for (long j = 0; j < N; j++) b[j] = load(lane + j * width + c);
            for (long r = r0; r < r1; r++) store(y + r * width + c, value(load(x + r * width + c), P, b, reach));
        }
    }
    for (long c = 0; c < left; c += W) {
        const long n = left - c < W ? left - c : W, at = rows * width + c;
        vec b[N];
        for (long j = 0; j < N; j++) b[j] = load(lane + j * width + c);
        store_some(y + at, value(load_some(x + at, n), P, b, reach), n);
    }
}

/* sums: [groups, COUNT] and then [COUNT, width], for use inside. */
void backward_lanes(const float *restrict grad, const float *restrict x, const float *P, const float *Q, float reach,
                    float *restrict dx, float *dP, float *dQ, double *restrict sums, float *restrict lane,
                    long total, long width, long groups, long inner) {
    double *by_lane = sums + groups * COUNT;
    memset(sums, 0, sizeof *sums * COUNT * (groups + width));
    spread(Q, lane, width, groups, inner);
    const long rows = total / width, left = total - rows * width, tall = width < BLOCK ? BLOCK / width : 1;
    for (long r0 = 0; r0 < rows || r0 == 0; r0 += tall) {
        const long r1 = rows < r0 + tall ? rows : r0 + tall;
        for (long c = 0; c < width; c += W) {
            vec b[N], s[COUNT];
            for (long j = 0; j < N; j++) b[j] = load(lane + j * width + c);
            for (long k = 0; k < COUNT; k++) s[k] = (vec){0};
            for (long r = r0; r < r1; r++) {
                const long at = r * width + c;
                store(dx + at, slope(load(grad + at), load(x + at), P, b, reach, s));
            }
            if (r1 == rows && c < left) {
                const long n = left - c < W ? left - c : W, at = rows * width + c;
                store_some(dx + at, slope(load_some(grad + at, n), load_some(x + at, n), P, b, reach, s), n);
            }
            for (long k = 0; k < COUNT; k++)
                for (long l = 0; l < W; l++) by_lane[k * width + c + l] += s[k][l];
        }
    }
    for (long c = 0; c < width; c++) {
        const long g = c / inner % groups;
        for (long k = 0; k < COUNT; k++) sums[g * COUNT + k] += by_lane[k * width + c];
    }
    finish(sums, dP, dQ, groups);
}
"""


def _horner(degrees: Degrees) -> list[str]:
    """``p``, ``dp`` = P, P'; ``q``, ``dq`` = x Q and its slope, at ``u``."""
    m, n = degrees.m, degrees.n
    lines = [f"vec p = P[{m}] * u + P[{m - 1}], dp = (vec){{0}} + P[{m}];"]
    lines += [f"dp = dp * u + p; p = p * u + P[{i}];" for i in range(m - 2, -1, -1)]
    lines.append(f"vec h = b[{n - 1}], dh = (vec){{0}};")
    lines += [f"dh = dh * u + h; h = h * u + b[{j}];" for j in range(n - 2, -1, -1)]
    return [*lines, "const vec q = h * u, dq = dh * u + h;"]


def c_text(degrees: Degrees) -> str:
    """The translation unit."""
    value = [
        "INLINE vec value(vec x, const float *P, const vec *b, float reach) {",
        "const vec u = held(x, reach);",
        *_horner(degrees),
        "(void)dp; (void)dq;",
        "return p / (1.0f + magnitude(q));",
        "}",
    ]
    slope = [
        "/* Slope at x times g; what it adds to the gradients of all coefficients goes to s. */",
        "INLINE vec slope(vec g, vec x, const float *P, const vec *b, float reach, vec *s) {",
        "const vec u = held(x, reach);",
        *_horner(degrees),
        "const vec r = 1.0f / (1.0f + magnitude(q)), y = p * r, f = y * sign(q);",
        "vec t = g * r, w = -t * f * u;",
        "const vec d = t * (dp - f * dq);",
        *[f"s[{i}] += t; t *= u;" for i in range(degrees.m)],
        f"s[{degrees.m}] += t;",
        *[f"s[{degrees.m + j}] += w; w *= u;" for j in range(1, degrees.n)],
        f"s[{degrees.m + degrees.n}] += w;",
        "return pick((x >= -reach) & (x <= reach), d, (vec){0});",
        "}",
    ]
    sizes = [f"#define N {degrees.n}", f"#define COUNT {degrees.count}", f"#define BLOCK {_BLOCK}"]
    return "\n".join([_HEAD, *sizes, *value, *slope, _DRIVERS])


_POINTER, _LONG = ctypes.c_void_p, ctypes.c_long
_SIGNATURES = {
    "forward_runs": (*[_POINTER] * 3, ctypes.c_float, _POINTER, *[_LONG] * 3),
    "backward_runs": (*[_POINTER] * 4, ctypes.c_float, *[_POINTER] * 4, *[_LONG] * 3),
    "forward_lanes": (*[_POINTER] * 3, ctypes.c_float, *[_POINTER] * 2, *[_LONG] * 4),
    "backward_lanes": (*[_POINTER] * 4, ctypes.c_float, *[_POINTER] * 5, *[_LONG] * 4),
}


class CQuotient:
    """Forward and backward for one pair of degrees. Raises: KernelError if they cannot be built.

    All tensors are float32 without gaps: x, g and the results as ``Extents`` says, ``a`` ``[m + 1]``, ``b``
    ``[groups, n]``. No Python lock is held while C runs.
    """

    def __init__(self, degrees: Degrees) -> None:
        loaded = library(c_text(degrees), _EMITTER)
        self._degrees = degrees
        self._functions: dict[str, Any] = {}
        for name, arguments in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, None
            self._functions[name] = function

    def forward(self, x: Tensor, a: Tensor, b: Tensor, reach: float, extents: Extents) -> Tensor:
        y = torch.empty_like(x)
        read = (x.data_ptr(), a.data_ptr(), b.data_ptr(), reach, y.data_ptr())
        if extents.has_long_runs:
            self._functions["forward_runs"](*read, extents.outer, extents.groups, extents.inner)
        else:
            width = _width(extents)
            lane = x.new_empty(self._degrees.n * width)
            sizes = (extents.total, width, extents.groups, extents.inner)
            self._functions["forward_lanes"](*read, lane.data_ptr(), *sizes)
        return y

    def backward(
        self, g: Tensor, x: Tensor, a: Tensor, b: Tensor, reach: float, extents: Extents
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, a and b."""
        dx, da, db = torch.empty_like(x), torch.empty_like(a), torch.empty_like(b)
        read = (g.data_ptr(), x.data_ptr(), a.data_ptr(), b.data_ptr(), reach)
        written = (dx.data_ptr(), da.data_ptr(), db.data_ptr())
        width = 0 if extents.has_long_runs else _width(extents)
        sums = x.new_empty(self._degrees.count * (extents.groups + width), dtype=torch.float64)
        if extents.has_long_runs:
            sizes: tuple[int, ...] = (extents.outer, extents.groups, extents.inner)
            self._functions["backward_runs"](*read, *written, sums.data_ptr(), *sizes)
        else:
            lane = x.new_empty(self._degrees.n * width)
            sizes = (extents.total, width, extents.groups, extents.inner)
            self._functions["backward_lanes"](*read, *written, sums.data_ptr(), lane.data_ptr(), *sizes)
        return dx, da, db


def _width(extents: Extents) -> int:
    """Elements of as many rows as make a whole number of vectors."""
    return extents.row * (_LANES // math.gcd(extents.row, _LANES))
