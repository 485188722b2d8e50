"""C for families of functions: what each form does with one block of lanes, and the driver around it.

A lane is one element of x. The driver goes through rows of ``width`` lanes, each of which stands for ``width / I`` rows
of the tensor, in blocks of at most ``LANES``; so narrow tensors fill vectors as wide ones do.
"""

from collections.abc import Sequence

from layersearch.kernels.codegen._c_prelude import PRELUDE
from layersearch.kernels.features._c_curve import TRIGONOMETRY, curve_text
from layersearch.kernels.features._c_parts import DRIVER, HARMONICS, PIECES, PROFILES, RECURRENCE
from layersearch.kernels.features.form import Features, Pieces, Profiles, Recurrence

__all__ = ["LANES", "c_text"]

LANES = 128
"""The values of all functions at these lanes fit a first-level cache up to some fifty functions."""

_WIDE = r"""
/* Two thirds of the time of vectors half as long, which gcc prefers (Xeon, AVX-512, exponentials). */
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512")
#endif
"""

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
    defines = {
        "LANES": str(LANES),
        "BY_LANE": str(int(isinstance(form, Profiles | Pieces))),
        "COUNT": "1" if isinstance(form, Pieces) else "K",
    }
    parts: list[str] = []
    if isinstance(form, Recurrence):
        parts = [curve_text(form.start, "curve"), RECURRENCE]
    elif isinstance(form, Profiles):
        defines |= _SHIFTED if form.shifted else _MOVED
        parts = [curve_text(form.curve, "curve"), PROFILES]
    elif isinstance(form, Pieces):
        defines["PIECES"] = str(len(form.table))
        values = " ".join(f"piece[{m}][j] = {_polynomial(row)};" for m, row in enumerate(form.table))
        slopes = " ".join(f"piece[{m}][j] = {_polynomial(_derivative(row))};" for m, row in enumerate(form.table))
        picked = " ".join(f"v = m == {m}.0f ? piece[{m}][j] : v;" for m in range(len(form.table)))
        parts = [PIECES.replace("VALUES", values).replace("SLOPES", slopes).replace("PICK", picked)]
    else:
        parts = [HARMONICS]
    head = "\n".join(f"#define {name} {value}" for name, value in defines.items())
    return "\n".join([_WIDE, PRELUDE, TRIGONOMETRY, head, *parts, DRIVER])
