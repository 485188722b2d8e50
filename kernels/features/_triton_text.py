"""Triton for the product of features and weights: features are made in registers, tile by tile, and never stored.

``y[n, o] = sum_{k, i} f_k(x[n, i]) w[o, k, i]``. Three kernels: the product; the gradient of x, and of coefficients by
function and input, from products of the upstream gradient with the weights; the gradient of the weights from features
made again. Sums over rows come in parts, one per block of rows; there are no atomics.

A family is walked through in ``trips``, each of which gives one or two functions from a state of a few tiles.
"""

from collections.abc import Sequence
from typing import NamedTuple

from layersearch.kernels.codegen._triton_load import interprets
from layersearch.kernels.codegen._triton_words import assignment
from layersearch.kernels.codegen.triton import Kernel
from layersearch.kernels.features.form import Curve, Features, Harmonics, Pieces, Profiles, Recurrence
from layersearch.kernels.features.formula import assignments
from layersearch.kernels.launch import jit

__all__ = ["CHUNK", "ProductText", "product_text", "why_not"]

CHUNK = 2
"""Trips whose weights' gradients one program adds up: two or four tiles of sums in registers."""

_WORDS = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
_QUARTER = (
    "{o}_k = tl.floor({0} * 0.6366197723675814 + 0.5)",
    "{o}_r = (({0} - {o}_k * 1.5703125) - {o}_k * 4.837512969970703e-4) - {o}_k * 7.549789954891e-8",
    "{o}_z = {o}_r * {o}_r",
    "{o}_a = ((-1.9515295891e-4 * {o}_z + 8.3321608736e-3) * {o}_z - 1.6666654611e-1) * {o}_z * {o}_r + {o}_r",
    "{o}_b = (2.443315711809948e-5 * {o}_z - 1.388731625493765e-3) * {o}_z + 4.166664568298827e-2",
    "{o}_b = {o}_b * {o}_z * {o}_z - 0.5 * {o}_z + 1.0",
    "{o}_q = {o}_k - 4.0 * tl.floor({o}_k * 0.25)",
)
"""sin and cos (Cephes) of the rest of an argument that is brought within π/4; exact to float32 up to 1e5."""
_SIN = (
    *_QUARTER,
    "{o} = tl.where(({o}_q == 1.0) | ({o}_q == 3.0), {o}_b, {o}_a)",
    "{o} = tl.where({o}_q >= 2.0, -{o}, {o})",
)
_COS = (
    *_QUARTER,
    "{o} = tl.where(({o}_q == 1.0) | ({o}_q == 3.0), {o}_a, {o}_b)",
    "{o} = tl.where(({o}_q == 1.0) | ({o}_q == 2.0), -{o}, {o})",
)
_LONG = {"sin": _SIN, "cos": _COS}
_MISSING = ("sinc", "sinc_slope")


class _Walk(NamedTuple):
    """Lines of a family: ``start`` of the state from ``u``; in each trip ``before`` its functions, ``after`` them."""

    start: list[str]
    before: list[str]
    functions: list[tuple[str, str]]
    """Number of a function, and the tile that holds it."""
    after: list[str]


class ProductText(NamedTuple):
    """Kernels of a form; ``n_each``: functions of a trip."""

    forward: Kernel
    backward_x: Kernel
    backward_w: Kernel
    n_each: int


def why_not(features: Features) -> str | None:
    """Why there are no kernels for a form, or None."""
    form = features.form
    curve = form.curve if isinstance(form, Profiles) else form.start if isinstance(form, Recurrence) else None
    for line in curve.lines if curve is not None else ():
        if any(f"{word}(" in line for word in _MISSING):
            return f"no instruction for {line!r}"
    return None


def _call(code: str, target: str, arguments: Sequence[str]) -> list[str]:
    if code in _LONG:
        return [line.format(*arguments, o=target) for line in _LONG[code]]
    return assignment(_WORDS.get(code, code), target, arguments)


