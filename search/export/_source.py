"""What the source of a ``forward``, and of the methods that it calls, says where a trace does not tell all."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from layersearch.search.export._trace import is_of_torch

__all__ = ["applies_directly", "reached_in_source"]

_DYNAMIC = ("getattr", "children", "named_children", "modules", "named_modules", "_modules", "get_submodule")
_HARMLESS = ("super", "getattr", "hasattr", "isinstance", "type", "len")
"""Functions that may be given ``self`` without doing more with its children than their arguments tell."""


@dataclass(frozen=True)
class _Method:
    """``me`` is what it calls ``self``; ``parents`` gives, by the id of a node, the one above it."""

    name: str
    me: str
    variables: frozenset[str]
    nodes: tuple[ast.AST, ...]
    parents: dict[int, ast.AST]

    def user(self, node: ast.AST) -> ast.AST:
        return self.parents[id(node)]


def applies_directly(owner: nn.Module, norm: str, activation: str) -> bool:
    """Whether ``self.activation(self.norm(…))`` stands in the forward of ``owner``, which reads neither anywhere else.

    Then one follows the other whatever way its forward goes.
    """
    methods = _methods_of_forward(owner)
    if methods is None:
        return False
    reads: list[tuple[str, bool]] = []
    for method in methods:
        for node in method.nodes:
            if getattr(node, "id", getattr(node, "attr", "")) in _DYNAMIC:  # may read children without their names
                return False
            if isinstance(node, ast.Attribute) and node.attr in (norm, activation):
                reads.append((node.attr, _outer(method, node) == activation))
    return sorted(reads) == sorted([(norm, True), (activation, False)])


def _outer(method: _Method, node: ast.Attribute) -> str:
    """``f`` if ``node`` is called and the result is all that ``self.f`` is called with."""
    call = method.user(node)
    if not isinstance(call, ast.Call) or call.func is not node:
        return ""
    user = method.user(call)
    is_argument = isinstance(user, ast.Call) and user.args == [call] and not user.keywords
    return str(getattr(user.func, "attr", "")) if is_argument and isinstance(user, ast.Call) else ""


def reached_in_source(owner: nn.Module) -> set[int]:
    """Ids of modules, not its own children, that ``owner`` may call or read by themselves, as its source goes.

    They are what it calls as ``self.child.part(…)``; the children of what it iterates over, indexes, keeps or passes
    on; and, below it, all of a name that it reads of anything but itself. All that is below it, if there is no source.
    """
    below = {id(module) for child in owner.children() for module in child.modules()}
    methods = _methods_of_forward(owner)
    if methods is None:
        return below
    names: set[str] = set()
    found: set[int] = set()
    for method in methods:
        for node in method.nodes:
            if isinstance(node, ast.Name) and node.id == method.me and _is_handed_on(method, node):
                return below
            if not isinstance(node, ast.Attribute):
                continue
            module = _resolve(owner, node, method.me)
            if module is not None:
                found |= _reached_by(owner, module, node, method)
            elif not isinstance(node.value, ast.Name) or node.value.id in method.variables - {method.me}:
                names.add(node.attr)
    for holder in owner.modules():
        if holder is not owner:
            found |= {id(child) for name, child in holder._modules.items() if name in names}
    return found


def _is_handed_on(method: _Method, me: ast.Name) -> bool:
    """Whether ``self`` itself is given to somebody who may use its children."""
    user = method.user(me)
    if isinstance(user, ast.Call) and isinstance(user.func, ast.Name) and user.func.id in _HARMLESS:
        return False
    return isinstance(user, ast.Call | ast.keyword | ast.Assign | ast.NamedExpr | ast.For | ast.Starred)


def _reached_by(owner: nn.Module, module: nn.Module, node: ast.Attribute, method: _Method) -> set[int]:
    """What one mention of ``module`` may reach."""
    user = method.user(node)
    if isinstance(user, ast.Attribute) and _resolve(owner, user, method.me) is not None:
        return set()
    if _is_called(node, user) or _is_checkpoint(user):
        return {id(module)} if isinstance(node.value, ast.Attribute) else set()
    if isinstance(user, ast.Compare) and isinstance(user.ops[0], ast.Is | ast.IsNot):
        return set()
    return {id(module), *_items(module, deep=not _has_called_items(method, node, user))}


def _is_called(node: ast.AST, user: ast.AST) -> bool:
    return isinstance(user, ast.Call) and user.func is node


def _is_checkpoint(user: ast.AST) -> bool:
    return isinstance(user, ast.Call) and getattr(user.func, "attr", getattr(user.func, "id", "")) == "checkpoint"


def _has_called_items(method: _Method, node: ast.AST, user: ast.AST) -> bool:
    """Whether items of ``node`` are called, and nothing else is done with them: ``node[0](…)``, or so in a loop."""
    if isinstance(user, ast.Subscript):
        return _is_called(user, method.user(user))
    is_counted = isinstance(user, ast.Call) and getattr(user.func, "id", "") == "enumerate"
    loop = method.user(user) if is_counted else user
    if not isinstance(loop, ast.For | ast.comprehension):
        return False
    target = loop.target.elts[-1] if is_counted and isinstance(loop.target, ast.Tuple) else loop.target
    loads = [n for n in method.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    items = [n for n in loads if isinstance(target, ast.Name) and n.id == target.id]
    return isinstance(target, ast.Name) and all(_is_called(n, method.user(n)) for n in items)


def _items(module: nn.Module, deep: bool) -> Iterator[int]:
    """Ids of its children; and of theirs, where they are containers, if ``deep``."""
    for child in module.children():
        yield id(child)
        if deep and isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            yield from _items(child, deep)


def _resolve(owner: nn.Module, node: ast.expr, me: str) -> nn.Module | None:
    """The module that ``self.a.b`` names, if it names one."""
    if isinstance(node, ast.Name):
        return owner if node.id == me else None
    if not isinstance(node, ast.Attribute):
        return None
    parent = _resolve(owner, node.value, me)
    return None if parent is None else parent._modules.get(node.attr)


def _methods_of_forward(owner: nn.Module) -> list[_Method] | None:
    """``forward`` and the methods of the class of ``owner`` that it may come to; None if one of them has no source."""
    methods: dict[str, list[_Method]] = {}
    functions = list(_functions(type(owner)))
    wanted = ["forward"]
    for name in wanted:
        for function in (f for member, f in functions if member == name):
            method = _method(name, function)
            if method is None:
                return None
            methods.setdefault(name, []).append(method)
            attributes = {node.attr for node in method.nodes if isinstance(node, ast.Attribute)}
            wanted += sorted({member for member, _ in functions} & attributes - set(wanted))
    return [method for found in methods.values() for method in found]


def _functions(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Methods and properties of a class and of its bases, torch's apart, by name; of those that are overridden, too,
    where the one in their place calls ``super()``."""
    hidden: set[str] = set()
    for cls in kind.__mro__:
        if cls is object or is_of_torch(cls.__module__):
            continue
        for name, member in vars(cls).items():
            function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
            if name in hidden or not inspect.isfunction(function):
                continue
            if "super" not in function.__code__.co_names:
                hidden.add(name)
            yield name, function


def _method(name: str, function: Callable[..., Any]) -> _Method | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return None
    nodes = tuple(ast.walk(tree))
    parents = {id(child): node for node in nodes for child in ast.iter_child_nodes(node)}
    me = next(iter(inspect.signature(function).parameters), "")
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    arguments = {n.arg for n in nodes if isinstance(n, ast.arg)}
    return _Method(name, me, frozenset(stored | arguments), nodes, parents)
