"""Generated Triton as part of a plain file that needs triton alone: kernels, and functions that start them in order.

What is compiled is what a run compiles: the same bodies with speaking names of tensors, and a copy of the rules for
block sizes without measured ones.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from layersearch.kernels.codegen import _triton_blocks
from layersearch.kernels.codegen._triton_words import META
from layersearch.kernels.codegen.program import Layout, Program
from layersearch.kernels.codegen.triton import Kernel, TritonSource, triton_source

__all__ = ["TritonFile", "size"]

_KERNELS = '''\
# Kernels. A program works on a tile of two axes: planes [H, W] along axis 0 (channels of a sample, where the
# memory is channels_last), pixels along axis 1; small values have one of the axes alone. n, c and p = n * C + c say
# which sample, channel and plane; S = H * W, NC = N * C. w… are values, numbered in the order of computation, a… and b…
# running sums and centred ones, t… and q… their totals over a plane. All arithmetic is float32. Sums are taken in an
# order that sizes alone decide, without atomics. Small values lie in one array: all [N, C] first, then [C], then [N].


def kernel(function: Callable[..., None]) -> Any:
    """A Triton kernel; where Triton is missing, a function that nothing calls."""
    return function if triton is None else triton.jit(function, do_not_specialize=["N", "CG", "M"])


def start(function: Any, blocks: Blocks, *tensors: Tensor) -> None:
    """Starts a kernel on its tensors, with those of the numbers that it takes."""
    numbers = {name: value for name, value in blocks.numbers.items() if name in function.arg_names}
    function[blocks.grid](*tensors, **numbers, num_warps=blocks.warps, enable_fp_fusion=True)'''
_NAME = "name of the kernel"
_MEMBERS = {"plane": "1", "group": "sizes.per_group", "layer": "sizes.c"}
_SCOPES = {"plane": "plane", "group": "group of channels", "layer": "sample"}
_ROWS = {"group": "the channels of each group", "layer": "all channels", "groups": "the groups"}
_WIDTH = 112
_LONGEST = _WIDTH + 8


@dataclass(frozen=True)
class _Call:
    """A kernel to be started: under its name in the file, with the variables that it takes."""

    kernel: Kernel
    name: str
    tensors: tuple[str, ...]


def _splits(call: _Call) -> bool:
    """Whether the kernel may share planes among programs, which a merge then follows."""
    return call.kernel.kind == "sweep" and call.kernel.sums > 0


class TritonFile:
    """Gathers the programs of a file; equal kernels are written once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._starts: list[str] = []
        self._rules = {"Blocks", "Sizes"}

    def add(
        self,
        name: str,
        program: Program,
        tensors: Mapping[str, str],
        inputs: Sequence[str],
        doc: str,
        notes: Mapping[int, str],
    ) -> None:
        """Adds ``name(sizes, …, inputs)``, which runs a program.

        Args:
            tensors: variables of the file for ``x_ptr``, ``g_ptr``, ``out_ptr``, ``given_ptr`` and ``results_ptr``,
                those that the program has; they are the function's arguments, in this order.
            inputs: names of the parameters and buffers.
            doc: of the function, one line.
            notes: comments to statements, one line each.
        """
        (source,) = triton_source({name: program}).values()
        words = {**tensors, "work_ptr": "work"} | {f"p{k}_ptr": word for k, word in enumerate(inputs)}
        staged = self._calls(name, source.staged, source, words, notes)
        slab = self._calls(f"{name}_slab", source.slab or (), source, words, notes)
        used = {word for call in (*staged, *slab) for word in call.tensors}
        typed = ["sizes: Sizes", *(f"{word}: Tensor" for word in dict.fromkeys(tensors.values()))]
        lines = [*_signature(name, [*typed, "inputs: Sequence[Tensor]"]), f'    """{doc}"""']
        if used & set(inputs):
            taken = [word if word in used else "_" for word in inputs]
            lines.append(f"    {', '.join(taken)}{',' * (len(taken) == 1)} = inputs")
        if source.slab is not None:
            self._rules.add("holds_slab")
            reads = source.slab[0].reads
            lines.append(f"    if holds_slab(sizes, members={_MEMBERS[source.scope]}, reads={reads}):")
            lines += [f"        {line}" for line in (*self._started(slab, source), "return")]
        lines += [f"    {line}" for line in self._started(staged, source)]
        self._starts.append("\n".join(lines))

    def starts(self) -> str:
        """The functions that were added."""
        return "\n\n\n".join(self._starts)

    def kernels(self) -> str:
        """All kernels, and what they are declared and started by."""
        return "\n\n\n".join([_KERNELS, *(text.replace(_NAME, name) for text, name in self._names.items())])

    def rules(self) -> str:
        """The rules for block sizes: a copy of those that the programs need."""
        return _copied(self._rules)

    def _calls(
        self,
        name: str,
        kernels: Sequence[Kernel],
        source: TritonSource,
        words: Mapping[str, str],
        notes: Mapping[int, str],
    ) -> list[_Call]:
        found: list[_Call] = []
        for k, kernel in enumerate(kernels, 1):
            text = _text(kernel, source.scope, words, notes)
            own = name if kernel.kind == "slab" else f"{name}_{k}_{kernel.kind}"
            tensors = tuple(words[word] for word in kernel.arguments if word in words)
            found.append(_Call(kernel, self._names.setdefault(text, own), tensors))
        return found

    def _started(self, calls: Sequence[_Call], source: TritonSource) -> list[str]:
        """Lines that start kernels; a merge only where the sweep before it has split planes."""
        sweeps = {call.name: f"sweep{k}" for k, call in enumerate(filter(_splits, calls), 1)}
        before = [f"{word} = {self._blocks(c, source)}" for c in calls if (word := sweeps.get(c.name)) is not None]
        parts = [f"{word}.parts" for word in sweeps.values()]
        lines = list(before)
        if any("work" in call.tensors for call in calls):
            split = f"max({', '.join(parts)})" if len(parts) > 1 else "".join(parts)
            floats = size(source.work, "sizes.n", "sizes.c", *([f"{split} * sizes.n * sizes.c"] if split else []))
            lines.append(f"work = x.new_empty({floats}, dtype=torch.float32)")
        sweep = ""
        for call in calls:
            tensors = ", ".join(call.tensors)
            if call.kernel.kind == "merge":
                self._rules.add("merge_blocks")
                lines.append(f"if {sweep}.parts:")
                lines.append(f"    start({call.name}, merge_blocks(sizes, {sweep}), {tensors})")
                continue
            sweep = sweeps.get(call.name, sweep)
            blocks = sweeps.get(call.name) or self._blocks(call, source)
            lines.append(f"start({call.name}, {blocks}, {tensors})")
        return lines

    def _blocks(self, call: _Call, source: TritonSource) -> str:
        kind = call.kernel.kind
        self._rules.add(f"{kind}_blocks")
        more = {
            "sweep": f", sums={call.kernel.sums}",
            "slab": f", members={_MEMBERS[source.scope]}",
            "rows": f', axis="{call.kernel.axis}"',
        }
        return f"{kind}_blocks(sizes{more.get(kind, '')})"


