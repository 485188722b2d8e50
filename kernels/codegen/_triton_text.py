"""Text of one kernel: a stage of a program as Triton.

Every kernel works on a tile of two axes. One is that of the cells of small values: ``n``, ``c`` and ``p = n·C + c`` are
their indices and ``inside`` says which exist; the other is what is summed over. In a sweep cells lie along axis 0
(planes, or channels of a sample where the memory is channels_last) and space along axis 1: one text for both layouts.
"""

from collections.abc import Iterable

from layersearch.kernels.codegen._triton_stages import PLANE, Places, Stage, axis_of
from layersearch.kernels.codegen._triton_words import address, assignment
from layersearch.kernels.codegen.program import INSTRUCTIONS, Layout, Program, closure

__all__ = ["Text", "merge_body", "slots"]

_INDEX = {(True, True): "p", (False, True): "c", (True, False): "n", (False, False): ""}
_ONLY = {
    (True, True): "",
    (False, True): " & (n == 0)",
    (True, False): " & (c == 0)",
    (False, False): " & (n == 0) & (c == 0)",
}
_LANES = """
lane = tl.arange(0, LANES)
if NHWC:
    strips = {strips}
    sample = tl.program_id(0) // strips
    lane_c = (tl.program_id(0) % strips) * LANES + lane
    lane_n = sample + lane * 0
    lane_p = sample * C + lane_c
    exists = lane_c < C
    base = (sample.to(tl.int64) * S * C + lane_c)[:, None]
    stride = C
else:
    lane_p = {plane}
    lane_n = lane_p // C
    lane_c = lane_p - lane_n * C
    exists = {exists}
    base = (lane_p.to(tl.int64) * S)[:, None]
    stride = 1
inside = exists[:, None]
n = lane_n[:, None]
c = lane_c[:, None]
p = lane_p[:, None]
"""
_ROWS = {
    "group": """
n = row // (C // CG) + i * 0
c = (row % (C // CG)) * CG + i
inside = (row < {samples} * (C // CG)) & (i < CG)
""",
    "layer": """
n = row + i * 0
c = i + row * 0
inside = (row < {samples}) & (i < C)
""",
    "groups": """
n = row + i * 0
c = i * CG + row * 0
inside = (row < {samples}) & (c < C)
""",
}


def slots(program: Program, planes: Iterable[int]) -> list[tuple[str, int]]:
    """What a sweep adds up for its plane sums: the sum ``a`` and the centred sum ``b`` of full-size values."""
    found = {("a", program.statements[i].args[0]) for i in planes}
    return sorted(found | {("b", program.statements[i].args[0]) for i in planes if _is_centred(program, i)})


def _is_centred(program: Program, i: int) -> bool:
    return program.statements[i].code == "plane_m2"


