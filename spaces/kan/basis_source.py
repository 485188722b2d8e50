"""Each basis as the lines of a plain torch module: what an exported file holds of it, and nothing else.

``setup`` makes the tensors of the basis in ``__init__`` (``in_features`` is there), ``columns`` turns the argument
``u`` ``[..., I]`` into the functions ``f`` ``[..., K, I]``. Numbers of the settings are written out.
"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from layersearch.errors import BadInputError
from layersearch.primitives.bases._polynomial import Polynomial
from layersearch.primitives.basis import Basis

__all__ = ["BasisSource", "basis_arguments", "basis_source", "literal"]


@dataclass(frozen=True)
class BasisSource:
    """Lines without indentation.

    Args:
        about: the functions as a formula, for the docstring.
        constants: statements of the module.
        setup: statements of ``__init__``.
        columns: statements of ``forward``, from ``u`` to ``f``.
        arguments: of the layer, beside its widths, that ``setup`` uses; see ``basis_arguments``.
    """

    about: str
    constants: str
    setup: str
    columns: str
    arguments: tuple[str, ...] = ()


_Parts: TypeAlias = tuple[str, str, str, str]


def basis_source(row: Basis) -> BasisSource:
    """The lines of a configured row. Raises: BadInputError for a basis that has none here."""
    if row.name in _SPECIAL:
        parts = _SPECIAL[row.name](row)
    elif isinstance(row, Polynomial) and not row.state(1):
        parts = _recurrence(row)
    else:
        raise BadInputError(f"an export must know the basis, and has no source of '{row.name}'; export another network")
    about, *blocks = parts
    constants, setup, columns = (textwrap.dedent(block).strip("\n") for block in blocks)
    return BasisSource(about, constants, setup, columns, tuple(basis_arguments(row)))


def basis_arguments(row: Basis) -> dict[str, str]:
    """Values of ``BasisSource.arguments`` for a row, which may differ between layers, as source."""
    if row.name != "rational":
        return {}
    state = row.state(row.groups)  # type: ignore[attr-defined]
    tables = {"numerator": state["numerator"], "denominator": state["denominator"][0]}
    shown = {name: f"({', '.join(literal(float(value)) for value in table)})" for name, table in tables.items()}
    return {"groups": str(row.groups), **shown}  # type: ignore[attr-defined]


def literal(value: float) -> str:
    """The shortest text that reads back to the number; whole numbers as such."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _tensor(name: str, expression: str, trained: bool) -> str:
    if trained:
        return f"self.{name} = nn.Parameter({expression})"
    return f'self.register_buffer("{name}", {expression})'


def _recurrence(row: Polynomial) -> _Parts:
    steps = []
    for n in range(row.degree):
        a, b, c = row.step(n, {})
        steps.append(f"({literal(float(a))}, {literal(float(b))}, {literal(float(c))}),")
    start = {
        "hermite": "torch.exp(-0.5 * u * u) * math.pi**-0.25",
        "laguerre": "torch.exp(-0.5 * u)",
    }.get(row.name, "torch.ones_like(u)")
    table = "\n".join(f"    {step}" for step in steps)
    columns = f"""
last, now = torch.zeros_like(u), {start}
functions = [now]
for a, b, c in RECURRENCE:
    last, now = now, (a * u + b) * now + c * last
    functions.append(now)
f = torch.stack(functions, dim=-2)
"""
    constants = f"RECURRENCE = (  # a, b, c of every step\n{table}\n)"
    return f"{row.title}, p_(n+1) = (a u + b) p_n + c p_(n-1)", constants, "", columns


def _bspline(row: Any) -> _Parts:
    columns = """
t = ((u - self.low) / self.step).clamp(-ORDER, GRID + ORDER)
left = t.detach().floor()
r = t - left
pieces = [torch.ones_like(r)]
for p in range(1, ORDER + 1):
    inner = [((m + r) * pieces[m] + (p + 1 - m - r) * pieces[m - 1]) / p for m in range(1, p)]
    pieces = [r * pieces[0] / p, *inner, (1 - r) * pieces[p - 1] / p]
values = torch.stack(pieces[::-1], dim=-2)
first = left.nan_to_num().long()
place = first.unsqueeze(-2) + torch.arange(ORDER, 2 * ORDER + 1, device=u.device).unsqueeze(-1)
zeros = (left - left).unsqueeze(-2)  # or NaN: an index can be none
padded = zeros.expand(*u.shape[:-1], GRID + 3 * ORDER + 1, u.shape[-1])
f = padded.scatter(-2, place, values).narrow(-2, ORDER, GRID + ORDER)
"""
    constants = f"GRID, ORDER = {row.grid}, {row.order}"
    return "the GRID + ORDER B-splines on equal intervals", constants, _equal_steps(row), columns


