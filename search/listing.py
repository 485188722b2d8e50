"""``search list`` and ``search spaces``: which runs there are, and what can be searched."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from layersearch.errors import LayerSearchError
from layersearch.search.lock import run_state
from layersearch.search.recipe_yaml import load_file
from layersearch.search.rerank import mean_value
from layersearch.search.runs import RECIPE_FILE, run_dirs
from layersearch.search.show import json_text
from layersearch.search.store_reader import StoreReader
from layersearch.search.store_schema import STORE_FILE
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import JsonObject

__all__ = ["list_runs", "list_spaces", "run_row"]


def list_runs(runs_dir: Path, as_json: bool) -> int:
    """Prints one row per run. Raises: BadInputError if the folder cannot be read."""
    runs_dir = runs_dir.expanduser()
    rows = [run_row(path) for path in run_dirs(runs_dir)]
    if as_json:
        print(json_text({"runs_dir": str(runs_dir), "runs": rows}))
        return 0
    if not rows:
        print(f"no runs in {runs_dir} yet; begin one by: search evolve --space evonorm")
        return 0
    from rich.text import Text

    from layersearch.search.tables import output, plain_table

    table = plain_table("run", "space", "data", "driver", "state", ">evaluated", ">best", "layer", ">age")
    for row in rows:
        best = "-" if row["best"] is None else f"{row['best']:.4f}"
        layer = "" if row["candidate"] is None else f"#{row['candidate']} {row['known_as'] or row['origin']}"
        of = f"/{row['evaluations']}" if row["evaluations"] is not None else ""
        cells = (
            row["run"], row["space"] or "-", row["data"] or "-", row["driver"] or "-", row["state"],
            f"{row['evaluated']}{of}", best, layer, _age(row["age_s"]),
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))
    output().print(table)
    return 0


def run_row(run_dir: Path) -> JsonObject:
    """What is said of a run in the list. One that cannot be read is listed as ``unreadable``, with the ``reason``."""
    row: JsonObject = {
        "run": run_dir.name, "space": None, "data": None, "driver": None, "state": "interrupted", "reason": None,
        "evaluated": 0, "evaluations": None, "best": None, "candidate": None, "origin": None, "known_as": None,
        "age_s": None,
    }  # fmt: skip
    try:
        if (run_dir / RECIPE_FILE).is_file():
            row["age_s"] = max(0.0, time.time() - (run_dir / RECIPE_FILE).stat().st_mtime)
            recipe = load_file(run_dir / RECIPE_FILE)
            row |= {key: str(recipe[key]) for key in ("space", "data", "driver") if recipe.get(key) is not None}
            row["evaluations"] = recipe.get("evaluations")
        if (run_dir / STORE_FILE).is_file():
            row |= _of_store(run_dir)
    except (LayerSearchError, OSError, sqlite3.Error) as error:
        row |= {"state": "unreadable", "reason": str(error)}
    return row


def _of_store(run_dir: Path) -> dict[str, Any]:
    with StoreReader(run_dir) as reader, reader.snapshot():
        settings, space = reader.meta("run", {}), reader.meta("space", {})
        facts = {
            "space": space.get("name"),
            "driver": settings.get("driver"),
            "evaluations": settings.get("evaluations"),
            "state": run_state(reader),
            "evaluated": reader.counts()["evaluated"],
        }
        winner = reader.meta("winner")
        best = [reader.candidate(winner)] if winner is not None else reader.best(1)
        if best:
            candidate = best[0]
            facts |= {
                "best": mean_value(candidate.fitness, reader.objectives()),
                "candidate": candidate.number,
                "origin": candidate.origin,
                "known_as": candidate.known_as,
            }
        return facts


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def list_spaces(as_json: bool) -> int:
    """Prints what can be searched, with presets and data sets by name."""
    if as_json:
        rows = [
            {
                "name": entry.name,
                "summary": entry.summary,
                "series": list(entry.series),
                "presets": {
                    name: {"evaluations": b.evaluations, "population": b.population, "rerank_top": b.rerank_top}
                    for name, b in entry.presets.items()
                },
                "data": _data_sets(entry.data_sets),
            }
            for entry in SPACES.values()
        ]
        print(json_text({"spaces": rows}))
        return 0
    from rich.text import Text

    from layersearch.search.tables import output, plain_table

    table = plain_table("space", "what is searched", "series", "presets (evaluations)", "data sets")
    for entry in SPACES.values():
        presets = ", ".join(f"{name} ({budget.evaluations})" for name, budget in entry.presets.items())
        data = ", ".join(_data_sets(entry.data_sets, brief=True))
        cells = (entry.name, entry.summary, ", ".join(entry.series), presets, data)
        table.add_row(*(Text(cell) for cell in cells))
    output().print(table)
    return 0


def _data_sets(path: str | None, brief: bool = False) -> list[str]:
    """Names; with ``brief``, a text for each group of them where a space has too many to list."""
    for entry in SPACES.values():
        if path is not None and entry.data_sets == path:
            found = entry.resolve(path)
            summary = getattr(found, "summary", None)
            return list(summary().values()) if brief and summary is not None else sorted(found)
    return []