def size(layout: Layout, n: str, channels: str, *more: str) -> str:
    """Expression for the number of elements of an array of small values, and of ``more`` behind them."""
    counts = zip(layout.total, (f"{n} * {channels}", channels, n, ""), strict=True)
    terms = [" * ".join(part for part in (str(count) if count > 1 or not what else "", what) if part)
             for count, what in counts if count]  # fmt: skip
    return " + ".join([*terms, *more]) or "0"


def _text(kernel: Kernel, scope: str, words: Mapping[str, str], notes: Mapping[int, str]) -> str:
    """The kernel with ``_NAME`` in place of its name."""

    def renamed(text: str) -> str:
        text = re.sub(r"\bv(\d+(?:_[a-z])?)\b", r"w\1", text)  # v… are parameters in formulas
        return re.sub(r"\b[a-z]+\d*_ptr\b", lambda word: f"{words[word[0]]}_ptr", text)

    _, body = kernel.text.split("):\n", 1)
    signature = _wrapped(renamed(a) for a in kernel.arguments if a not in META)
    signature += _wrapped(f"{a}: tl.constexpr" for a in kernel.arguments if a in META)
    head = "\n".join(signature)
    doc = _doc(kernel, scope, [renamed(a).removesuffix("_ptr") for a in kernel.arguments if a == "out_ptr"])
    return f'@kernel\ndef {_NAME}(\n{head}\n):  # fmt: skip\n    """{doc}"""\n{_noted(renamed(body), notes)}'


def _noted(body: str, notes: Mapping[int, str]) -> str:
    """The body with a comment behind those values that are worth one, where a line has room for it."""
    lines = body.rstrip("\n").splitlines()
    for k, line in enumerate(lines):
        value = re.match(r" *w(\d+) = ", line)
        note = notes.get(int(value[1])) if value else None
        if note is not None and len(line) + len(note) + 4 <= _LONGEST:
            lines[k] = f"{line}  # {note}"
    return "\n".join(lines)


def _signature(name: str, arguments: Sequence[str]) -> list[str]:
    short = f"def {name}({', '.join(arguments)}) -> None:"
    return [short] if len(short) <= _LONGEST else [f"def {name}(", f"    {', '.join(arguments)}", ") -> None:"]


def _wrapped(arguments: Iterable[str]) -> list[str]:
    """Indented lines of a signature, broken between arguments."""
    text = ", ".join(argument.replace(" ", "\0") for argument in arguments) + ","
    return [f"    {line}".replace("\0", " ") for line in textwrap.wrap(text, _WIDTH)]


def _doc(kernel: Kernel, scope: str, out: Sequence[str]) -> str:
    written = f"{out[0]}" if out else ""
    if kernel.kind == "slab":
        return f"One reading: a {_SCOPES[scope]} stays in one program, from its sums to {written}."
    if kernel.kind == "sweep":
        does = [f"{kernel.sums} sum{'s' * (kernel.sums > 1)} for every plane"] * (kernel.sums > 0)
        return f"One reading: {' and '.join([*does, *[written] * bool(out)])}."
    return {
        "merge": "Sums of planes, from the parts that the programs of the sweep before left.",
        "columns": "Sums of small values over the batch, and what follows from them.",
        "rows": f"Sums of small values over {_ROWS.get(kernel.axis, '')}.",
        "cells": "Small values, each from others.",
    }[kernel.kind]


def _copied(names: Iterable[str]) -> str:
    """Those definitions of the module of block sizes and all that they use, in its order."""
    text = inspect.getsource(_triton_blocks)
    lines, body = text.splitlines(), ast.parse(text).body
    pieces: dict[str, str] = {}
    uses: dict[str, set[str]] = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        else:
            continue
        last = after if isinstance(node, ast.Assign) and isinstance(after, ast.Expr) else node
        pieces[name] = "\n".join(lines[node.lineno - 1 : last.end_lineno])
        uses[name] = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    needed, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name in pieces and name not in needed:
            needed.add(name)
            waiting += uses[name]
    kept = [piece for name, piece in pieces.items() if name in needed]
    constants = [piece for piece in kept if not piece.startswith(("def ", "class "))]
    return "\n\n\n".join(["\n".join(constants), *(piece for piece in kept if piece not in constants)]) + "\n"
