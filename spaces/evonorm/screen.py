"""What can be known of a genome without training: can it work at all, and is it new.

Most random graphs are dead: they do not depend on x, are constant over space, or have no gradient. Most of the rest are
duplicates. Both are found here, in about a millisecond.
"""

import functools
import math
import random

import torch
from torch import Tensor

from layersearch.primitives.canonical import canonical, structural_key
from layersearch.primitives.graph import INPUT, Graph
from layersearch.primitives.lowering.reference import evaluate
from layersearch.primitives.numerics import Numerics
from layersearch.spaces.contracts import Outline, Probe
from layersearch.spaces.fingerprint import fingerprint, same_outputs

__all__ = ["outline", "probe", "same_function"]

_SHAPES = ((4, 8, 5, 3), (3, 8, 3, 4))  # H ≠ W, so that no two axis sets agree
_GROUPS = 4  # of 8 channels: neither instances nor layers
_LARGEST_OUTPUT = 1e6
_LARGEST_GRADIENT = 1e8
_SMALLEST_VARIATION = 1e-6

_canonical = functools.lru_cache(maxsize=1024)(canonical)


def outline(genome: Graph) -> Outline:
    """Structural key, and why the graph cannot work if its structure alone tells."""
    graph = _canonical(genome)
    key = structural_key(graph)
    if not any(node.op == INPUT for node in graph.nodes):
        return Outline(key, "output does not depend on x")
    if not graph.domains[graph.output].s:
        return Outline(key, "output is constant over space")
    return Outline(key)


def probe(genome: Graph) -> Probe:
    """Functional key, and why the layer cannot work if one forward and backward pass tells.

    The key is the output on a fixed float64 batch with randomised parameters (at their initial values v0-terms would
    vanish), rounded to six digits of its scale. The novelty key is the same after standardising every channel.
    """
    graph = _canonical(genome)
    inputs = _inputs()
    with torch.no_grad():
        y = _run(graph, inputs[0], _random_params())
        key, novelty = fingerprint(y), fingerprint(_standardized(y))
    return Probe(key, novelty, _fault(graph, y, inputs[0]))


def same_function(a: Graph, b: Graph) -> bool:
    """Whether outputs agree to 1e-9 on a batch of another shape that no key is made from."""
    x, params = _inputs()[1], _random_params()
    with torch.no_grad():
        ya, yb = _run(_canonical(a), x, params), _run(_canonical(b), x, params)
    return same_outputs(ya, yb)


def _fault(graph: Graph, y_random: Tensor, x: Tensor) -> str | None:
    """Why the layer cannot work, judged at its initial parameters."""
    x = x.detach().requires_grad_(True)
    y = _run(graph, x, _initial_params(graph, x))
    if not (bool(torch.isfinite(y).all()) and bool(torch.isfinite(y_random).all())):
        return "output is not finite"
    values = y.detach()
    if float(values.abs().max()) > _LARGEST_OUTPUT:
        return f"output above {_LARGEST_OUTPUT:g}"
    scale = float(values.square().mean().sqrt())
    variation = float(values.std(correction=0))
    if variation <= _SMALLEST_VARIATION * max(scale, 1e-12) or variation < 1e-12:
        return "output is constant at initialization"
    if float(values.std((2, 3), correction=0).max()) <= _SMALLEST_VARIATION * scale:
        return "output is constant over space at initialization"
    if not y.requires_grad:
        return "no gradient reaches x"
    (gradient,) = torch.autograd.grad(y, x, _upstream(), allow_unused=True)
    if gradient is None or not bool((gradient != 0).any()):
        return "no gradient reaches x"
    if not bool(torch.isfinite(gradient).all()):
        return "gradient is not finite"
    if float(gradient.abs().max()) > _LARGEST_GRADIENT:
        return f"gradient above {_LARGEST_GRADIENT:g}"
    return None


def _run(graph: Graph, x: Tensor, params: dict[str, Tensor]) -> Tensor:
    return evaluate(graph, x, params, _numerics(graph.numerics))


@functools.lru_cache(maxsize=64)
def _numerics(numerics: Numerics) -> Numerics:
    """The genome's guards with the probe's groups: keys do not depend on the widths a genome is meant for."""
    return Numerics(numerics.eps, numerics.div_eps, numerics.log_eps, _GROUPS)


def _normal(rng: random.Random, shape: tuple[int, ...], loc: float, scale: float) -> Tensor:
    values = [rng.gauss(loc, scale) for _ in range(math.prod(shape))]
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


@functools.cache
def _inputs() -> tuple[Tensor, ...]:
    """Two batches with a mean and scale of their own per channel; python's generator is stable across versions."""
    rng = random.Random("layersearch.evonorm.probe")
    batches = []
    for shape in _SHAPES:
        loc, scale = _normal(rng, (1, shape[1], 1, 1), 0.0, 0.5), _normal(rng, (1, shape[1], 1, 1), 0.0, 0.3).exp()
        batches.append(_normal(rng, shape, 0.0, 1.0) * scale + loc)
    return tuple(batches)


@functools.cache
def _random_params() -> dict[str, Tensor]:
    rng = random.Random("layersearch.evonorm.params")
    return {name: _normal(rng, (_SHAPES[0][1],), 0.3, 0.8) for name in ("v0", "v1")}


@functools.cache
def _upstream() -> Tensor:
    return _normal(random.Random("layersearch.evonorm.upstream"), _SHAPES[0], 0.0, 1.0)


def _initial_params(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    return {str(n.name): x.new_full((x.shape[1],), float(n.value or 0.0)) for n in graph.params()}


def _standardized(y: Tensor) -> Tensor:
    """Every channel shifted and scaled to mean 0, deviation 1 and a first value above 0."""
    centred = y - y.mean((0, 2, 3), keepdim=True)
    scaled = centred / (centred.square().mean((0, 2, 3), keepdim=True).sqrt() + 1e-30)
    return scaled * torch.where(scaled[:1, :, :1, :1] < 0, -1.0, 1.0)
