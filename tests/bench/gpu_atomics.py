"""Grouped rationals as published kernels compute them, as baselines: sums of coefficients by atomic additions.

Written from the description of the two forms, not from their code: one atomic addition per element and coefficient
(KAT, arXiv:2409.10594), and one per block and coefficient, after a sum within the block (FlashKAT, arXiv:2505.13813).
Both take float32 alone, tiles of one group's channels, and are not deterministic.
"""

import torch
from torch import Tensor

from layersearch.kernels.launch import Launch, jit, run
from layersearch.primitives.layers._quotient import quotient

__all__ = ["AtomicRational"]

_M, _N = 5, 4
_ROWS = 16


def _body(per_element: bool) -> list[str]:
    horner = ["p = a5 * u + a4", "dp = a5 + 0.0 * u"]
    for i in range(3, -1, -1):
        horner += ["dp = dp * u + p", f"p = p * u + a{i}"]
    horner += ["h = b4 + 0.0 * u", "dh = 0.0 * u"]
    for j in range(3, 0, -1):
        horner += ["dh = dh * u + h", f"h = h * u + b{j}"]
    lines = [
        "group = tl.program_id(1)",
        *[f"a{i} = tl.load(a_ptr + {i})" for i in range(_M + 1)],
        *[f"b{j} = tl.load(b_ptr + group * {_N} + {j - 1})" for j in range(1, _N + 1)],
        "r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)",
        "c = tl.arange(0, WIDE)",
        "ok = (r < outer)[:, None] & (c < inner)[None, :]",
        "at = r.to(tl.int64)[:, None] * row + group * inner + c[None, :]",
        "u = tl.load(x_ptr + at, mask=ok, other=0.0)",
        "g = tl.load(g_ptr + at, mask=ok, other=0.0)",
        *horner,
        "q = h * u",
        "dq = dh * u + h",
        "s = 1.0 / (1.0 + tl.abs(q))",
        "f = p * s * tl.where(q > 0.0, 1.0, tl.where(q < 0.0, -1.0, 0.0))",
        "t = g * s",
        "w = -t * f * u",
        "tl.store(out_ptr + at, t * (dp - f * dq), mask=ok)",
    ]
    for k in range(_M + 1 + _N):
        name, after = ("t", "t = t * u") if k <= _M else ("w", "w = w * u")
        place = f"sum_ptr + group * {_M + 1 + _N} + {k}"
        if per_element:
            lines.append(f"tl.atomic_add({place} + 0 * at.to(tl.int32), {name}, mask=ok)")
        else:
            lines.append(f"tl.atomic_add({place}, tl.sum({name}))")
        lines.append(after)
    return lines


def _kernel(per_element: bool) -> object:
    tensors = ["g_ptr", "x_ptr", "a_ptr", "b_ptr", "out_ptr", "sum_ptr"]
    name = "atomics_by_element" if per_element else "atomics_by_block"
    return jit(name, [*tensors, "outer", "row", "inner"], ["ROWS", "WIDE"], _body(per_element), ("outer",))


class AtomicRational:
    """Backward of a 5/4 rational over the last axis."""

    def __init__(self, per_element: bool) -> None:
        self.kernel = _kernel(per_element)

    def backward(self, g: Tensor, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x ``[N, C]``, a ``[6]`` and b ``[groups, 4]``; float32, |x| below the reach of the rational."""
        groups, (outer, row) = b.shape[0], x.shape
        inner = row // groups
        dx, sums = torch.empty_like(x), torch.zeros(groups, _M + 1 + _N, device=x.device)
        wide = 1 << max(0, inner - 1).bit_length()
        launch = Launch(
            self.kernel,  # type: ignore[arg-type]
            (-(-outer // _ROWS), groups),
            4,
            {"outer": outer, "row": row, "inner": inner},
            {"ROWS": _ROWS, "WIDE": wide},
        )
        run(launch, {"g_ptr": g, "x_ptr": x, "a_ptr": a, "b_ptr": b, "out_ptr": dx, "sum_ptr": sums})
        return dx, sums[:, : _M + 1].sum(0), sums[:, _M + 1 :]

    def error(self, device: torch.device) -> float:
        """Of all gradients at a ragged shape, against torch in float64."""
        generator = torch.Generator().manual_seed(0)
        x, g = (torch.randn(37, 24, generator=generator) for _ in range(2))
        a, b = torch.randn(6, generator=generator), torch.randn(4, 4, generator=generator)
        held = [t.double().requires_grad_() for t in (x, a, b)]
        exact = torch.autograd.grad(quotient(*held), held, g.double())
        got = self.backward(*(t.to(device) for t in (g, x, a, b)))
        pairs = zip(got, exact, strict=True)
        return max(float((p.double().cpu() - q).norm() / q.norm()) for p, q in pairs)
