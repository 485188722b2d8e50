"""The fixed parts of the C for families of functions: the passes of each form, and the driver.

``LANES``, ``BY_LANE``, ``curve`` and the words in capitals of a form are defined before it (``_c_text``).
"""

__all__ = ["DRIVER", "HARMONICS", "PIECES", "PROFILES", "RECURRENCE"]

RECURRENCE = r"""
#define A(n) P[0][n]
#define B(n) P[0][K - 1 + n]
#define C(n) P[0][2 * (K - 1) + n]
PASS rise(long lanes, const float *restrict u, float *restrict f, long stride, const float *const *P, long width,
          long K) {
    float slope;
    for (long j = 0; j < lanes; j++) f[j] = curve(u[j], &slope);
    for (long n = 0; n + 1 < K; n++) {
        const float a = A(n), b = B(n), c = C(n);
        const float *now = f + n * stride, *last = n ? now - stride : now;
        float *next = f + (n + 1) * stride;
        if (n == 0) {
            IVDEP
            for (long j = 0; j < lanes; j++) next[j] = (a * u[j] + b) * now[j];
        } else {
            IVDEP
            for (long j = 0; j < lanes; j++) next[j] = (a * u[j] + b) * now[j] + c * last[j];
        }
    }
}
/* The adjoint of the recurrence, from the highest function down. */
PASS fall(long lanes, const float *restrict u, const float *restrict g, long stride, const float *const *P, long width,
          long K, float *restrict d, float *restrict near, double *sums, float *restrict f) {
    float after[LANES] = {0}, over[LANES] = {0};
    rise(lanes, u, f, LANES, P, width, K);
    for (long n = K - 1; n >= 0; n--) {
        const int top = n == K - 1;
        const float a = top ? 0.0f : A(n), b = top ? 0.0f : B(n), c = n + 2 < K ? C(n + 1) : 0.0f;
        const float *now = f + n * LANES, *below = n ? now - LANES : now;
        float sa = 0.0f, sb = 0.0f, sc = 0.0f;
        if (sums && !top) {
            for (long j = 0; j < lanes; j++) {
                sa += u[j] * now[j] * after[j];
                sb += now[j] * after[j];
                sc += below[j] * after[j];
            }
            sums[n] += sa;
            sums[K - 1 + n] += sb;
            if (n) sums[2 * (K - 1) + n] += sc;
        }
        IVDEP
        for (long j = 0; j < lanes; j++) {
            d[j] += a * now[j] * after[j];
            const float mine = g[n * stride + j] + (a * u[j] + b) * after[j] + c * over[j];
            over[j] = after[j];
            after[j] = mine;
        }
    }
    for (long j = 0; j < lanes; j++) {
        float slope;
        curve(u[j], &slope);
        d[j] += after[j] * slope;
    }
}
"""

PROFILES = r"""
PASS rise(long lanes, const float *restrict u, float *restrict f, long stride, const float *const *P, long width,
          long K) {
    for (long k = 0; k < K; k++) {
        const float *centre = P[0] + k * width, *scale = P[1] + k * width;
        float *to = f + k * stride;
        IVDEP
        for (long j = 0; j < lanes; j++) {
            float slope;
            to[j] = curve(ARGUMENT, &slope);
        }
    }
}
PASS fall(long lanes, const float *restrict u, const float *restrict g, long stride, const float *const *P, long width,
          long K, float *restrict d, float *restrict near, double *sums, float *restrict f) {
    for (long k = 0; k < K; k++) {
        const float *centre = P[0] + k * width, *scale = P[1] + k * width, *from = g + k * stride;
        if (near) {
            float *restrict dc = near + k * width, *restrict ds = near + (K + k) * width;
            IVDEP
            for (long j = 0; j < lanes; j++) {
                float slope;
                curve(ARGUMENT, &slope);
                const float t = from[j] * slope;
                d[j] += t * scale[j];
                dc[j] += t * BY_CENTRE;
                ds[j] += t * BY_SCALE;
            }
        } else {
            IVDEP
            for (long j = 0; j < lanes; j++) {
                float slope;
                curve(ARGUMENT, &slope);
                d[j] += from[j] * slope * scale[j];
            }
        }
    }
}
"""

