"""How candidates and their numbers are written in tables, in the live view and after a run alike."""

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from layersearch.search.candidate import Candidate
from layersearch.search.rerank import mean_value
from layersearch.spaces.contracts import Objective

__all__ = ["candidate_cells", "objective_header", "objective_headers", "origin", "output", "plain_table"]

PIPE_WIDTH = 160


def plain_table(*headers: str, title: str | None = None) -> Table:
    """A table without frames. Headers that begin with ``>`` are those of right-aligned columns."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.show_edge = False
    for header in headers:
        right = header.startswith(">")
        table.add_column(Text(header.removeprefix(">")), justify="right" if right else "left", overflow="fold")
    return table


def objective_headers(objectives: Sequence[Objective]) -> list[str]:
    """Headers of right-aligned columns; those to be minimised are marked."""
    return [f">{objective_header(o)}" for o in objectives]


def objective_header(objective: Objective) -> str:
    """Name, direction and unit: ``latency ↓ (× BN-ReLU)``."""
    unit = f" ({objective.unit})" if objective.unit else ""
    return f"{objective.name}{'' if objective.maximize else ' ↓'}{unit}"


def candidate_cells(candidate: Candidate, objectives: Sequence[Objective]) -> list[Text]:
    """Number, origin, fitness by objective, and mean over the objectives (larger is better)."""
    values = [f"{candidate.fitness[o.name]:.4f}" for o in objectives]
    mean = f"{mean_value(candidate.fitness, objectives):.4f}"
    cells = [f"#{candidate.number}", origin(candidate.origin, candidate.known_as), *values, mean]
    return [Text(cell) for cell in cells]


def origin(of: str, known_as: str | None) -> str:
    """Where a layer comes from, and the name it is known by; a baseline has a name of its own.

    >>> origin("evolved", "bn-relu")
    'evolved: bn-relu'
    """
    return f"{of}: {known_as}" if known_as and of != "baseline" else of


def output() -> Console:
    """Stdout. Where it is no terminal, lines are wide enough that tables need not be cut."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)