def _piecewise_linear(row: Any) -> _Parts:
    columns = """
t = (u - self.low) / self.step
left = t.detach().floor().clamp(0, GRID - 1)
r = t - left
place = left.nan_to_num().long().unsqueeze(-2) + torch.arange(2, device=u.device).unsqueeze(-1)
zeros = (left - left).unsqueeze(-2)  # or NaN: an index can be none
zeros = zeros.expand(*u.shape[:-1], GRID + 1, u.shape[-1])
f = zeros.scatter(-2, place, torch.stack([1 - r, r], dim=-2))
"""
    about = "hats on equal intervals, the outer ones continued as lines"
    return about, f"GRID = {row.grid}", _equal_steps(row), columns


def _equal_steps(row: Any) -> str:
    step = literal((row.high - row.low) / row.grid)
    return f"""
{_tensor("low", f"torch.full((in_features,), {literal(row.low)}, dtype=torch.float64)", False)}
{_tensor("step", f"torch.full((in_features,), {step}, dtype=torch.float64)", False)}
"""


def _relu(row: Any) -> _Parts:
    step = (row.high - row.low) / row.grid
    width = f"torch.full_like(steps, math.log({literal(step * (row.order + 1))}))"
    setup = f"""
steps = torch.arange(-{row.order}, {row.grid}, dtype=torch.float64).unsqueeze(-1).repeat(1, in_features)
{_tensor("start", f"{literal(row.low)} + {literal(step)} * steps", row.learn)}
{_tensor("log_width", width, row.learn)}
"""
    columns = """
v = (u.unsqueeze(-2) - self.start) * torch.exp(-self.log_width)
f = torch.relu(4 * v * (1 - v)).square()
"""
    return "relu(4 v (1 - v))^2, v = (u - start) / width", "", setup, columns


def _fourier(row: Any) -> _Parts:
    angle = "u" if row.frequency == 1 else f"{literal(row.frequency)} * u"
    columns = f"""
c1, s1 = torch.cos({angle}), torch.sin({angle})
cosines, sines = [c1], [s1]
for _ in range({row.grid - 1}):
    c, s = cosines[-1], sines[-1]
    cosines.append(c * c1 - s * s1)
    sines.append(s * c1 + c * s1)
f = torch.stack(cosines + sines, dim=-2)
"""
    return f"cos(m w u) and sin(m w u), m = 1 to {row.grid}, w = {literal(row.frequency)}", "", "", columns


def _sine(row: Any) -> _Parts:
    setup = f"""
function = torch.arange({row.grid}, dtype=torch.float64).unsqueeze(-1)
turn = torch.arange(in_features, dtype=torch.float64) / in_features + (function + 0.5) / {row.grid}
{_tensor("frequency", "function + 1", row.learn)}
{_tensor("phase", "math.pi * (turn % 1)", False)}
"""
    columns = "f = torch.sin(self.frequency * u.unsqueeze(-2) + self.phase)"
    return "sin(frequency u + phase)", "", setup, columns


def _rational(row: Any) -> _Parts:
    setup = f"""
self.groups = groups
{_tensor("numerator", "torch.tensor(numerator, dtype=torch.float64)", row.learn)}
{_tensor("denominator", "torch.tensor(denominator, dtype=torch.float64).repeat(groups, 1)", row.learn)}
"""
    columns = """
v = u.unflatten(-1, (self.groups, -1))
over, under = self.numerator[-1] * v + self.numerator[-2], self.denominator[:, -1:]
for a in self.numerator[:-2].flip(0):
    over = over * v + a
for b in self.denominator[:, :-1].flip(1).unbind(1):
    under = under * v + b.unsqueeze(-1)
f = (over / (1 + (under * v).abs())).flatten(-2).unsqueeze(-2)
"""
    return "sum a_i u^i / (1 + abs(sum b_j u^j)), b by groups of inputs", "", setup, columns


