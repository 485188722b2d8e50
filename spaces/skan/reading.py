"""Pruned networks of the skan space for a symbolic reading: with their trained weights and what their nodes chose."""

from pathlib import Path

from layersearch.errors import BadInputError, GenomeError
from layersearch.primitives.symbolic.read import OnStep, readable
from layersearch.primitives.symbolic.reading import Reading
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.network import Network
from layersearch.spaces.kan.network import build as build_kan
from layersearch.spaces.kan.reading import State, needs_edges, needs_row, of_another, read_trained
from layersearch.spaces.skan.export import trained
from layersearch.spaces.skan.genome import Genome, from_json
from layersearch.spaces.skan.network import pruned_network
from layersearch.spaces.skan.selection import Choices, chosen_among
from layersearch.spaces.skan.settings import parse
from layersearch.spaces.skan.space import SKANSpace

__all__ = ["read"]

_OUTPUTS = 1
_LAYERS = "layers."


def read(
    genome: JsonObject,
    settings: JsonObject,
    run_seed: int,
    *,
    weights: Path | None = None,
    limit: float = 0.99,
    tolerance: float = 0.05,
    refit: bool = True,
    on_step: OnStep | None = None,
) -> Reading:
    """Reads a network of a run after its pruning, or a baseline; as ``kan.reading.read``.

    What the nodes chose is what the weights say that they belong to: on other hardware than that of the run, or in a
    file, it may be something else than the run recorded.
    """
    needs_row(genome)
    parsed, own = from_json(genome), parse(settings)
    if isinstance(parsed, KANGenome):
        needs_edges(parsed)
    first = tuple((0,) * width for width in (own.in_features, *parsed.hidden))
    readable(_network(parsed, own.in_features, first), limit, tolerance)  # all choices have as many edges

    def made(state: State) -> Network:
        try:
            return _network(parsed, own.in_features, chosen_among(state, _LAYERS) or ())
        except (GenomeError, BadInputError):
            raise of_another(weights) from None

    return read_trained(
        made,
        lambda: trained(genome, settings, run_seed)[0],
        SKANSpace(own).load_data(),
        own.task,
        weights,
        on_step,
        limit=limit,
        tolerance=tolerance,
        refit=refit,
    )


def _network(genome: Genome, inputs: int, choices: Choices) -> Network:
    if isinstance(genome, KANGenome):
        return build_kan(genome, inputs, _OUTPUTS)
    return pruned_network(genome, inputs, _OUTPUTS, choices)
