"""Learnable attention (KArAt, Fourier-KArAt): functions of the scores in place of softmax; limited in size."""

import math
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.activations import Activation, activation
from layersearch.primitives.basis import BASES, Basis
from layersearch.primitives.layers._kan import whole
from layersearch.primitives.layers.functions import BasisFunctions
from layersearch.primitives.layers.init import scales
from layersearch.primitives.registry import unknown_name

__all__ = ["MAX_PARAMETERS", "KArAt", "LearnableAttention", "Sharing", "karat_parameters", "karat_stack"]

MAX_PARAMETERS = 2_000_000
"""Default limit of one operator; a full one on 197 tokens and 3 heads with 6 functions has 0.7 million."""

Sharing: TypeAlias = Literal["blockwise", "universal"]


def karat_parameters(tokens: int, heads: int, n_functions: int, rank: int | None, base: bool = False) -> int:
    """Trained numbers of one operator: ``h (r N (K + base) + N r)``, and ``h N² (K + base)`` at full rank."""
    per_edge = n_functions + base
    if rank is None:
        return heads * tokens * tokens * per_edge
    return heads * rank * tokens * (per_edge + 1)


class KArAt(nn.Module):
    """``A_n -> W Φ(A_n)`` for every row of scores, in place of softmax; ``[B, h, N, N] -> [B, h, N, N]``.

    ``Φ(a)_p = sum_q sum_k w[p,k,q] f_k(a_q) (+ v[p,q] b(a_q))``, p = 1 … r, and W is ``[N, r]``, each head its own. At
    full rank Φ is N × N and there is no W. The number of tokens is fixed: no variable length, no cross-attention. No
    softmax or other normalisation follows, as in the paper.

    Args:
        tokens, heads: N, h.
        basis: name in ``BASES`` or a row; ``fourier`` makes it Fourier-KArAt.
        rank: r, or None for full rank.
        base: activation b of a base branch, or None.
        domain: map of the scores; that of the basis by default.
        max_parameters: refuses to be built above this.
        **settings: of the basis, e.g. ``grid=3``.
    Raises: BadInputError (too large, not a whole number) or UnknownNameError.

    Source: arXiv:2503.10632. Deviates in its start: coefficients are not N(0, 1) but such that outputs have the second
    moment 1 / N for scores N(0, 1), so that the values they weight keep theirs.
    """

    base_name: str | None
    base: Activation | None

    def __init__(
        self,
        tokens: int,
        heads: int,
        basis: str | Basis = "fourier",
        rank: int | None = 12,
        *,
        base: str | None = None,
        domain: str | None = None,
        max_parameters: int = MAX_PARAMETERS,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        tokens, heads = whole("tokens", tokens), whole("heads", heads)
        rank = None if rank is None else whole("rank", rank)
        self.tokens, self.heads, self.rank = tokens, heads, rank
        row = (BASES[basis] if isinstance(basis, str) else basis).configure(**settings)
        _guard(karat_parameters(tokens, heads, row.n_functions, rank, base is not None), max_parameters, self, 1)
        self.base_name, self.base = None, None
        if base is not None:
            self.base_name, self.base = activation(base)
        self.functions = BasisFunctions(row, tokens, domain, device=device, dtype=dtype)
        rows = tokens if rank is None else rank
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(heads, row.n_functions, tokens, rows, **like))
        self.base_weight = nn.Parameter(torch.empty(heads, tokens, rows, **like)) if base is not None else None
        self.mix = nn.Parameter(torch.empty(heads, rank, tokens, **like)) if rank is not None else None
        self.reset_parameters(generator)

    @property
    def basis(self) -> Basis:
        return self.functions.basis

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights from ``generator`` or torch's own."""
        deviation = scales("variance", self.functions, self.tokens, self.tokens, self.base)
        last = 1.0 if self.mix is not None else 1 / math.sqrt(self.tokens)
        with torch.no_grad():
            self.weight.normal_(generator=generator)
            self.weight.mul_((deviation.basis * last).to(self.weight).view(1, -1, 1, 1))
            if self.base_weight is not None:
                self.base_weight.normal_(0.0, deviation.base * last, generator=generator)
            if self.mix is not None and self.rank is not None:
                self.mix.normal_(0.0, 1 / math.sqrt(self.rank * self.tokens), generator=generator)

    def forward(self, scores: Tensor) -> Tensor:
        if scores.shape[-3:] != (self.heads, self.tokens, self.tokens):
            raise BadInputError(
                f"KArAt was built for {self.heads} heads and {self.tokens} tokens, got scores of shape "
                f"{list(scores.shape)}; it has no variable length: pad or build another"
            )
        y = self.functions.columns(scores).flatten(-2) @ self.weight.flatten(1, 2)
        if self.base is not None and self.base_weight is not None:
            y = y + self.base(scores) @ self.base_weight
        return y if self.mix is None else y @ self.mix

    def extra_repr(self) -> str:
        return f"tokens={self.tokens}, heads={self.heads}, rank={self.rank}, base={self.base_name}"


def _guard(count: int, limit: int, operator: KArAt, copies: int) -> None:
    total = count * copies
    if total > limit:
        remedy = "use rank=12" if operator.rank is None else "use a smaller rank or grid, or universal sharing"
        raise BadInputError(
            f"KArAt on {operator.tokens} tokens and {operator.heads} heads would have {total:,} parameters, more than "
            f"max_parameters={limit:,}; {remedy}, or raise the limit"
        )


class LearnableAttention(nn.Module):
    """Self-attention with ``KArAt`` in place of softmax, ``[B, N, D] -> [B, N, D]``.

    ``y = W_o concat_h(KArAt(Q_h K_hᵀ / sqrt(d)) V_h) + c``.

    Args:
        dim: D, a multiple of the operator's heads.
        operator: built for N tokens; the same one in all blocks makes it universal.
    Raises: BadInputError.
    """

    def __init__(
        self,
        dim: int,
        operator: KArAt,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if whole("dim", dim) % operator.heads:
            raise BadInputError(f"heads must divide dim, got {operator.heads} for {dim}")
        self.operator = operator
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias, device=device, dtype=dtype)
        self.out = nn.Linear(dim, dim, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.operator.heads
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        weights = self.operator(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]))
        y: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return y


def karat_stack(
    layers: int,
    dim: int,
    tokens: int,
    heads: int,
    sharing: Sharing = "blockwise",
    *,
    max_parameters: int = 4 * MAX_PARAMETERS,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> nn.ModuleList:
    """The attentions of ``layers`` blocks: each with an operator of its own, or all with one.

    Args:
        sharing: ``blockwise`` (L operators) or ``universal`` (one for all blocks).
        max_parameters: limit of all operators together.
        **settings: of ``KArAt``.
    Raises: BadInputError or UnknownNameError, before anything large is built.
    """
    if sharing not in ("blockwise", "universal"):
        raise unknown_name("sharing", sharing, ["blockwise", "universal"])
    copies = whole("layers", layers) if sharing == "blockwise" else 1

    def operator() -> KArAt:
        return KArAt(tokens, heads, max_parameters=max_parameters, generator=generator, **settings)

    first = operator()
    count = sum(p.numel() for p in (first.weight, first.base_weight, first.mix) if p is not None)
    _guard(count, max_parameters, first, copies)
    own = [first, *(operator() for _ in range(copies - 1))]
    return nn.ModuleList(LearnableAttention(dim, own[i % copies]) for i in range(layers))
