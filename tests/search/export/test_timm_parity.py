"""The six EvoNorms exported as ``known:`` agree with timm's classes; timm is no dependency, not even of the tests.

To run it, install timm somewhere beside the environment and let Python find it::

    pip install --no-deps --target /tmp/timm timm
    PYTHONPATH=/tmp/timm pytest tests/search/export/test_timm_parity.py

``timm.layers`` brings in torchvision, PIL and huggingface_hub, for image transforms and weights; where one of them is
missing (or does not fit the installed torch), empty modules stand for it while timm is imported, and are taken away
again. timm's EvoNorm code itself runs unchanged. Its running variance is updated with the unbiased variance of a
batch, ours with the biased one, so in eval mode ours is copied over.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from layersearch.search.export.command import run

LAYERS = {f"evonorm-{kind}": f"EvoNorm2d{kind.upper()}" for kind in ("b0", "b1", "b2", "s0", "s1", "s2")}
TOLERANCE = 2e-6
_STUBBED = ("PIL", "huggingface_hub", "torchvision")


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives empty modules in place of packages that are not there."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        found = name.split(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if found else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__getattr__ = lambda name: MagicMock(name=name)  # type: ignore[method-assign]
        module.__version__ = "0.0.0"  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except (ImportError, RuntimeError, OSError):
        return False
    return True


@pytest.fixture(scope="module")
def timm_layers() -> Iterator[Any]:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed; see the docstring of this file")
    finder = _Absent([name for name in _STUBBED if not _importable(name)])
    sys.meta_path.insert(0, finder)
    try:
        layers = importlib.import_module("timm.layers")
    except Exception as error:
        pytest.skip(f"timm.layers cannot be imported here: {error!r}")
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.split(".")[0] in finder.names]:
            del sys.modules[name]
    yield layers
    for name in [n for n in sys.modules if n.split(".")[0] == "timm"]:
        del sys.modules[name]


def _results(layer: torch.nn.Module, x: torch.Tensor, upstream: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and gradients, parameters under our names."""
    x = x.clone().requires_grad_(True)
    y = layer(x)
    params = {{"v": "v1"}.get(name, name): p for name, p in layer.named_parameters()}
    grads = torch.autograd.grad(y, [x, *params.values()], upstream)
    return {"y": y.detach(), **dict(zip(("grad x", *(f"grad {n}" for n in params)), grads, strict=True))}


@pytest.mark.parametrize("name", LAYERS)
def test_forward_and_gradients(name: str, timm_layers: Any, tmp_path: Path, record_property: Any) -> None:
    """float32, 8 groups, eps 1e-5: outputs to 2e-6; gradients, which are sums, to 2e-6 of their largest value."""
    out = tmp_path / "layer.py"
    run(space="evonorm", genome=f"known:{name}", out=out)
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(out.read_text(encoding="utf-8"), out.name, "exec"), namespace)
    batches = name[-2] == "b"
    ours = namespace["Layer"](32) if batches else namespace["Layer"](32, groups=8)
    arguments = {} if batches else {"groups": 8}
    theirs = getattr(timm_layers, LAYERS[name])(32, eps=1e-5, **arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.rand(32, generator=generator) + 0.5)
        for key, parameter in theirs.named_parameters():
            parameter.copy_(ours.get_parameter({"v": "v1"}.get(key, key)))
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))
    worst = {"y": 0.0, "grad": 0.0}
    for training in (True, False):
        ours.train(training), theirs.train(training)
        if batches and not training:
            theirs.running_var.copy_(ours.running_var)
        x = torch.randn(8, 32, 7, 5, generator=generator)
        upstream = torch.randn(x.shape, generator=generator)
        got, expected = _results(ours, x, upstream), _results(theirs, x, upstream)
        assert sorted(got) == sorted(expected)
        for key, value in expected.items():
            scale = 1.0 if key == "y" else max(1.0, float(value.abs().max()))
            difference = float((got[key] - value).abs().max()) / scale
            worst[key.split()[0]] = max(worst[key.split()[0]], difference)
            assert difference <= TOLERANCE, (key, training)
    record_property("largest differences", worst)
    print(f"{name}: output {worst['y']:.2g}, gradients {worst['grad']:.2g}")


def test_running_variance_differs_only_by_the_unbiased_factor(timm_layers: Any, tmp_path: Path) -> None:
    run(space="evonorm", genome="known:evonorm-b0", out=tmp_path / "layer.py")
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile((tmp_path / "layer.py").read_text(encoding="utf-8"), "layer.py", "exec"), namespace)
    ours, theirs = namespace["Layer"](4), timm_layers.EvoNorm2dB0(4, eps=1e-5)
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    ours(x), theirs(x)
    n = x.numel() // 4
    expected = 0.9 + (theirs.running_var - 0.9) * (n - 1) / n
    torch.testing.assert_close(ours.running_var, expected, rtol=1e-5, atol=1e-6)
