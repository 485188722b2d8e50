"""What was read of a trained network: its edges, its formula, and the error of every step."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layersearch.primitives.symbolic.equations import Equations
from layersearch.primitives.symbolic.match import Match

__all__ = ["Edge", "Reading"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Edge:
    """One edge, indices counted from 0.

    Args:
        layer, output, source: where it is; ``source`` is an index of ``EdgeLayer.sources``.
        input, normalised: the node it comes from, and whether a layer norm stands between.
        basis: that of the node, with the settings that tell it from others of its name that the node could have chosen;
            None for an edge of the base branch alone.
        share: of the spread of the outputs (``prune.shares``).
        deviation: of its values over the data.
        live: whether it is left after pruning.
        match: the best match of its curve, if it is left; where its R² is under the limit, the edge stays numeric.
        symbolic: whether the match is taken.
        x, y: its curve on the range it is seen on, in the units of the network, ``[81]`` each.
    """

    layer: int
    output: int
    source: int
    input: int
    normalised: bool
    basis: str | None
    share: float
    deviation: float
    live: bool
    match: Match | None
    symbolic: bool
    x: Floats
    y: Floats


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read of a network.

    Args:
        widths: inputs, hidden nodes by layer, outputs.
        names: of the inputs.
        edges: all of them, layer by layer.
        errors: root mean square errors on data that nothing was fitted to, in deviations of the target: of the
            ``network``, ``pruned``, with ``symbolic`` edges, with their constants ``refitted``, and of the ``formula``
            as it is printed.
        limit: R² from which a match is taken.
        equations: the formula; ``None`` where there is none, and ``reason`` says why.
    """

    widths: tuple[int, ...]
    names: tuple[str, ...]
    edges: tuple[Edge, ...]
    errors: dict[str, float]
    limit: float
    equations: Equations | None
    reason: str = ""

    @property
    def formula(self) -> str | None:
        """As text, one equation per line, in the units of the data."""
        return None if self.equations is None else self.equations.text

    @property
    def latex(self) -> str | None:
        """As ``formula``, in math mode (amsmath)."""
        return None if self.equations is None else self.equations.latex

    @property
    def live(self) -> tuple[Edge, ...]:
        """Edges that are left, those with the largest share first."""
        return tuple(sorted((edge for edge in self.edges if edge.live), key=lambda e: -e.share))

    @property
    def bases(self) -> tuple[tuple[str, ...], ...]:
        """Per layer the basis of each of its inputs, which all edges from it have."""
        found: list[dict[int, str]] = [{} for _ in self.widths[:-1]]
        for edge in self.edges:
            if edge.basis is not None:
                found[edge.layer][edge.input] = edge.basis
        return tuple(tuple(own[i] for i in sorted(own)) for own in found)

    @property
    def is_mixed(self) -> bool:
        """Whether there is more than one basis."""
        return len({name for own in self.bases for name in own}) > 1

    def by_basis(self) -> list[str]:
        """Which nodes have which basis, in words: a line per layer, or one if all have the same."""
        if not self.is_mixed:
            return [f"basis of all nodes: {self.bases[0][0]}"]
        lines = []
        for layer, own in enumerate(self.bases):
            nodes = {name: [self.node(layer, i) for i, of in enumerate(own) if of == name] for name in sorted({*own})}
            shown = " | ".join(f"{name} {', '.join(some)}" for name, some in nodes.items())
            lines.append(f"bases of layer {layer + 1}: {shown}")
        return lines

    def node(self, layer: int, index: int) -> str:
        """Name of a node: of an input, ``h1_1``, …, ``y`` (``y1``, … if there are several)."""
        if layer == 0:
            return self.names[index]
        if layer == len(self.widths) - 1:
            return "y" if self.widths[-1] == 1 else f"y{index + 1}"
        return f"h{layer}_{index + 1}"

    def svg(self, title: str = "") -> str:
        """A picture of the network with the curves of its edges: the text of an SVG file."""
        from layersearch.primitives.symbolic.diagram import diagram

        return diagram(self, title)

    def to_json(self) -> dict[str, Any]:
        """All but the curves, as plain data; what is not finite is ``None``."""
        return {
            "widths": list(self.widths),
            "names": list(self.names),
            "bases": [list(own) for own in self.bases],
            "limit": self.limit,
            "errors": {name: value if math.isfinite(value) else None for name, value in self.errors.items()},
            "formula": self.formula,
            "latex": self.latex,
            "digits": None if self.equations is None else self.equations.digits,
            "reason": self.reason or None,
            "edges": [
                {
                    "from": self.node(edge.layer, edge.input),
                    "to": self.node(edge.layer + 1, edge.output),
                    "normalised": edge.normalised,
                    "basis": edge.basis,
                    "share": edge.share,
                    "deviation": edge.deviation,
                    "range": [float(edge.x[0]), float(edge.x[-1])],
                    "live": edge.live,
                    "symbolic": edge.live and edge.symbolic,
                    "match": None
                    if edge.match is None
                    else {
                        "form": edge.match.form,
                        "constants": dict(zip("abcd", edge.match.constants, strict=True)),
                        "r2": edge.match.r2,
                        "ties": [{"form": form, "r2": r2} for form, r2 in edge.match.ties],
                    },
                }
                for edge in self.edges
            ],
        }
