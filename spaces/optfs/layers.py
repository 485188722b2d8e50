"""Networks of the optfs space, from the plain data that a run or a file holds."""

from torch import nn

from layersearch.errors import BadInputError
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.optfs import genome as _genome
from layersearch.spaces.optfs.genome import OptFSGenome
from layersearch.spaces.optfs.published import design

__all__ = ["build", "formula", "known", "latex"]


def known(name: str) -> JsonObject:
    """Genome of a named design, on a factorisation machine. Raises: UnknownNameError."""
    gates, relaxation, pressure = design(name)
    ratio = 0.5 if pressure == "ratio" else 1.0
    found = OptFSGenome(gates=gates, relaxation=relaxation, pressure=pressure, ratio=ratio)
    return _genome.to_json(found.tidy())


def build(
    genome: JsonObject, num_features: int, lowering: str, groups: int | None = None, out_features: int = 1
) -> nn.Module:
    """Raises: BadInputError, always: a network of this space is one of the values that training data hold."""
    _genome.from_json(genome)
    raise BadInputError(
        "a network of optfs has a row for each value of its data and cannot be built without, got a number of "
        "features; export it from a run with --weights"
    )


def formula(genome: JsonObject) -> str:
    return _genome.formula(_genome.from_json(genome))


def latex(genome: JsonObject) -> str:
    """The formula as text within LaTeX."""
    plain = formula(genome).replace("τ", r"$\tau$").replace("_", r"\_")
    return rf"\text{{{plain}}}"
