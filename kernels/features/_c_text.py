"""C for families of functions: what each form does with one block of lanes, and the driver around it.

A lane is one element of x. The driver goes through rows of ``width`` lanes, each of which stands for ``width / I`` rows
of the tensor, in blocks of at most ``LANES``; so narrow tensors fill vectors as wide ones do.
"""

from collections.abc import Sequence

from layersearch.kernels.codegen._c_prelude import PRELUDE
from layersearch.kernels.features._c_parts import DRIVER, HARMONICS, PIECES, PROFILES, RECURRENCE
from layersearch.kernels.features.form import Curve, Features, Pieces, Profiles, Recurrence
from layersearch.kernels.features.formula import assignments

__all__ = ["LANES", "c_text"]

LANES = 128
"""The values of all functions at these lanes fit a first-level cache up to some fifty functions."""

_WIDE = r"""
/* Two thirds of the time of vectors half as long, which gcc prefers (Xeon, AVX-512, exponentials). */
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512")
#endif
"""

_TRIGONOMETRY = r"""
/* sin and cos with the quadrant found in double: exact to float32 up to 1e8, and bounded beyond.
   Coefficients: Cephes (S. Moshier, single precision). */
OP quarter(float x, int32_t *n) {
    const double k = __builtin_rint((double)x * 0.63661977236758134308);
    *n = (int32_t)k;
    return (float)(((double)x - k * 1.57079632673412561417) - k * 6.07710050650619224932e-11);
}
OP near_sin(float r) {
    const float z = r * r;
    return ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
}
OP near_cos(float r) {
    const float z = r * r;
    return ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
}
OP turned(float r, int32_t n) {
    const float y = n & 1 ? near_cos(r) : near_sin(r);
    return n & 2 ? -y : y;
}
OP op_sin(float x) { int32_t n; const float r = quarter(x, &n); return turned(r, n); }
OP op_cos(float x) { int32_t n; const float r = quarter(x, &n); return turned(r, n + 1); }
#define PI 3.14159265358979f
OP op_sinc(float z) {
    const float a = __builtin_fabsf(z) < 1e-3f ? 1.0f : PI * z;
    return a == 1.0f ? 1.0f - (PI * PI / 6) * z * z : op_sin(a) / a;
}
OP op_sinc_slope(float z) {
    const float a = __builtin_fabsf(z) < 0.03f ? 1.0f : z, w = PI * PI * z;
    const float near = w * (-1.0f / 3 + (PI * PI / 30) * z * z);
    return a == 1.0f ? near : (op_cos(PI * a) - op_sin(PI * a) / (PI * a)) / a;
}
"""

_CALLS = {
    "+": "{0} + {1}",
    "-": "{0} - {1}",
    "*": "{0} * {1}",
    "/": "{0} / {1}",
    "neg": "-{0}",
    "abs": "__builtin_fabsf({0})",
    "sign": "op_sign({0})",
    "exp": "op_exp({0})",
    "tanh": "op_tanh({0})",
    "maximum": "op_maximum({0}, {1})",
    "sin": "op_sin({0})",
    "cos": "op_cos({0})",
    "sinc": "op_sinc({0})",
    "sinc_slope": "op_sinc_slope({0})",
}


def _call(code: str, target: str, arguments: Sequence[str]) -> list[str]:
    given = [f"{a}f" if a.lstrip("-")[0].isdigit() else a for a in arguments]
    return [f"const float {target} = {_CALLS[code].format(*given)};"]


def _curve(curve: Curve, name: str) -> str:
    """``name(z, &slope)``."""
    made, found = assignments(curve.lines, {"z": "z"}, _call, "v")
    y, slope = (f"{found[n]}f" if found[n].lstrip("-")[0].isdigit() else found[n] for n in ("y", "slope"))
    body = "\n    ".join(line for _, lines in made for line in lines)
    return f"OP {name}(float z, float *slope) {{\n    {body}\n    *slope = {slope};\n    return {y};\n}}"


_MOVED = {
    "ARGUMENT": "((u[j] - centre[j]) * scale[j])",
    "BY_CENTRE": "-scale[j]",
    "BY_SCALE": "(u[j] - centre[j])",
}
_SHIFTED = {"ARGUMENT": "(u[j] * scale[j] + centre[j])", "BY_CENTRE": "1.0f", "BY_SCALE": "u[j]"}


def _polynomial(row: Sequence[float]) -> str:
    text = f"{float(row[-1])!r}f"
    for c in reversed(row[:-1]):
        text = f"({text} * t + {float(c)!r}f)"
    return text


def _derivative(row: Sequence[float]) -> list[float]:
    return [power * c for power, c in enumerate(row)][1:] or [0.0]


def c_text(features: Features) -> str:
    """The translation unit of a form, for any number of functions and inputs."""
    form = features.form
    defines = {"LANES": str(LANES), "BY_LANE": str(int(isinstance(form, Profiles | Pieces)))}
    parts: list[str] = []
    if isinstance(form, Recurrence):
        parts = [_curve(form.start, "curve"), RECURRENCE]
    elif isinstance(form, Profiles):
        defines |= _SHIFTED if form.shifted else _MOVED
        parts = [_curve(form.curve, "curve"), PROFILES]
    elif isinstance(form, Pieces):
        defines["PIECES"] = str(len(form.table))
        values = " ".join(f"piece[{m}][j] = {_polynomial(row)};" for m, row in enumerate(form.table))
        slopes = " ".join(f"piece[{m}][j] = {_polynomial(_derivative(row))};" for m, row in enumerate(form.table))
        picked = " ".join(f"v = m == {m}.0f ? piece[{m}][j] : v;" for m in range(len(form.table)))
        parts = [PIECES.replace("VALUES", values).replace("SLOPES", slopes).replace("PICK", picked)]
    else:
        parts = [HARMONICS]
    head = "\n".join(f"#define {name} {value}" for name, value in defines.items())
    return "\n".join([_WIDE, PRELUDE, _TRIGONOMETRY, head, *parts, DRIVER])
