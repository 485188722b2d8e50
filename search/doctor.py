"""``search doctor``: what this machine can do and why not, which data is there, and whether limits can be trusted."""

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import layersearch
from layersearch.errors import LayerSearchError, RecipeError
from layersearch.kernels.codegen._compile import COMPILERS
from layersearch.search.environment import cores, cpu_model, package_versions
from layersearch.search.session import DATA_VARIABLE, recipe_of
from layersearch.search.show import json_text
from layersearch.spaces.catalog import SPACES, SpaceEntry
from layersearch.spaces.contracts import JsonObject

__all__ = ["calibrate", "doctor"]

_OPTIONAL = {
    "triton": "needed for fused GPU kernels: pip install 'layersearch[gpu]'",
    "ray": "needed for clusters: pip install 'layersearch[cluster]'",
    "onnx": "needed for export to ONNX: pip install 'layersearch[onnx]'",
}


def doctor(space: str, data_dir: str | None, as_json: bool) -> int:
    """Prints the state of the machine, the data sets found, and the recorded calibration tables."""
    entry = SPACES[space]
    folder = data_dir or os.environ.get(DATA_VARIABLE) or None
    if folder is not None:
        folder = str(Path(folder).expanduser())
    found: JsonObject = {
        "layersearch": layersearch.__version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "cpu": cpu_model(),
        "cores": cores(),
        "compilers": {name: path for name in COMPILERS if (path := shutil.which(name))},
        "lowerings": _lowerings(),
        "gpu": _gpu(),
        "data_dir": folder,
        "data": _data(entry, folder),
        "calibrates": entry.calibration is not None,
        "calibration": _recorded(entry),
    }
    if as_json:
        print(json_text(found))
    else:
        _print(found)
    return 0


def _lowerings() -> dict[str, str | None]:
    """Ways to run a layer: ``None`` for those this machine has, else why not."""
    from layersearch.primitives.lowering import available

    return available()


