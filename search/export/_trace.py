"""What torch.fx sees of a module's ``forward``, and what that forward asks that a trace answers once and for all.

Only the module's own forward is read; all that it calls are leaves. So the rest of a model need not be traceable.
"""

import dis
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from torch import fx, nn

__all__ = ["Trace", "has_own_forward", "is_of_torch", "kind", "trace"]

_ASKS = frozenset(
    (
        *("isinstance", "issubclass", "type", "__class__", "hasattr", "callable", "is_tensor"),
        *("is_grad_enabled", "is_autocast_enabled", "random", "rand", "randn", "randint", "bernoulli"),
    )
)
"""Names of what is asked of an input, of torch's state, or of chance: a trace goes one way, without a word."""


@dataclass(frozen=True)
class Trace:
    """A forward in one mode.

    Args:
        graph: its nodes; every module is a leaf.
        asks: what it asks that a trace answers once, in the functions that it calls, too, torch's own apart.
        effects: what it does that its graph does not show.
        read: ids of the modules, parameters and buffers that it reads as attributes.
    """

    graph: fx.Graph
    asks: frozenset[str]
    effects: tuple[str, ...]
    read: frozenset[int]

    def called(self, owner: nn.Module) -> frozenset[int]:
        """Ids of the modules that it calls."""
        nodes = self.graph.nodes
        return frozenset(id(owner.get_submodule(str(n.target))) for n in nodes if n.op == "call_module")


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        self.read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class _Watch:
    """Profiler of a trace: the functions that ``forward`` enters, and whether a context is; without what fx does."""

    def __init__(self, forward: CodeType | None) -> None:
        self.forward, self.is_inside, self.has_context = forward, forward is None, False
        self.entered: set[CodeType] = set()
        self._of_fx: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "return" and frame is self._of_fx:
            self._of_fx = None
        if event != "call" or self._of_fx is not None:
            return
        code, module = frame.f_code, str(frame.f_globals.get("__name__", ""))
        self.is_inside = self.is_inside or code is self.forward
        if not self.is_inside:
            return
        if module.startswith("torch.fx"):
            self._of_fx = frame
        elif code.co_name == "__enter__":
            self.has_context = True
        elif not is_of_torch(module) and module.partition(".")[0] not in sys.stdlib_module_names:
            self.entered.add(code)


def has_own_forward(module: nn.Module) -> bool:
    """Whether it has a forward, and not one that torch defines."""
    return not is_of_torch(str(getattr(type(module).forward, "__module__", "")))


def kind(module: nn.Module) -> str:
    return type(module).__name__


def trace(owner: nn.Module, training: bool) -> Trace | str:
    """``owner.forward`` in one mode, or why it cannot be read. ``owner`` and what it holds are as before afterwards."""
    if "forward" in vars(owner):
        return f"the forward of this {kind(owner)} was replaced by hand"
    before = {module: dict(vars(module)) for module in owner.modules()}
    for module, was in before.items():
        if "training" in was:  # one that torch.jit has compiled keeps it elsewhere, and is not entered
            vars(module)["training"] = training
    tracer, watch = _Tracer(), _Watch(getattr(type(owner).forward, "__code__", None))
    try:
        with ThreadPoolExecutor(1) as thread:  # of its own: a thread has one profiler, and the user's may be running
            graph = thread.submit(_profiled, watch, tracer, owner).result()
    except Exception as error:  # the user's own code runs here, on proxies: anything can happen
        text = next(iter(str(error).splitlines()), "")
        return f"torch.fx cannot read {kind(owner)}.forward ({type(error).__name__}: {text:.100})"
    finally:
        keeps_values = [_restore(module, was) for module, was in before.items()]
    asks = frozenset(word for code in watch.entered for word in _asked(code))
    makes_tensors = any(n.op == "get_attr" and str(n.target).startswith("_tensor_constant") for n in graph.nodes)
    found = {
        "is wrapped": hasattr(type(owner).forward, "__wrapped__"),
        "enters a context (with)": watch.has_context,
        "sets attributes": any(keeps_values),
        "makes tensors": makes_tensors,
    }
    return Trace(graph, asks, tuple(what for what, is_so in found.items() if is_so), frozenset(tracer.read))


def _profiled(watch: _Watch, tracer: fx.Tracer, owner: nn.Module) -> fx.Graph:
    sys.setprofile(watch)
    try:
        return tracer.trace(owner)
    finally:
        sys.setprofile(None)


def _restore(module: nn.Module, was: Mapping[str, Any]) -> bool:
    """Attributes as they were; whether any but the tracer's constants and the mode had changed."""
    now = dict(vars(module))
    changed = [n for n in {*now, *was} if n not in now or n not in was or now[n] is not was[n]]
    vars(module).clear()
    vars(module).update(was)
    return not all(n == "training" or n.startswith("_tensor_constant") for n in changed)


def _asked(code: CodeType) -> set[str]:
    """What a function asks: by the names in it, and whether a value, other than an attribute, ``is`` another."""
    found = set(_ASKS.intersection(code.co_names))
    operand = ""
    for step in dis.get_instructions(code):
        if step.opname == "MATCH_CLASS":
            found.add("match")
        if (step.opname == "IS_OP" or step.opname.endswith("_NONE")) and operand not in ("LOAD_ATTR", "LOAD_GLOBAL"):
            found.add("is")
        if step.opname not in ("LOAD_CONST", "COPY", "CACHE"):
            operand = step.opname
    return found


def is_of_torch(module: str) -> bool:
    return module == "torch" or module.startswith("torch.")
