"""Reads the formulas of op rows (``Op.scalar``, ``Op.adjoint``) into values of a program."""

import ast
import functools
from collections.abc import Mapping

from layersearch.kernels.codegen.program import INSTRUCTIONS
from layersearch.primitives.lowering.program_values import Values

__all__ = ["apply"]

_BINARY: dict[type[ast.operator], str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}


def apply(build: Values, formula: str, names: Mapping[str, int]) -> int:
    """The value of ``formula`` with ``names`` in place. Raises: ValueError if the formula uses anything else."""
    return _value(build, _parsed(formula), names, formula)


@functools.cache
def _parsed(formula: str) -> ast.expr:
    return ast.parse(formula, mode="eval").body


def _value(build: Values, node: ast.expr, names: Mapping[str, int], formula: str) -> int:
    def value(inner: ast.expr) -> int:
        return _value(build, inner, names, formula)

    match node:
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Constant(value=int() | float() as number):
            return build.const(float(number))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return build.call(_BINARY[type(op)], value(left), value(right))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return build.call("neg", value(operand))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in INSTRUCTIONS:
            return build.call(name, *(value(a) for a in args))
    raise ValueError(
        f"a formula holds + - * /, numbers, {', '.join(sorted(names))} and the instructions "
        f"{', '.join(sorted(INSTRUCTIONS))}, got {ast.unparse(node)!r} in {formula!r}"
    )
