"""Reads a trained network, from its edges to its formula; every step says what it costs in error."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.symbolic.chain import Chain, EdgeLayer, chain_of
from layersearch.primitives.symbolic.closed import ClosedNetwork
from layersearch.primitives.symbolic.equations import Units, equations_of
from layersearch.primitives.symbolic.match import Match, match_curves
from layersearch.primitives.symbolic.prune import Pruned, connected, prune, shares
from layersearch.primitives.symbolic.reading import Edge, Reading

__all__ = ["MOST_EDGES", "MOST_IN_FORMULA", "OnStep", "read_network", "readable"]

MOST_EDGES = 500
"""Edges of a network that is read; matching one takes about a tenth of a second."""

MOST_IN_FORMULA = 60
"""Edges that are left of a network that is written as a formula."""

OnStep: TypeAlias = Callable[[str, int, int], None]
"""Called with the step that begins or goes on, and how many edges are through it of how many; both 0 if not counted."""

_POINTS = 256
_LEAST = 10
"""Points that are enough to look at a network, or to measure an error on."""
_CURVE = 81
_SLACK = 1e-3
"""An error may always grow by this part of the target's deviation: a network may be exact."""

Floats = NDArray[np.float64]


def read_network(
    layers: nn.Module | Iterable[nn.Module],
    x: Tensor,
    y: Tensor | None = None,
    *,
    check: tuple[Tensor, Tensor] | None = None,
    units: Units | None = None,
    names: Sequence[str] | None = None,
    limit: float = 0.99,
    tolerance: float = 0.05,
    refit: bool = True,
    on_step: OnStep | None = None,
) -> Reading:
    """Reads ``KANLinear`` layers in a row, or ``MixedKANLinear`` ones, whose nodes have bases of their own.

    Args:
        layers: a layer, or several in a row.
        x: ``[N, I]``, what the network sees: ranges, shares and fits are of these points.
        y: targets ``[N, O]`` or, with one output, ``[N]``; by default what the network itself says.
        check: other points and targets, which errors are measured on; by default every fifth of ``x`` is kept for that,
            which then needs 50 points.
        units: of the data, in which the formula is written; by default those of ``x`` and ``y``.
        names: of the inputs; x1, x2, … by default.
        limit: R² from which a match is taken.
        tolerance: by how much pruning, and rounding, may enlarge the error, in parts of it (and .001 deviations of the
            target besides).
        refit: whether constants are fitted to the targets again once functions have taken the place of the edges.
        on_step: hears of pruning, functions (of the edges), constants and formula.
    Raises: BadInputError for anything but such layers, more than 500 edges, or data that do not fit.
    """
    chain = readable(layers, limit, tolerance)
    inputs, outputs = chain.widths[0], chain.widths[-1]
    names = _names(names, inputs)
    units = units or Units((0.0,) * inputs, (1.0,) * inputs)
    x = _points("x", x, inputs, least=_LEAST if check is not None else 5 * _LEAST)
    y = chain(x) if y is None else _points("y", y, outputs, len(x))
    if check is None:
        kept = torch.arange(len(x)) % 5 == 4
        check = x[kept], y[kept]
        x, y = x[~kept], y[~kept]
    check = _points("check", check[0], inputs), _points("check", check[1], outputs, len(check[0]))
    deviation = y.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)

    def error(found: Tensor) -> float:
        value = float(((found - check[1]) / deviation).square().mean().sqrt())
        return value if math.isfinite(value) else math.inf

    def allowed(value: float) -> float:
        return max(value * (1 + tolerance), value + _SLACK)

    def say(step: str, done: int = 0, total: int = 0) -> None:
        if on_step is not None:
            on_step(step, done, total)

    say("pruning")
    errors = {"network": error(chain(check[0]))}
    share = shares(chain, x)
    pruned = prune(
        chain, x, share, lambda live, means: error(chain.run(check[0], live, means)[-1][2]), allowed(errors["network"])
    )
    errors["pruned"] = error(chain.run(check[0], pruned.live, pruned.means)[-1][2])
    edges = _edges(chain, x, share, pruned, limit, lambda done: say("functions", done, pruned.n_live))
    matches = {(e.layer, e.output, e.source): e.match for e in edges if e.symbolic and e.match is not None}
    if not matches:
        reason = f"no edge is a function of the library with R² ≥ {limit:g}" if pruned.n_live else "no edge is left"
        return Reading(chain.widths, names, edges, errors, limit, None, reason)

    def closed_by(left: Pruned) -> tuple[ClosedNetwork, dict[str, float]]:
        """The network of functions, and its errors before and after a refit; that of the smaller error."""
        network = ClosedNetwork(chain, left, matches)
        found = {"symbolic": _of(network, check[0], error)}
        if not refit:
            return network, found
        fitted = ClosedNetwork(chain, left, matches)
        fitted.refit(x, y)
        found["refitted"] = _of(fitted, check[0], error)
        return (fitted if found["refitted"] <= found["symbolic"] else network), found

    say("constants")
    closed, found = closed_by(pruned)
    best = min(found.values())
    if len(matches) < pruned.n_live:
        # What a numeric edge added may be had by fitting the others: then a formula can do without it.
        without = _symbolic_only(chain, pruned, matches)
        other, of_other = closed_by(without)
        if min(of_other.values()) <= allowed(best):
            closed, found, pruned, best = other, of_other, without, min(of_other.values())
            edges = tuple(replace(e, live=bool(pruned.live[e.layer][e.output, e.source])) for e in edges)
    errors |= found
    if pruned.n_live > MOST_IN_FORMULA:
        reason = f"a formula is written for at most {MOST_IN_FORMULA} edges, and {pruned.n_live} are left"
        return Reading(chain.widths, names, edges, errors, limit, None, reason)
    numeric = pruned.n_live - len(_taken(pruned, matches))
    if 2 * numeric > pruned.n_live:
        reason = f"{numeric} of the {pruned.n_live} edges that are left stay numeric"
        return Reading(chain.widths, names, edges, errors, limit, None, reason)
    if not math.isfinite(best):
        return Reading(chain.widths, names, edges, errors, limit, None, "the functions are undefined at some points")
    say("formula")
    shift, scale = torch.tensor(units.shift).double(), torch.tensor(units.scale).double()
    at = (check[0] * scale + shift).numpy()

    def of_formula(found: Floats) -> float:
        return error((torch.as_tensor(found.copy()) - units.mean) / units.deviation)

    equations = equations_of(closed, units, names, at, of_formula, allowed(best))
    value = of_formula(equations(at))
    if not math.isfinite(value):
        reason = "the formula has constants or values that no number of double precision can hold"
        return Reading(chain.widths, names, edges, errors, limit, None, reason)
    errors["formula"] = value
    return Reading(chain.widths, names, edges, errors, limit, equations)


