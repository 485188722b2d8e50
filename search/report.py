"""``search report``: what came of a run as one HTML page that needs nothing but itself."""

import itertools
import json
import shlex
import sys
import webbrowser
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from layersearch.search import grids
from layersearch.search.candidate import Candidate
from layersearch.search.export._files import new_file
from layersearch.search.grids import Grid, Row
from layersearch.search.history import Evaluated, Judged, StageTime, evaluated, judged_by, lineage, stage_times
from layersearch.search.report_charts import Chart, Level, Mark, chart
from layersearch.search.report_style import STYLE
from layersearch.search.show import best_of, check_begun, export_command, shown
from layersearch.search.store_reader import StoreReader
from layersearch.search.tables import objective_header, origin
from layersearch.spaces.contracts import JsonObject, Objective, Space

__all__ = ["REPORT_FILE", "command", "page"]

REPORT_FILE = "report.html"
"""Its name in the folder of a run."""
_ORIGINS = ("seed", "random", "evolved", "suggested")
_MOST_FORMULA = 160


def page(run_dir: Path, top: int) -> str:
    """The page of a run, whose search may still go on. Raises: StoreError if nothing can be shown yet."""
    check_begun(run_dir)
    with StoreReader(run_dir) as reader, reader.snapshot():
        found, space = shown(reader, top)
        rows, times = evaluated(reader), stage_times(reader)
        number = reader.winner()
        line = [] if number is None else lineage(reader, number)
        judged = judged_by(reader.objectives())
    title = escape(f"{found['run']}: layersearch")
    parts = [
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        *_head(found, run_dir),
        *_winner(found, run_dir),
        *_course(found, rows, judged),
        *_trade_offs(found, rows),
        *_figures(found),
        *_funnel(found, times),
        *_lineage(line, judged, space),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def command(run_dir: Path, top: int, out: Path | None, open_it: bool, force: bool) -> int:
    """``search report``. Returns the exit code. Raises: StoreError; BadInputError if ``out`` cannot be written."""
    path = run_dir / REPORT_FILE if out is None else out
    with new_file(path, force or out is None) as draft:
        draft.write_text(page(run_dir, top), encoding="utf-8")
    print(f"wrote {path}")
    if open_it and not webbrowser.open(path.resolve().as_uri()):
        print("no web browser was found to open it", file=sys.stderr)
    return 0


def _head(found: JsonObject, run_dir: Path) -> list[str]:
    settings = "; ".join(f"{label} {value}" for label, value in found["settings"])
    name, facts = grids.head(found).split(": ", 1)
    return [
        f"<h1>{escape(name)}</h1>",
        f"<p>{escape(facts)}</p>",
        f'<p class="pale">{escape(settings)}</p>',
        *(f'<p class="pale">{escape(text)}</p>' for text in _environment(run_dir)),
    ]


def _environment(run_dir: Path) -> list[str]:
    """When, with what and on which machine the run began; nothing where that cannot be read."""
    try:
        facts: dict[str, Any] = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
        packages = [f"{name} {facts['packages'][name]}" for name in ("torch", "numpy") if facts["packages"].get(name)]
        with_ = ", ".join([f"layersearch {facts['layersearch']}", f"Python {facts['python']}", *packages])
        machine = f"{facts['cores']} cores of {facts['cpu'] or facts['platform']}"
        return [f"begun {facts['started']} by {shlex.join(facts['command'])}", f"{with_}, on {machine}"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _winner(found: JsonObject, run_dir: Path) -> list[str]:
    if not found["best"]:
        return ["<h2>Nothing evaluated yet</h2>", "<p>No candidate has passed the funnel so far.</p>"]
    entry = found["best"][0]
    selected = [f"<p>selected: {escape(entry['selected'])}</p>"] if "selected" in entry else []
    return [
        f"<h2>{escape(best_of(found))}</h2>",
        f'<p class="pale">{escape(origin(entry["origin"], entry["known_as"]))}</p>',
        f"<pre>{escape(entry['formula'])}</pre>",
        *selected,
        "<p>Write it to a file:</p>",
        f"<pre>{escape(export_command(run_dir, found))}</pre>",
    ]


def _course(found: JsonObject, rows: Sequence[Evaluated], judged: Judged) -> list[str]:
    """What was evaluated when, and the best so far."""
    if not rows:
        return []
    best = list(itertools.accumulate((row.value for row in rows), max if judged.maximize else min))
    minutes = [row.core_s / 60 for row in rows]
    steps = [(minutes[0], best[0])]
    steps += [(x, y) for x, y, before in zip(minutes[1:], best[1:], best, strict=False) if y != before]
    levels = [
        Level(value, str(entry["name"]))
        for entry in found["baselines"]
        if (value := judged.value(entry["fitness"])) is not None
    ]
    marks = [
        Mark(x, row.value, row.candidate.origin,
             f"{_named(row.candidate)}: {row.value:.4f} after {x:,.1f} core-minutes")
        for x, row in zip(minutes, rows, strict=True)
    ]  # fmt: skip
    name = f"{judged.name}{'' if judged.maximize else ' ↓'}"
    what = Chart("core-minutes of the search", name, tuple(marks), tuple(levels), tuple(steps), judged.maximize, True)
    return [
        "<h2>The search</h2>",
        f"<figure>{chart(what)}<figcaption>{_key(marks)}; line: the best so far"
        f"{'; dashed: baselines' if levels else ''}</figcaption></figure>",
    ]


def _trade_offs(found: JsonObject, rows: Sequence[Evaluated]) -> list[str]:
    """The first objective against each other one, where there are more than one."""
    first, *others = (Objective(**o) for o in found["objectives"])
    if not rows or not others:
        return []
    front = set(found["front"])
    charts = []
    for other in others:
        points = [
            (row.candidate.fitness, "front" if row.candidate.number in front else "other", _named(row.candidate))
            for row in sorted(rows, key=lambda row: row.candidate.number in front)
        ]
        points += [(entry["fitness"], "baseline", str(entry["name"])) for entry in found["baselines"]]
        marks = [
            Mark(fitness[other.name], fitness[first.name], kind,
                 f"{name}: {first.name} {fitness[first.name]:.4f}, {other.name} {fitness[other.name]:.4g}")
            for fitness, kind, name in points
            if first.name in fitness and other.name in fitness
        ]  # fmt: skip
        what = Chart(objective_header(other), objective_header(first), tuple(marks), higher_is_better=first.maximize)
        charts.append(f"<figure>{chart(what)}<figcaption>{_key(marks)}</figcaption></figure>")
    return ["<h2>Objectives</h2>", '<div class="figures">', *charts, "</div>"]


def _key(marks: Iterable[Mark]) -> str:
    names = {"front": "on the Pareto front", "other": "not on it", "baseline": "baselines"}
    kinds = dict.fromkeys(mark.kind for mark in marks)
    order = [kind for kind in (*_ORIGINS, *names) if kind in kinds]
    return "".join(f'<span class="key {kind}"></span>{names.get(kind, kind)}' for kind in order)


def _figures(found: JsonObject) -> list[str]:
    tables = [_table(grid) for grid in grids.numbers(found)]
    formulas = []
    for entry in found["best"]:
        where = origin(entry["origin"], entry["known_as"])
        formulas.append(Row((grids.label(entry), where, entry["formula"], entry.get("selected", ""))))
    if not formulas:
        return []
    selected = "selected" if any(row.cells[3] for row in formulas) else ""
    best = Grid("", ("layer", "origin", "formula", selected), tuple(formulas))
    return ["<h2>Figures</h2>", *tables, "<h2>Best layers</h2>", _table(best, formula=2)]


def _funnel(found: JsonObject, times: Sequence[StageTime]) -> list[str]:
    saved = found["saved"]
    optional = [grids.of_rungs(saved) if saved else None, grids.of_reasons(found)]
    spent = [Row((time.stage, f"{time.n_runs:,}", f"{time.n_passed:,}", f"{time.core_s / 60:,.1f}")) for time in times]
    of_times = Grid("", ("stage", ">run", ">passed", ">core-minutes"), tuple(spent))
    return [
        "<h2>The funnel</h2>",
        _table(grids.of_funnel(found)),
        *([f"<p>{escape(grids.spared(saved))}</p>"] if saved else []),
        *(_table(grid) for grid in optional if grid is not None),
        "<h2>Where core-time went</h2>",
        _table(of_times),
    ]


def _lineage(line: Sequence[Candidate], judged: Judged, space: Space) -> list[str]:
    """The way back from the best candidate to a seed or a random one."""
    if len(line) < 2:
        return []
    rows = []
    for candidate in line:
        value, where = judged.value(candidate.fitness), origin(candidate.origin, candidate.known_as)
        formula = _cut(space.formula(space.from_json(candidate.genome)))
        rows.append(Row((f"#{candidate.number}", where, "-" if value is None else f"{value:.4f}", formula)))
    grid = Grid("", ("layer", "origin", f">{judged.name}", "formula"), tuple(rows))
    return [
        "<h2>Lineage</h2>",
        f"<details><summary>{len(line) - 1} steps back from #{line[0].number} to #{line[-1].number}, by the first "
        f"parent of each</summary>{_table(grid, formula=3)}</details>",
    ]


def _table(grid: Grid, formula: int | None = None) -> str:
    """A grid as HTML; ``formula`` is the column that is set in the type of formulas."""
    right = [header.startswith(">") for header in grid.headers]
    head = "".join(
        f"<th{_class(r)}>{escape(h.removeprefix('>'))}</th>" for h, r in zip(grid.headers, right, strict=True)
    )
    body = []
    for row in grid.rows:
        cells = [
            f"<td{' class=formula' if i == formula else _class(r)}>{escape(cell)}</td>"
            for i, (cell, r) in enumerate(zip(row.cells, right, strict=True))
        ]
        body.append(f"<tr{f' class={row.emphasis}' if row.emphasis else ''}>{''.join(cells)}</tr>")
    caption = f"<caption>{escape(grid.title)}</caption>" if grid.title else ""
    rows = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f'<div class="scroll"><table>{caption}{rows}</table></div>'


def _class(right: bool) -> str:
    return " class=right" if right else ""


def _named(candidate: Candidate) -> str:
    return f"#{candidate.number} ({origin(candidate.origin, candidate.known_as)})"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_FORMULA else text[: _MOST_FORMULA - 1] + "…"
