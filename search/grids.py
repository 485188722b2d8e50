"""What ``search show`` says of a run as plain tables: for the terminal (``show``) and the report alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from layersearch.search.live import clock, funnel_rows
from layersearch.search.rerank import mean_value
from layersearch.search.tables import objective_headers, origin
from layersearch.spaces.contracts import JsonObject, Objective

__all__ = ["Grid", "Row", "head", "label", "numbers", "of_funnel", "of_reasons", "of_rungs", "spared"]

Emphasis: TypeAlias = Literal["", "bold", "dim"]

MOST_REASONS = 8
_TITLES = {
    "rerank": "re-rank: trained again, on data that the search did not see (mean ± std over trainings)",
    "test": "test: the winner and the baselines, once (mean ± std over trainings)",
}


@dataclass(frozen=True)
class Row:
    """Cells of a row, and how it stands out."""

    cells: tuple[str, ...]
    emphasis: Emphasis = ""


@dataclass(frozen=True)
class Grid:
    """A table; headers that begin with ``>`` are those of right-aligned columns."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[Row, ...]


def head(found: JsonObject) -> str:
    """What run it is and how far it came, in one line."""
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
    return f"{found['run']}: {', '.join(facts)}, {clock(found['elapsed_s'])} of search"


def of_funnel(found: JsonObject) -> Grid:
    """How many candidates each step removed, and how many were left."""
    counts = found["counts"]
    rows = [Row(("asked", "", f"{counts['asked']:,}"))]
    rows += [Row((name, f"{removed:,}", f"{left:,}")) for name, removed, left in funnel_rows(counts, found["stages"])]
    for state, name in (("in_flight", "in flight"), ("paused", "paused")):
        if counts[state]:
            rows.append(Row((name, "", f"{counts[state]:,}")))
    rows.append(Row(("evaluated", "", f"{counts['evaluated']:,}"), "bold"))
    return Grid("", ("funnel", ">removed", ">left"), tuple(rows))


def of_reasons(found: JsonObject) -> Grid | None:
    """Why most candidates were removed."""
    rows = [Row((r["reason"], r["stage"], f"{r['candidates']:,}")) for r in found["reasons"][:MOST_REASONS]]
    return Grid("", ("most frequent reasons", "stage", ">candidates"), tuple(rows)) if rows else None


def of_rungs(saved: JsonObject) -> Grid | None:
    """How many candidates went on from each rung of a scheduler; None where it has none to go on from."""
    if not any(row["promoted"] for row in saved["rungs"]):
        return None
    rows = [Row((str(row["rung"]), f"{row['reached']:,}", f"{row['promoted']:,}")) for row in saved["rungs"]]
    return Grid("", ("rung", ">reached", ">promoted"), tuple(rows))


def spared(saved: JsonObject) -> str:
    """What a scheduler spared, in one line."""
    steps = f"{saved['steps']:,} training steps" if saved["steps"] is not None else "what was left"
    return (
        f"saved against straight: {steps} of {saved['candidates']:,} candidates, about "
        f"{saved['core_minutes']:.1f} core-minutes; used: {saved['core_minutes_used']:.1f}"
    )


def numbers(found: JsonObject) -> list[Grid]:
    """Search, re-rank and test figures of the best candidates and the baselines, each where it was measured."""
    rows = [*found["best"], *found["baselines"]]
    grids = [_of_search(found, rows)] if rows else []
    return grids + [grid for kind in _TITLES if (grid := _of_trainings(found, rows, kind)) is not None]


def _of_search(found: JsonObject, entries: Sequence[JsonObject]) -> Grid:
    objectives = found["objectives"]
    rows = []
    for entry in entries:
        values = [entry["fitness"].get(o["name"]) for o in objectives]
        front = "yes" if entry["candidate"] in found["front"] else ""
        state = front if entry["state"] == "evaluated" else entry.get("reason") or entry["state"]
        cells = map(_number, [*values, _mean(values, objectives)])
        rows.append(
            Row((label(entry), origin(entry["origin"], entry["known_as"]), *cells, state), _emphasis(entry, found))
        )
    headers = objective_headers([Objective(**o) for o in objectives])
    return Grid("fitness in the search", ("layer", "origin", *headers, ">mean", "front"), tuple(rows))


def _of_trainings(found: JsonObject, entries: Sequence[JsonObject], kind: str) -> Grid | None:
    """Those of the re-rank or the test."""
    there = {name for entry in entries for name in entry[kind]}
    measured = [o for o in found["objectives"] if o["name"] in there]
    if not measured:
        return None
    rows = []
    for entry in entries:
        if not entry[kind]:
            continue
        spreads = [entry[kind].get(o["name"]) for o in measured]
        mean = _mean([spread and spread["mean"] for spread in spreads], measured)
        n = max(spread["n"] for spread in spreads if spread)
        cells = (
            label(entry),
            origin(entry["origin"], entry["known_as"]),
            *map(_spread, spreads),
            _number(mean),
            str(n),
        )
        rows.append(Row(cells, _emphasis(entry, found)))
    headers = ("layer", "origin", *(f">{o['name']}" for o in measured), ">mean", ">trainings")
    return Grid(_TITLES[kind], headers, tuple(rows))


def label(entry: JsonObject) -> str:
    """Name of a baseline, number of a candidate."""
    return str(entry["name"]) if entry["origin"] == "baseline" else f"#{entry['candidate']}"


def _emphasis(entry: JsonObject, found: JsonObject) -> Emphasis:
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