PIECES = r"""
typedef struct { float left[LANES], f[LANES], within[LANES]; } Place;
PASS locate(long lanes, const float *restrict u, const float *const *P, Place *restrict at) {
    for (long j = 0; j < lanes; j++) {
        const float t = (u[j] - P[0][j]) / P[1][j];
        float h = t < P[2][0] ? P[2][0] : t;
        h = h > P[2][1] ? P[2][1] : h;
        float left = __builtin_floorf(h);
        left = left < P[2][2] ? P[2][2] : left;
        left = left > P[2][3] ? P[2][3] : left;
        at->left[j] = left;
        at->f[j] = h - left;
        at->within[j] = (t >= P[2][0]) & (t <= P[2][1]) ? 1.0f / P[1][j] : 0.0f;
    }
}
PASS rise(long lanes, const float *restrict u, float *restrict f, long stride, const float *const *P, long width,
          long K) {
    Place at;
    float piece[PIECES][LANES];
    locate(lanes, u, P, &at);
    for (long j = 0; j < lanes; j++) { const float t = at.f[j]; VALUES }
    for (long k = 0; k < K; k++) {
        float *to = f + k * stride;
        IVDEP
        for (long j = 0; j < lanes; j++) {
            const float m = (float)k - at.left[j];
            float v = 0.0f;
            PICK
            to[j] = u[j] == u[j] ? v : u[j];
        }
    }
}
PASS fall(long lanes, const float *restrict u, const float *restrict g, long stride, const float *const *P, long width,
          long K, float *restrict d, float *restrict near, double *sums, float *restrict f) {
    Place at;
    float piece[PIECES][LANES], total[LANES] = {0};
    locate(lanes, u, P, &at);
    for (long j = 0; j < lanes; j++) { const float t = at.f[j]; SLOPES }
    for (long k = 0; k < K; k++) {
        const float *from = g + k * stride;
        IVDEP
        for (long j = 0; j < lanes; j++) {
            const float m = (float)k - at.left[j];
            float v = 0.0f;
            PICK
            total[j] += v * from[j];
        }
    }
    for (long j = 0; j < lanes; j++) d[j] += total[j] * at.within[j];
}
"""

HARMONICS = r"""
PASS begin(long lanes, const float *restrict u, float frequency, float *restrict c, float *restrict s) {
    for (long j = 0; j < lanes; j++) {
        int32_t n;
        const float r = quarter(frequency * u[j], &n);
        s[j] = turned(r, n);
        c[j] = turned(r, n + 1);
    }
}
PASS rise(long lanes, const float *restrict u, float *restrict f, long stride, const float *const *P, long width,
          long K) {
    const long half = K / 2;
    float c1[LANES], s1[LANES];
    begin(lanes, u, P[2][0], c1, s1);
    memcpy(f, c1, 4 * lanes);
    memcpy(f + half * stride, s1, 4 * lanes);
    for (long m = 1; m < half; m++) {
        float *c = f + m * stride, *s = f + (half + m) * stride;
        IVDEP
        for (long j = 0; j < lanes; j++) {
            const float cl = (c - stride)[j], sl = (s - stride)[j];
            c[j] = cl * c1[j] - sl * s1[j];
            s[j] = sl * c1[j] + cl * s1[j];
        }
    }
}
PASS fall(long lanes, const float *restrict u, const float *restrict g, long stride, const float *const *P, long width,
          long K, float *restrict d, float *restrict near, double *sums, float *restrict f) {
    const long half = K / 2;
    float c1[LANES], s1[LANES], c[LANES], s[LANES];
    begin(lanes, u, P[2][0], c1, s1);
    memcpy(c, c1, sizeof c);
    memcpy(s, s1, sizeof s);
    for (long m = 0; m < half; m++) {
        const float *gc = g + m * stride, *gs = g + (half + m) * stride, weight = P[2][0] * (float)(m + 1);
        IVDEP
        for (long j = 0; j < lanes; j++) {
            d[j] += weight * (c[j] * gs[j] - s[j] * gc[j]);
            const float next = c[j] * c1[j] - s[j] * s1[j];
            s[j] = s[j] * c1[j] + c[j] * s1[j];
            c[j] = next;
        }
    }
}
"""

