"""Which activation space each node of a layer has: gates that are learned, and the choice they end in.

The unit is the input node: node i's activations are the functions of ``x_i`` on its edges to all outputs. A node that
has chosen evaluates one basis and no other, so that a pruned layer costs what a layer of one basis does; gates of
output nodes would spare nothing while any of them uses a space. S-KAN (arXiv:2408.08338) says that nodes choose, not
which end of an edge is meant.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.basis import BASES, Basis
from layersearch.primitives.registry import unknown_name

__all__ = ["DEFAULT_POOL", "GATE_KINDS", "NodeGates", "check_choice", "check_pool", "labels"]

DEFAULT_POOL = ("bspline", "chebyshev", "mexican_hat", "rbf")
"""The spaces that S-KAN's abstract names: B-spline, Chebyshev, wavelet and radial basis functions."""

GATE_KINDS = ("gumbel", "softmax", "straight")


def check_pool(pool: Sequence[str | Basis]) -> tuple[Basis, ...]:
    """The rows of a pool of activation spaces, in the order given.

    Raises: UnknownNameError; BadInputError for fewer than two spaces, equal ones, or rationals with groups of inputs,
        which a choice per node would tear apart.
    """
    if isinstance(pool, str | Basis):
        raise BadInputError(f"a pool must be a list of at least 2 bases, got {pool!r:.60} alone; add one")
    rows = tuple(BASES[row] if isinstance(row, str) else row for row in pool)
    if len(rows) < 2:
        shown = ", ".join(row.name for row in rows) or "none"
        raise BadInputError(f"a pool must have at least 2 bases, got {shown}; add one, or use KANLinear")
    for i, row in enumerate(rows):
        if row in rows[:i]:
            raise BadInputError(f"the bases of a pool must differ, got '{row.name}' twice; name each once")
        if getattr(row, "groups", 1) != 1:
            raise BadInputError(
                f"basis '{row.name}' of a pool must have groups=1, got {getattr(row, 'groups', 1)}; nodes choose alone"
            )
    return rows


def labels(pool: Sequence[Basis]) -> tuple[str, ...]:
    """What the spaces of a pool are called: a name, and what tells those of one name apart, as ``bspline(grid=5)``."""
    found = []
    for row in pool:
        alike = [other for other in pool if other.name == row.name]
        own = [s for s in row.settings() if any(getattr(other, s) != getattr(row, s) for other in alike)]
        found.append(f"{row.name}({', '.join(f'{s}={getattr(row, s)}' for s in own)})" if own else row.name)
    return tuple(found)


def check_choice(choice: Sequence[int] | Tensor, n_nodes: int, n_spaces: int) -> tuple[int, ...]:
    """The space of each node, of integers of Python, numpy or torch.

    Raises: BadInputError for one that is not there, or another number of nodes.
    """
    given: Any = choice.tolist() if hasattr(choice, "tolist") else choice
    chosen: tuple[int, ...] = ()
    try:
        given = list(given)
        chosen = tuple(operator.index(m) for m in given)
    except TypeError:
        pass
    if len(chosen) != n_nodes or not all(0 <= m < n_spaces for m in chosen):
        raise BadInputError(
            f"choice must name one of {n_spaces} spaces, counted from 0, for each of {n_nodes} nodes, got "
            f"{given!s:.60}; correct it"
        )
    return chosen


class NodeGates(nn.Module):
    """Gates ``g[i, m]`` of ``I`` nodes over ``M`` spaces, ``g = p / |p|``, with ``p`` made of logits ``α[i, m]``.

    Each row has the norm 1, from equal gates to a single one: spaces start independently, so that the variance of a
    node is that of one space. With rows of sum 1, for which weights have to start √M times larger, a network that had
    just been pruned had to unlearn them (fn:r1, 300 steps: error .14 instead of .05).

    In the full stage (``temperature`` None) every gate is ``1/√M`` and logits rest. In the selective stage

    - ``softmax``: ``p = softmax(α / τ)``;
    - ``gumbel``: ``p = softmax((α + G) / τ)`` with Gumbel noise ``G`` in training (arXiv:1611.01144), which
      ``draw`` makes anew;
    - ``straight``: ``g`` is one-hot at the largest logit, with the gradient of softmax(α / τ) (arXiv:1308.3432).

    As τ falls, soft gates tend to the choice, the largest logit of each node; of equal ones the first space is chosen.
    The stage is in the state dict; one without it, of a version before, leaves the stage as it is.

    Raises: UnknownNameError for another kind.
    """

    def __init__(self, n_nodes: int, n_spaces: int, kind: str = "softmax") -> None:
        super().__init__()
        if kind not in GATE_KINDS:
            raise unknown_name("kind of gates", kind, list(GATE_KINDS))
        self.kind = kind
        self.temperature: float | None = None
        self.logits = nn.Parameter(torch.zeros(n_nodes, n_spaces))
        self._noise: Tensor | None = None

    def no_weight_decay(self) -> set[str]:
        """Decayed, logits would tend to no choice at all."""
        return {"logits"}

    def set_temperature(self, temperature: float | None) -> None:
        """Full stage (None) or selective stage at τ > 0; noise is dropped. Raises: BadInputError."""
        if temperature is not None and not 0 < temperature < float("inf"):
            raise BadInputError(f"the temperature of gates must be a number above 0, got {temperature}; use 1")
        self.temperature, self._noise = temperature, None

    def get_extra_state(self) -> Tensor:
        """τ, or 0 in the full stage: a tensor, as safetensors holds nothing else."""
        return torch.tensor(self.temperature or 0.0, dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        self.set_temperature(float(state) or None)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        stage = f"{prefix}_extra_state"
        given = state_dict if stage in state_dict else {**state_dict, stage: self.get_extra_state()}
        super()._load_from_state_dict(given, prefix, *args)

    def draw(self, generator: torch.Generator | None = None) -> None:
        """New noise for the next training steps, if gates are drawn at all."""
        if self.kind == "gumbel":
            uniform = torch.rand(self.logits.shape, generator=generator, dtype=torch.float64)
            tiny = torch.finfo(torch.float64).tiny
            exponential = -torch.log(uniform.clamp(tiny, 1 - torch.finfo(torch.float64).eps))
            self._noise = -torch.log(exponential).to(self.logits)

    def forward(self) -> Tensor:
        """``[I, M]``; noise in training mode only."""
        n_spaces = self.logits.shape[1]
        if self.temperature is None:
            return torch.full_like(self.logits, n_spaces**-0.5, requires_grad=False)
        logits: Tensor = self.logits
        if self.training and self._noise is not None:
            logits = logits + self._noise
        soft = torch.softmax(logits / self.temperature, dim=-1)
        if self.kind != "straight":
            norm: Tensor = torch.linalg.vector_norm(soft, dim=-1, keepdim=True)
            return soft / norm
        return nn.functional.one_hot(self.choice(), n_spaces).to(soft) + soft - soft.detach()

    @torch.no_grad()
    def choice(self) -> Tensor:
        """The space of each node, int64 ``[I]``."""
        # argmax leaves open which of equal values it gives
        n_spaces = self.logits.shape[1]
        places = torch.arange(n_spaces, device=self.logits.device)
        largest = self.logits == self.logits.amax(dim=1, keepdim=True)
        return torch.where(largest, places, n_spaces).amin(dim=1).clamp_max(n_spaces - 1)

    def extra_repr(self) -> str:
        return f"{self.kind}, nodes={self.logits.shape[0]}, spaces={self.logits.shape[1]}"
