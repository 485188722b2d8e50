"""Measures the costs that are objectives of a run: those of a network, against a reference on the same batch."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from layersearch.primitives.cost import latency_ratio, peak_bytes

__all__ = ["measured_costs"]


def measured_costs(
    names: Sequence[str], module: nn.Module, reference: nn.Module, x: Tensor, parameters: float
) -> dict[str, float]:
    """Those of ``objectives.COSTS`` that are among ``names``; nothing else is measured.

    Args:
        names: objectives of the run.
        module, reference: run on ``x`` as they are, forward and backward.
        parameters: how many of ``module`` count, or that per something.
    """
    measure: Mapping[str, Callable[[], float]] = {
        "latency": lambda: latency_ratio(module, reference, x),
        "memory": lambda: peak_bytes(module, x) / peak_bytes(reference, x),
        "parameters": lambda: float(parameters),
    }
    return {name: measured() for name, measured in measure.items() if name in names}
