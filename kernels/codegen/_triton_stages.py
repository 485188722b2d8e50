"""Splits a program into launches for a GPU: which sums each kernel takes, what it writes, and where that lies.

Stored are sums alone: the sums of every plane ``[N, C]``, and the sums of small values over the batch or over channels.
Whatever is computed from them element by element is computed again where it is read. There are two splits: one reading
of the tensor for each level of sums over space (``staged``), or all of it in one reading, where every sum stays
within a plane, a group of channels or a sample (``slab``).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from layersearch.kernels.codegen.program import Layout, Program, closure

__all__ = ["PLANE", "SCOPES", "Places", "Stage", "Stages", "axis_of", "stages"]

PLANE = ("plane_sum", "plane_m2")
_INLINE = ("const", "size", "param", "given")
SCOPES = {"": "plane", "group": "group", "layer": "layer"}
"""What one slab spans, by the axis of the sums over channels in it."""


@dataclass(frozen=True)
class Stage:
    """One kernel.

    ``kind``: ``sweep`` reads the tensor once; ``slab`` too, and holds it; ``columns`` sums small values over the batch,
    ``rows`` over channels (``axis``: to groups, of groups, of all); ``cells`` only computes them.
    ``planes``, ``sums``: values it computes; ``stored``: those of them that are written down; ``at_hand``: values
    written down before. ``writes``: the output, too. ``copies``: indices of the results that it hands out.
    """

    kind: str
    at_hand: frozenset[int]
    planes: tuple[int, ...] = ()
    sums: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()
    copies: tuple[int, ...] = ()
    writes: bool = False
    axis: str = ""


class Places:
    """Where stored values lie: in the array of results (``R``) if they are handed out as they are, else in ``W``."""

    def __init__(self, program: Program) -> None:
        statements = program.statements
        self.place: dict[int, tuple[str, int]] = {}
        self.copies: list[int] = []
        for k, result in enumerate(program.results):
            statement = statements[result.value]
            is_sum = statement.code in (*PLANE, "sum")
            if is_sum and statement.extent.cells == result.extent.cells and result.value not in self.place:
                self.place[result.value] = ("R", k)
            else:
                self.copies.append(k)
        kept = [i for i, s in enumerate(statements) if s.code in (*PLANE, "sum") and i not in self.place]
        self.work = Layout([statements[i].extent.cells for i in kept])
        self.place |= {i: ("W", k) for k, i in enumerate(kept)}


@dataclass(frozen=True)
class Stages:
    """Both splits of a program; ``slab`` is None where it is not possible or reads the tensor no less often."""

    staged: tuple[Stage, ...]
    slab: tuple[Stage, ...] | None
    scope: str = "plane"


def stages(program: Program, places: Places) -> Stages:
    """The launches of ``program``, in order."""
    staged = _Planner(program, places).staged()
    if sum(stage.kind == "sweep" for stage in staged) < 2:
        return Stages(staged, None)
    planner = _Planner(program, places)
    axes = planner.axes_within()
    if axes is None:
        return Stages(staged, None)
    return Stages(staged, planner.slab(axes), SCOPES[axes])


def axis_of(program: Program, i: int) -> str:
    """What a ``sum`` runs over: the batch, all channels, the channels of each group, or the groups."""
    s = program.statements[i]
    operand = program.statements[s.args[0]].extent
    if operand.n > s.extent.n:
        return "batch"
    return {(2, 1): "group", (2, 0): "layer", (1, 0): "groups"}[operand.c, s.extent.c]


class _Planner:
    def __init__(self, program: Program, places: Places) -> None:
        self.program, self.places = program, places
        self.kept = {i for i, s in enumerate(program.statements) if s.code in (*PLANE, "sum")}
        self.rests_on = [frozenset(self._rests_on(r.value)) for r in program.results]
        self.at_hand: set[int] = set()
        self.waiting = list(places.copies)
        self.found: list[Stage] = []

    def _rests_on(self, i: int) -> set[int]:
        """Stored values that ``i`` is computed from."""
        return self.kept & set(closure(self.program.statements, [i], self.kept))

    def _sums(self, values: Iterable[int]) -> list[int]:
        return [i for i in values if self.program.statements[i].code == "sum"]

    def _hand_out(self, ready: set[int], over_n: bool) -> tuple[int, ...]:
        """Results that can be handed out once ``ready`` is computed; not ``over_n``: of those constant over n."""
        results = self.program.results
        taken = [k for k in self.waiting if self.rests_on[k] <= ready and (over_n or not results[k].extent.n)]
        self.waiting = [k for k in self.waiting if k not in taken]
        return tuple(taken)

    def staged(self) -> tuple[Stage, ...]:
        writes = self._pass_of_output()
        for k, step in enumerate(self.program.passes):
            self._small(self._sums(step.small))
            planes = (*step.sums, *step.centred)
            if planes or k == writes:
                copies = self._hand_out(self.at_hand, over_n=True)
                before = frozenset(self.at_hand)
                self.found.append(Stage("sweep", before, planes, stored=planes, copies=copies, writes=k == writes))
            self.at_hand |= set(planes)
        return self._finished()

    def _pass_of_output(self) -> int:
        """The first pass in which all sums that the output rests on are there."""
        level: dict[int, int] = {}
        for k, step in enumerate(self.program.passes):
            level |= dict.fromkeys((*step.sums, *step.centred), k + 1)
            level |= {i: k for i in step.small if self.program.statements[i].code == "sum"}
        return max((level[i] for i in self._rests_on(self.program.output)), default=0)

    def axes_within(self) -> str | None:
        """The one axis of the sums over channels within a slab, "" if there are none; None if a slab is not enough."""
        planes = [i for i, s in enumerate(self.program.statements) if s.code in PLANE]
        inner = self._sums(closure(self.program.statements, [self.program.output, *planes]))
        axes = {axis_of(self.program, i) for i in inner}
        if not axes <= SCOPES.keys() or len(axes) > 1:
            return None
        return axes.pop() if axes else ""

    def slab(self, axis: str) -> tuple[Stage, ...]:
        planes = tuple(i for i, s in enumerate(self.program.statements) if s.code in PLANE)
        inner = tuple(self._sums(closure(self.program.statements, [self.program.output, *planes])))
        others = self._sums(i for i in self.kept if i not in inner)
        self.at_hand = {*planes, *inner}
        copies = self._hand_out(self.at_hand, over_n=True)
        read = {j for i in others for j in self._rests_on(self.program.statements[i].args[0])}
        read |= {j for k in self.waiting for j in self.rests_on[k]}
        stored = tuple(i for i in (*planes, *inner) if i in read or self.places.place[i][0] == "R")
        self.found.append(Stage("slab", frozenset(), planes, inner, stored, copies, writes=True, axis=axis))
        self._small(sorted(others))
        return self._finished()

    def _finished(self) -> tuple[Stage, ...]:
        if self.waiting:
            self.found.append(Stage("cells", frozenset(self.at_hand), copies=self._hand_out(self.at_hand, over_n=True)))
        return tuple(self.found)

    def _small(self, waiting: list[int]) -> None:
        """Greedy: the first sum whose terms are there opens a kernel, all sums over its axis that can join it do."""
        while waiting:
            axis, taken = "", list[int]()
            for i in waiting:
                ready = self._rests_on(self.program.statements[i].args[0]) <= {*self.at_hand, *taken}
                if ready and axis in ("", axis_of(self.program, i)):
                    axis = axis_of(self.program, i)
                    taken.append(i)
            waiting = [i for i in waiting if i not in taken]
            before, kind = frozenset(self.at_hand), "columns" if axis == "batch" else "rows"
            self.at_hand |= set(taken)
            copies = self._hand_out(self.at_hand, over_n=False) if kind == "columns" else ()
            self.found.append(Stage(kind, before, sums=tuple(taken), stored=tuple(taken), copies=copies, axis=axis))