class Text:
    """Writes the body of the kernel of one stage."""

    def __init__(self, program: Program, places: Places, stage: Stage) -> None:
        self.program, self.places, self.stage = program, places, stage
        self.lines: list[str] = []
        self.indent = ""
        self.known: set[int] = set()
        self.masks = dict.fromkeys(_INDEX, "inside")
        self.is_laned = stage.kind in ("sweep", "slab")

    def body(self) -> list[str]:
        getattr(self, f"_{self.stage.kind}")()
        return self.lines

    def _add(self, *lines: str) -> None:
        self.lines += [self.indent + line for text in lines for line in text.strip("\n").splitlines()]

    def _name(self, i: int) -> str:
        s = self.program.statements[i]
        return repr(s.value) if s.code == "const" else f"v{i}"

    def _tensor(self, i: int) -> str:
        """The value as a tensor, whatever it is."""
        name = self._name(i)
        return f"tl.full((1, 1), {name}, tl.float32)" if self.program.statements[i].code == "const" else name

    def _compute(self, targets: Iterable[int], stop: Iterable[int] = ()) -> None:
        """Values at hand are loaded, all others that ``targets`` need are computed."""
        for i in closure(self.program.statements, targets, {*self.known, *self.stage.at_hand, *stop}):
            if i not in self.known and i not in stop:
                self._define(i)

    def _define(self, i: int) -> None:
        s = self.program.statements[i]
        self.known.add(i)
        if s.code == "const":
            return
        if s.code == "size":
            self._add(f"v{i} = tl.full((1, 1), {_product(s.sizes)}, tl.float32)")
        elif s.code in INSTRUCTIONS:
            all_const = all(self.program.statements[j].code == "const" for j in s.args)
            args = [self._tensor(j) if all_const else self._name(j) for j in s.args]
            self._add(*assignment(s.code, f"v{i}", args))
        elif s.code in ("x", "g"):
            self._add(f"v{i} = tl.load({s.code}_ptr + at, mask=valid, other=0.0).to(tl.float32)")
        else:
            self._add(f"v{i} = {self._load(self._address(i), s.extent.cells)}.to(tl.float32)")

    def _address(self, i: int) -> str:
        s = self.program.statements[i]
        if s.code == "param":
            return f"p{s.index}_ptr"
        if s.code == "given":
            return address("given_ptr", s.index, Layout(self.program.given))
        array, k = self.places.place[i]
        return address("work_ptr", k, self.places.work) if array == "W" else self._result(k)

    def _result(self, k: int) -> str:
        return address("results_ptr", k, self.program.layout)

    def _load(self, pointer: str, cells: tuple[bool, bool]) -> str:
        index = _INDEX[cells]
        if not index:
            return f"tl.load({pointer})"
        if self.is_laned:
            # One axis, spread out afterwards: Triton 3.6 loads a value of two axes once for every element of a thread.
            return f"tl.load({pointer} + lane_{index}, mask=exists, other=1.0)[:, None]"
        return f"tl.load({pointer} + {index}, mask={self.masks[cells]}, other=1.0)"

    def _store(self, pointer: str, cells: tuple[bool, bool], value: str, only: str = "") -> None:
        index = _INDEX[cells] or "p * 0"
        self._add(f"tl.store({pointer} + {index}, {value}, mask=inside{_ONLY[cells]}{only})")

    def _store_sums(self, values: Iterable[int]) -> None:
        for i in values:
            self._store(self._address(i), self.program.statements[i].extent.cells, f"v{i}")

    def _hand_out(self, only: str = "") -> None:
        for k in self.stage.copies:
            result = self.program.results[k]
            self._compute([result.value])
            self._store(self._result(k), result.extent.cells, self._tensor(result.value), only)

    def _write(self) -> None:
        value = self._tensor(self.program.output)
        self._add(f"tl.store(out_ptr + at, ({value}).to(out_ptr.dtype.element_ty), mask=valid)")

    def _cells(self) -> None:
        self._add(
            "p = tl.program_id(0) * LANES + tl.arange(0, LANES)[:, None]",
            "inside = p < N * C",
            "n = p // C",
            "c = p - n * C",
        )
        self._hand_out()

    def _sweep(self) -> None:
        stage, statements = self.stage, self.program.statements
        sums = slots(self.program, stage.planes)
        targets = [u for _, u in sums] + [self.program.output] * stage.writes
        needed = closure(self.program.statements, targets, stage.at_hand)
        self._add(_lanes("(C + LANES - 1) // LANES", "tl.program_id(0) * LANES + lane", "lane_p < N * C"))
        self._add("span = tl.arange(0, SPAN)[None, :]")
        self._add("first = tl.program_id(1) * (SPAN * STEPS)")
        self._compute(i for i in needed if not statements[i].extent.s)
        self._hand_out(" & (p * 0 + tl.program_id(1) == 0)")
        self._add(*(f"{kind}{u} = tl.full((LANES, SPAN), 0.0, tl.float32)" for kind, u in sums))
        self._add("for j in range(STEPS):")
        self.indent = "    "
        self._add("s = first + j * SPAN + span", "valid = inside & (s < S)", "at = base + s * stride")
        self._compute(targets)
        for u in (u for kind, u in sums if kind == "b"):
            # Chan, Golub, LeVeque 1983, one term at a time, in every lane of its own.
            self._add(
                f"d{u} = tl.where(valid, {self._name(u)} - a{u} * (1.0 / tl.maximum(j * 1.0, 1.0)), 0.0)",
                f"b{u} += d{u} * d{u} * (j / (j + 1.0))",
            )
        self._add(*(f"a{u} += tl.where(valid, {self._name(u)}, 0.0)" for kind, u in sums if kind == "a"))
        if stage.writes:
            self._write()
        self.indent = ""
        if sums:
            self._reduce(sums)

    def _reduce(self, sums: list[tuple[str, int]]) -> None:
        """Lanes of a tile to planes; to parts of planes, behind the work, where several programs share a plane."""
        if any(kind == "b" for kind, _ in sums):
            self._add(
                "count = tl.minimum(S - first, SPAN * STEPS)",
                "each = tl.maximum((count - span + SPAN - 1) // SPAN, 0) * 1.0",
            )
        for u in (u for kind, u in sums if kind == "a"):
            self._add(f"t{u} = tl.sum(a{u}, 1)[:, None]")
            if ("b", u) in sums:
                self._add(
                    f"e{u} = tl.where(each > 0.0, a{u} / tl.maximum(each, 1.0) - t{u} / count, 0.0)",
                    f"q{u} = tl.sum(b{u} + e{u} * e{u} * each, 1)[:, None]",
                )
        self._add("if SPLIT:")
        self.indent = "    "
        self._add(f"part = {self.parts} + tl.program_id(1) * NC + p")
        for k, (kind, u) in enumerate(sums):
            self._add(f"tl.store(part + {k} * tl.num_programs(1) * NC, {'qt'[kind == 'a']}{u}, mask=inside)")
        self.indent = ""
        self._add("else:")
        self.indent = "    "
        for i in self.stage.planes:
            value = f"{'q' if _is_centred(self.program, i) else 't'}{self.program.statements[i].args[0]}"
            self._store(self._address(i), (True, True), value)
        self.indent = ""

    @property
    def parts(self) -> str:
        """First element behind the work."""
        total = self.places.work.total
        counts = zip(total, ("NC", "C", "N", "1"), strict=True)
        return " + ".join(["work_ptr", *(f"{count} * {size}" for count, size in counts if count)])

    def _slab(self) -> None:
        stage, statements = self.stage, self.program.statements
        self._add(
            _lanes(
                "(C // M + LANES // PAD - 1) // (LANES // PAD)",
                "(tl.program_id(0) * (LANES // PAD) + lane // PAD) * M + lane % PAD",
                "(lane_p < N * C) & (lane % PAD < M)",
            ),
            "s = tl.arange(0, SPAN)[None, :]",
        )
        self._add("valid = inside & (s < S)", "at = base + s * stride")
        held = {*stage.planes, *stage.sums}
        totals: set[int] = set()
        for i in closure(self.program.statements, [self.program.output, *stage.planes]):
            if i not in held:
                self._define(i)
                continue
            self.known.add(i)
            u = statements[i].args[0]
            if statements[i].code == "sum":
                self._add(
                    f"u{i} = tl.sum(tl.reshape(tl.where(inside, v{u}, 0.0), (LANES // PAD, PAD)), 1)[:, None]",
                    f"v{i} = tl.reshape(tl.broadcast_to(u{i}, (LANES // PAD, PAD)), (LANES, 1))",
                )
                continue
            if u not in totals:
                self._add(f"t{u} = tl.sum(tl.where(valid, v{u}, 0.0), 1)[:, None]")
                totals.add(u)
            if statements[i].code == "plane_sum":
                self._add(f"v{i} = t{u}")
            else:
                self._add(
                    f"d{i} = tl.where(valid, v{u} - t{u} / (S * 1.0), 0.0)", f"v{i} = tl.sum(d{i} * d{i}, 1)[:, None]"
                )
        self._write()
        self._store_sums(stage.stored)
        self._hand_out()

    def _columns(self) -> None:
        stage, statements = self.stage, self.program.statements
        self.masks = {(True, True): "inside", (False, True): "c < C", (True, False): "n < N", (False, False): ""}
        self._add("c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]")
        waiting = list(stage.sums)
        while waiting:
            level = [i for i in waiting if not set(closure(self.program.statements, statements[i].args)) & set(waiting)]
            waiting = [i for i in waiting if i not in level]
            terms = [statements[i].args[0] for i in level]
            needed = closure(self.program.statements, terms, {*self.known, *stage.at_hand})
            self._compute(i for i in needed if not statements[i].extent.n)
            outside = set(self.known)
            self._add(*(f"a{i} = tl.full((ROWS, COLUMNS), 0.0, tl.float32)" for i in level), "for j in range(STEPS):")
            self.indent = "    "
            self._add("n = j * ROWS + tl.arange(0, ROWS)[:, None]", "inside = (n < N) & (c < C)", "p = n * C + c")
            self._compute(terms)
            self._add(*(f"a{i} += tl.where(inside, {self._name(u)}, 0.0)" for i, u in zip(level, terms, strict=True)))
            self.indent = ""
            self._add(*(f"v{i} = tl.sum(a{i}, 0)[None, :]" for i in level))
            self.known = outside | set(level)
        self._add("n = c * 0", "p = c", "inside = c < C")
        self._store_sums(stage.stored)
        self._hand_out()

    def _rows(self) -> None:
        stage, statements = self.stage, self.program.statements
        over_n = any(statements[statements[i].args[0]].extent.n for i in stage.sums)
        self._add(
            "row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]",
            "i = tl.arange(0, MEMBERS)[None, :]",
            _ROWS[stage.axis].format(samples="N" if over_n else "1"),
            "p = n * C + c",
        )
        for i in stage.sums:
            assert axis_of(self.program, i) == stage.axis
            self._compute(statements[i].args)
            self._add(f"v{i} = tl.sum(tl.where(inside, {self._name(statements[i].args[0])}, 0.0), 1)[:, None]")
            self.known.add(i)
        self._store_sums(stage.stored)


