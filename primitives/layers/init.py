"""Standard deviations of new coefficients: variance preserving, by all or by the base branch, Glorot or power law."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.primitives.activations import Activation
from layersearch.primitives.layers.functions import BasisFunctions
from layersearch.primitives.registry import unknown_name

__all__ = ["INITS", "InitName", "Moments", "Scales", "moments", "normal_quantiles", "scales"]

InitName: TypeAlias = Literal["variance", "branch", "glorot", "power"]
INITS: tuple[InitName, ...] = ("branch", "glorot", "power", "variance")

_POINTS = 512
_OF_BRANCH = 0.9999
_CONSTANT = 1e-6


def normal_quantiles(count: int = _POINTS) -> Tensor:
    """``count`` points of equal probability under N(0, 1), in float64, scaled to variance 1; ascending."""
    x = torch.special.ndtri((torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count)
    scaled: Tensor = x / x.square().mean().sqrt()
    return scaled


@dataclass(frozen=True)
class Moments:
    """Of one function under N(0, 1) inputs, or of several, ``[K]``: E[f²], E[f'²], and whether f is constant."""

    square: Tensor
    slope: Tensor
    constant: Tensor


def _moments(x: Tensor, f: Tensor) -> Moments:
    """From values ``f`` ``[N, K]`` at ascending ``x`` ``[N]``; slopes by differences."""
    square = f.square().mean(0)
    slope = (f.diff(dim=0) / x.diff().unsqueeze(-1)).square().mean(0)
    return Moments(square, slope, f.var(dim=0) <= _CONSTANT * square)


def moments(functions: BasisFunctions) -> Moments:
    """Of the functions of a layer, averaged over its inputs (at most 64 of them, evenly chosen).

    Of a layer without numbers (``meta``) they are those of the functions that a fresh one has.
    """
    x = normal_quantiles()
    count = functions.in_features
    if functions.domain.kind == "layernorm":
        # After layer norm the inputs are N(0, 1) whatever they were, up to the interval it aims at.
        low, high = functions.domain.interval
        argument = (low + high) / 2 + (high - low) / 4 * x
    elif functions.domain.kind == "minmax":
        # Not tracked yet: as if three standard deviations reached the ends.
        low, high = functions.domain.interval
        argument = ((low + high) / 2 + (high - low) / 6 * x).clamp(low, high)
    else:
        argument = functions.domain(x)
    with torch.no_grad():
        if any(value.is_meta for value in functions.state.values()):
            with torch.device("cpu"):
                state = functions.basis.state(count)
        else:
            state = {name: value.detach().double().cpu() for name, value in functions.state.items()}
        values = functions.basis.columns(argument.unsqueeze(-1).expand(-1, count), state)
    chosen = torch.linspace(0, count - 1, min(count, 64), device="cpu").long()
    each = [_moments(x, values[:, :, int(i)]) for i in chosen]
    return Moments(
        torch.stack([m.square for m in each]).mean(0),
        torch.stack([m.slope for m in each]).mean(0),
        torch.stack([m.constant for m in each]).all(0),
    )


@dataclass(frozen=True)
class Scales:
    """Standard deviations of the basis coefficients, ``[K]`` in float64, and of the base weights."""

    basis: Tensor
    base: float


def scales(
    kind: str,
    functions: BasisFunctions,
    fan_in: int,
    fan_out: int,
    base: Activation | None,
    power: tuple[float, float] = (0.25, 1.75),
    base_share: float = 0.5,
) -> Scales:
    """Standard deviations for a layer whose outputs sum ``fan_in`` edges.

    - ``variance``: outputs have the second moment 1 for inputs N(0, 1): σ² = share / (fan_in · sum_k E[f_k²]), the base
      branch taking ``base_share``. Constant functions, which would only be one more bias, start at 0.
    - ``branch``: as ``variance``, with .9999 for the base branch: a network that starts as one of its base activation,
      nearly, and whose basis grows from small coefficients. Without a branch it is ``variance``.
    - ``glorot``: as ``variance``, with the mean of the forward and the backward condition, fan_in · E[f²] and
      fan_out · E[f'²] (arXiv:2509.03417).
    - ``power``: σ_base = (fan_in (K + 1))^-α and σ_basis = (fan_in (K + 1))^-β, ``power`` = (α, β) (the same paper;
      its best α is about 0.25 and its β 1.0 … 1.75; G + k + 1 there is K + 1).

    The second moment stays over width and depth under ``variance`` and ``branch``; under ``glorot`` it falls with
    depth, under ``power`` it grows with the width or, without a branch, is next to nothing. Where small networks were
    fitted at Adam's 1e-3, ``power`` and ``branch`` ended with errors 20 to 130 times smaller than ``variance``, whose
    basis is as large as the branch from the start; ``power`` was ahead on four of five functions, ``branch`` holds at
    every width. ``variance`` stays the default: it is what recorded genomes name, and what other bases and recipes were
    measured with. Numbers are in ``tests/bench/RESULTS.md`` (KAN-Init suite).

    Raises: UnknownNameError; BadInputError for exponents that are not two finite numbers.
    """
    if kind not in INITS:
        raise unknown_name("init", kind, list(INITS))
    n_functions = functions.basis.n_functions
    of_basis = moments(functions)
    varying = (~of_basis.constant).double()
    if kind == "power":
        if len(power) != 2 or not all(math.isfinite(exponent) for exponent in power):
            raise BadInputError(f"power must be two finite exponents, got {power!r:.60}; the default is (0.25, 1.75)")
        size = float(fan_in * (n_functions + 1))
        return Scales(varying * size ** -power[1], size ** -power[0])

    def deviation(square: float, slope: float, share: float) -> float:
        forward = fan_in * square
        total = (forward + fan_out * slope) / 2 if kind == "glorot" else forward
        return math.sqrt(share / total) if total > 0 else 0.0

    share = (_OF_BRANCH if kind == "branch" else base_share) if base is not None else 0.0
    if not varying.any():
        varying = torch.ones_like(varying)
    spread = deviation(float((of_basis.square * varying).sum()), float((of_basis.slope * varying).sum()), 1.0 - share)
    of_base = 0.0
    if base is not None:
        x = normal_quantiles()
        m = _moments(x, base(x).unsqueeze(-1))
        of_base = deviation(float(m.square), float(m.slope), share)
    return Scales(varying * spread, of_base)
