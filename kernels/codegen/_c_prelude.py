"""What every generated C file begins with: scalar instructions that vectorise, and sums of small values.

Transcendental functions are written out because a call of libm keeps a loop from being vectorised. Coefficients: Cephes
(S. Moshier, single precision). The order of operations that exactness depends on is fixed by fused multiply-adds, or by
double precision where the processor has none: the flags allow the compiler to reassociate everything else.
"""

__all__ = ["EXPRESSIONS", "PRELUDE", "SUMS"]

EXPRESSIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "__builtin_fabsf({0})",
    "sign": "op_sign({0})",
    "sqrt": "__builtin_sqrtf({0})",
    "exp": "op_exp({0})",
    "log": "op_log({0})",
    "sigmoid": "op_sigmoid({0})",
    "tanh": "op_tanh({0})",
    "maximum": "op_maximum({0}, {1})",
    "share": "op_share({0}, {1})",
    "away": "op_away({0}, {1})",
}

PRELUDE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PASS static __attribute__((noinline)) void
#define OP static inline __attribute__((always_inline)) float
#if defined(__clang__)
#define IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define IVDEP _Pragma("GCC ivdep")
#endif

OP bits_float(int32_t i) { float f; memcpy(&f, &i, 4); return f; }
OP op_sign(float a) { return (float)((a > 0.0f) - (a < 0.0f)); }
/* NaN on either side comes through: a comparison with NaN is false. */
OP op_maximum(float a, float b) { return ((a < b) | (b != b)) ? b : a; }
OP op_share(float a, float b) { return a < b ? 0.0f : (a == b ? 0.5f : 1.0f); }
OP op_away(float b, float e) { return b < 0.0f ? b - e : b + e; }

/* e^r and n with x = n ln 2 + r, |r| <= ln 2 / 2. A NaN stays in e^r, whatever integer n becomes. */
OP exp_parts(float x, int32_t *exponent) {
    const float n = __builtin_rintf(x * 1.44269504088896341f);
#ifdef __FP_FAST_FMAF
    float r = __builtin_fmaf(n, -0.693359375f, x);
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
#else
    const float r = (float)((double)x - (double)n * 0.69314718055994530942);
#endif
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    *exponent = (int32_t)n;
    return p * (r * r) + r + 1.0f;
}
/* Two factors 2^(n/2), so that subnormal results and overflow come out right. */
OP op_exp(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    int32_t n;
    const float p = exp_parts(x, &n);
    const int32_t h = n >> 1;
    return p * bits_float((h + 127) << 23) * bits_float((n - h + 127) << 23);
}
/* e^x to be added to 1: x is held within the range of normal numbers. */
OP exp_near_one(float x) {
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    int32_t n;
    const float p = exp_parts(x, &n);
    return p * bits_float((n + 127) << 23);
}
OP op_sigmoid(float x) { return 1.0f / (1.0f + exp_near_one(-x)); }

/* tanh: a polynomial where 1 - 2 / (e^2x + 1) would cancel. */
OP op_tanh(float x) {
    const float a = __builtin_fabsf(x), z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const float near = p * z * x + x;
    const float far = 1.0f - 2.0f / (exp_near_one(2.0f * a) + 1.0f);
    return a < 0.625f ? near : (x < 0.0f ? -far : far);
}

/* ln x: x = 2^e m, sqrt(1/2) <= m < sqrt(2); subnormal arguments are scaled up first. */
OP op_log(float x) {
    const int tiny = x < 1.17549435e-38f;
    const float scaled = tiny ? x * 33554432.0f : x;
    int32_t i;
    memcpy(&i, &scaled, 4);
    int32_t e = ((i - 0x3f3504f3) >> 23);
    const float m = bits_float(i - (int32_t)((uint32_t)e << 23)) - 1.0f;
    const float n = (float)e - (tiny ? 25.0f : 0.0f);
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const float z = m * m;
    float y = p * (z * m) - 2.12194440e-4f * n - 0.5f * z + m + 0.693359375f * n;
    y = x < __builtin_inff() ? y : x;
    y = x == 0.0f ? -__builtin_inff() : y;
    return x < 0.0f ? __builtin_nanf("") : y;
}

typedef struct {
    const float *x, *g, *given;
    float *out, *results;
    long n, c, s, groups, fills;
    double momentum;
} call;

/* Filled with NaN where torch fills fresh tensors. */
static float *workspace(long n, long fills) {
    float *w = malloc((n + 1) * sizeof(float));
    if (w != 0 && fills) memset(w, 0xff, n * sizeof(float));
    return w;
}

/* Keeps a short loop scalar: vectorising it would take longer to build than it ever saves. */
#define SCALAR __asm__ volatile("")

/* Rows of r pixels of k channels: one value per channel repeated for every pixel, and back to one sum per channel. */
static __attribute__((noinline)) const float *spread(float *to, const float *from, long r, long k) {
    if (r == 1) return from;
    if (to != from) memcpy(to, from, k * sizeof(float));
    for (long done = k, all = r * k; done < all; done *= 2)
        memcpy(to + done, to, (all - done < done ? all - done : done) * sizeof(float));
    return to;
}
/* As torch.lerp. */
PASS move(float *running, const float *moment, long n, float w) {
    if (running == 0) return;
    for (long i = 0; i < n; i++) {
        SCALAR;
        const float d = moment[i] - running[i];
        running[i] = w < 0.5f ? running[i] + w * d : moment[i] - (1.0f - w) * d;
    }
}
PASS fold(float *a, long r, long k) {
    for (long i = 1; i < r; i++)
        IVDEP for (long j = 0; j < k; j++) a[j] += a[i * k + j];
}
"""

SUMS = {
    "sum_n": r"""
/* Sum over the batch, in double. */
PASS sum_n(const float *restrict a, float *restrict out, long n, long c) {
    for (long c0 = 0; c0 < c; c0 += 64) {
        const long m = c - c0 < 64 ? c - c0 : 64;
        double t[64] = {0};
        for (long i = 0; i < n; i++)
            for (long j = 0; j < m; j++) t[j] += a[i * c + c0 + j];
        for (long j = 0; j < m; j++) { SCALAR; out[c0 + j] = (float)t[j]; }
    }
}
""",
    "sum_group": r"""
/* Sum over the channels of each group, in double, repeated for each of them. */
PASS sum_group(const float *restrict a, float *restrict out, long rows, long per_group) {
    for (long i = 0; i < rows; i++) {
        double t = 0;
        for (long j = 0; j < per_group; j++) { SCALAR; t += a[i * per_group + j]; }
        for (long j = 0; j < per_group; j++) { SCALAR; out[i * per_group + j] = (float)t; }
    }
}
""",
    "sum_c": r"""
/* Sum over every step-th channel, in double. */
PASS sum_c(const float *restrict a, float *restrict out, long rows, long c, long step) {
    for (long i = 0; i < rows; i++) {
        double t = 0;
        for (long j = 0; j < c; j += step) { SCALAR; t += a[i * c + j]; }
        out[i] = (float)t;
    }
}
""",
}
"""Sums of small values, each written into a file that uses it."""
