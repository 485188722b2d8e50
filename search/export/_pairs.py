"""Goes through a model for pairs of a norm and an activation; says of every other norm why it stays."""

from collections.abc import Iterator

from torch import nn

from layersearch.search.export._forward import sites_in_forward
from layersearch.search.export._sites import ACTIVATIONS, NORMS, Site

__all__ = ["find_sites"]


def find_sites(model: nn.Module, rewrite: bool) -> tuple[list[Site], dict[int, str]]:
    """Pairs to replace, and for every other norm (by id) the reason why it stays."""
    names = {id(module): name for name, module in model.named_modules()}
    reasons = _barred(model)
    barred = set(reasons)
    sites: list[Site] = []
    for owner in model.modules():
        if isinstance(owner, nn.ModuleList | nn.ModuleDict):
            continue
        own = {path: norm for path, norm in _own_norms(owner) if id(norm) not in barred}
        if not own:
            continue
        if isinstance(owner, nn.Sequential) and type(owner).forward is nn.Sequential.forward:
            found, left = _in_sequential(owner, own, names)
        else:
            found, left = sites_in_forward(owner, own, names, rewrite)
        sites += found
        reasons |= left
    known = {id(site.norm) for site in sites} | set(reasons)
    rest = (m for m in model.modules() if isinstance(m, NORMS) and id(m) not in known)
    return sites, reasons | {id(norm): "no forward applies it" for norm in rest}


def _barred(model: nn.Module) -> dict[int, str]:
    """Norms that cannot be replaced wherever they are applied."""
    places: dict[int, int] = {}
    for owner in model.modules():
        for child in owner._modules.values():
            places[id(child)] = places.get(id(child), 0) + 1
    reasons = {}
    for norm in model.modules():
        if not isinstance(norm, NORMS):
            continue
        if norm is model:
            reasons[id(norm)] = "it has no owner in which to replace it"
        elif places[id(norm)] > 1:
            reasons[id(norm)] = f"it is used under {places[id(norm)]} names"
        elif norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks:
            reasons[id(norm)] = "it carries hooks"
    return reasons


def _own_norms(owner: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Norms that ``owner`` itself may call: its children, and those in its lists and dicts of modules."""
    for name, child in owner._modules.items():
        if isinstance(child, NORMS):
            yield prefix + name, child
        elif isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _own_norms(child, f"{prefix}{name}.")


def _in_sequential(
    owner: nn.Sequential, own: dict[str, nn.Module], names: dict[int, str]
) -> tuple[list[Site], dict[int, str]]:
    sites, reasons = [], {}
    children = list(owner._modules.items())
    for (name, norm), (slot, after) in zip(children, [*children[1:], ("", None)], strict=True):
        if norm is None or name not in own:
            continue
        if after is None:
            reasons[id(norm)] = "it is the last of its Sequential, no activation follows there"
        elif not isinstance(after, ACTIVATIONS):
            reasons[id(norm)] = f"it is followed by {type(after).__name__} ({slot}), not by an activation"
        else:
            sites.append(Site(names[id(norm)], norm, owner, name, (slot,), f"{type(after).__name__} ({slot})"))
    return sites, reasons
