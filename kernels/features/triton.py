"""The product of features and weights on a GPU, with the features in the prologue of the matrix product."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from layersearch.kernels.features._triton_text import CHUNK, ProductText, product_text
from layersearch.kernels.features.form import Features, Form, Profiles
from layersearch.kernels.launch import Launch, run

__all__ = ["Sizes", "TritonProduct", "kernel", "plan"]

_PROGRAMS = 132 * 4
_WARPS = 4
_STAGES = 3


@dataclass(frozen=True)
class Sizes:
    """N rows, I inputs, O outputs; bytes of an element of the weights."""

    n: int
    inputs: int
    outputs: int
    itemsize: int


def _power(value: int) -> int:
    """The least power of two that is not below ``value``."""
    return 1 << max(0, value - 1).bit_length()


def _tile(size: int, most: int) -> int:
    return max(16, min(most, _power(size)))


def plan(text: ProductText, features: Features, sizes: Sizes, precision: str) -> dict[str, Launch]:
    """Launches ``forward``, ``backward_x`` and ``backward_w``. Block sizes are guesses: nothing ran on a GPU yet."""
    count, wide = features.count, sizes.itemsize == 2
    trips = count // text.n_each
    low, high = features.reach
    numbers: dict[str, int | float] = {
        "N": sizes.n,
        "I": sizes.inputs,
        "O": sizes.outputs,
        "low_end": float(low),
        "high": float(high),
        **{f"q{k}": float(value) for k, value in enumerate((*features.numbers, 0, 0, 0, 0)[:4])},
    }
    bn, bi, bo = _tile(sizes.n, 64), _tile(sizes.inputs, 32), _tile(sizes.outputs, 128 if wide else 64)
    bw = _tile(sizes.outputs, 64)
    shared: dict[str, int | str] = {"K": count, "TRIPS": trips, "BN": bn, "BI": bi, "PRECISION": precision}
    rows, columns, outs = -(-sizes.n // bn), -(-sizes.inputs // bi), -(-sizes.outputs // bo)
    outs_w, chunks = -(-sizes.outputs // bw), -(-trips // CHUNK)
    splits = max(1, min(rows, _PROGRAMS // max(1, outs_w * columns * chunks)))
    steps = _power(-(-rows // splits))
    return {
        "forward": Launch(
            text.forward, (rows, outs), _WARPS, numbers, shared | {"BO": bo, "I_STEPS": columns}, _STAGES
        ),
        "backward_x": Launch(
            text.backward_x, (rows, columns), 2 * _WARPS, numbers, shared | {"BO": bw, "O_STEPS": outs_w}, _STAGES
        ),
        "backward_w": Launch(
            text.backward_w,
            (outs_w, columns * chunks, -(-rows // steps)),
            _WARPS,
            numbers,
            shared | {"BO": bw, "CHUNKS": chunks, "STEPS": steps},
            2,
        ),
    }


class TritonProduct:
    """``sum_{k,i} f_k(x[n, i]) w[o, k, i]`` and its gradients for a form.

    x ``[N, I]`` in any float dtype; w ``[O, K, I]`` and g ``[N, O]`` in the dtype of the products, which add up in
    float32; tensors of the form in float32; all without gaps.

    Kernels are compiled, or found in Triton's cache, at the first run of a class of shapes.
    """

    def __init__(self, features: Features) -> None:
        self._text = product_text(features)

    def forward(self, x: Tensor, tensors: Sequence[Tensor], w: Tensor, features: Features, precision: str) -> Tensor:
        """y ``[N, O]``, in the dtype of w. ``precision`` of float32 products: ``ieee`` or ``tf32``."""
        y = torch.empty(x.shape[0], w.shape[0], dtype=w.dtype, device=x.device)
        launch = plan(self._text, features, _sizes(x, w), precision)["forward"]
        run(launch, {"x_ptr": x, "w_ptr": w, "y_ptr": y, **_named(tensors)})
        return y

    def backward(
        self, g: Tensor, x: Tensor, tensors: Sequence[Tensor], w: Tensor, features: Features, precision: str
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gradients of x, w (in float32), and of the tensors if they vary by function and input."""
        launches = plan(self._text, features, _sizes(x, w), precision)
        dx = torch.empty_like(x)
        held = {"g_ptr": g, "x_ptr": x, "w_ptr": w, "dx_ptr": dx, **_named(tensors)}
        n_rows, n_splits = launches["backward_x"].grid[0], launches["backward_w"].grid[2]
        by_input = isinstance(features.form, Profiles)
        if by_input:
            held["part_ptr"] = torch.empty(n_rows, 2, *w.shape[1:], dtype=torch.float32, device=x.device)
        run(launches["backward_x"], held)
        found = list(held["part_ptr"].sum(0).unbind()) if by_input else []
        parts = torch.empty(n_splits, *w.shape, dtype=torch.float32, device=x.device)
        run(launches["backward_w"], held | {"part_ptr": parts})
        return dx, parts.sum(0) if n_splits > 1 else parts[0], found


def _sizes(x: Tensor, w: Tensor) -> Sizes:
    return Sizes(x.shape[0], x.shape[1], w.shape[0], w.element_size())


def _named(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"p{j}_ptr": t for j, t in enumerate(tensors)}


def kernel(features: Features) -> TritonProduct:
    """The one of this form in this process, for any number of functions."""
    return _kernel(features.form)


@cache
def _kernel(form: Form) -> TritonProduct:
    return TritonProduct(Features(form, count=0, reach=(0.0, 0.0)))
