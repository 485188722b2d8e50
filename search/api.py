"""What scripts use: layers by name or out of a run, and modules of them. Nothing here changes a run."""

import math
import operator
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from layersearch.errors import BadInputError, KernelError, LayerSearchError, StoreError
from layersearch.primitives.integers import integer
from layersearch.primitives.lowering import LOWERINGS, fastest
from layersearch.search.candidate import Candidate
from layersearch.search.export import command
from layersearch.search.lock import run_state
from layersearch.search.runs import find_run
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.catalog import SPACES, layers_of
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
        genome: plain data, as ``search show --json`` gives it.
        fitness: what the search measured, by objective, in natural sign; empty for a layer by name.
        metrics: other numbers of the stages of the search, e.g. ``quality.resnet``; empty for a layer by name.
    """

    space: str
    name: str
    genome: JsonObject = field(repr=False, hash=False)
    fitness: Mapping[str, float] = field(default_factory=dict, hash=False)
    metrics: Mapping[str, float] = field(default_factory=dict, repr=False, hash=False)
    _source: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def formula(self) -> str:
        """As text, e.g. ``x / max(std_batch(x), v1·x + std_instance(x))``."""
        return str(layers_of(self.space).formula(self.genome))

    @property
    def latex(self) -> str:
        """In LaTeX (math mode, amsmath)."""
        return str(layers_of(self.space).latex(self.genome))

    def module(
        self, num_features: int, lowering: str = AUTO, groups: int | None = None, out_features: int | None = None
    ) -> "nn.Module":
        """A new module ``[N, num_features, H, W] -> [N, num_features, H, W]``.

        Where the space is one of networks, a network ``[..., num_features] -> [..., out_features]``, run by ``torch``.

        Args:
            num_features: C, or the inputs of a network.
            lowering: how it is run. ``auto`` is chosen by what is there when this is called: compiled for the GPU if
                there is one, else for the CPU; where that cannot be or a build fails, ``torch``, with a warning why.
                All have the same state dict and numbers; kernels of the CPU are built before this returns, and what a
                kernel does not cover, such as another device, is run by ``torch``.
            groups: upper limit of the number of groups of group moments; by default the genome's.
            out_features: outputs of a network; a layer has as many as inputs.
        Raises: BadInputError for an illegal number or a lowering that this machine lacks, UnknownNameError for one
            that there is not, KernelError if the kernel of a lowering that was named cannot be built.

        >>> known("evonorm", "evonorm-s0").module(64, lowering="torch")
        Layer(64)
        """
        num_features = _whole("num_features", num_features, "give the channels")
        if groups is not None:
            groups = _whole("groups", groups, "leave it out for the genome's")
        if SPACES[self.space].network:
            return self._network(num_features, lowering, groups, out_features)
        if out_features is not None:
            raise BadInputError(f"out_features must be left out for a layer of {self.space}, got {out_features}")
        name = fastest() if lowering == AUTO else lowering
        why = LOWERINGS[name].why_unavailable()
        if why is not None:
            raise BadInputError(f"lowering must be one that works here, got '{name}' ({why}); use {AUTO} or torch")
        build = layers_of(self.space).build
        try:
            return cast("nn.Module", build(self.genome, num_features, name, groups))
        except KernelError as error:
            if lowering != AUTO:
                raise
            message = f"this layer is run by the torch lowering, which is slower: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return cast("nn.Module", build(self.genome, num_features, "torch", groups))

    def _network(self, num_features: int, lowering: str, groups: int | None, out_features: int | None) -> "nn.Module":
        if out_features is None:
            raise BadInputError(f"out_features must be given for a network of {self.space}, got none; give its outputs")
        out_features = _whole("out_features", out_features, "give the outputs of the network")
        name = "torch" if lowering == AUTO else lowering
        build = layers_of(self.space).build
        return cast("nn.Module", build(self.genome, num_features, name, groups, out_features))

    def source(self, exact: bool = False) -> str:
        """Text of the file that ``export`` writes: plain Python with a class ``Layer``, needs torch alone.

        Args:
            exact: without guards on divisions and logarithms.
        Raises: BadInputError or StoreError if the run it comes from is no longer there.
        """
        return command.source(exact=exact, **self._source)

    def export(
        self,
        path: str | Path,
        format: str = "python",
        *,
        exact: bool = False,
        num_features: int = 64,
        force: bool = False,
    ) -> JsonObject:
        """Writes a file and checks it, as ``search export`` does (``layersearch.search.export.command.run``)."""
        return command.run(
            out=Path(path), format=format, exact=exact, num_features=num_features, force=force, **self._source
        )


@dataclass(frozen=True, repr=False)
class Run:
    """A run on disk, read as it is at each call; it may be going on. Nothing is held open and nothing is written.

    >>> load("evonorm-0001", "no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    layersearch.errors.BadInputError: a run must be named, but there is none named 'evonorm-0001' in no/such/folder; ...
    """

    run_dir: Path

    def best(self) -> Layer:
        """The winner of the re-rank, or the best of the search so far. Raises: StoreError if nothing was evaluated."""
        with StoreReader(self.run_dir) as reader, reader.snapshot():
            number = reader.winner()
            if number is None:
                raise StoreError(f"{self.run_dir.name} must have an evaluated candidate, and has none; let it run on")
            return self._layer(reader, reader.candidate(number))

    def candidate(self, number: int) -> Layer:
        """Any candidate of the search, evaluated or not. Raises: BadInputError if there is none of that number."""
        number = operator.index(number)
        if not 0 <= number < 2**63:
            raise BadInputError(f"the number of a candidate must be in [0, 2**63), got {number}; see search show")
        with StoreReader(self.run_dir) as reader, reader.snapshot():
            return self._layer(reader, reader.candidate(number))

    def candidates(self) -> tuple[Layer, ...]:
        """The evaluated ones, best first: those of the re-rank by its numbers, then the others by their fitness."""
        with StoreReader(self.run_dir) as reader, reader.snapshot():
            return tuple(self._layer(reader, candidate) for candidate in reader.best())

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.candidates())

    def __len__(self) -> int:
        """Number of evaluated candidates."""
        with StoreReader(self.run_dir) as reader:
            return len(reader.evaluated())

    def __repr__(self) -> str:
        try:
            with StoreReader(self.run_dir) as reader, reader.snapshot():
                state = f"{run_state(reader)}, {len(reader.evaluated())} evaluated"
        except LayerSearchError as error:
            state = str(error)
        return f"Run({str(self.run_dir)!r}: {state})"

    def _layer(self, reader: StoreReader, candidate: Candidate) -> Layer:
        space = str(reader.meta("space", {}).get("name"))
        fitness = {name: value for name, value in candidate.fitness.items() if math.isfinite(value)}
        source = {"run": self.run_dir.name, "candidate": str(candidate.number), "runs_dir": self.run_dir.parent}
        metrics = reader.metrics(candidate.number)
        return Layer(space, f"#{candidate.number}", candidate.genome, fitness, metrics, source)


def known(space: str, name: str) -> Layer:
    """A published layer. Raises: UnknownNameError for a space or layer that there is not.

    >>> known("evonorm", "bn-relu").formula
    'max(v0 + v1·((x - mean_batch(x)) / std_batch(x)), 0)'
    """
    genome = layers_of(space).known(name)
    return Layer(space, name, genome, _source={"space": space, "genome": f"known:{name}"})


def load(run: str | Path, runs_dir: str | Path = "runs") -> Run:
    """A run, by its name in ``runs_dir``, or by the path of its folder: a ``Path``, or text with a slash.

    Raises: BadInputError if there is none, RecipeError if it cannot be the name of a run.
    """
    if isinstance(run, Path) or os.sep in run:
        path = Path(os.path.abspath(run))  # so that . has a name
        return Run(find_run(path.parent, path.name, "give the path of the folder of a run"))
    return Run(find_run(Path(runs_dir), run, "see search list, or give the folder that it is in as runs_dir"))


def _whole(name: str, value: Any, remedy: str) -> int:
    """``value``, an integer of Python, numpy or torch. Raises: BadInputError for anything else, or less than 1."""
    number = integer(value)
    if number is None or number < 1:
        raise BadInputError(f"{name} must be a whole number ≥ 1, got {value!r}; {remedy}")
    return number
