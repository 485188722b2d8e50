"""Pairs of a norm and an activation in one ``forward``, as it is traced; and that forward without the activation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from layersearch.search.export._reach import Reach
from layersearch.search.export._sites import FUNCTIONS, METHODS, Forward, Site, has_hooks, is_activation
from layersearch.search.export._source import applies_directly
from layersearch.search.export._trace import Trace, kind

__all__ = ["sites_in_forward"]


@dataclass(frozen=True)
class _Pair:
    """``slots`` that may become an Identity, or, where there are none, why only a rewritten forward will do."""

    activation: fx.Node
    slots: tuple[str, ...]
    obstacle: str = ""


def sites_in_forward(
    owner: nn.Module, own: Mapping[str, nn.Module], names: Mapping[int, str], reach: Reach, rewrite: bool
) -> tuple[list[Site], dict[int, str]]:
    """Sites among the norms ``own`` (by path from ``owner``), and for every other one (by id) why it stays."""
    traces = reach.traces(owner)
    if isinstance(traces, str):
        return [], {id(norm): traces for norm in own.values()}
    sites: list[Site] = []
    reasons: dict[int, str] = {}
    remaining: dict[str, _Pair] = {}
    plans = [_pairs(owner, seen.graph, own, reach) for seen in traces]
    for path, norm in own.items():
        first, second = (plan[path] for plan in plans)
        if isinstance(first, str):
            reasons[id(norm)] = first
        elif isinstance(second, str) or first.slots != second.slots:
            reasons[id(norm)] = f"{kind(owner)}.forward treats it otherwise in eval mode than in training"
        elif first.slots and (fault := _why_unseen(owner, traces, path, first.slots)) is not None:
            reasons[id(norm)] = fault
        elif first.slots:
            sites.append(Site(names[id(norm)], norm, owner, path, first.slots, _label(owner, first.activation)))
        else:
            reasons[id(norm)] = first.obstacle
            remaining[path] = first
    if not rewrite or not remaining:
        return sites, reasons
    labels = {path: _label(owner, pair.activation) for path, pair in remaining.items()}
    forward = _without(owner, traces, [pair.activation for pair in remaining.values()])
    for path, label in labels.items():
        norm = own[path]
        if isinstance(forward, str):
            reasons[id(norm)] = forward
        else:
            del reasons[id(norm)]
            sites.append(Site(names[id(norm)], norm, owner, path, (), label, forward))
    return sites, reasons


def _why_unseen(owner: nn.Module, traces: tuple[Trace, Trace], norm: str, slots: tuple[str, ...]) -> str | None:
    """Why an activation in these slots may have uses that no trace shows."""
    asks = traces[0].asks | traces[1].asks
    if not asks or (len(slots) == 1 and applies_directly(owner, norm, slots[0])):
        return None
    return (
        f"{kind(owner)}.forward uses {', '.join(sorted(asks))}, which a trace answers once and for all; apply the "
        f"activation as self.{slots[0]}(self.{norm}(…)), and nowhere else"
    )


def _pairs(owner: nn.Module, graph: fx.Graph, own: Mapping[str, nn.Module], reach: Reach) -> dict[str, _Pair | str]:
    """For every norm its pair, or why it has none."""
    found: dict[str, _Pair | str] = {}
    activations: dict[str, fx.Node] = {}
    for path, norm in own.items():
        calls = _calls(owner, graph, norm)
        reason = _why_no_pair(owner, calls)
        if reason is None:
            activations[path] = next(iter(calls[0].users))
        else:
            found[path] = reason
    removable = set(activations.values())
    for path, node in activations.items():
        if node.op != "call_module":
            obstacle = f"its activation {_label(owner, node)} is a call in {kind(owner)}.forward"
            found[path] = _Pair(node, (), f"{obstacle}; pass rewrite=True, or make it a module")
            continue
        module = owner.get_submodule(str(node.target))
        calls = _calls(owner, graph, module)
        slots = _slots(owner, module)
        if has_hooks(module):
            found[path] = f"its activation {_label(owner, node)} carries hooks"
        elif id(module) in reach.others:
            obstacle = f"its activation {_label(owner, node)} is used by {reach.others[id(module)]}, too"
            found[path] = _Pair(node, (), f"{obstacle}; pass rewrite=True, or give each use its own module")
        elif slots and removable.issuperset(calls):
            found[path] = _Pair(node, slots)
        else:
            obstacle = f"its activation {_label(owner, node)} is used elsewhere, too, in {kind(owner)}.forward"
            found[path] = _Pair(node, (), f"{obstacle}; pass rewrite=True, or give each use its own module")
    return found


def _calls(owner: nn.Module, graph: fx.Graph, module: nn.Module) -> list[fx.Node]:
    """By identity: of a module with two names the tracer knows one."""
    return [n for n in graph.nodes if n.op == "call_module" and owner.get_submodule(str(n.target)) is module]


def _slots(owner: nn.Module, module: nn.Module, prefix: str = "") -> tuple[str, ...]:
    """Names under which ``owner`` itself holds a module; children that hold it, too, keep it."""
    slots: tuple[str, ...] = ()
    for name, child in owner._modules.items():
        if child is module:
            slots += (prefix + name,)
        elif isinstance(child, nn.ModuleList | nn.ModuleDict):
            slots += _slots(child, module, f"{prefix}{name}.")
    return slots


def _why_no_pair(owner: nn.Module, calls: list[fx.Node]) -> str | None:
    """``None`` if the one call of a norm is read by an activation alone."""
    if len(calls) != 1:
        return f"{kind(owner)}.forward calls it {len(calls)} times"
    readers = list(calls[0].users)
    if len(readers) != 1:
        return f"its output is read {len(readers)} times"
    reader = readers[0]
    if not _is_activation(owner, reader):
        return f"it is followed by {_label(owner, reader)}, not by an activation"
    if reader.all_input_nodes != calls:
        return f"{_label(owner, reader)} reads more than its output"
    return None


def _is_activation(owner: nn.Module, node: fx.Node) -> bool:
    match node.op:
        case "call_module":
            return is_activation(owner.get_submodule(str(node.target)))
        case "call_function":
            return node.target in FUNCTIONS
        case _:
            return node.op == "call_method" and node.target in METHODS


def _label(owner: nn.Module, node: fx.Node) -> str:
    match node.op:
        case "call_module":
            return f"{type(owner.get_submodule(str(node.target))).__name__} ({node.target})"
        case "call_function":
            return FUNCTIONS.get(node.target, getattr(node.target, "__name__", str(node.target)))
        case "call_method":
            return f".{node.target}()"
        case _:
            return "the end of forward"


def _without(owner: nn.Module, traces: tuple[Trace, Trace], activations: list[fx.Node]) -> Forward | str:
    """``owner``'s forward without these nodes of the first graph, or why the graph cannot stand for it."""
    graph, other = (seen.graph for seen in traces)
    faults = [f"uses {', '.join(sorted(seen.asks))}" for seen in traces if seen.asks]
    faults += [what for seen in traces for what in seen.effects]
    if graph.python_code("self").src != other.python_code("self").src:
        faults.append("differs between training and eval mode")
    if faults:
        return f"{kind(owner)}.forward {faults[0]}, so it cannot be rewritten"
    for node in activations:
        node.replace_all_uses_with(node.all_input_nodes[0])
        graph.erase_node(node)
    graph.lint()
    source = graph.python_code("self")
    namespace: dict[str, Any] = dict(source.globals)
    exec(compile(source.src, f"<{kind(owner)}.forward without activations>", "exec"), namespace)
    forward: Forward = namespace["forward"]
    return forward
