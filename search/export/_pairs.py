"""Goes through a model for pairs of a norm and an activation; says of every other norm why it stays."""

from collections import Counter
from collections.abc import Mapping

from torch import nn

from layersearch.search.export._forward import sites_in_forward
from layersearch.search.export._reach import Reach, own_children
from layersearch.search.export._sites import NORMS, Site, has_hooks, is_activation, runs_as, why_never

__all__ = ["find_sites"]


def find_sites(model: nn.Module, rewrite: bool) -> tuple[list[Site], dict[int, str]]:
    """Pairs to replace, and for every other norm (by id) the reason why it stays."""
    names = {id(module): name for name, module in model.named_modules()}
    reach = Reach(model)
    reasons = _barred(model, reach)
    barred = set(reasons)
    sites: list[Site] = []
    for owner in model.modules():
        if isinstance(owner, nn.ModuleList | nn.ModuleDict):
            continue
        own = {path: norm for path, norm in own_children(owner) if isinstance(norm, NORMS) and id(norm) not in barred}
        if not own:
            continue
        if runs_as(owner, (nn.Sequential,)):
            found, left = _in_sequential(owner, own, names, reach)
        else:
            found, left = sites_in_forward(owner, own, names, reach, rewrite)
        sites += found
        reasons |= left
    known = {id(site.norm) for site in sites} | set(reasons)
    rest = (m for m in model.modules() if isinstance(m, NORMS) and id(m) not in known)
    return sites, reasons | {id(norm): "no forward applies it" for norm in rest}


def _barred(model: nn.Module, reach: Reach) -> dict[int, str]:
    """Norms that cannot be replaced wherever they are applied."""
    modules = list(model.modules())
    places = Counter(id(child) for owner in modules for child in owner._modules.values())
    holders = Counter(id(t) for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None)
    reasons = {}
    for norm in modules:
        never = why_never(norm)
        if never is not None:
            reasons[id(norm)] = never
        if not isinstance(norm, NORMS):
            continue
        if norm is model:
            reasons[id(norm)] = "it has no owner in which to replace it"
        elif not runs_as(norm, NORMS):
            reasons[id(norm)] = f"{type(norm).__name__} has a forward of its own"
        elif places[id(norm)] > 1:
            reasons[id(norm)] = f"it is used under {places[id(norm)]} names"
        elif has_hooks(norm):
            reasons[id(norm)] = "it carries hooks"
        elif any(holders[id(t)] > 1 for t in (*norm.parameters(), *norm.buffers())):
            reasons[id(norm)] = "it shares parameters or buffers with another module"
        elif id(norm) in reach.readers:
            reasons[id(norm)] = f"{reach.readers[id(norm)]}.forward reads its parameters or buffers"
        elif id(norm) in reach.others:
            reasons[id(norm)] = f"{reach.others[id(norm)]}, which does not own it, uses it by itself"
    return reasons


def _in_sequential(
    owner: nn.Module, own: Mapping[str, nn.Module], names: Mapping[int, str], reach: Reach
) -> tuple[list[Site], dict[int, str]]:
    sites, reasons = [], {}
    children = list(owner._modules.items())
    for (name, norm), (slot, after) in zip(children, [*children[1:], ("", None)], strict=True):
        if norm is None or name not in own:
            continue
        if after is None:
            reasons[id(norm)] = "it is the last of its Sequential, no activation follows there"
        elif not is_activation(after):
            reasons[id(norm)] = f"it is followed by {type(after).__name__} ({slot}), not by an activation"
        elif has_hooks(after):
            reasons[id(norm)] = f"its activation {type(after).__name__} ({slot}) carries hooks"
        elif id(after) in reach.others:
            reasons[id(norm)] = (
                f"its activation {type(after).__name__} ({slot}) is used by {reach.others[id(after)]}, too"
            )
        else:
            sites.append(Site(names[id(norm)], norm, owner, name, (slot,), f"{type(after).__name__} ({slot})"))
    return sites, reasons
