"""``layersearch.swap``: puts a discovered layer in place of the norm + activation pairs of a user's model."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from layersearch.errors import BadInputError
from layersearch.search.api import Layer
from layersearch.search.export._pairs import find_sites
from layersearch.search.export._sites import Site
from layersearch.search.export._trace import is_of_torch

__all__ = ["Left", "Replacement", "SwapReport", "swap"]

_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
"""Of torch, by name: two of them take long to import."""
_MOMENTUM = 0.1
"""torch's default."""


@dataclass(frozen=True)
class Replacement:
    """``norm`` (its qualified name) and the activation after it, and the class that stands there now."""

    norm: str
    norm_type: str
    activation: str
    layer: str
    copied: bool

    def __str__(self) -> str:
        start = "γ and β copied" if self.copied else "γ and β at their initial values"
        return f"{self.norm}: {self.norm_type} + {self.activation} → {self.layer} ({start})"


@dataclass(frozen=True)
class Left:
    """A norm that was left as it is, and why."""

    norm: str
    norm_type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.norm or 'the model itself'}: {self.norm_type} left, {self.reason}"


@dataclass(frozen=True)
class SwapReport:
    """What was replaced, what was left, and the modules whose ``forward`` was rewritten for it."""

    replaced: tuple[Replacement, ...]
    left: tuple[Left, ...]
    rewritten: tuple[str, ...]
    dry_run: bool = False

    def __str__(self) -> str:
        verb = "would replace" if self.dry_run else "replaced"
        sizes = (len(self.replaced), "norm + activation pair"), (len(self.left), "norm")
        pairs, norms = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in sizes)
        lines = [f"{verb} {pairs}, left {norms}"]
        lines += [f"  {row}" for row in (*self.replaced, *self.left)]
        lines += [f"  {name or 'the model'}: forward rewritten without these activations" for name in self.rewritten]
        return "\n".join(lines)


def swap(
    model: nn.Module, layer: Layer | Callable[[int], nn.Module], *, rewrite: bool = False, dry_run: bool = False
) -> SwapReport:
    """Replaces BatchNorm2d (or SyncBatchNorm) + activation by ``layer(num_features)``, in place; no other norms.

    Call it before the optimizer and DistributedDataParallel (or FSDP) are made: they hold the parameters of before.

    Pairs are adjacent children of a ``Sequential``, or a norm and an activation that one ``forward`` (read by torch.fx)
    applies to each other and to nothing between. The norm's place gets the layer, the activation's an ``Identity``. The
    layer gets the device, dtype and mode of the norm, and its γ and β as initial ``weight`` and ``bias`` where shapes
    agree, with their ``requires_grad``; running moments and other parameters start afresh, so the model has to be
    trained. A ``momentum`` of the norm that is not torch's default goes over to a layer that has one, since it says how
    fast running moments follow, whatever they are of; an eps does not, since it is part of a layer's formula.

    A pair stays, with a reason, where more than that could change: if a part of it carries hooks, is of a subclass with
    a forward of its own, or is used by another module of the model, too; if the forward asks for what a trace cannot
    know, such as the type of its input. What code outside of the model does with its parts is not looked at.

    Where an activation module is also used elsewhere in that forward (the ``self.relu`` of a ResNet block), or is a
    function (``F.relu``), the pair is left, unless ``rewrite`` is set: then the class of that one module is replaced by
    a subclass whose ``forward`` is the traced one without the activation. Whole-model pickling of such a model does not
    work, its state dict does.

    Args:
        model: any module; changed unless ``dry_run``.
        layer: an exported class, a layer of ``known`` or of a run, or any factory of a module ``[N, C, H, W] -> [N, C,
            H, W]``.
    Returns: the report; print it. A model without pairs gives one with nothing replaced.
    Raises: BadInputError for a model that is wrapped already, TypeError if ``model`` is no module, or ``layer`` no way
        to make one. The model is then unchanged.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap takes a torch module, got {type(model).__name__}")
    wrapper = _wrapper(model)
    if wrapper is not None:
        raise BadInputError(
            f"swap must come before {wrapper}, got a model that is wrapped in it; swap first, then wrap"
        )
    sites, reasons = find_sites(model, rewrite)
    make = _factory(layer)
    made = [(site, _made(make, site.norm)) for site in sites]
    names = {id(module): name for name, module in model.named_modules()}
    report = SwapReport(
        tuple(_replacement(site, new) for site, new in made),
        tuple(Left(name, _describe(m), reasons[id(m)]) for name, m in model.named_modules() if id(m) in reasons),
        tuple(sorted({names[id(site.owner)] for site in sites if site.forward is not None})),
        dry_run,
    )
    if not dry_run:
        for site, new in made:
            site.apply(new)
    return report


def _wrapper(model: nn.Module) -> str | None:
    """Name of what holds the parameters of the model, or of a part of it, as they are."""
    kinds = (
        kind.__name__ for module in model.modules() for kind in type(module).__mro__ if is_of_torch(kind.__module__)
    )
    return next((name for name in kinds if name in _WRAPPERS), None)


def _factory(layer: object) -> Callable[[int], object]:
    if isinstance(layer, Layer):
        return layer.module
    if callable(layer) and not isinstance(layer, nn.Module):
        return layer
    what = f"a module, {type(layer).__name__}" if isinstance(layer, nn.Module) else type(layer).__name__
    raise TypeError(
        f"layer must be a function num_features -> torch module, got {what}; pass its class or layer.module"
    )


def _made(make: Callable[[int], object], norm: nn.Module) -> nn.Module:
    """A layer for the place of ``norm``."""
    new = make(int(norm.num_features))  # type: ignore[arg-type]
    if not isinstance(new, nn.Module):
        raise TypeError(f"layer must be a function num_features -> torch module, but gave {type(new).__name__}")
    like = next((t for t in (*norm.parameters(), *norm.buffers()) if t.is_floating_point()), None)
    if like is not None:
        new = new.to(device=like.device, dtype=like.dtype)
    with torch.no_grad():
        for name in _shared(norm, new):
            old, parameter = norm.get_parameter(name), new.get_parameter(name)
            parameter.copy_(old)
            parameter.requires_grad_(old.requires_grad)
    momentum = getattr(norm, "momentum", None)
    if isinstance(vars(new).get("momentum"), float) and momentum not in (None, _MOMENTUM):
        new.momentum = momentum
    return new.train(norm.training)


def _shared(norm: nn.Module, new: nn.Module) -> list[str]:
    """Which of γ and β can be copied."""
    mine, theirs = dict(norm.named_parameters()), dict(new.named_parameters())
    return [n for n in ("weight", "bias") if n in mine and n in theirs and mine[n].shape == theirs[n].shape]


def _replacement(site: Site, new: nn.Module) -> Replacement:
    copied = len(_shared(site.norm, new)) == 2
    return Replacement(site.name, _describe(site.norm), site.activation, type(new).__name__, copied)


def _describe(norm: nn.Module) -> str:
    """Its class and its size, as far as it tells: a scripted one need not."""
    sizes = ("num_features", "num_channels", "normalized_shape", "size")
    size = next((str(getattr(norm, name)) for name in sizes if hasattr(norm, name)), "")
    return f"{getattr(norm, 'original_name', type(norm).__name__)}({size.strip('(,)')})"
