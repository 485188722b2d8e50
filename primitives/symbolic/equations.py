"""A closed network as equations: composed, shortened, rounded as far as the error allows, in text and in LaTeX."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layersearch.primitives.symbolic.chain import EPS
from layersearch.primitives.symbolic.closed import ClosedLayer, ClosedNetwork
from layersearch.primitives.symbolic.form import FORMS

__all__ = ["Equations", "Units", "equations_of"]

Floats = NDArray[np.float64]

_ONE_FORMULA = 120
"""Operations up to which a network is written as one formula per output; a larger one is written node by node."""
_EXPANDED = 60
"""Operations up to which it is also multiplied out, to see whether that is shorter."""
_DIGITS = range(2, 8)
_POINTS = 200
_NEAR_PI = 2e-3


@dataclass(frozen=True)
class Units:
    """``x`` of the network is ``(x - shift) / scale`` of the data, an output of the data ``mean + deviation y``."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True, eq=False)
class Equations:
    """``rows`` are pairs of a symbol and its expression, in the order in which they are computed; outputs last.

    ``digits`` is to how many significant digits constants are rounded. Functions ``phi_…`` are edges that stayed
    numeric: of layer, output and source.
    """

    rows: tuple[tuple[Any, Any], ...]
    names: tuple[str, ...]
    outputs: int
    digits: int
    numeric: Mapping[str, Callable[[Floats], Floats]]

    def __call__(self, x: Floats) -> Floats:
        """``[N, I] -> [N, O]`` in the units of the data; NaN where a formula is undefined."""
        return _evaluated(self.rows, self.names, self.outputs, self.numeric, x)

    @property
    def text(self) -> str:
        """One equation per line, outputs first."""
        return "\n".join(f"{symbol} = {expression}" for symbol, expression in self._ordered())

    @property
    def latex(self) -> str:
        """In math mode (amsmath)."""
        import sympy

        lines = [f"{sympy.latex(symbol)} &= {sympy.latex(expression)}" for symbol, expression in self._ordered()]
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def _ordered(self) -> Iterator[tuple[Any, Any]]:
        yield from self.rows[-self.outputs :]
        yield from self.rows[: -self.outputs]


