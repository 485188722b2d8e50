"""Which objectives a user may choose: what the layers of a space are searched for, and what they cost.

Costs have no weight: candidates are ordered, re-ranked and tested by what they are searched for, and of two that are
about as good the cheaper one counts where one candidate dominates another.
"""

from collections.abc import Mapping, Sequence

from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import Objective

__all__ = ["COSTS", "NOISY", "cost_objectives", "described", "legal"]

COSTS = ("latency", "memory", "parameters")
"""Names of the costs, in the order in which they are shown."""

NOISY = ("latency",)
"""Those that come out different each time."""


def cost_objectives(reference: str, parameters_per: str = "") -> Mapping[str, Objective]:
    """The costs by name: ``latency`` and ``memory`` as multiples of ``reference``, and the number of ``parameters``.

    >>> cost_objectives("BN-ReLU")["memory"].unit
    '× BN-ReLU'
    """
    units = {"latency": f"× {reference}", "memory": f"× {reference}", "parameters": parameters_per}
    return {name: Objective(name, False, 0.0, units[name], name in NOISY) for name in COSTS}


def legal(names: Sequence[str], main: str, others: Sequence[str] = COSTS) -> tuple[str, ...]:
    """``names`` with ``main``, what is searched for, at the front and the ``others`` in their order.

    Raises: ValueError in one sentence for an unknown name, one that is given twice, or without ``main``.
    """
    known = (main, *others)
    for name in names:
        if name not in known:
            raise ValueError(str(unknown_name("objective", name, list(known))))
    if main not in names or len(set(names)) < len(names):
        raise ValueError(f"objectives must have {main}, each name once, got {', '.join(names) or 'none'}")
    return tuple(name for name in known if name in names)


def described(names: Sequence[str], reference: str) -> tuple[tuple[str, str], ...]:
    """What ``Space.describe`` says of the costs among ``names``: one row, or none."""
    against = [name for name in names if name in COSTS and name != "parameters"]
    if not against:
        return ()
    said = f"{' and '.join(against)} of a forward and backward pass, against {reference}"
    noisy = [name for name in against if name in NOISY]
    return (("costs", f"{said}; {noisy[0]} comes out different each time, so no run repeats it" if noisy else said),)
