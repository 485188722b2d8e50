"""What scripts use: layers by name or out of a run, and modules of them. Nothing here changes a run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from layersearch.errors import BadInputError, StoreError
from layersearch.primitives.lowering import LOWERINGS, fastest
from layersearch.search.candidate import Candidate
from layersearch.search.export import command
from layersearch.search.runs import find_run
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import JsonObject

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Layer", "Run", "known", "load"]

AUTO = "auto"


@dataclass(frozen=True)
class Layer:
    """A layer that can be built for any number of features.

    Args:
        space: name of its search space.
        name: of a published layer, or ``#number`` of a candidate.
        genome: plain data.
        fitness: what the search measured, by objective, in natural sign; empty for a layer by name.
    """

    space: str
    name: str
    genome: JsonObject = field(repr=False)
    fitness: Mapping[str, float] = field(default_factory=dict)
    _source: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def formula(self) -> str:
        """As text."""
        return str(_builder(self.space).formula(self.genome))

    @property
    def latex(self) -> str:
        """In LaTeX (math mode, amsmath)."""
        return str(_builder(self.space).latex(self.genome))

    def module(self, num_features: int, lowering: str = AUTO, groups: int | None = None) -> "nn.Module":
        """A new module ``[N, num_features, H, W] -> [N, num_features, H, W]``.

        Args:
            num_features: C.
            lowering: how it is run. ``auto`` is the fastest that this machine can build: for the GPU if there is one,
                else for the CPU, else ``torch``. All have the same state dict and numbers; kernels are built before
                this returns, and what a kernel does not cover, such as another device, is run by ``torch``.
            groups: upper limit of the number of groups of group moments; by default the genome's.
        Raises: BadInputError for an illegal number or a lowering that this machine lacks, UnknownNameError for one
            that there is not, KernelError if a kernel cannot be built.
        """
        if isinstance(num_features, bool) or not isinstance(num_features, int) or num_features < 1:
            raise BadInputError(f"num_features must be a whole number ≥ 1, got {num_features!r}; give the channels")
        name = fastest() if lowering == AUTO else lowering
        why = LOWERINGS[name].why_unavailable()
        if why is not None:
            raise BadInputError(f"lowering must be one that works here, got '{name}' ({why}); use {AUTO} or torch")
        return cast("nn.Module", _builder(self.space).build(self.genome, num_features, name, groups))

    def export(self, out: str | Path, format: str = "python", **options: Any) -> JsonObject:
        """Writes a file, as ``search export`` does; ``options`` are ``exact``, ``num_features`` and ``force``."""
        return command.run(out=Path(out), format=format, **self._source, **options)


class Run:
    """A run on disk, read as it is now; it may be going on.

    >>> load("evonorm-0001", "no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    layersearch.errors.BadInputError: a run must be named, but there is none named 'evonorm-0001' in no/such/folder; ...
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def best(self) -> Layer:
        """The winner of the re-rank, or the best of the search so far. Raises: StoreError if nothing was evaluated."""
        with StoreReader(self.run_dir) as reader, reader.snapshot():
            number = reader.winner()
            if number is None:
                raise StoreError(f"{self.run_dir.name} must have an evaluated candidate, and has none; let it run on")
            return self._layer(reader, reader.candidate(number))

    def candidate(self, number: int) -> Layer:
        """Any candidate, evaluated or not. Raises: StoreError if there is none of that number."""
        with StoreReader(self.run_dir) as reader, reader.snapshot():
            return self._layer(reader, reader.candidate(number))

    def __iter__(self) -> Iterator[Layer]:
        """The evaluated candidates, best first."""
        with StoreReader(self.run_dir) as reader, reader.snapshot():
            return iter([self._layer(reader, candidate) for candidate in reader.best()])

    def __len__(self) -> int:
        """Number of evaluated candidates."""
        with StoreReader(self.run_dir) as reader:
            return len(reader.evaluated())

    def __repr__(self) -> str:
        return f"Run({str(self.run_dir)!r}: {len(self)} evaluated)"

    def _layer(self, reader: StoreReader, candidate: Candidate) -> Layer:
        space = str(reader.meta("space", {}).get("name"))
        fitness = {name: value for name, value in candidate.fitness.items() if math.isfinite(value)}
        source = {"run": self.run_dir.name, "candidate": str(candidate.number), "runs_dir": self.run_dir.parent}
        return Layer(space, f"#{candidate.number}", candidate.genome, fitness, source)


def known(space: str, name: str) -> Layer:
    """A published layer. Raises: UnknownNameError for a space or layer that there is not.

    >>> known("evonorm", "bn-relu").formula
    'max(v0 + v1·((x - mean_batch(x)) / std_batch(x)), 0)'
    """
    genome = _builder(space).known(name)
    return Layer(space, name, genome, _source={"space": space, "genome": f"known:{name}"})


def load(run: str | Path, runs_dir: str | Path = "runs") -> Run:
    """A run, by its name in ``runs_dir`` or by the path of its folder. Raises: BadInputError if there is none."""
    path = Path(run)
    if path.name != str(run):
        return Run(find_run(path.parent, path.name))
    return Run(find_run(Path(runs_dir), str(run)))


def _builder(space: str) -> ModuleType:
    """Module with ``known``, ``build``, ``formula`` and ``latex`` of a space."""
    entry = SPACES[space]
    if entry.layers is None:
        raise BadInputError(f"a space must make layers to be asked for one, and '{space}' does not; see search spaces")
    return entry.module(entry.layers)
