"""Formulas of one number to lines of C or Triton: parsed, never evaluated; equal parts are computed once."""

import ast
from collections.abc import Callable, Mapping, Sequence

__all__ = ["INSTRUCTIONS", "assignments"]

INSTRUCTIONS = {"abs": 1, "cos": 1, "exp": 1, "maximum": 2, "sign": 1, "sin": 1, "sinc": 1, "sinc_slope": 1, "tanh": 1}
"""Beside + - * /, with their number of arguments. ``sinc(z) = sin(πz) / (πz)``, ``sinc_slope`` its derivative."""

_BINARY: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def assignments(
    lines: Sequence[str],
    known: Mapping[str, str],
    call: Callable[[str, str, Sequence[str]], list[str]],
    prefix: str,
) -> tuple[list[tuple[str, list[str]]], dict[str, str]]:
    """The values that ``lines`` assign.

    Args:
        lines: ``name = formula``.
        known: names that formulas may use, and what stands for them in the target.
        call: ``call(instruction, target, arguments)``: lines that assign an instruction to ``target``; operators are
            the instructions + - * / and ``neg``.
        prefix: of all new names.
    Returns: each new name with its lines, in order, and the names that ``lines`` assigned with what stands for them.
    Raises: ValueError if a formula holds anything else.
    """
    names = dict(known)
    seen: dict[tuple[str, ...], str] = {}
    made: list[tuple[str, list[str]]] = []

    def emit(code: str, *arguments: str) -> str:
        key = (code, *arguments)
        if key not in seen:
            seen[key] = f"{prefix}{len(made)}"
            made.append((seen[key], call(code, seen[key], arguments)))
        return seen[key]

    def value(node: ast.expr) -> str:
        match node:
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.Constant(value=int() | float() as number):
                return repr(float(number))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return emit(_BINARY[type(op)], value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return repr(-float(number))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return emit("neg", value(operand))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if INSTRUCTIONS.get(name) == len(args):
                return emit(name, *(value(a) for a in args))
        raise ValueError(
            f"a formula holds + - * /, numbers, {', '.join(sorted(names))} and {', '.join(INSTRUCTIONS)}, "
            f"got {ast.unparse(node)!r}"
        )

    for line in lines:
        name, _, formula = line.partition("=")
        names[name.strip()] = value(ast.parse(formula.strip(), mode="eval").body)
    return made, {name: text for name, text in names.items() if name not in known}
