"""``search show``: what came of a run, as tables or as one JSON object."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layersearch.errors import StoreError
from layersearch.search import report_data
from layersearch.search.executors.base import SpaceSpec
from layersearch.search.live import clock, funnel_rows
from layersearch.search.rerank import mean_value
from layersearch.search.runs import resume_command, runs_dir_option
from layersearch.search.store_reader import StoreReader
from layersearch.search.store_schema import STORE_FILE
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import JsonObject, Objective

__all__ = ["json_text", "print_show", "show_object"]

MOST_REASONS = 8
_TITLES = {
    "rerank": "re-rank: trained again, on data that the search did not see (mean ± std over trainings)",
    "test": "test: the winner and the baselines, once (mean ± std over trainings)",
}


def show_object(run_dir: Path, top: int) -> JsonObject:
    """The object of ``search show --json``; ``stages`` are their names in order, ``reasons`` rows of stage, reason
    and number of candidates.

    Raises: StoreError if there is no store yet, or it cannot be read.
    """
    if not (run_dir / STORE_FILE).exists():
        raise StoreError(
            f"{run_dir.name} must have begun to be shown, but it has no store yet; begin by {resume_command(run_dir)}"
        )
    with StoreReader(run_dir) as reader:
        facts = reader.meta("space")
        if facts is None:
            raise StoreError(
                f"{run_dir.name} must have begun to be shown, but its store is new; wait, or {resume_command(run_dir)}"
            )
        space = SpaceSpec(facts["entry"], facts["settings"]).build()
        found = report_data.show(reader, space, top)
        stages = list(dict.fromkeys(stage.name for stage in reader.stages()))
        reasons = [{"stage": s, "reason": r, "candidates": n} for s, r, n in reader.rejections()]
    facts = {"stages": stages, "reasons": reasons, "settings": [list(row) for row in space.describe()]}
    return found | facts


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
        number = found["best"][0]["candidate"] if found["winner"] is None else found["winner"]
        is_ = "is the best so far" if found["winner"] is None else "is the winner"
        network = found["space"] in SPACES and SPACES[found["space"]].network
        file = "net.py --weights" if network else "layer.py"
        command = f"search export {run_dir.name} --candidate best --format python -o {file}{runs_dir_option(run_dir)}"
        print(f"\n#{number} {is_}; write it to a file: {command}")


def _print_tables(found: JsonObject) -> None:
    from rich.text import Text

    from layersearch.search.tables import output, plain_table

    console = output()
    driver = found["driver"] if found["sampler"] is None else f"{found['driver']} ({found['sampler']})"
    scheduler = [] if found["scheduler"] == "straight" else [f"scheduler {found['scheduler']}"]
    replay = [] if found["replay"] is None else [f"replay of {found['replay']}"]
    facts = [
        f"space {found['space']}",
        f"driver {driver}",
        *scheduler,
        *replay,
        f"seed {found['seed']}",
        str(found["state"]),
    ]
    if found["state"] != "finished" and found["phase"] != "search":
        facts[-1] += f" in phase {found['phase']}"
    console.print(Text(f"{found['run']}: {', '.join(facts)}, {clock(found['elapsed_s'])} of search", style="bold"))
    console.print(Text("; ".join(f"{label} {value}" for label, value in found["settings"]), style="dim"))
    console.print()

    counts = found["counts"]
    funnel = plain_table("funnel", ">removed", ">left")
    funnel.add_row("asked", "", f"{counts['asked']:,}")
    for name, removed, left in funnel_rows(counts, found["stages"]):
        funnel.add_row(name, f"{removed:,}", f"{left:,}")
    for state, name in (("in_flight", "in flight"), ("paused", "paused")):
        if counts[state]:
            funnel.add_row(name, "", f"{counts[state]:,}")
    funnel.add_row("evaluated", "", f"{counts['evaluated']:,}", style="bold")
    console.print(funnel)
    console.print()

    if found["saved"]:
        _print_saved(found["saved"])
        console.print()

    if found["reasons"]:
        reasons = plain_table("most frequent reasons", "stage", ">candidates")
        for row in found["reasons"][:MOST_REASONS]:
            reasons.add_row(Text(row["reason"]), Text(row["stage"]), f"{row['candidates']:,}")
        console.print(reasons)
        console.print()

    if not found["best"]:
        console.print(Text("no candidate was evaluated yet"))
    for title, table in _number_tables(found):
        console.print(Text(title, style="bold"))
        console.print(table)
        console.print()
    for entry in found["best"]:
        console.print(Text(f"{_label(entry)}  {_origin(entry)}", style="bold"))
        console.print(Text(f"    {entry['formula']}", overflow="fold"))
        if "selected" in entry:
            console.print(Text(f"    selected: {entry['selected']}", overflow="fold"))


def _print_saved(saved: JsonObject) -> None:
    """What the scheduler spared, and how many went on from each rung."""
    from rich.text import Text

    from layersearch.search.tables import output, plain_table

    if any(row["promoted"] for row in saved["rungs"]):
        table = plain_table("rung", ">reached", ">promoted")
        for row in saved["rungs"]:
            table.add_row(str(row["rung"]), f"{row['reached']:,}", f"{row['promoted']:,}")
        output().print(table)
    steps = f"{saved['steps']:,} training steps" if saved["steps"] is not None else "what was left"
    output().print(
        Text(
            f"saved against straight: {steps} of {saved['candidates']:,} candidates, about "
            f"{saved['core_minutes']:.1f} core-minutes; used: {saved['core_minutes_used']:.1f}"
        )
    )


def _number_tables(found: JsonObject) -> list[tuple[str, Any]]:
    """Search, re-rank and test figures of the best candidates and the baselines, each where it was measured."""
    from rich.text import Text

    from layersearch.search.tables import objective_headers, plain_table

    objectives = found["objectives"]
    rows = [*found["best"], *found["baselines"]]
    tables = []
    if rows:
        headers = objective_headers([Objective(**o) for o in objectives])
        table = plain_table("layer", "origin", *headers, ">mean", "front")
        for entry in rows:
            values = [entry["fitness"].get(o["name"]) for o in objectives]
            mean = _mean(values, objectives)
            front = "yes" if entry["candidate"] in found["front"] else ""
            state = front if entry["state"] == "evaluated" else entry.get("reason") or entry["state"]
            cells = [_label(entry), _origin(entry), *map(_number, [*values, mean]), state]
            table.add_row(*(Text(cell) for cell in cells), style=_style(entry, found))
        tables.append(("fitness in the search", table))
    for kind, title in _TITLES.items():
        there = {name for entry in rows for name in entry[kind]}
        names = [o["name"] for o in objectives if o["name"] in there]
        if not names:
            continue
        table = plain_table("layer", "origin", *(f">{name}" for name in names), ">mean", ">trainings")
        measured = [entry for entry in rows if entry[kind]]
        there_too = [o for o in objectives if o["name"] in there]
        for entry in measured:
            spreads = [entry[kind].get(name) for name in names]
            mean = _mean([spread and spread["mean"] for spread in spreads], there_too)
            n = max(spread["n"] for spread in spreads if spread)
            cells = [_label(entry), _origin(entry), *map(_spread, spreads), _number(mean), str(n)]
            table.add_row(*(Text(cell) for cell in cells), style=_style(entry, found))
        tables.append((title, table))
    return tables


def _label(entry: JsonObject) -> str:
    return str(entry["name"]) if entry["origin"] == "baseline" else f"#{entry['candidate']}"


def _origin(entry: JsonObject) -> str:
    if entry["origin"] == "baseline":
        return "baseline"
    return f"{entry['origin']}: {entry['known_as']}" if entry["known_as"] else str(entry["origin"])


def _style(entry: JsonObject, found: JsonObject) -> str:
    if entry["origin"] == "baseline":
        return "dim"
    return "bold" if entry["candidate"] == found["winner"] else ""


def _mean(values: Sequence[float | None], objectives: Sequence[JsonObject]) -> float | None:
    weighed = [Objective(**o) for o in objectives]
    there = {o.name: value for o, value in zip(weighed, values, strict=True) if value is not None}
    if len(there) < len(weighed) or not sum(o.weight for o in weighed):
        return None
    return mean_value(there, weighed)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 and value == round(value) else f"{value:.4f}"


def _spread(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return "-"
    return _number(spread["mean"]) + (f" ± {spread['std']:.4f}" if spread["n"] > 1 else "")
