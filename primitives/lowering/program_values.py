"""Values of a program under construction: hash-consed, simplified as they are made, each with its domain."""

from collections.abc import Callable

from layersearch.kernels.codegen.program import INSTRUCTIONS, Extent, Statement
from layersearch.primitives.domain import CONSTANT, FULL, PER_CHANNEL, Axes, Domain, join, meet

__all__ = ["Values"]

_CHANNEL_SIZES = {(2, 0): "C", (2, 1): "CG", (1, 0): "G"}
_COMMUTATIVE = ("add", "mul")


class Values:
    """Makes each value once. Values are numbered in an order of dependence.

    Identities hold for finite values (x·0 = 0), as in the canonical form. Sums are taken of products without their
    small factors, Σ s·f = s·Σ f, so that sums which differ by such factors alone become one.
    """

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self._by_key: dict[Statement, int] = {}

    def leaf(self, code: str, domain: Domain, index: int = 0) -> int:
        return self._intern(Statement(code, extent=Extent(*domain), index=index))

    def x(self) -> int:
        return self.leaf("x", FULL)

    def upstream(self) -> int:
        return self.leaf("g", FULL)

    def param(self, index: int, per_channel: bool = True) -> int:
        return self.leaf("param", PER_CHANNEL if per_channel else CONSTANT, index)

    def const(self, value: float) -> int:
        return self._intern(Statement("const", value=value + 0.0))

    def domain(self, i: int) -> Domain:
        return Domain(*self.statements[i].extent)

    def is_const(self, i: int, value: float) -> bool:
        return self.statements[i].code == "const" and self.statements[i].value == value

    def call(self, code: str, *args: int) -> int:
        """A scalar instruction."""
        if len(args) != INSTRUCTIONS[code]:
            raise ValueError(f"{code} takes {INSTRUCTIONS[code]} arguments, got {len(args)}")
        simpler = _SIMPLIFY[code](self, *args) if code in _SIMPLIFY else None
        if simpler is not None:
            return simpler
        if code in _COMMUTATIVE:
            args = tuple(sorted(args))
        return self._intern(Statement(code, args, Extent(*join(*(self.domain(a) for a in args)))))

    def size(self, start: Domain, end: Domain) -> int:
        """Number of cells of ``start`` for each of ``end``."""
        sizes = ("N",) * (start.n - end.n)
        if start.c > end.c:
            sizes += (_CHANNEL_SIZES[start.c, end.c],)
        sizes += ("S",) * (start.s - end.s)
        return self._intern(Statement("size", sizes=sizes)) if sizes else self.const(1.0)

    def per(self, i: int, start: Domain, end: Domain) -> int:
        """``i`` divided by ``size(start, end)``."""
        return self.call("mul", i, self.call("div", self.const(1.0), self.size(start, end)))

    def total(self, i: int, target: Domain) -> int:
        """Sum over all axes that ``i`` varies over and ``target`` does not."""
        if self.domain(i).s and not target.s:
            i = self._pulled(i, lambda j: not self.domain(j).s, lambda j: self._reduce("plane_sum", j, Domain(1, 2, 0)))
        if self.domain(i).n and not target.n:
            i = self._pulled(i, lambda j: not self.domain(j).n, self._sum_n)
        if self.domain(i).c > target.c:
            i = self._pulled(i, lambda j: self.domain(j).c <= target.c, lambda j: self._sum_c(j, target.c))
        return i

    def contribution(self, i: int, start: Domain, target: Domain) -> int:
        """What a value that is meant for every cell of ``start`` adds to each cell of ``target``."""
        shown = join(self.domain(i), target)
        return self.total(self.call("mul", i, self.size(start, shown)), target)

    def mean(self, i: int, target: Domain) -> int:
        target = meet(self.domain(i), target)
        return self.per(self.total(i, target), self.domain(i), target)

    def variance(self, i: int, target: Domain) -> int:
        """Biased variance: centred within each plane first, then merged over planes (Chan, Golub, LeVeque 1983)."""
        domain = self.domain(i)
        target = meet(domain, target)
        mean = self.mean(i, target)
        if not domain.s:
            return self.mean(self._square(self.call("sub", i, mean)), target)
        plane = Domain(1, 2, 0)
        within = self.per(self._reduce("plane_m2", i, plane), domain, plane)
        between = self._square(self.call("sub", self.mean(i, plane), mean))
        return self.mean(self.call("add", within, between), target)

    def moment(self, kind: str, i: int, axes: Axes) -> int:
        if kind == "var":
            return self.variance(i, axes.target)
        return self.mean(self._square(i) if kind == "square" else i, axes.target)

    def _square(self, i: int) -> int:
        return self.call("mul", i, i)

    def _sum_n(self, i: int) -> int:
        domain = self.domain(i)
        return self._reduce("sum", i, Domain(0, domain.c, domain.s))

    def _sum_c(self, i: int, c: int) -> int:
        domain = self.domain(i)
        return self._reduce("sum", i, Domain(domain.n, c, domain.s))

    def _reduce(self, code: str, i: int, domain: Domain) -> int:
        return self._intern(Statement(code, (i,), Extent(*domain)))

    def _pulled(self, i: int, movable: Callable[[int], bool], reduce: Callable[[int], int]) -> int:
        """``reduce(i)`` with the factors of ``i`` that are ``movable`` taken out of it."""
        moved: list[int] = []
        kept: list[int] = []
        negative = False
        waiting = [i]
        while waiting:
            j = waiting.pop()
            code, args = self.statements[j].code, self.statements[j].args
            if movable(j):
                moved.append(j)
            elif code == "mul":
                waiting += args
            elif code == "neg":
                negative = not negative
                waiting += args
            else:
                kept.append(j)
        if not moved and not negative:
            return reduce(i)
        result = reduce(self._product(kept))
        for j in sorted(moved):
            result = self.call("mul", result, j)
        return self.call("neg", result) if negative else result

    def _product(self, factors: list[int]) -> int:
        first, *others = sorted(factors)
        for j in others:
            first = self.call("mul", first, j)
        return first

    def _intern(self, statement: Statement) -> int:
        found = self._by_key.get(statement)
        if found is None:
            found = self._by_key[statement] = len(self.statements)
            self.statements.append(statement)
        return found