def equations_of(
    network: ClosedNetwork,
    units: Units,
    names: Sequence[str],
    x: Floats,
    error: Callable[[Floats], float],
    most: float,
) -> Equations:
    """The equations of ``network`` in the units of the data, with as few digits as keep ``error`` up to ``most``.

    Args:
        names: of the inputs.
        x: ``[N, I]``, in the units of the data: where terms that do not matter are seen, and the error is measured.
        error: of predictions ``[N, O]`` at ``x``; infinite if some are not finite.
    """
    import sympy

    symbols = sympy.symbols(list(names), real=True)
    rows, numeric = _nodes(network, units, symbols)
    outputs = _parts(network)[-1].layer.out_features
    composed = _composed(rows, outputs)
    variants = [rows]
    if sum(sympy.count_ops(expression) for _, expression in composed) <= _ONE_FORMULA:
        variants = [composed]
        if sum(sympy.count_ops(expression) for _, expression in composed) <= _EXPANDED:
            variants.append([(symbol, _expanded(expression)) for symbol, expression in composed])
    names = tuple(names)
    sample = x[:: max(1, len(x) // _POINTS)]
    for digits in _DIGITS:
        found = []
        for variant in variants:
            rounded = _rounded(variant, digits, names, numeric, sample)
            for pi in (True, False):
                tried = [(symbol, _with_pi(e)) for symbol, e in rounded] if pi else rounded
                if error(_evaluated(tried, names, outputs, numeric, x)) <= most:
                    found.append(tried)
                    break
        if found:
            shortest = min(found, key=lambda rows: sum(int(sympy.count_ops(e)) for _, e in rows))
            return Equations(tuple(shortest), names, outputs, digits, numeric)
    return Equations(tuple(variants[0]), names, outputs, 15, numeric)


def _parts(network: ClosedNetwork) -> list[ClosedLayer]:
    return [layer for layer in network.layers if isinstance(layer, ClosedLayer)]


def _nodes(
    network: ClosedNetwork, units: Units, symbols: Sequence[Any]
) -> tuple[list[tuple[Any, Any]], dict[str, Callable[[Floats], Floats]]]:
    """One row per node of every layer."""
    import sympy

    given: list[Any] = [
        (x - shift) / scale if shift or scale != 1 else x
        for x, shift, scale in zip(symbols, units.shift, units.scale, strict=True)
    ]
    rows: list[tuple[Any, Any]] = []
    numeric: dict[str, Callable[[Floats], Floats]] = {}
    parts = _parts(network)
    for i, part in enumerate(parts):
        edges = part.settled()
        last = i == len(parts) - 1
        sources, own = _sources(part, given, f"{i + 1}")
        rows += own
        sums = [sympy.Float(b) for b in part.bias.tolist()]
        for edge in edges:
            if edge.match is None:
                name = f"phi_{i + 1}_{edge.o + 1}_{edge.s + 1}"
                numeric[name] = _numeric(part, edge.o, edge.s)
                sums[edge.o] += sympy.Function(name)(sources[edge.s])
            else:
                a, b, c, _ = edge.match.constants
                inner = (sources[edge.s] if b == 1 else sympy.Float(b) * sources[edge.s]) + (sympy.Float(c) if c else 0)
                sums[edge.o] += sympy.Float(a) * FORMS[edge.match.form].sympy(inner, sympy)
        if last and (units.mean or units.deviation != 1):
            sums = [units.mean + units.deviation * total for total in sums]
        many = len(sums) > 1
        new = [sympy.Symbol(("y" if last else f"h{i + 1}_") + (str(o + 1) if many or not last else ""), real=True)
               for o in range(len(sums))]  # fmt: skip
        rows += list(zip(new, sums, strict=True))
        given = list(new)
    return _used(rows, len(sums)), numeric


def _sources(part: ClosedLayer, given: Sequence[Any], layer: str) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """What the edges of a layer take, and the rows that a layer norm needs for that: mean and deviation."""
    import sympy

    if not part.layer.normalises:
        return list(given), []
    mean, deviation = sympy.Symbol(f"m{layer}", real=True), sympy.Symbol(f"s{layer}", positive=True)
    square = sum((h - mean) ** 2 for h in given) / len(given)
    rows = [(mean, sum(given) / len(given)), (deviation, sympy.sqrt(square + EPS))]
    sources = [(given[s.index] - mean) / deviation if s.normalised else given[s.index] for s in part.layer.sources]
    return sources, rows


def _numeric(part: ClosedLayer, o: int, s: int) -> Callable[[Floats], Floats]:
    def edge(values: Floats) -> Floats:
        flat = torch.as_tensor(np.asarray(values, dtype=np.float64)).reshape(-1, 1)
        with torch.no_grad():
            found: Floats = part.layer.edges(flat.expand(-1, len(part.layer.sources)))[:, o, s].numpy()
        return found.reshape(np.shape(values))

    return edge


def _used(rows: list[tuple[Any, Any]], outputs: int) -> list[tuple[Any, Any]]:
    """Without hidden nodes that are constants or that nothing refers to."""
    constants = {symbol: e for symbol, e in rows[:-outputs] if not e.free_symbols}
    kept = [(symbol, e.subs(constants)) for symbol, e in rows if symbol not in constants]
    needed: set[Any] = set()
    found = []
    for k, (symbol, e) in reversed(list(enumerate(kept))):
        if k >= len(kept) - outputs or symbol in needed:
            needed |= e.free_symbols
            found.append((symbol, e))
    return found[::-1]


def _composed(rows: Sequence[tuple[Any, Any]], outputs: int) -> list[tuple[Any, Any]]:
    """The outputs alone, with all other nodes put in; constants inside exponentials are taken out of them."""
    known: dict[Any, Any] = {}
    for symbol, expression in rows:
        known[symbol] = expression.xreplace(known)
    return [(symbol, _outside(known[symbol])) for symbol, _ in rows[-outputs:]]


def _outside(expression: Any) -> Any:
    """``exp(c + u)`` as ``e^c exp(u)`` with the number worked out."""
    import sympy

    def split(argument: Any) -> Any:
        constant, rest = argument.as_independent(*argument.free_symbols, as_Add=True)
        return sympy.exp(constant) * sympy.exp(rest)

    return expression.replace(lambda e: isinstance(e, sympy.exp) and e.args[0].is_Add, lambda e: split(e.args[0]))


def _expanded(expression: Any) -> Any:
    import sympy

    return _outside(sympy.expand(expression, power_base=False, power_exp=False, log=False))


def _rounded(
    rows: Sequence[tuple[Any, Any]],
    digits: int,
    names: tuple[str, ...],
    numeric: Mapping[str, Callable[[Floats], Floats]],
    x: Floats,
) -> list[tuple[Any, Any]]:
    """Terms that hardly vary as their means, terms that hardly count left out, and all numbers rounded."""
    import sympy

    values = {sympy.Symbol(name, real=True): x[:, k] for k, name in enumerate(names)}
    found = []
    for symbol, expression in rows:
        shorter = _shortened(expression, values, numeric, 0.5 * 10.0**-digits)
        numbers = {v: _number(float(v), digits) for v in shorter.atoms(sympy.Float)}
        result = shorter.xreplace(numbers)
        found.append((symbol, result))
        values[symbol] = _value(result, values, numeric)
    return found


def _shortened(expression: Any, values: Mapping[Any, Floats], numeric: Mapping[str, Any], part: float) -> Any:
    import sympy

    if not expression.args or not expression.free_symbols:
        return expression
    args = [_shortened(arg, values, numeric, part) for arg in expression.args]
    if not expression.is_Add:
        return expression.func(*args)
    each = [np.broadcast_to(_value(arg, values, numeric), len(next(iter(values.values())))) for arg in args]
    spread = float(np.std(sum(each)))
    if not math.isfinite(spread) or spread == 0:
        return expression.func(*args)
    kept, level = [], 0.0
    for arg, value in zip(args, each, strict=True):
        if float(np.std(value)) < part * spread:
            level += float(np.mean(value))
        else:
            kept.append(arg)
    return sympy.Add(*kept, *([sympy.Float(level)] if abs(level) >= part * spread else []))


def _number(value: float, digits: int) -> Any:
    import sympy

    rounded = float(f"{value:.{digits}g}")
    return (
        sympy.Integer(int(rounded))
        if rounded == int(rounded) and abs(rounded) < 10**digits
        else sympy.Float(str(rounded), digits)
    )


def _with_pi(expression: Any) -> Any:
    """Numbers within 0.2 % of a simple multiple of π as that."""
    import sympy

    near = {}
    for value in expression.atoms(sympy.Float):
        for over in (1, 2, 3, 4):
            times = round(float(value) * over / math.pi)
            if 0 < abs(times) <= 8 and abs(float(value) * over / (math.pi * times) - 1) < _NEAR_PI:
                near[value] = sympy.Rational(times, over) * sympy.pi
                break
    return expression.xreplace(near)


def _value(expression: Any, values: Mapping[Any, Floats], numeric: Mapping[str, Any]) -> Floats:
    import sympy

    symbols = sorted(expression.free_symbols, key=str)
    with np.errstate(all="ignore"):
        found = sympy.lambdify(symbols, expression, modules=[dict(numeric), "numpy"])(*(values[s] for s in symbols))
    return np.asarray(found, dtype=np.float64)


def _evaluated(
    rows: Sequence[tuple[Any, Any]],
    names: tuple[str, ...],
    outputs: int,
    numeric: Mapping[str, Callable[[Floats], Floats]],
    x: Floats,
) -> Floats:
    import sympy

    values: dict[Any, Floats] = {sympy.Symbol(name, real=True): x[:, k] for k, name in enumerate(names)}
    for symbol, expression in rows:
        values[symbol] = np.broadcast_to(_value(expression, values, numeric), len(x))
    return np.stack([values[symbol] for symbol, _ in rows[-outputs:]], axis=1)