def readable(layers: nn.Module | Iterable[nn.Module], limit: float, tolerance: float) -> Chain:
    """The edges of ``layers``, if ``read_network`` would read them with these settings. Raises: BadInputError."""
    chain = chain_of(layers)
    if chain.n_edges > MOST_EDGES:
        raise BadInputError(
            f"a network to be read must have at most {MOST_EDGES} edges, got {chain.n_edges}; take a smaller one"
        )
    if not 0 < limit <= 1 or not 0 <= tolerance < 100:
        raise BadInputError(
            f"the limit of R² must be in (0, 1] and the tolerance in [0, 100), got {limit:g} and {tolerance:g}; "
            "change them"
        )
    return chain


def _of(network: ClosedNetwork, x: Tensor, error: Callable[[Tensor], float]) -> float:
    with torch.no_grad():
        return error(network(x))


def _taken(pruned: Pruned, matches: Mapping[tuple[int, int, int], Match]) -> list[tuple[int, int, int]]:
    return [place for place in matches if bool(pruned.live[place[0]][place[1], place[2]])]


def _symbolic_only(chain: Chain, pruned: Pruned, matches: Mapping[tuple[int, int, int], Match]) -> Pruned:
    live = [torch.zeros_like(part) for part in pruned.live]
    for i, o, s in matches:
        live[i][o, s] = True
    return Pruned(connected(chain, live), pruned.means)


