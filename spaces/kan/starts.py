"""The starts of weights that a search draws from: the part of a run's settings that all networks of KAN layers have."""

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field, field_validator

from layersearch.primitives.layers.init import INITS
from layersearch.spaces.validation import Settings, all_known

if TYPE_CHECKING:
    from layersearch.spaces.kan.genome import KANGenome
    from layersearch.spaces.kan.images.genome import ImageGenome
    from layersearch.spaces.skan.genome import SKANGenome

__all__ = ["StartSettings"]

Layers = TypeVar("Layers", "KANGenome", "SKANGenome")


class StartSettings(Settings):
    """``inits``: names of ``INITS``; all of them in a new run.

    A run that names none is older than the setting, and than ``branch``: it goes on with the starts that it drew from.
    """

    inits: tuple[str, ...] = Field(("glorot", "power", "variance"), min_length=1)

    @field_validator("inits")
    @classmethod
    def _known_inits(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(all_known(names, "init", INITS))))

    def started(self, design: Layers) -> Layers:
        """A design by name, which is the same with any start, as seed or baseline: by ``branch`` if that is searched.

        Else it has its own start or, if that is not searched, the first that is. Of the two with small errors
        ``branch`` is the one that holds at every width; what it is worth is in ``tests/bench/RESULTS.md``.
        """
        return replace(design, init=next(init for init in ("branch", design.init, *self.inits) if init in self.inits))

    def started_image(self, design: "ImageGenome[Layers]") -> "ImageGenome[Layers]":
        """The same of an image model, whose layers start alike."""
        return replace(design, layer=self.started(design.layer))

    def described(self) -> tuple[str, str]:
        """What ``Space.describe`` says of starts."""
        return "starts", ", ".join(self.inits)