def _gpu() -> JsonObject:
    """Names of the CUDA devices, or why there are none."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return {"devices": [], "reason": "this torch was built without CUDA; install another build to use a GPU"}
    if not torch.cuda.is_available():
        return {"devices": [], "reason": "torch was built with CUDA but finds no device; see nvidia-smi"}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"devices": names, "reason": None}


def _data(entry: SpaceEntry, folder: str | None) -> JsonObject:
    """What is wrong with each data set; ``None`` for those that can be read."""
    if entry.data_sets is None or entry.load is None:
        return {}
    load = entry.resolve(entry.load)
    found: JsonObject = {}
    for name in sorted(entry.resolve(entry.data_sets)):
        try:
            load(name, None if folder is None else Path(folder))
            found[name] = None
        except LayerSearchError as error:
            found[name] = str(error)
    return found


def _recorded(entry: SpaceEntry) -> list[JsonObject]:
    if entry.calibration is None:
        return []
    tables: list[JsonObject] = entry.resolve(f"{entry.calibration}:recorded")()
    verdict = entry.resolve(f"{entry.calibration}:verdict")
    return [table | {"wrong": verdict(table["rows"])} for table in tables]


def calibrate(given: dict[str, Any], pairs: list[str], seeds: int, as_json: bool) -> int:
    """Runs the self-test of a preset on a data set and prints its table. Returns 1 if the limits cannot be trusted."""
    recipe = recipe_of(given, None, pairs, ())
    entry = recipe.entry()
    if entry.calibration is None:
        raise RecipeError(
            f"a calibration must be part of the space, and {recipe.space} has none; leave out --calibrate"
        )
    settings = recipe.space_settings()

    def progress(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    rows = entry.resolve(f"{entry.calibration}:calibrate")(settings, seeds, progress)
    table: JsonObject = {
        "space": recipe.space,
        "preset": recipe.preset,
        "data": recipe.data,
        "series": recipe.series,
        "rows": rows,
        "wrong": entry.resolve(f"{entry.calibration}:verdict")(rows),
    }
    if as_json:
        print(json_text(table))
    else:
        _print_calibration(table)
    return 1 if table["wrong"] else 0


def _print(found: JsonObject) -> None:
    from rich.text import Text

    from layersearch.search.tables import output, plain_table

    console = output()
    table = plain_table("", "")
    table.show_header = False

    def say(label: str, text: str) -> None:
        table.add_row(Text(label, style="bold"), Text(text, overflow="fold"))

    say("layersearch", f"{found['layersearch']} on Python {found['python']}")
    installed = found["packages"]
    say("packages", ", ".join(f"{name} {number}" for name, number in installed.items() if number))
    for name, number in installed.items():
        if number is None:
            say(name, f"not installed; {_OPTIONAL.get(name, 'a dependency: install layersearch again')}")
    say("CPU", f"{found['cores']} cores to use, {found['cpu']}")
    say("GPU", ", ".join(found["gpu"]["devices"]) or f"none: {found['gpu']['reason']}")
    say("compilers", ", ".join(found["compilers"].values()) or "none found (cc, gcc or clang)")
    say("lowerings", ", ".join(n if why is None else f"{n}: {why}" for n, why in found["lowerings"].items()))
    say("data folder", found["data_dir"] or f"none given; set {DATA_VARIABLE} or use --data-dir")
    for label, text in _data_rows(found["data"]):
        say(f"  {label}", text)
    console.print(table)
    for recorded in found["calibration"]:
        console.print()
        _print_calibration(recorded)
    if not found["calibration"] and found["calibrates"]:
        console.print(Text("\nno calibration is recorded; make one by: search doctor --calibrate --preset smoke"))


def _data_rows(data: JsonObject) -> list[tuple[str, str]]:
    """One row per data set, or per group of those named ``group:name``, with the first fault in it."""
    groups: dict[str, list[str | None]] = {}
    for name, wrong in data.items():
        groups.setdefault(name.partition(":")[0], []).append(wrong)
    rows = []
    for group, faults in groups.items():
        wrong = next((fault for fault in faults if fault is not None), None)
        n_wrong = sum(fault is not None for fault in faults)
        if group in data:
            rows.append((group, "found" if wrong is None else f"not usable: {wrong}"))
        elif wrong is None:
            rows.append((f"{group}:", f"all {len(faults)} found"))
        else:
            rows.append((f"{group}:", f"{n_wrong} of {len(faults)} not usable, the first: {wrong}"))
    return rows


def _print_calibration(table: JsonObject) -> None:
    """One row per layer, one column per stage: trainings passed, and the value nearest the limit."""
    from rich.text import Text

    from layersearch.search.tables import output, plain_table

    console = output()
    rows = table["rows"]
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    cells = {(row["layer"], row["stage"]): row for row in rows}
    limits = {row["stage"]: row["limit"] for row in rows if row["limit"] is not None}
    facts = ", ".join(f"{key} {table[key]}" for key in ("preset", "data", "series", "date") if table.get(key))
    console.print(Text(f"calibration: {facts}", style="bold"))
    printed = plain_table("layer", *(f">{stage}" for stage in stages))
    printed.add_row("limit", *(f"{limits[stage]:.3g}" if stage in limits else "" for stage in stages), style="dim")
    for layer in dict.fromkeys(row["layer"] for row in rows):
        printed.add_row(Text(layer), *(Text(_cell(cells.get((layer, stage)))) for stage in stages))
    console.print(printed)
    for wrong in table["wrong"]:
        console.print(Text(f"not to be trusted: {wrong}", style="red"))
    if not table["wrong"]:
        console.print(Text("every known layer passes every rejecting stage, and those known not to work are rejected"))


def _cell(row: JsonObject | None) -> str:
    if row is None:
        return ""
    worst = "" if row["worst"] is None else f"  {row['worst']:.3g}"
    return f"{row['passed']}/{row['seeds']}{worst}"
