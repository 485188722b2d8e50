"""The toy space with controls: one genome below the winner, and one above it."""

from collections.abc import Mapping

from toy_space import ToySpace

from layersearch.search.executors.base import SpaceSpec, trust
from layersearch.spaces.contracts import JsonObject

trust("controlled_toy")


def controlled_spec() -> SpaceSpec:
    return SpaceSpec("controlled_toy:from_settings", {"reject_every": 0}, preload=())


def from_settings(settings: JsonObject) -> "ControlledToySpace":
    return ControlledToySpace(**settings)


class ControlledToySpace(ToySpace):
    """Keeps what it was told of the winner in the genomes of its controls."""

    control_names = ("less", "more")

    def controls(self, genome: int, measured: Mapping[str, float]) -> Mapping[str, int]:
        assert set(measured) >= {o.name for o in self.objectives}
        assert measured["accuracy"] == 0.75, "of the re-rank; in the search it is 0.5"
        return {"less": genome - 1, "more": genome + 1}
