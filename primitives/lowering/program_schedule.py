"""Splits the values of a program into passes: level k of a sum over space is one above the sums it depends on."""

from layersearch.kernels.codegen.program import Pass, Program, Result, Statement, closure
from layersearch.primitives.lowering.program_values import Values

__all__ = ["schedule", "statistics"]

_PLANE = ("plane_sum", "plane_m2")


def statistics(build: Values, known: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Small values that computing ``known`` gives, rest on a sum over space, and that computing ``wanted`` needs."""
    computed = set(closure(build.statements, known))
    rests_on_sum: list[bool] = []
    for statement in build.statements:
        rests_on_sum.append(statement.code in _PLANE or any(rests_on_sum[j] for j in statement.args))
    stop = {i for i in computed if not build.domain(i).s and rests_on_sum[i]}
    return tuple(i for i in closure(build.statements, wanted, stop) if i in stop)


def schedule(
    build: Values,
    output: int,
    results: tuple[Result, ...],
    given: tuple[Result, ...] = (),
    tracked: tuple[int, ...] = (),
) -> tuple[Program, dict[int, int]]:
    """The program for ``output`` and ``results``, and which of its statements each value that it needs became.

    ``given`` are the forward results, computed already; ``tracked`` as in ``Program``.
    """
    at_hand = {r.value: k for k, r in reversed(list(enumerate(given))) if r.extent == build.statements[r.value].extent}
    order = closure(build.statements, (output, *(r.value for r in results)), set(at_hand))
    place = {i: k for k, i in enumerate(order)}
    statements: list[Statement] = []
    level: list[int] = []
    for i in order:
        s = build.statements[i]
        if i in at_hand:
            statements.append(Statement("given", extent=s.extent, index=at_hand[i]))
            level.append(0)
            continue
        args = tuple(place[j] for j in s.args)
        statements.append(Statement(s.code, args, s.extent, s.value, s.index, s.sizes))
        level.append(max((level[j] for j in args), default=0) + (s.code in _PLANE))
    passes: list[Pass] = []
    for k in range(1 + max((level[i] for i, s in enumerate(statements) if not s.extent.s), default=0)):
        at_level = [i for i, s in enumerate(statements) if level[i] == k and not s.extent.s and s.code not in _PLANE]
        planes = [i for i, s in enumerate(statements) if level[i] == k + 1 and s.code in _PLANE]
        sums = tuple(i for i in planes if statements[i].code == "plane_sum")
        passes.append(Pass(tuple(at_level), sums, tuple(i for i in planes if i not in sums)))
    placed = tuple(Result(place[r.value], r.extent) for r in results)
    cells = tuple(r.extent.cells for r in given)
    return Program(tuple(statements), tuple(passes), place[output], placed, cells, tracked), place
