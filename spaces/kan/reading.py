"""Networks of the kan space for a symbolic reading: with their trained weights, on the data of their run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.primitives.symbolic.equations import Units
from layersearch.primitives.symbolic.read import OnStep, read_network, readable
from layersearch.primitives.symbolic.reading import Reading
from layersearch.spaces.contracts import Arrays, JsonObject
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.export import trained
from layersearch.spaces.kan.export_check import exported_name
from layersearch.spaces.kan.genome import KANGenome, from_json
from layersearch.spaces.kan.images.genome import is_image_genome
from layersearch.spaces.kan.network import Network, build
from layersearch.spaces.kan.settings import parse
from layersearch.spaces.kan.space import KANSpace
from layersearch.spaces.tasks.regression.data import from_arrays
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.tasks.regression.training import RegressionTask

__all__ = ["State", "needs_edges", "needs_row", "of_another", "read", "read_trained"]

State: TypeAlias = dict[str, Tensor]
"""State dict of an exported ``Model``."""

_UNITS = ("shift", "scale", "mean", "deviation")


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
    """Reads a network of a run: fitted on its training part, errors on its validation part, formula in its units.

    Args:
        genome, settings: of the space, as the run has them.
        run_seed: seed of the search; of the training.
        weights: a file that ``search export --weights`` wrote; without it the network is trained as it does that.
        limit, tolerance, refit, on_step: as of ``read_network``; a training is a step, too.
    Raises: BadInputError if the network has no edges, is one of images, or the file does not fit; DataError if the
        data is missing; RunError if the network could not be trained.
    """
    needs_row(genome)
    parsed, own = from_json(genome), parse(settings)
    needs_edges(parsed)
    readable(build(parsed, own.in_features), limit, tolerance)  # before anything is trained
    return read_trained(
        lambda state: build(parsed, own.in_features),
        lambda: trained(genome, settings, run_seed)[0],
        KANSpace(own).load_data(),
        own.task,
        weights,
        on_step,
        limit=limit,
        tolerance=tolerance,
        refit=refit,
    )


def needs_row(genome: JsonObject) -> None:
    """Raises: BadInputError for a genome of images."""
    if is_image_genome(genome):
        raise BadInputError(
            "a network to be read must have its KAN layers in a row, and one of images has norms, pooling or attention "
            "between them; read a run on a function, an equation or a table"
        )


def needs_edges(genome: KANGenome) -> None:
    """Raises: BadInputError for a network of linear layers."""
    if genome.basis == MLP:
        raise BadInputError("a network to be read must have edges with functions, and a linear one (mlp) has none")


def read_trained(
    make: Callable[[State], Network],
    train: Callable[[], State],
    arrays: Arrays,
    settings: RegressionSettings,
    weights: Path | None,
    on_step: OnStep | None,
    **how: Any,
) -> Reading:
    """Reads a network on the data of its run; see ``read``.

    Args:
        make: the network that a state is of; its weights may be any.
        train: the state of a training, if there are no ``weights``.
        arrays, settings: of the regression task.
        how: of ``read_network``.
    """
    task = RegressionTask(arrays, settings, "cpu")
    if on_step is not None and weights is None:
        on_step("training", 0, 0)
    state = _loaded(weights) if weights is not None else train()
    network = make(state)
    _put(network, state, weights)
    data = from_arrays(arrays)
    x = torch.tensor((data.train_x - task.input_shift) / task.input_scale)
    y = torch.tensor((data.train_y - task.target_mean) / task.target_std).unsqueeze(1)
    rows, validation = task.parts.train, task.parts.validation
    return read_network(
        network,
        x[rows],
        y[rows],
        check=(x[validation], y[validation]),
        units=Units(
            tuple(map(float, task.input_shift)), tuple(map(float, task.input_scale)), task.target_mean, task.target_std
        ),
        on_step=on_step,
        **how,
    )


def _loaded(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInputError(
            f"weights must be a .safetensors file of search export --weights, and {path} is not ({error})"
        ) from None


def _put(network: Network, state: State, weights: Path | None) -> None:
    names = {name: exported_name(name) for name in network.state_dict()}
    expected = {names[name]: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: t.shape for name, t in state.items() if name not in _UNITS} != expected:
        raise of_another(weights)
    network.load_state_dict({name: state[exported] for name, exported in names.items()})


def of_another(weights: Path | None) -> BadInputError:
    """What is raised for a file that does not fit the candidate."""
    return BadInputError(f"weights must be those of the candidate, and {weights} is of another; export it anew")
