"""C for functions of one number: instructions beyond those of the prelude, and curves made of them."""

from collections.abc import Sequence

from layersearch.kernels.features.form import Curve
from layersearch.kernels.features.formula import assignments

__all__ = ["TRIGONOMETRY", "curve_text"]

TRIGONOMETRY = r"""
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
    const int near = __builtin_fabsf(z) < 1e-3f;
    const float a = near ? 1.0f : PI * z;
    return near ? 1.0f - (PI * PI / 6) * z * z : op_sin(a) / a;
}
OP op_sinc_slope(float z) {
    const int near = __builtin_fabsf(z) < 0.03f;
    const float a = near ? 1.0f : z;
    const float series = PI * PI * z * (-1.0f / 3 + (PI * PI / 30) * z * z);
    return near ? series : (op_cos(PI * a) - op_sin(PI * a) / (PI * a)) / a;
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


def curve_text(curve: Curve, name: str) -> str:
    """``name(z, &slope)``."""
    made, found = assignments(curve.lines, {"z": "z"}, _call, "v")
    y, slope = (f"{found[n]}f" if found[n].lstrip("-")[0].isdigit() else found[n] for n in ("y", "slope"))
    body = "\n    ".join(line for _, lines in made for line in lines)
    return f"OP {name}(float z, float *slope) {{\n    {body}\n    *slope = {slope};\n    return {y};\n}}"
