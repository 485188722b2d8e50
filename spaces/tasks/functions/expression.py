"""Formulas as text, evaluated without ``eval``: numbers, names, + - * / **, and a few functions of one argument."""

import ast
from collections.abc import Mapping

import numpy as np

from layersearch.errors import DataError
from layersearch.spaces.tasks.functions.function import Floats

__all__ = ["evaluate"]

_LONGEST = 1000
_FUNCTIONS = {
    "arccos": np.arccos,
    "arcsin": np.arcsin,
    "cos": np.cos,
    "exp": np.exp,
    "ln": np.log,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
_BINARY = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


def evaluate(formula: str, values: Mapping[str, Floats]) -> Floats:
    """Value of ``formula`` for arrays ``[N]`` by name; ``pi`` is known.

    Raises: DataError if the formula is longer than 1000 characters or has anything else in it.
    """
    try:
        if len(formula) > _LONGEST:
            raise SyntaxError
        tree = ast.parse(formula, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise _wrong(formula, "it cannot be parsed") from None
    shape = np.shape(next(iter(values.values())))
    found: Floats = np.broadcast_to(_value(tree, values, formula), shape)
    return found


def _value(node: ast.expr, values: Mapping[str, Floats], formula: str) -> Floats:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return np.float64(number)  # type: ignore[return-value]
        case ast.Name(id=name):
            if name in values:
                return values[name]
            if name == "pi":
                return np.float64(np.pi)  # type: ignore[return-value]
            raise _wrong(formula, f"{name} is no variable of it")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values, formula)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            result: Floats = _BINARY[type(op)](_value(left, values, formula), _value(right, values, formula))
            return result
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            called: Floats = _FUNCTIONS[name](_value(argument, values, formula))
            return called
    raise _wrong(formula, f"{type(node).__name__} is not allowed in it")


def _wrong(formula: str, why: str) -> DataError:
    return DataError(f"a formula must be arithmetic of its variables, but {formula!r:.80} is not ({why}); correct it")
