"""A network whose edges are functions of the library, or stay as they were trained; constants can be fitted again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from layersearch.primitives.symbolic.chain import Chain, EdgeLayer
from layersearch.primitives.symbolic.form import CONSTANT, FORMS
from layersearch.primitives.symbolic.match import Match
from layersearch.primitives.symbolic.prune import Pruned

__all__ = ["ClosedEdge", "ClosedLayer", "ClosedNetwork"]

_NEAR = 1e-6
"""How near to its pole or end an argument may come while constants are fitted."""


@dataclass(frozen=True)
class ClosedEdge:
    """Of output ``o`` and source ``s``; the match has d = 0, it is part of the node's constant. No match: numeric."""

    o: int
    s: int
    match: Match | None


class ClosedLayer(nn.Module):
    """``[N, I] -> [N, O]``: ``sum_s a f(b x_s + c) + bias_o`` over the edges that are left, by form."""

    def __init__(self, layer: EdgeLayer, edges: Sequence[ClosedEdge], bias: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.numeric = torch.zeros(layer.out_features, len(layer.sources), dtype=torch.bool)
        self.bias = nn.Parameter(bias.clone())
        self._by_form: dict[str, list[ClosedEdge]] = {}
        for edge in edges:
            if edge.match is None:
                self.numeric[edge.o, edge.s] = True
            elif edge.match.form != CONSTANT:
                self._by_form.setdefault(edge.match.form, []).append(edge)
        self.constants = nn.ParameterList()
        for own in self._by_form.values():
            rows = [edge.match.constants[:3] for edge in own if edge.match is not None]
            self.constants.append(nn.Parameter(torch.tensor(rows, dtype=torch.float64)))

    def forward(self, x: Tensor, guarded: bool = False) -> Tensor:
        """``guarded`` keeps arguments on the side of a pole or end where most of them are."""
        sources = self.layer.seen(x)
        y = self.bias.expand(len(x), -1)
        for (name, own), constants in zip(self._by_form.items(), self.constants, strict=True):
            a, b, c = constants.unbind(1)
            u = b * sources[:, [edge.s for edge in own]] + c
            if guarded and FORMS[name].inner == "sign":
                side = u.detach().mean(0).sign()
                u = side * (side * u).clamp_min(_NEAR)
            y = y.index_add(1, torch.tensor([edge.o for edge in own]), a * FORMS[name].of(u))
        if bool(self.numeric.any()):
            y = y + (self.layer.edges(sources) * self.numeric).sum(2)
        return y

    def free(self) -> list[Tensor]:
        """Per form, which of a, b and c are free: ``[3]``."""
        inner = {"": "", "c": "c", "sign": "c", "b": "b", "bc": "bc"}
        return [
            torch.tensor([1.0, *(float(k in inner[FORMS[name].inner]) for k in "bc")], dtype=torch.float64)
            for name in self._by_form
        ]

    @torch.no_grad()
    def settled(self) -> list[ClosedEdge]:
        """The edges with their constants as they are now, brought to unique form; the node's constant takes every d."""
        found = [ClosedEdge(int(o), int(s), None) for o, s in self.numeric.nonzero().tolist()]
        for (name, own), rows in zip(self._by_form.items(), self.constants, strict=True):
            for k, edge in enumerate(own):
                a, b, c = map(float, rows[k])
                a, b, c, d = FORMS[name].canonical(a, b, c, 0.0)
                rows[k] = torch.tensor((a, b, c), dtype=rows.dtype)
                self.bias[edge.o] += d
                assert edge.match is not None
                found.append(ClosedEdge(edge.o, edge.s, replace(edge.match, constants=(a, b, c, 0.0))))
        return sorted(found, key=lambda edge: (edge.o, edge.s))


class ClosedNetwork(nn.Module):
    """``[N, I] -> [N, O]`` in float64.

    Args:
        chain: the network it was read from.
        pruned: which edges are left, and what the others became.
        matches: by layer, output and source; edges that are missing stay numeric.
    """

    def __init__(self, chain: Chain, pruned: Pruned, matches: dict[tuple[int, int, int], Match]) -> None:
        super().__init__()
        layers = []
        for i, layer in enumerate(chain.layers):
            live, means = pruned.live[i], pruned.means[i]
            bias = layer.bias + torch.where(live, 0.0, means).sum(1)
            edges = []
            for o, s in live.nonzero().tolist():
                match = matches.get((i, o, s))
                if match is not None:
                    bias[o] += match.constants[3]
                    match = replace(match, constants=(*match.constants[:3], 0.0))
                edges.append(ClosedEdge(o, s, match))
            layers.append(ClosedLayer(layer, edges, bias))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, guarded: bool = False) -> Tensor:
        for layer in self.layers:
            x = layer(x, guarded)
        return x

    def refit(self, x: Tensor, y: Tensor, iterations: int = 100) -> None:
        """Fits all free constants to targets ``y`` ``[N, O]`` by L-BFGS; takes none that make the error larger."""
        parts: list[ClosedLayer] = [layer for layer in self.layers if isinstance(layer, ClosedLayer)]
        before = {name: value.clone() for name, value in self.state_dict().items()}
        start = self._loss(x, y)
        free = [mask for part in parts for mask in part.free()]
        held = [constants for part in parts for constants in part.constants]
        optimizer = torch.optim.LBFGS(
            [*held, *(part.bias for part in parts)], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = (self(x, True) - y).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            for constants, mask in zip(held, free, strict=True):
                if constants.grad is not None:
                    constants.grad *= mask
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        end = self._loss(x, y)
        if not (math.isfinite(end) and end <= start) and math.isfinite(start):
            self.load_state_dict(before)

    @torch.no_grad()
    def _loss(self, x: Tensor, y: Tensor) -> float:
        return float((self(x) - y).square().mean())