DRIVER = r"""
#define EACH_BLOCK \
    const long width = rows * I, total = N * I; \
    for (long first = 0; first < total; first += width) \
        for (long begin = 0; begin < width && first + begin < total; begin += chunk)
#define BLOCK_SIZE \
    long lanes = width - begin < chunk ? width - begin : chunk; \
    lanes = total - first - begin < lanes ? total - first - begin : lanes; \
    const long full = rows > 1 ? (lanes + 15) / 16 * 16 : lanes;

PASS clamp(long lanes, long full, const float *restrict x, float low, float high, float *restrict u) {
    for (long j = 0; j < lanes; j++) {
        const float a = x[j] < low ? low : x[j];
        u[j] = a > high ? high : a;
    }
    for (long j = lanes; j < full; j++) u[j] = 0.0f;
}

/* Tensors of one number per input, [count, I] each: repeated for the rows of a block in lane, [2, count, pitch]. */
static void repeat(const float *const *P, const float **held, float *lane, long count, long I, long rows, long pitch) {
    for (long t = 0; t < 2; t++) {
        held[t] = P[t];
        if (rows == 1 || !BY_LANE) continue;
        float *to = lane + t * count * pitch;
        held[t] = to;
        for (long k = 0; k < count; k++, to += pitch) {
            for (long j = 0; j < rows * I; j++) to[j] = P[t][k * I + j % I];
            for (long j = rows * I; j < pitch; j++) to[j] = 1.0f;
        }
    }
}

/* x: [N, I], out: [N, K, I]; in P two tensors and the numbers. block: [K, LANES], lane: see repeat.
   Several rows make a block of whole vectors, the last one filled up: left to the end of a vectorised loop, a dozen
   lanes cost more than all others. */
void forward(const float *restrict x, const float *const *P, float low, float high, float *restrict out,
             float *restrict block, float *lane, long N, long K, long I, long rows, long chunk, long pitch) {
    const float *held[2];
    repeat(P, held, lane, COUNT, I, rows, pitch);
    EACH_BLOCK {
        BLOCK_SIZE
        float u[LANES];
        const float *here[3] = {held[0] + begin * BY_LANE, held[1] + begin * BY_LANE, P[2]};
        clamp(lanes, full, x + first + begin, low, high, u);
        if (rows == 1) {
            rise(lanes, u, out + first * K + begin, I, here, pitch, K);
            continue;
        }
        rise(full, u, block, LANES, here, pitch, K);
        float *to = out + first * K;
        for (long r = 0; r * I < lanes; r++)
            for (long k = 0; k < K; k++)
                for (long i = 0; i < I; i++) *to++ = block[k * LANES + r * I + i];
    }
}

/* wanted, if gradients of the tensors are: [3, K - 1], or [2, K, I] of tensors by lane. For use inside: sums, as much
   with pitch for I, near as sums, block [2, K, LANES]. */
void backward(const float *restrict g, const float *restrict x, const float *const *P, float low, float high,
              float *restrict dx, float *restrict wanted, float *restrict near, double *restrict sums,
              float *restrict block, float *lane, long N, long K, long I, long rows, long chunk, long pitch) {
    const float *held[2];
    const long n_sums = BY_LANE ? 2 * K * pitch : 3 * (K - 1);
    long since = 0;
    repeat(P, held, lane, COUNT, I, rows, pitch);
    if (wanted) memset(sums, 0, sizeof *sums * n_sums);
    if (near) memset(near, 0, sizeof *near * n_sums);
    float *f = block + K * LANES;
    EACH_BLOCK {
        BLOCK_SIZE
        float u[LANES], d[LANES] = {0};
        const float *here[3] = {held[0] + begin * BY_LANE, held[1] + begin * BY_LANE, P[2]};
        const float *in = x + first + begin, *from = g + first * K + begin;
        long stride = I;
        clamp(lanes, full, in, low, high, u);
        if (rows > 1) {
            const float *next = g + first * K;
            for (long r = 0; r * I < lanes; r++)
                for (long k = 0; k < K; k++)
                    for (long i = 0; i < I; i++) block[k * LANES + r * I + i] = *next++;
            for (long k = 0; k < K; k++)
                for (long j = lanes; j < full; j++) block[k * LANES + j] = 0.0f;
            from = block;
            stride = LANES;
        }
        fall(full, u, from, stride, here, pitch, K, d, near ? near + begin : near, sums, f);
        float *to = dx + first + begin;
        for (long j = 0; j < lanes; j++) to[j] = (in[j] >= low) & (in[j] <= high) ? d[j] : 0.0f;
        /* What one lane adds up in float32 is at most 256 terms. */
        since += begin + chunk >= width;
        if (near && (since == 256 || first + width >= total) && begin + chunk >= width) {
            for (long j = 0; j < n_sums; j++) { sums[j] += near[j]; near[j] = 0.0f; }
            since = 0;
        }
    }
    if (!wanted) return;
    if (!BY_LANE) {
        for (long j = 0; j < n_sums; j++) wanted[j] = (float)sums[j];
        return;
    }
    for (long k = 0; k < 2 * K; k++)
        for (long i = 0; i < I; i++) {
            double total = 0.0;
            for (long r = 0; r < rows; r++) total += sums[k * pitch + r * I + i];
            wanted[k * I + i] = (float)total;
        }
}
"""
