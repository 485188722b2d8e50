"""An ONNX model: the layer in eval mode for a fixed number of channels, any batch and image size."""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from layersearch.errors import BadInputError
from layersearch.search.export._check import batch, compare, oracle
from layersearch.search.export.base import FORMATS, ExportError, Format, Subject
from layersearch.search.export.pt2 import FREE_AXES, check_sizes, example

__all__ = ["write"]

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def write(subject: Subject, path: Path) -> float:
    """Writes the model, checks it with onnx and compares what onnxruntime computes on other batch and image sizes."""
    onnx, _, runtime = (_needed(name) for name in _NEEDED)
    layer, x = example(subject)
    with _quiet():
        program: Any = torch.onnx.export(
            layer,
            (x,),
            dynamo=True,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=(FREE_AXES,),
            verbose=False,
        )
    program.save(str(path))
    try:
        onnx.checker.check_model(onnx.load(str(path)), full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the model must pass the checker of onnx, got: {str(error).splitlines()[0]}") from error
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = oracle(subject.graph, subject.num_features).eval()

    def run(x: torch.Tensor) -> torch.Tensor:
        (y,) = session.run(None, {"input": x.float().numpy()})
        return torch.from_numpy(y)

    return max(
        compare(run, expected, batch(shape, seed), "the ONNX model")
        for seed, shape in enumerate(check_sizes(subject.num_features))
    )


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadInputError(
            f"the onnx format needs the package {name}, which is not here; pip install 'layersearch[onnx]'"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress on stdout and by warnings; stdout belongs to our own answer."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


FORMATS.add("onnx", Format("onnx", ".onnx", write))