def _negated(build: Values, i: int) -> int | None:
    """The value that ``i`` is the negative of."""
    statement = build.statements[i]
    return statement.args[0] if statement.code == "neg" else None


def _add(build: Values, a: int, b: int) -> int | None:
    for p, q in ((a, b), (b, a)):
        if build.is_const(p, 0.0):
            return q
        inner = _negated(build, p)
        if inner is not None:
            return build.call("sub", q, inner)
    return None


def _sub(build: Values, a: int, b: int) -> int | None:
    if a == b:
        return build.const(0.0)
    if build.is_const(b, 0.0):
        return a
    if build.is_const(a, 0.0):
        return build.call("neg", b)
    inner = _negated(build, b)
    return None if inner is None else build.call("add", a, inner)


def _mul(build: Values, a: int, b: int) -> int | None:
    for p, q in ((a, b), (b, a)):
        if build.is_const(p, 0.0):
            return p
        if build.is_const(p, 1.0):
            return q
        if build.is_const(p, -1.0):
            return build.call("neg", q)
        inner = _negated(build, p)
        if inner is not None:
            return build.call("neg", build.call("mul", inner, q))
    for p, q in ((a, b), (b, a)):
        parts = _scaled(build, p)
        if parts is not None and not build.domain(q).s:
            return build.call("mul", parts[0], build.call("mul", parts[1], q))
        if parts is not None:
            return build.call("mul", build.call("mul", parts[0], q), parts[1])
    return None


def _scaled(build: Values, i: int) -> tuple[int, int] | None:
    """Full-size and small factor of a product of the two. Small factors are gathered into one per element."""
    statement = build.statements[i]
    if statement.code != "mul" or not build.domain(i).s:
        return None
    a, b = sorted(statement.args, key=lambda j: build.domain(j).s, reverse=True)
    return None if build.domain(b).s else (a, b)


def _div(build: Values, a: int, b: int) -> int | None:
    if build.is_const(a, 0.0) or build.is_const(b, 1.0):
        return a
    inner = _negated(build, a)
    if inner is not None:
        return build.call("neg", build.call("div", inner, b))
    if build.domain(a).s and not build.domain(b).s:
        return build.call("mul", a, build.call("div", build.const(1.0), b))
    parts = _scaled(build, a)
    return None if parts is None else build.call("mul", build.call("div", parts[0], b), parts[1])


def _neg(build: Values, a: int) -> int | None:
    statement = build.statements[a]
    if statement.code == "const":
        return build.const(-statement.value)
    if statement.code == "sub":
        return build.call("sub", statement.args[1], statement.args[0])
    return _negated(build, a)


def _away(build: Values, a: int, b: int) -> int | None:
    return a if build.is_const(b, 0.0) else None


_SIMPLIFY: dict[str, Callable[..., int | None]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "away": _away,
}