def _edges(
    chain: Chain, x: Tensor, share: Sequence[Tensor], pruned: Pruned, limit: float, on_matched: Callable[[int], None]
) -> tuple[Edge, ...]:
    """All edges, those that are left with their match; ``on_matched`` is called with the number of matches so far."""
    found: list[Edge] = []
    n_matched = 0
    runs = chain.run(x, pruned.live, pruned.means)
    for i, (layer, (sources, _, _)) in enumerate(zip(chain.layers, runs, strict=True)):
        ranked = sources.sort(0).values
        at = ranked[torch.linspace(0, len(ranked) - 1, _POINTS).round().long()]
        low, high = ranked[0], ranked[-1]
        even = low + (high - low) * torch.linspace(0, 1, _CURVE, dtype=torch.float64).unsqueeze(1)
        values, curves = layer.edges(at), layer.edges(even)
        deviations = layer.edges(sources).std(0, correction=0)
        matches: dict[tuple[int, int], Match] = {}
        for s in range(len(layer.sources)):
            live = pruned.live[i][:, s].nonzero().flatten().tolist()
            if live:
                on_matched(n_matched)
                n_matched += len(live)
                matches |= zip(((o, s) for o in live), match_curves(at[:, s], values[:, live, s]), strict=True)
        found += [
            _edge(layer, i, o, s, share[i], deviations, even, curves, matches.get((o, s)), limit)
            for o in range(layer.out_features)
            for s in range(len(layer.sources))
        ]
    return tuple(found)


def _edge(
    layer: EdgeLayer, i: int, o: int, s: int, share: Tensor, deviations: Tensor, even: Tensor, curves: Tensor,
    match: Match | None, limit: float,
) -> Edge:  # fmt: skip
    source = layer.sources[s]
    return Edge(
        layer=i,
        output=o,
        source=s,
        input=source.index,
        normalised=source.normalised,
        basis=source.basis,
        share=float(share[o, s]),
        deviation=float(deviations[o, s]),
        live=match is not None,
        match=match,
        symbolic=match is not None and match.r2 >= limit,
        x=even[:, s].numpy(),
        y=curves[:, o, s].numpy(),
    )


def _names(names: Sequence[str] | None, inputs: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"x{i + 1}" for i in range(inputs))
    if len(names) != inputs or len(set(names)) != inputs:
        raise BadInputError(f"names must be {inputs} different ones, one per input, got {list(names)!r:.80}")
    for name in names:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,19}", name) or re.fullmatch(
            r"y\d*|[hms]\d+|phi|pi|lambda|E|I", name
        ):
            raise BadInputError(f"the name of an input must be a short word of letters and digits, got {name!r:.40}")
    return tuple(names)


def _points(what: str, value: Tensor, width: int, count: int | None = None, least: int = _LEAST) -> Tensor:
    found = torch.as_tensor(value).detach().double().cpu()
    if found.dim() == 1 and width == 1:
        found = found.unsqueeze(1)
    if found.dim() != 2 or found.shape[1] != width or (count is not None and len(found) != count) or len(found) < least:
        rows = f"at least {least}" if count is None else count
        raise BadInputError(f"{what} must be [{rows}, {width}], got {list(found.shape)}; give the data of the network")
    if not bool(found.isfinite().all()):
        raise BadInputError(f"{what} must be finite, got values that are nan or inf; clean them")
    return found
