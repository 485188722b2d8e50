"""What the source of a module's class says where a trace of its ``forward`` does not tell all."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from layersearch.search.export._trace import is_of_torch

__all__ = ["applies_directly", "reached_in_source"]

_DYNAMIC = ("getattr", "children", "named_children", "modules", "named_modules", "_modules", "get_submodule")


def applies_directly(owner: nn.Module, norm: str, activation: str) -> bool:
    """Whether ``self.activation(self.norm(…))`` stands in the class of ``owner``, and neither is read anywhere else.

    Then one follows the other whatever way its forward goes.
    """
    reads: list[tuple[str, bool]] = []
    for method, tree in _methods(owner):
        if tree is None:
            return False
        if method.__name__ == "__init__":
            continue
        if any(_is_dynamic(n) for n in ast.walk(tree)):
            return False
        inner = dict(call for node in ast.walk(tree) for call in _nested_call(node))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in (norm, activation):
                outer = inner.get(id(node))
                is_pair = isinstance(outer, ast.Attribute) and (node.attr, outer.attr) == (norm, activation)
                reads.append((node.attr, is_pair))
    return sorted(reads) == sorted([(norm, True), (activation, False)])


def _nested_call(node: ast.AST) -> list[tuple[int, ast.expr]]:
    """For ``f(g(…))``, the id of g and f."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and isinstance(node.args[0], ast.Call):
        return [(id(node.args[0].func), node.func)]
    return []


def _is_dynamic(node: ast.AST) -> bool:
    """Whether it may read children without their names."""
    return getattr(node, "id", getattr(node, "attr", "")) in _DYNAMIC


def reached_in_source(owner: nn.Module) -> set[int]:
    """Ids of modules, not its own children, that ``owner`` may call or read by themselves, as its source goes.

    They are what it calls as ``self.child.part(…)``; the children of what it iterates over, indexes, keeps or passes
    on; and, below it, all of a name that it reads of anything but itself. All that is below it, if there is no source.
    """
    names: set[str] = set()
    found: set[int] = set()
    for method, tree in _methods(owner):
        if tree is None:
            return {id(module) for child in owner.children() for module in child.modules()}
        if method.__name__ == "__init__":
            continue
        parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        me = next(iter(inspect.signature(method).parameters), "")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            module = _resolve(owner, node, me)
            if module is not None:
                found |= _reached_by(owner, module, node, parents, me)
            elif not isinstance(node.value, ast.Name) or node.value.id in method.__code__.co_varnames:
                names.add(node.attr)
    for holder in owner.modules():
        if holder is not owner:
            found |= {id(child) for name, child in holder._modules.items() if name in names}
    return found


def _reached_by(
    owner: nn.Module, module: nn.Module, node: ast.Attribute, parents: dict[int, ast.AST], me: str
) -> set[int]:
    """What one mention of ``module`` may reach."""
    user = parents[id(node)]
    if isinstance(user, ast.Attribute) and _resolve(owner, user, me) is not None:
        return set()
    if isinstance(user, ast.Call) and (user.func is node or _is_checkpoint(user)):
        return {id(module)} if isinstance(node.value, ast.Attribute) else set()
    if isinstance(user, ast.Compare) and isinstance(user.ops[0], ast.Is | ast.IsNot):
        return set()
    return {id(child) for child in (module, *module.children())}


def _is_checkpoint(call: ast.Call) -> bool:
    return getattr(call.func, "attr", getattr(call.func, "id", "")) == "checkpoint"


def _resolve(owner: nn.Module, node: ast.expr, me: str) -> nn.Module | None:
    """The module that ``self.a.b`` names, if it names one."""
    if isinstance(node, ast.Name):
        return owner if node.id == me else None
    if not isinstance(node, ast.Attribute):
        return None
    parent = _resolve(owner, node.value, me)
    return None if parent is None else parent._modules.get(node.attr)


def _methods(owner: nn.Module) -> Iterator[tuple[Callable[..., Any], ast.AST | None]]:
    """Functions of the class of ``owner`` and of its bases, torch's apart, with their syntax if there is a source.

    Those that are overridden are left out, where the one in their place does not call ``super()``.
    """
    hidden: set[str] = set()
    for cls in type(owner).__mro__:
        if cls is object or is_of_torch(cls.__module__):
            continue
        for name, member in vars(cls).items():
            method = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
            if name in hidden or not inspect.isfunction(method):
                continue
            if "super" not in method.__code__.co_names:
                hidden.add(name)
            yield method, _syntax(method)


def _syntax(method: Callable[..., Any]) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, SyntaxError, TypeError):
        return None
