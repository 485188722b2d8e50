"""Reaching a given kept ratio: the zero of the logits is moved so that as many gates are open as there should be."""

from dataclasses import dataclass

from layersearch.errors import BadInputError
from layersearch.primitives.gates.base import Gates

__all__ = ["RatioController"]


@dataclass(frozen=True)
class RatioController:
    """While too many gates are open, those of the smallest logits are shut (``Gates.keep``).

    The wanted ratio falls linearly from 1 to ``target`` over the first four fifths of the search; the rest may settle.
    A controller of the *price* was tried first and overshot: all gates move towards 0 together, long before the
    first of them shuts and the kept ratio begins to answer. Moving the zero needs no gain and no idea of the scale of
    the loss, and gates compete: one shuts only because others are more useful.

    Args:
        target: kept ratio at the end, in (0, 1].
    """

    target: float

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1:
            raise BadInputError(f"the target ratio must be in (0, 1], got {self.target}; use for example 0.2")

    def wanted(self, progress: float) -> float:
        """The ratio to be at, for ``progress`` in [0, 1]."""
        return 1 + (self.target - 1) * min(1.0, progress / 0.8)

    def update(self, gates: Gates, progress: float) -> None:
        """Shuts what is too many. One pass over the gates: call it every so many batches."""
        wanted = self.wanted(progress)
        if gates.kept_ratio() > wanted:
            gates.keep(wanted)