def _curve(curve: Curve, z: str, slope: bool) -> list[str]:
    """``y`` and, if wanted, ``slope`` of the curve at ``z``, as tiles."""
    wanted = [line for line in curve.lines if slope or not line.startswith("slope")]
    made, found = assignments(wanted, {"z": z}, _call, "v")
    lines = [line for _, part in made for line in part]
    return [*lines, *(f"{name} = {found[name]} + 0.0 * {z}" for name in ("y", "slope") if name in found)]


def _recurrence(form: Recurrence, slopes: bool) -> _Walk:
    start = [*_curve(form.start, "u", slopes), "now = y", "last = 0.0 * u"]
    after = [
        "at = tl.minimum(k, K - 2)",
        "c_a = tl.load(p0_ptr + at)",
        "c_b = tl.load(p0_ptr + (K - 1) + at)",
        "c_c = tl.load(p0_ptr + 2 * (K - 1) + at)",
        "line = c_a * u + c_b",
    ]
    if slopes:
        start += ["d_now = slope", "d_last = 0.0 * u"]
        after += ["d_next = c_a * now + line * d_now + c_c * d_last", "d_last = d_now", "d_now = d_next"]
    after += ["next = line * now + c_c * last", "last = now", "now = next"]
    return _Walk(start, [], [("k", "d_now" if slopes else "now")], after)


def _profiles(form: Profiles, slopes: bool) -> _Walk:
    before = [
        "at = tl.minimum(k, K - 1) * I + i",
        "centre = tl.load(p0_ptr + at, mask=has, other=0.0)[None, :]",
        "scale = tl.load(p1_ptr + at, mask=has, other=0.0)[None, :]",
        "z = u * scale + centre" if form.shifted else "z = (u - centre) * scale",
        *_curve(form.curve, "z", slopes),
    ]
    return _Walk([], [*before, *(["d = slope * scale"] if slopes else [])], [("k", "d" if slopes else "y")], [])


def _polynomial(row: Sequence[float]) -> str:
    text = f"{float(row[-1])!r}"
    for c in reversed(row[:-1]):
        text = f"({text}) * f + {float(c)!r}"
    return f"({text}) + 0.0 * f"


def _pieces(form: Pieces, slopes: bool) -> _Walk:
    start = [
        "low = tl.load(p0_ptr + i, mask=has, other=0.0)[None, :]",
        "width = tl.load(p1_ptr + i, mask=has, other=1.0)[None, :]",
        "t = (u - low) / width",
        "held = tl.where(t < q0, q0, tl.where(t > q1, q1, t))",
        "left = tl.floor(held)",
        "left = tl.where(left < q2, q2, tl.where(left > q3, q3, left))",
        "f = held - left",
    ]
    for m, row in enumerate(form.table):
        slope = [power * c for power, c in enumerate(row)][1:] or [0.0]
        start.append(f"piece{m} = {_polynomial(slope if slopes else row)}")
    if slopes:
        start.append("inside = tl.where(held == t, 1.0 / width, 0.0)")
    pick = "0.0"
    for m in reversed(range(len(form.table))):
        pick = f"tl.where(m == {m}.0, piece{m}, {pick})"
    last = "y = y * inside" if slopes else "y = tl.where(u == u, y, u)"
    return _Walk(start, ["m = k - left", f"y = {pick}", last], [("k", "y")], [])


def _harmonics(slopes: bool) -> _Walk:
    start = ["angle = u * q0", *_call("cos", "c1", ["angle"]), *_call("sin", "s1", ["angle"]), "c = c1", "s = s1"]
    after = ["turned = c * c1 - s * s1", "s = s * c1 + c * s1", "c = turned"]
    functions = [("k", "c"), ("K // 2 + k", "s")]
    before: list[str] = []
    if slopes:
        before = ["d_c = -s * ((k + 1) * q0)", "d_s = c * ((k + 1) * q0)"]
        functions = [("k", "d_c"), ("K // 2 + k", "d_s")]
    return _Walk(start, before, functions, after)


