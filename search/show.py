"""``search show``: what came of a run, as tables or as one JSON object."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layersearch.errors import StoreError
from layersearch.search import report_data
from layersearch.search.executors.base import SpaceSpec
from layersearch.search.runs import resume_command, runs_dir_option
from layersearch.search.store_reader import StoreReader
from layersearch.search.store_schema import STORE_FILE
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import JsonObject, Space

if TYPE_CHECKING:
    from rich.table import Table

    from layersearch.search.grids import Grid

__all__ = ["best_of", "check_begun", "export_command", "json_text", "print_show", "show_object", "shown"]


def show_object(run_dir: Path, top: int) -> JsonObject:
    """The object of ``search show --json``; ``stages`` are their names in order, ``reasons`` rows of stage, reason
    and number of candidates.

    Raises: StoreError if there is no store yet, or it cannot be read.
    """
    check_begun(run_dir)
    with StoreReader(run_dir) as reader, reader.snapshot():
        return shown(reader, top)[0]


def check_begun(run_dir: Path) -> None:
    """Raises: StoreError if there is no store yet."""
    if not (run_dir / STORE_FILE).exists():
        raise StoreError(
            f"{run_dir.name} must have begun to be shown, but it has no store yet; begin by {resume_command(run_dir)}"
        )


def shown(reader: StoreReader, top: int) -> tuple[JsonObject, Space]:
    """The object and the space of a run. Raises: StoreError if it has not begun."""
    facts = reader.meta("space")
    if facts is None:
        name, remedy = reader.run_dir.name, resume_command(reader.run_dir)
        raise StoreError(f"{name} must have begun to be shown, but its store is new; wait, or {remedy}")
    space = SpaceSpec(facts["entry"], facts["settings"]).build()
    found = report_data.show(reader, space, top)
    stages = list(dict.fromkeys(stage.name for stage in reader.stages()))
    reasons = [{"stage": s, "reason": r, "candidates": n} for s, r, n in reader.rejections()]
    return found | {"stages": stages, "reasons": reasons, "settings": [list(row) for row in space.describe()]}, space


def json_text(value: Any) -> str:
    """JSON without NaN or infinity, in ASCII."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def print_show(run_dir: Path, top: int, as_json: bool) -> None:
    """Prints on stdout. Raises: StoreError."""
    found = show_object(run_dir, top)
    if as_json:
        print(json_text(found))
        return
    _print_tables(found)
    if found["best"]:
        print(f"\n{best_of(found)}; write it to a file: {export_command(run_dir, found)}")


def best_of(found: JsonObject) -> str:
    """Which candidate ``--candidate best`` is, of a run that has evaluated one."""
    if found["winner"] is None:
        return f"#{found['best'][0]['candidate']} is the best so far"
    return f"#{found['winner']} is the winner"


def export_command(run_dir: Path, found: JsonObject) -> str:
    """What writes that candidate to a file."""
    network = found["space"] in SPACES and SPACES[found["space"]].network
    file = "net.py --weights" if network else "layer.py"
    return f"search export {run_dir.name} --candidate best --format python -o {file}{runs_dir_option(run_dir)}"


def _print_tables(found: JsonObject) -> None:
    from rich.text import Text

    from layersearch.search import grids
    from layersearch.search.tables import origin, output

    console = output()
    console.print(Text(grids.head(found), style="bold"))
    console.print(Text("; ".join(f"{label} {value}" for label, value in found["settings"]), style="dim"))
    console.print()
    _print_grid(grids.of_funnel(found))
    if found["saved"]:
        rungs = grids.of_rungs(found["saved"])
        if rungs is not None:
            console.print(_table(rungs))
        console.print(Text(grids.spared(found["saved"])))
        console.print()
    reasons = grids.of_reasons(found)
    if reasons is not None:
        _print_grid(reasons)
    if not found["best"]:
        console.print(Text("no candidate was evaluated yet"))
    for grid in grids.numbers(found):
        _print_grid(grid)
    for entry in found["best"]:
        console.print(Text(f"{grids.label(entry)}  {origin(entry['origin'], entry['known_as'])}", style="bold"))
        console.print(Text(f"    {entry['formula']}", overflow="fold"))
        if "selected" in entry:
            console.print(Text(f"    selected: {entry['selected']}", overflow="fold"))


def _print_grid(grid: "Grid") -> None:
    from rich.text import Text

    from layersearch.search.tables import output

    console = output()
    if grid.title:
        console.print(Text(grid.title, style="bold"))
    console.print(_table(grid))
    console.print()


def _table(grid: "Grid") -> "Table":
    from rich.text import Text

    from layersearch.search.tables import plain_table

    table = plain_table(*grid.headers)
    for row in grid.rows:
        table.add_row(*map(Text, row.cells), style=row.emphasis)
    return table
