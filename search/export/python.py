"""One readable Python file that needs torch alone; its class has the state dict of the layer that was trained."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from layersearch.primitives.lowering.torch_source import layer_source
from layersearch.primitives.printing import formula
from layersearch.search.export._check import batch, compare, oracle, randomize
from layersearch.search.export._docstring import class_doc, module_doc
from layersearch.search.export._written import names_of
from layersearch.search.export.base import FORMATS, ExportError, Format, Subject

__all__ = ["check_class", "python_text", "write"]

_IMPORTS = "import torch\nfrom torch import Tensor, nn\n"
_CHECKS = (((3, 8, 5, 3), 4), ((2, 12, 4, 6), None))  # shape and groups; H ≠ W, so that no two axis sets agree


def python_text(subject: Subject) -> str:
    """The whole file: docstring, ``__all__``, the class under its speaking name, and ``Layer`` as its alias."""
    name = subject.class_name
    source = layer_source(subject.graph, class_name=name, doc=class_doc(formula(subject.graph)))
    assert source.startswith(_IMPORTS)
    names = f'__all__ = ["{name}", "Layer"]' if name < "Layer" else f'__all__ = ["Layer", "{name}"]'
    body = source.removeprefix(_IMPORTS).lstrip("\n")
    return f'"""{module_doc(subject)}"""\n\n{_IMPORTS}\n{names}\n\n\n{body}\n\nLayer = {name}\n'


def write(subject: Subject, path: Path) -> float:
    """Writes the file, runs its text in a fresh namespace and compares in float64, in training and eval mode."""
    path.write_text(python_text(subject), encoding="utf-8")
    return check_class(subject, names_of(path.read_text(encoding="utf-8"), path.name, "Layer")["Layer"])


def check_class(subject: Subject, cls: Any) -> float:
    """Compares a class, its state dict and running buffers with the genome: ``compare`` in float64, in both modes."""
    return max(_check(subject, cls, shape, groups) for shape, groups in _CHECKS)


def _check(subject: Subject, cls: Any, shape: tuple[int, ...], groups: int | None) -> float:
    graph, channels = subject.graph, shape[1]
    limited = groups is not None and graph.uses_group_moments()
    layer: nn.Module = (cls(channels, groups=groups) if limited else cls(channels)).double()
    expected = oracle(graph, channels, groups)
    if not _equal(layer.state_dict(), expected.state_dict()):
        raise ExportError("the exported class must have the state dict of the searched layer, and has not; report this")
    randomize(expected, seed=1)
    state = {name: value.clone() for name, value in expected.state_dict().items()}

    def run(module: nn.Module, buffer: str | None = None) -> Callable[[Tensor], Tensor]:
        """The module's function from ``state`` on: its output, or a buffer after one step."""

        def function(x: Tensor) -> Tensor:
            module.load_state_dict(state)
            y: Tensor = module(x)
            return y if buffer is None else module.get_buffer(buffer).clone()

        return function

    x = batch(shape, seed=2)
    layer.train(), expected.train()
    worst = compare(run(layer), run(expected), x, "the exported class in training")
    for name, _ in expected.named_buffers():
        if bool(run(expected, name)(x).isfinite().all()):
            worst = max(worst, compare(run(layer, name), run(expected, name), x, f"its buffer {name}"))
    layer.eval(), expected.eval()
    return max(worst, compare(run(layer), run(expected), batch(shape, seed=3), "the exported class in eval mode"))


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return sorted(a) == sorted(b) and all(value.equal(b[name]) for name, value in a.items())


FORMATS.add("python", Format("python", ".py", write))
