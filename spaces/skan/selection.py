"""What was selected in a training, as it is stored."""

from layersearch.errors import BadInputError
from layersearch.spaces.contracts import JsonObject

__all__ = ["layers_in"]


def layers_in(selection: JsonObject | None) -> list[list[str]]:
    """Per layer the name of each node's basis. Raises: BadInputError if nothing was selected yet."""
    if selection is None:
        raise BadInputError(
            "an export of skan must know what the nodes chose in training, and no training of this genome is recorded; "
            "name an evaluated candidate of a run"
        )
    layers: list[list[str]] = selection["layers"]
    return layers
