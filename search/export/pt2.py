"""A program of torch.export: the layer in eval mode for a fixed number of channels, any batch and image size."""

import io
import warnings
from pathlib import Path

import torch
from torch import nn

from layersearch.primitives.lowering import build_layer
from layersearch.search.export._check import batch, compare, oracle, randomize
from layersearch.search.export.base import FORMATS, ExportError, Format, Subject

__all__ = ["FREE_AXES", "check_sizes", "example", "write"]

FREE_AXES = {0: "batch", 2: "height", 3: "width"}


def example(subject: Subject) -> tuple[nn.Module, torch.Tensor]:
    """The layer at its initial parameters, in eval mode, and an input to trace it with."""
    layer = build_layer(subject.graph, subject.num_features).eval()
    return layer, torch.zeros(2, subject.num_features, 8, 6)


def check_sizes(num_features: int) -> list[tuple[int, ...]]:
    """Other sizes than that of ``example``."""
    return [(5, num_features, 7, 9), (1, num_features, 4, 4)]


def write(subject: Subject, path: Path) -> float:
    """Writes the program, loads it and compares at random parameters on other batch and image sizes."""
    layer, x = example(subject)
    sizes = {axis: torch.export.Dim(name) for axis, name in FREE_AXES.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive = io.BytesIO()  # given a path, torch insists on the ending .pt2
        torch.export.save(torch.export.export(layer, (x,), dynamic_shapes=(sizes,)), archive)
        path.write_bytes(archive.getvalue())
        program = torch.export.load(io.BytesIO(path.read_bytes())).module()
    expected = oracle(subject.graph, subject.num_features).eval()
    if sorted(program.state_dict()) != sorted(expected.state_dict()):
        raise ExportError("the exported program must have the state dict of the layer, and has not; report this")
    randomize(expected, seed=1)
    program.load_state_dict(expected.state_dict())
    return max(
        compare(lambda x: program(x.float()), expected, batch(shape, seed), "the program")
        for seed, shape in enumerate(check_sizes(subject.num_features))
    )


FORMATS.add("pt2", Format("pt2", ".pt2", write))