def _walk(features: Features, slopes: bool) -> _Walk:
    form = features.form
    if isinstance(form, Recurrence):
        return _recurrence(form, slopes)
    if isinstance(form, Profiles):
        return _profiles(form, slopes)
    if isinstance(form, Pieces):
        return _pieces(form, slopes)
    return _harmonics(slopes)


def _indented(lines: list[str], depth: int = 1) -> list[str]:
    return ["    " * depth + line for line in lines]


_INPUT = (
    "x = tl.load(x_ptr + n.to(tl.int64)[:, None] * I + i[None, :], mask=real[:, None] & has[None, :], other=0.0)",
    "x = x.to(tl.float32)",
    "u = tl.where(x > high, high, tl.where(x < low_end, low_end, x))",
)
_NUMBERS = ("N", "I", "O", "low_end", "high", "q0", "q1", "q2", "q3")
"""``q…``: the numbers of the features."""
_VARYING = ("N", "low_end", "high", "q0", "q1", "q2", "q3")


def _dot(a: str, b: str, total: str) -> str:
    """``total + a b``. The interpreter multiplies bfloat16 as the integers that it holds them in."""
    wide = ".to(tl.float32)" if interprets() else ""
    return f"tl.dot({a}{wide}, {b}{wide}, {total}, input_precision=PRECISION)"


def _forward(features: Features, tensors: list[str]) -> Kernel:
    walk = _walk(features, slopes=False)
    products: list[str] = []
    for index, tile in walk.functions:
        products += [
            f"from_w = w_ptr + (o[None, :] * K + {index}) * I + i[:, None]",
            "w = tl.load(from_w, mask=has[:, None] & out[None, :], other=0.0)",
            f"total = {_dot(f'{tile}.to(w.dtype)', 'w', 'total')}",
        ]
    body = [
        "n = tl.program_id(0) * BN + tl.arange(0, BN)",
        "o = tl.program_id(1) * BO + tl.arange(0, BO)",
        "real = n < N",
        "out = o < O",
        "total = tl.full((BN, BO), 0.0, tl.float32)",
        "for block in range(I_STEPS):",
        *_indented(["i = block * BI + tl.arange(0, BI)", "has = i < I", *_INPUT, *walk.start]),
        "    for k in range(TRIPS):",
        *_indented([*walk.before, *products, *walk.after], 2),
        "where = n.to(tl.int64)[:, None] * O + o[None, :]",
        "tl.store(y_ptr + where, total.to(y_ptr.dtype.element_ty), mask=real[:, None] & out[None, :])",
    ]
    constants = ["K", "TRIPS", "I_STEPS", "BN", "BI", "BO", "PRECISION"]
    return jit("product", ["x_ptr", *tensors, "w_ptr", "y_ptr", *_NUMBERS], constants, body, _VARYING)


