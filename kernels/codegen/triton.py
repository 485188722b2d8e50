"""Triton for a program: a few kernels, each a file of its own, and their launches as data.

All arithmetic is float32 whatever the tensors hold. Sums go from lanes to planes to small values in an order that the
shapes and the tiles decide, without atomics: equal input gives equal bits. N, C, H·W and the groups are numbers at run
time; block sizes alone, powers of two, are compiled in, so that one kernel serves all shapes of a class. A kernel's
file begins at the same line with the same names in every process: Triton's own cache on disk is keyed by its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from layersearch.kernels.codegen._triton_stages import Places, Stage, stages
from layersearch.kernels.codegen._triton_text import Text, merge_body, slots
from layersearch.kernels.codegen._triton_words import head
from layersearch.kernels.codegen.program import Layout, Program

__all__ = ["EMITTER", "Kernel", "TritonSource", "triton_source"]

EMITTER = "triton/1"
"""Version of the emitter, part of every cache key."""


@dataclass(frozen=True)
class Kernel:
    """One launch.

    ``kind``: ``sweep``, ``slab``, ``columns``, ``rows``, ``cells`` or ``merge``; ``arguments``: tensors (``…_ptr``, of
    which ``p0_ptr`` … are the inputs), sizes and block sizes, in order. ``reads``: tensors of full size that it reads;
    ``writes``: whether it writes one; ``sums``: numbers it keeps for every plane; ``axis``: of a ``rows`` kernel.
    """

    kind: str
    name: str
    text: str
    arguments: tuple[str, ...]
    reads: int = 0
    writes: bool = False
    sums: int = 0
    axis: str = ""


@dataclass(frozen=True)
class TritonSource:
    """Launches of one program.

    ``staged`` reads the tensor once for every level of sums; a ``merge`` behind a sweep is left out where no plane is
    split. ``slab``, if there is one, reads it once and holds a plane, a group or a sample (``scope``) at a time.
    ``work``: small values between kernels; behind them lie the parts of split planes.
    """

    staged: tuple[Kernel, ...]
    slab: tuple[Kernel, ...] | None
    scope: str
    work: Layout


def triton_source(programs: Mapping[str, Program]) -> dict[str, TritonSource]:
    """Kernels for all ``programs``, by their names."""
    return {name: _source(program) for name, program in programs.items()}


def _source(program: Program) -> TritonSource:
    places = Places(program)
    split = stages(program, places)
    staged: list[Kernel] = []
    for stage in split.staged:
        staged.append(_kernel(program, places, stage))
        if stage.kind == "sweep" and stage.planes:
            text, arguments = head("merge", merge_body(program, places, stage))
            staged.append(Kernel("merge", "merge", text, arguments))
    slab = None if split.slab is None else tuple(_kernel(program, places, stage) for stage in split.slab)
    return TritonSource(tuple(staged), slab, split.scope, places.work)


def _kernel(program: Program, places: Places, stage: Stage) -> Kernel:
    text, arguments = head(stage.kind, Text(program, places, stage).body())
    reads = sum(name in arguments for name in ("x_ptr", "g_ptr"))
    sums = len(slots(program, stage.planes))
    return Kernel(stage.kind, stage.kind, text, arguments, reads, stage.writes, sums, stage.axis)
