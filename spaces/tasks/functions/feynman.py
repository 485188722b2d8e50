"""The 120 equations of the AI Feynman database, by name, with the ranges of their variables.

``feynman.json`` holds formulas and ranges as Udrescu and Tegmark published them (AI Feynman, Science Advances 2020; 100
equations and 20 bonus ones, ``test_1`` …, from the tables of WassimTenachi/PhySO, MIT). Their tabulated points are not
part of it: points are drawn from the ranges.
"""

import functools
import json
from pathlib import Path

from layersearch.primitives.registry import Registry
from layersearch.spaces.tasks.functions.expression import evaluate
from layersearch.spaces.tasks.functions.function import Floats, Function

__all__ = ["EQUATIONS"]

_TABLE = Path(__file__).with_name("feynman.json")


def _of(formula: str, names: tuple[str, ...], *columns: Floats) -> Floats:
    return evaluate(formula, dict(zip(names, columns, strict=True)))


def _equations() -> Registry[Function]:
    registry: Registry[Function] = Registry("Feynman equation")
    for name, row in json.loads(_TABLE.read_text(encoding="utf-8")).items():
        names = tuple(variable for variable, _, _ in row["variables"])
        domain = tuple((float(low), float(high)) for _, low, high in row["variables"])
        of = functools.partial(_of, row["formula"], names)
        registry.add(name, Function(row["formula"], domain, of, "physics", "AI Feynman database, 2020"))
    return registry


EQUATIONS = _equations()
"""By the name after ``feynman:``."""