def _lanes(strips: str, plane: str, exists: str) -> str:
    """Indices of the cells of a tile: one axis of them, and spread over two. channels_last: a strip of channels."""
    return _LANES.format(strips=strips, plane=plane, exists=exists)


def _product(sizes: tuple[str, ...]) -> str:
    words = {"G": "(C // CG)"}
    return " * ".join(["1.0", *(words.get(size, size) for size in sizes)])


def merge_body(program: Program, places: Places, stage: Stage) -> list[str]:
    """Body of the kernel that merges the parts of planes that a sweep left, SPAN pixels in each."""
    sums = slots(program, stage.planes)
    text = Text(program, places, stage)
    lines = [
        "p = tl.program_id(0) * LANES + tl.arange(0, LANES)",
        "inside = p < N * C",
        f"part = {text.parts} + p",
        "split = (S + SPAN - 1) // SPAN",
        *(f"{kind}{u} = tl.full((LANES,), 0.0, tl.float32)" for kind, u in sums),
        "for j in range(STEPS):",
        "    valid = inside & (p * 0 + j < split)",
        "    before = tl.minimum(S, j * SPAN) * 1.0",
        "    count = tl.maximum(tl.minimum(S - j * SPAN, SPAN), 0) * 1.0",
    ]
    for k, (kind, u) in enumerate(sums):
        lines.append(f"    {kind}{u}_j = tl.load(part + ({k} * split + j) * NC, mask=valid, other=0.0)")
    for u in (u for kind, u in sums if kind == "b"):
        lines += [
            f"    e{u} = a{u}_j / tl.maximum(count, 1.0) - a{u} / tl.maximum(before, 1.0)",
            f"    b{u} += b{u}_j + e{u} * e{u} * (before * count / (before + count))",
        ]
    lines += [f"    a{u} += a{u}_j" for kind, u in sums if kind == "a"]
    for i in stage.planes:
        u = program.statements[i].args[0]
        pointer = text._address(i)
        lines.append(
            f"tl.store({pointer} + p, {'b' if program.statements[i].code in PLANE[1:] else 'a'}{u}, mask=inside)"
        )
    return lines
