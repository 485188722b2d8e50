"""What each node of a selective layer has learned, as nearly as one space can say it: ridge least squares per node.

A node that is cut down to one of several spaces loses what the others held; with its coefficients fitted anew to the
whole of its function, it loses only what its space cannot express. Of a 2-8-8-1 network on fn:r1, dropping took the
validation error from .099 to .92 (after 120 of 300 steps, seed 3), fitting from .070 to .073 (after 90, seed 0).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from layersearch.errors import BadInputError

if TYPE_CHECKING:
    from layersearch.primitives.layers.selective import SelectiveLayer

__all__ = ["NodeFit", "fit_nodes"]

RIDGE = 1e-3
"""Relative to the mean diagonal of the normal matrix, and towards the weights as they are: what a node has in one space
already is given back exactly. Functions of a space, the base branch and the constant are nearly dependent; at 1e-8 the
weights became 20 to 46 large, and cancelled each other until the next step of Adam (300 steps, two seeds, validation:
.054 and .038 on fn:r1, .184 and .173 on fn:r3, against .027, .020 and .124, .124 at 1e-3; 1e-5 and 1e-2 lie close)."""
_MAX_SAMPLES = 2048
_EVEN = 256
"""Points over the range of each node beside the data: columns of tables may have few different values, between which a
polynomial of high degree is anything at all. Left out under layer norm, where a node has no range of its own."""
_CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class NodeFit:
    """The function of every node in terms of each space.

    Args:
        residual: ``[I, M]``, mean square of what space m leaves of node i, in parts of the node's own.
        coefficients: per space ``[I, K + 2, R]`` in float64: of its functions, of the base branch (0 if there is none)
            and of the constant; R outputs, or outputs × places of a kernel.
    """

    residual: Tensor
    coefficients: tuple[Tensor, ...]

    def choice(self) -> tuple[int, ...]:
        """The space that leaves least of each node; of equal ones the first."""
        least = self.residual == self.residual.amin(dim=1, keepdim=True)
        return tuple(int(row.nonzero()[0]) if bool(row.any()) else 0 for row in least)


@torch.no_grad()
def fit_nodes(layer: "SelectiveLayer", x: Tensor) -> NodeFit:
    """Fits every space to every node on inputs ``x`` ``[N, I]`` of the layer: at most 2048, and points between.

    The function of a node is the sum of its gated spaces and the base branch, as the layer has it in evaluation.

    Raises: BadInputError for no inputs, or some that are not finite.
    """
    if x.shape[0] == 0 or not bool(x.isfinite().all()):
        raise BadInputError("fitting nodes needs finite data, got none or some that are nan or inf; clean them")
    rows = x[:: -(-x.shape[0] // _MAX_SAMPLES)]
    if not layer.normalize:
        low, high = rows.aminmax(dim=0)
        at = torch.linspace(0, 1, _EVEN, dtype=rows.dtype, device=rows.device).unsqueeze(-1)
        rows = torch.cat([rows, low + (high - low) * at])
    modes = [(module, module.training) for module in layer.modules()]
    layer.eval()
    try:
        features = [f.movedim(-1, 0).double() for f in layer.features_by_space(rows)]  # [I, N, K] each
        weights, base_weight = layer.weights_by_space(layer.gated_weight().double())  # [I, K, R] each; [I, R]
    finally:
        for module, mode in modes:
            module.training = mode
    base = torch.zeros_like(rows) if layer.base is None else layer.base(rows)
    extra = torch.stack([base, torch.ones_like(base)], dim=-1).movedim(1, 0).double()  # [I, N, 2]
    n_outputs, n_functions = base_weight.shape[-1], max(f.shape[-1] for f in features)
    size = max(1, _CHUNK // (rows.shape[0] * (n_functions + n_outputs)))
    parts = [
        _fitted([f[i : i + size] for f in features], extra[i : i + size], [w[i : i + size] for w in weights],
                base_weight[i : i + size])
        for i in range(0, layer.n_nodes, size)
    ]  # fmt: skip
    coefficients = tuple(torch.cat([part[1][m] for part in parts]) for m in range(len(features)))
    return NodeFit(torch.cat([part[0] for part in parts]), coefficients)


def _fitted(
    features: list[Tensor], extra: Tensor, weights: list[Tensor], base_weight: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Residuals and coefficients of some nodes."""
    target = extra[..., :1] @ base_weight.unsqueeze(1)
    for f, w in zip(features, weights, strict=True):
        target = target + f @ w
    own = target.var(dim=1, correction=0).sum(-1).clamp_min(torch.finfo(target.dtype).tiny)
    residual, coefficients = [], []
    for f, w in zip(features, weights, strict=True):
        a = torch.cat([f, extra], dim=-1)
        held = torch.cat([w, base_weight.unsqueeze(1), torch.zeros_like(base_weight).unsqueeze(1)], dim=1)
        left = target - a @ held
        gram = a.transpose(1, 2) @ a
        ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)
        gram = gram + ridge[:, None, None] * torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        change = torch.linalg.solve(gram, a.transpose(1, 2) @ left)
        residual.append((a @ change - left).square().mean(1).sum(-1) / own)
        coefficients.append(held + change)
    return torch.stack(residual, dim=1), coefficients