def _gram(row: Any) -> _Parts:
    ones = {"beta": torch.ones(max(1, row.degree - 1), dtype=torch.float64)}
    steps = [row.step(n, ones) for n in range(row.degree)]
    table = "\n".join(f"    ({literal(float(a))}, {literal(float(-c))})," for a, _, c in steps)
    start = [literal(float(b)) for b in row.state(1)["beta"]]
    lines = "".join(f"    {', '.join(start[i : i + 4])},\n" for i in range(0, len(start), 4))
    setup = f"beta = [\n{lines}]\n" + _tensor("beta", "torch.tensor(beta, dtype=torch.float64)", row.learn)
    columns = """
last, now = torch.zeros_like(u), torch.ones_like(u)
functions = [now]
for n, (a, c) in enumerate(RECURRENCE):
    last, now = now, a * u * now - (self.beta[n - 1] * c * last if n else 0)
    functions.append(now)
f = torch.stack(functions, dim=-2)
"""
    constants = f"RECURRENCE = (  # a, c of every step\n{table}\n)"
    return "Gram polynomials, p_(n+1) = a u p_n - c beta_n p_(n-1)", constants, setup, columns


def _jacobi(row: Any) -> _Parts:
    raw = ", ".join(literal(float(value)) for value in row.state(1)["exponents"])
    setup = _tensor("exponents", f"torch.tensor([{raw}], dtype=torch.float64)", row.learn)
    columns = f"""
a, b = F.softplus(self.exponents.to(u.dtype)).sub(0.5).unbind()
largest = torch.maximum(a, b)
last, now = torch.ones_like(u), ((a + b + 2) / 2 * u + (a - b) / 2) / (largest + 1)
functions = [last, now]
for n in range(1, {row.degree}):
    s = 2 * n + a + b
    over = 2 * (n + 1) * (n + a + b + 1) * s
    slope, shift = (s + 1) * (s + 2) * s / over, (s + 1) * (a + b) * (a - b) / over
    back = 2 * (n + a) * (n + b) * (s + 2) / over * n / (largest + n)
    last, now = now, ((slope * u + shift) * now - back * last) * (n + 1) / (largest + n + 1)
    functions.append(now)
f = torch.stack(functions, dim=-2)
"""
    return "Jacobi polynomials over their largest value, exponents softplus(r) - 1/2", "", setup, columns


def _centred(profile: str, about: str, before: str = "") -> Callable[[Any], _Parts]:
    def source(row: Any) -> _Parts:
        width = (row.high - row.low) * (row.width / (row.grid - 1))
        at = f"torch.linspace({literal(row.low)}, {literal(row.high)}, {row.grid}, dtype=torch.float64)"
        setup = f"""
centres = {at}.unsqueeze(-1).repeat(1, in_features)
{_tensor("centres", "centres", row.learn)}
{_tensor("log_width", f"torch.full_like(centres, math.log({literal(width)}))", row.learn)}
"""
        omega = literal(row.omega) if hasattr(row, "omega") else ""
        lines = ["z = (u.unsqueeze(-2) - self.centres) * torch.exp(-self.log_width)", before]
        columns = "\n".join([*(line for line in lines if line), f"f = {profile.replace('OMEGA', omega)}"])
        return f"{about}, z = (u - centre) / width", "", setup, columns

    return source


_SPECIAL: dict[str, Callable[[Any], _Parts]] = {
    "bspline": _bspline,
    "dog": _centred("-z * torch.exp(-0.5 * z * z)", "-z exp(-z^2/2)"),
    "fourier": _fourier,
    "gram": _gram,
    "jacobi": _jacobi,
    "mexican_hat": _centred(
        "2 / (math.sqrt(3) * math.pi**0.25) * (1 - z * z) * torch.exp(-0.5 * z * z)", "(1 - z^2) exp(-z^2/2), of norm 1"
    ),
    "meyer": _centred(
        "torch.sin(math.pi * z) * torch.cos(math.pi / 2 * t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3))",
        "sin(pi z) cos(pi/2 v(2|z| - 1)), v Meyer's step",
        "z = z.clamp(-1, 1)\nt = (2 * z.abs() - 1).clamp_min(0)",
    ),
    "morlet": _centred("torch.cos(OMEGA * z) * torch.exp(-0.5 * z * z)", "cos(w z) exp(-z^2/2)"),
    "piecewise_linear": _piecewise_linear,
    "rational": _rational,
    "rbf": _centred("torch.exp(-z * z)", "exp(-z^2)"),
    "relu": _relu,
    "rswaf": _centred("1 - torch.tanh(z).square()", "1 - tanh(z)^2"),
    "shannon": _centred("2 * torch.sinc(2 * z) - torch.sinc(z)", "2 sinc(2z) - sinc(z)"),
    "sine": _sine,
}
