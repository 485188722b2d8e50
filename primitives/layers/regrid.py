"""Coefficients on another grid that keep the functions: ridge least squares by normal equations, in float64."""

import torch
from torch import Tensor

from layersearch.primitives.basis import Basis, State, spread

__all__ = ["refit"]

RIDGE = 1e-11
"""Relative to the mean diagonal of the normal matrix. Not ``lstsq``: on CUDA it only has a driver for full rank, which
returns NaN where a function sees no sample."""

_PER_FUNCTION = 24
_MAX_SAMPLES = 4096
_CHUNK = 2**22


def _points(basis: Basis, state: State, data: Tensor | None) -> Tensor:
    """``[N, I]``: evenly spaced over the new grid of each input, and the data, if any, in steps."""
    low, high = basis.span(state)
    even = spread(low, high, _PER_FUNCTION * basis.n_functions + 1)
    if data is None:
        return even
    step = -(-data.shape[0] // _MAX_SAMPLES)
    return torch.cat([even, data[::step].detach().double().cpu()])


def refit(
    weight: Tensor, old: Basis, old_state: State, new: Basis, new_state: State, data: Tensor | None
) -> tuple[Tensor, float]:
    """Weights on the new grid for which every edge is nearest to what it was.

    Args:
        weight: ``[R, K, I]``, coefficients of R functions of each of I inputs.
        data: ``[N, I]``, arguments of the basis that count besides the evenly spaced ones.
    Returns: ``[R, K', I]`` in float64 on the CPU, and the root mean square change relative to that of the edges.
    """
    old_state = {name: value.detach().double().cpu() for name, value in old_state.items()}
    edges = weight.detach().double().cpu()
    u = _points(new, new_state, data)
    before = old.columns(u, old_state)
    after = new.columns(u, new_state)
    n_new = after.shape[-2]
    out = edges.new_empty(edges.shape[0], n_new, edges.shape[2])
    change = total = 0.0
    size = max(1, _CHUNK // (u.shape[0] * (n_new + before.shape[-2] + edges.shape[0])))
    for start in range(0, edges.shape[2], size):
        part = slice(start, start + size)
        a = after[:, :, part].permute(2, 0, 1)
        y = before[:, :, part].permute(2, 0, 1) @ edges[:, :, part].permute(2, 1, 0)
        gram = a.transpose(1, 2) @ a
        ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)
        gram = gram + ridge[:, None, None] * torch.eye(n_new, dtype=gram.dtype)
        solved = torch.linalg.solve(gram, a.transpose(1, 2) @ y)
        out[:, :, part] = solved.permute(2, 1, 0)
        change += float((a @ solved - y).square().sum())
        total += float(y.square().sum())
    return out, (change / total) ** 0.5 if total else 0.0
