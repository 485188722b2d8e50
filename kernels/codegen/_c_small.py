"""Small values of a program in C: where they are stored, how they are read, and the loops that compute them."""

from dataclasses import dataclass

from layersearch.kernels.codegen._c_prelude import EXPRESSIONS
from layersearch.kernels.codegen.program import INSTRUCTIONS, Layout, Program

__all__ = ["Names", "Run", "Storage", "small_function"]

_INLINE = ("const", "size", "param", "given")
_PLANE = ("plane_sum", "plane_m2")


@dataclass(frozen=True)
class Run:
    """Small values computed in one loop: scalar instructions over the same ``cells``, or one sum."""

    values: tuple[int, ...]
    cells: tuple[bool, bool]
    is_sum: bool


class Storage:
    """Splits the small values of each pass into runs and gives a place to those that are read outside their run."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.runs: list[list[Run]] = []
        done: set[int] = set()
        for step in program.passes:
            done |= {i for i in step.small if program.statements[i].code in _INLINE}
            self.runs.append(self._split([i for i in step.small if i not in done], done))
            done |= {*step.small, *step.sums, *step.centred}
        self.copies: list[int] = []  # results that are not stored where they are handed out
        self.place: dict[int, tuple[str, int]] = {}
        for k, result in enumerate(program.results):
            statement = program.statements[result.value]
            same = statement.extent.cells == result.extent.cells
            if same and statement.code not in _INLINE and result.value not in self.place:
                self.place[result.value] = ("R", k)
            else:
                self.copies.append(k)
        kept = [i for i in self._read_outside() if i not in self.place]
        self.work = Layout([program.statements[i].extent.cells for i in kept])
        self.place |= {i: ("W", k) for k, i in enumerate(kept)}

    def _split(self, waiting: list[int], done: set[int]) -> list[Run]:
        """Greedy: the first value whose arguments are there opens a run, all that can join it do."""
        statements = self.program.statements
        runs: list[Run] = []
        done = set(done)
        while waiting:
            first = next(i for i in waiting if all(j in done for j in statements[i].args))
            if statements[first].code == "sum":
                taken = [first]
            else:
                taken = []
                for i in waiting:
                    fits = statements[i].extent.cells == statements[first].extent.cells and statements[i].code != "sum"
                    if fits and all(j in done or j in taken for j in statements[i].args):
                        taken.append(i)
            done.update(taken)
            waiting = [i for i in waiting if i not in taken]
            runs.append(Run(tuple(taken), statements[first].extent.cells, statements[first].code == "sum"))
        return runs

    def _read_outside(self) -> list[int]:
        """Small values that something other than their own run reads; plane sums are, and sums."""
        statements, program = self.program.statements, self.program
        run_of = {i: (k, r) for k, runs in enumerate(self.runs) for r, run in enumerate(runs) for i in run.values}
        found = {program.results[k].value for k in self.copies} | {program.output}
        for i, statement in enumerate(statements):
            if statement.code in (*_PLANE, "sum"):
                found.add(i)
            for j in statement.args:
                if run_of.get(j) != run_of.get(i) or statement.code == "sum":
                    found.add(j)
        return sorted(i for i in found if not statements[i].extent.s and statements[i].code not in _INLINE)


class Names:
    """How values are written at one place: ``v7`` for a local, a literal for a constant, an element for a load."""

    def __init__(self, program: Program, storage: Storage) -> None:
        self.program, self.storage = program, storage

    def is_loaded(self, i: int) -> bool:
        return self.program.statements[i].code not in ("const", "size")

    def value(self, i: int) -> str:
        s = self.program.statements[i]
        if s.code == "const":
            return f"({s.value!r}f)"
        if s.code == "size":
            sizes = " * ".join("(C / G)" if name == "CG" else name for name in s.sizes)
            return f"((float)({sizes}))"
        return f"v{i}"

    def pointer(self, i: int) -> str:
        """First element of a stored value, a parameter or a given value."""
        s = self.program.statements[i]
        if s.code == "param":
            return f"P[{s.index}]"
        if s.code == "given":
            return self._element("given", s.index, self.given)
        array, k = self.storage.place[i]
        return self._element(array, k, self.storage.work if array == "W" else self.program.layout)

    def read(self, i: int) -> str:
        """The element for the sample ``n``, channel ``c``, plane ``p`` at hand."""
        return f"({self.pointer(i)})[{_INDEX[self.program.statements[i].extent.cells]}]"

    @property
    def given(self) -> Layout:
        return Layout(self.program.given)

    def _element(self, array: str, k: int, layout: Layout) -> str:
        counts = zip(layout.places[k], ("NC", "C", "N", "1"), strict=True)
        return " + ".join([array, *(f"{count} * {size}" for count, size in counts if count)])

    def result(self, k: int) -> str:
        """First element of a result."""
        return self._element("R", k, self.program.layout)


_INDEX = {(True, True): "p", (False, True): "c", (True, False): "n", (False, False): "0"}
_LOOPS = {
    (True, True): "for (long n = 0; n < N; n++) IVDEP for (long c = 0; c < C; c++) { const long p = n * C + c; ",
    (False, True): "for (long c = 0; c < C; c++) { SCALAR; ",
    (True, False): "for (long n = 0; n < N; n++) { ",
    (False, False): "{ ",
}
_FLAT = "IVDEP for (long p = 0; p < NC; p++) { "


def small_function(names: Names, k: int, copies: bool) -> str:
    """Body of the function that computes the small values of pass ``k``; ``copies``: and hands out the results."""
    text = ""
    for run in names.storage.runs[k]:
        text += f"    {_sum(names, run.values[0]) if run.is_sum else _loop(names, run)}\n"
    for i in names.storage.copies if copies else ():
        result = names.program.results[i]
        value = names.read(result.value) if names.is_loaded(result.value) else names.value(result.value)
        text += f"    {_LOOPS[result.extent.cells]}({names.result(i)})[{_INDEX[result.extent.cells]}] = {value}; }}\n"
    return text


def _loop(names: Names, run: Run) -> str:
    statements, storage = names.program.statements, names.storage
    outside = sorted({j for i in run.values for j in statements[i].args if j not in run.values})
    loaded = [j for j in outside if names.is_loaded(j)]
    body = "".join(f"const float v{j} = {names.read(j)}; " for j in loaded)
    for i in run.values:
        s = statements[i]
        assert s.code in INSTRUCTIONS
        body += f"const float v{i} = {EXPRESSIONS[s.code].format(*(names.value(j) for j in s.args))}; "
        if i in storage.place:
            body += f"{names.read(i)} = v{i}; "
    flat = run.cells == (True, True) and all(
        statements[j].extent.cells in ((True, True), (False, False)) for j in loaded
    )
    return f"{_FLAT if flat else _LOOPS[run.cells]}{body}}}"


def _sum(names: Names, i: int) -> str:
    """A sum over the batch, or over channels."""
    s = names.program.statements[i]
    operand = names.program.statements[s.args[0]].extent
    source, target = names.pointer(s.args[0]), names.pointer(i)
    if operand.n > s.extent.n:
        return f"sum_n({source}, {target}, N, {'C' if operand.c else '1'});"
    rows = "N" if operand.n else "1"
    if s.extent.c:
        return f"sum_group({source}, {target}, {rows} * G, C / G);"
    return f"sum_c({source}, {target}, {rows}, C, {'1' if operand.c == 2 else 'C / G'});"
