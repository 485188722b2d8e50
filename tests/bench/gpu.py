"""Everything that is to be measured on a GPU, in under ten minutes on an H100 or H200, by one command.

    python tests/bench/gpu.py [--quick] [--out FOLDER] [--only SECTION …]

Runs from a source tree. Needs torch, triton and numpy, not the package's other dependencies (no pydantic); with timm it
compares with timm, too. Prints a table per section and writes ``gpu.json`` and ``gpu.md`` (for RESULTS.md) after each
one. A section that fails is recorded with its reason, and the others go on. ``--dry-run`` tries all of it on a CPU with
tiny shapes; its figures mean nothing.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "4")
TREE = Path(__file__).parents[2]
sys.path.insert(0, str(TREE / ".dev"))  # the tree that the script lies in, whatever is installed

import torch  # noqa: E402
from gpu_clicks import clicks  # noqa: E402
from gpu_kernels import products, rationals  # noqa: E402
from gpu_layers import bandwidth, compiled, correctness, layers  # noqa: E402
from gpu_lookup import lookups  # noqa: E402
from gpu_steps import graph_step, streams  # noqa: E402
from gpu_timing import Bench, Row, first_line  # noqa: E402

__all__: list[str] = []

SECTIONS: dict[str, tuple[Callable[[Bench], list[Row]], float]] = {
    "bandwidth": (bandwidth, 0.04),
    "correctness": (correctness, 0.14),
    "layers": (layers, 0.26),
    "rationals": (rationals, 0.07),
    "products": (products, 0.07),
    "lookups": (lookups, 0.05),
    "clicks": (clicks, 0.05),
    "graph_step": (graph_step, 0.11),
    "streams": (streams, 0.11),
    "compiled": (compiled, 0.10),
}
"""Each with its part of the time; what one leaves over goes to those after it."""
MINUTES, QUICK_MINUTES = 9.0, 4.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer graphs and rounds")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU: tries the script out")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.json and gpu.md")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="some sections only")
    given = parser.parse_args(arguments)
    if not given.dry_run and not torch.cuda.is_available():
        print("gpu.py must run on a machine with a CUDA device, and torch finds none; try it out with --dry-run")
        return 2
    device = torch.device("cpu" if given.dry_run else f"cuda:{torch.cuda.current_device()}")
    bench = Bench(device, given.quick, given.dry_run)
    if bench.on_gpu:
        torch.backends.cudnn.deterministic = True  # as in a search
    else:
        torch.set_num_threads(1)
    report: dict[str, object] = {
        "date": str(date.today()),
        "command": " ".join(["gpu.py", *arguments]),
        "environment": bench.environment(),
        "dry_run": given.dry_run,
        "sections": {},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    print(header(report), flush=True)
    begun, minutes = time.monotonic(), QUICK_MINUTES if given.quick else MINUTES
    spent = 0.0
    for name, (section, part) in SECTIONS.items():
        spent += part
        if given.only and name not in given.only:
            continue
        bench.ends = begun + 60 * minutes * spent
        report["sections"][name] = run(bench, section)  # type: ignore[index]
        print(markdown(name, report["sections"][name]), flush=True)  # type: ignore[index]
        write(report, given.out)
    return 0


def run(bench: Bench, section: Callable[[Bench], list[Row]]) -> dict[str, object]:
    """What a section found, or why it could not."""
    bench.notes = []
    begun = time.monotonic()
    rows: list[Row] = []
    failed = None
    try:
        # Not the default stream: what is captured must have been computed on the stream that captures.
        with torch.cuda.stream(torch.cuda.Stream(bench.device)) if bench.on_gpu else nullcontext():
            rows = section(bench)
            bench.synchronize()
    except Exception as error:
        failed = first_line(error)
    return {
        "what": " ".join((section.__doc__ or "").split()),
        "rows": rows,
        "notes": bench.notes,
        "failed": failed,
        "seconds": round(time.monotonic() - begun, 1),
    }


def write(report: dict[str, object], folder: Path) -> None:
    (folder / "gpu.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    parts = [header(report), *(markdown(name, found) for name, found in report["sections"].items())]  # type: ignore[attr-defined]
    (folder / "gpu.md").write_text("\n".join(parts))


def header(report: dict[str, object]) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in report["environment"].items())  # type: ignore[attr-defined]
    title = "dry run on a CPU, whose figures mean nothing" if report["dry_run"] else "measured"
    return f"## GPU (`{report['command']}`), {title}\n\n{report['date']} · {facts}\n"


def markdown(name: str, found: dict[str, object]) -> str:
    rows: list[Row] = found["rows"]  # type: ignore[assignment]
    lines = [f"### {name}", "", f"{found['what']} ({found['seconds']} s)", ""]
    if found["failed"]:
        lines += [f"Failed: {found['failed']}", ""]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if columns:
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows] + [""]
    notes: list[str] = found["notes"]  # type: ignore[assignment]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