def _backward_x(features: Features, tensors: list[str]) -> Kernel:
    walk = _walk(features, slopes=True)
    parts = isinstance(features.form, Profiles)
    trip = list(walk.before)
    for index, tile in walk.functions:
        trip += [
            "h = tl.full((BN, BI), 0.0, tl.float32)",
            "for block in range(O_STEPS):",
            *_indented(
                [
                    "o = block * BO + tl.arange(0, BO)",
                    "out = o < O",
                    "from_g = g_ptr + n.to(tl.int64)[:, None] * O + o[None, :]",
                    "g = tl.load(from_g, mask=real[:, None] & out[None, :], other=0.0)",
                    f"from_w = w_ptr + (o[:, None] * K + {index}) * I + i[None, :]",
                    "w = tl.load(from_w, mask=out[:, None] & has[None, :], other=0.0)",
                    f"h = {_dot('g', 'w', 'h')}",
                ]
            ),
            f"total += h * {tile}",
        ]
    if parts:
        shifted = isinstance(features.form, Profiles) and features.form.shifted
        by_centre, by_scale = ("h * slope", "h * slope * u") if shifted else ("-h * d", "h * slope * (u - centre)")
        trip += ["part = part_ptr + (tl.program_id(0).to(tl.int64) * 2 * K + k) * I + i"]
        trip += [
            f"tl.store(part + {offset}, tl.sum({value}, axis=0), mask=has)"
            for offset, value in (("0", by_centre), ("K * I", by_scale))
        ]
    body = [
        "n = tl.program_id(0) * BN + tl.arange(0, BN)",
        "i = tl.program_id(1) * BI + tl.arange(0, BI)",
        "real = n < N",
        "has = i < I",
        *_INPUT,
        *walk.start,
        "total = tl.full((BN, BI), 0.0, tl.float32)",
        "for k in range(TRIPS):",
        *_indented([*trip, *walk.after]),
        "total = tl.where((x >= low_end) & (x <= high), total, 0.0)",
        "where = n.to(tl.int64)[:, None] * I + i[None, :]",
        "tl.store(dx_ptr + where, total.to(dx_ptr.dtype.element_ty), mask=real[:, None] & has[None, :])",
    ]
    given = ["g_ptr", "x_ptr", *tensors, "w_ptr", "dx_ptr", *(["part_ptr"] if parts else [])]
    constants = ["K", "TRIPS", "O_STEPS", "BN", "BI", "BO", "PRECISION"]
    return jit("product_backward_x", [*given, *_NUMBERS], constants, body, _VARYING)


def _backward_w(features: Features, tensors: list[str]) -> Kernel:
    walk = _walk(features, slopes=False)
    names = [[f"sum{j}_{q}" for q in range(len(walk.functions))] for j in range(CHUNK)]
    work = ["k = first"]
    if walk.after:  # the state at the chunk's first trip
        work = ["k = first * 0", "while k < first:", *_indented([*walk.after, "k += 1"])]
    for row in names:
        work += walk.before
        for total, (_, tile) in zip(row, walk.functions, strict=True):
            work.append(f"{total} = {_dot('g', f'{tile}.to(g.dtype)', total)}")
        work += [*walk.after, "k += 1"]
    stores: list[str] = []
    for j, row in enumerate(names):
        stores += [f"k = first + {j}", "kept = o < tl.where(k < TRIPS, O, 0)"]
        for name, (index, _) in zip(row, walk.functions, strict=True):
            stores += [
                f"where = (tl.program_id(2).to(tl.int64) * O + o[:, None]) * K * I + ({index}) * I + i[None, :]",
                f"tl.store(part_ptr + where, {name}, mask=kept[:, None] & has[None, :])",
            ]
    body = [
        "o = tl.program_id(0) * BO + tl.arange(0, BO)",
        "out = o < O",
        f"first = (tl.program_id(1) % CHUNKS) * {CHUNK}",
        "i = (tl.program_id(1) // CHUNKS) * BI + tl.arange(0, BI)",
        "has = i < I",
        *[f"{name} = tl.full((BO, BI), 0.0, tl.float32)" for row in names for name in row],
        "for block in range(STEPS):",
        *_indented(
            [
                "n = (tl.program_id(2) * STEPS + block) * BN + tl.arange(0, BN)",
                "real = n < N",
                *_INPUT,
                "from_g = g_ptr + n.to(tl.int64)[None, :] * O + o[:, None]",
                "g = tl.load(from_g, mask=out[:, None] & real[None, :], other=0.0)",
                *walk.start,
                *work,
            ]
        ),
        *stores,
    ]
    constants = ["K", "TRIPS", "CHUNKS", "STEPS", "BN", "BI", "BO", "PRECISION"]
    given = ["g_ptr", "x_ptr", *tensors, "part_ptr", *_NUMBERS]
    return jit("product_backward_w", given, constants, body, _VARYING)


def product_text(features: Features) -> ProductText:
    """Kernels of a form, for any number of functions."""
    tensors = [f"p{j}_ptr" for j in range(features.n_tensors)]
    n_each = 2 if isinstance(features.form, Harmonics) else 1
    return ProductText(
        _forward(features, tensors), _backward_x(features, tensors), _backward_w(features, tensors), n_each
    )
