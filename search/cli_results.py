"""Commands of ``search`` for what came of runs."""

from pathlib import Path
from typing import Annotated

import typer

from layersearch.search import options as o
from layersearch.search.command_line import Work, number, whole

__all__ = ["export", "list_", "read", "report", "show"]


def list_(runs_dir: o.RunsDir = "runs", as_json: o.AsJson = False) -> Work:
    """Show all runs."""

    def work() -> int:
        from layersearch.search.listing import list_runs

        return list_runs(Path(runs_dir), as_json)

    return work


def show(
    name: o.RunName,
    top: Annotated[str, typer.Option("--top", metavar="K", help="How many of the best.")] = "10",
    runs_dir: o.RunsDir = "runs",
    as_json: o.AsJson = False,
) -> Work:
    """Show what came of a run.

    Funnel, best layers with formula, baselines, re-rank and test; also while the run goes on.
    """

    def work() -> int:
        from layersearch.search.runs import find_run
        from layersearch.search.show import print_show

        print_show(find_run(Path(runs_dir), name), whole("--top", top, 10_000), as_json)
        return 0

    return work


def report(
    name: o.RunName,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write (default: report.html in the run's folder)."),
    ] = None,
    top: Annotated[str, typer.Option("--top", metavar="K", help="How many of the best.")] = "10",
    open_: Annotated[bool, typer.Option("--open", help="Show it in the web browser.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing FILE.")] = False,
    runs_dir: o.RunsDir = "runs",
) -> Work:
    """Write what came of a run as one HTML page.

    The course of the search, its objectives, the tables of search show, where the time went and the way to the winner;
    also while the run goes on. The page needs no network. report.html is written anew each time.
    """

    def work() -> int:
        from layersearch.search.report import command
        from layersearch.search.runs import find_run

        return command(find_run(Path(runs_dir), name), whole("--top", top, 10_000), out, open_, force)

    return work


def export(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a run, as in search list.")] = None,
    candidate: o.Candidate = "best",
    format_: Annotated[
        str, typer.Option("--format", metavar="python|triton|pt2|onnx|features|optuna", help="What to write.")
    ] = "python",
    space: o.Space = None,
    genome: Annotated[
        str | None, typer.Option("--genome", metavar="FILE|known:NAME", help="A genome in place of a run.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Drop the guards on divisions and logarithms.")] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Networks of a run: train as in the re-rank, write FILE.safetensors.")
    ] = False,
    num_features: Annotated[
        str, typer.Option("--num-features", metavar="C", help="Channels of the formats that fix them (pt2, onnx).")
    ] = "64",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    runs_dir: o.RunsDir = "runs",
    as_json: o.AsJson = False,
) -> Work:
    """Write a layer as one plain file.

    The layer is a candidate of a run, or that of --space and --genome. The file runs without layersearch. With --format
    features (optfs): what a candidate looks at, as JSON or CSV. With --format optuna: all candidates of a run, as a
    journal that optuna-dashboard opens.
    """

    def work() -> int:
        from layersearch.search.export.command import run
        from layersearch.search.runs import find_run
        from layersearch.search.show import json_text, show_object

        run_dir = None if name is None else find_run(Path(runs_dir), name)
        written = run(
            out=out,
            format=format_,
            run=name,
            candidate=candidate,
            runs_dir=Path(runs_dir),
            space=space,
            genome=genome,
            exact=exact,
            weights=weights,
            num_features=whole("--num-features", num_features, 65_536),
            force=force,
        )
        if as_json:
            about = {} if run_dir is None else show_object(run_dir, 10)
            print(json_text({**about, "export": written}))
        else:
            print(f"wrote {written['path']} ({written['format']}): {written['what']}")
            print(written["check"])
        return 0

    return work


def read(
    name: o.RunName,
    candidate: o.Candidate = "best",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the picture and the formula.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="What search export --weights wrote (default: train anew)."),
    ] = None,
    r2: Annotated[
        str, typer.Option("--r2", metavar="R2", help="From which R² on an edge is taken for a function.")
    ] = "0.99",
    tolerance: Annotated[
        str, typer.Option("--tolerance", metavar="PART", help="By how much pruning and rounding may raise the error.")
    ] = "0.05",
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Fit the constants of the formula to the data.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    runs_dir: o.RunsDir = "runs",
    as_json: o.AsJson = False,
) -> Work:
    """Read a trained KAN as functions and a formula.

    Edges that hardly matter are pruned, the others compared with a library of functions; every step says what it costs
    in error. A formula is written where the network is small. With -o: network.svg, formula.txt, formula.tex,
    reading.json.
    """

    def work() -> int:
        from layersearch.search import reading

        return reading.command(
            run=name,
            candidate=candidate,
            runs_dir=Path(runs_dir),
            out=out,
            weights=weights,
            limit=number("--r2", r2, 1.0),
            tolerance=number("--tolerance", tolerance, 10.0),
            refit=refit,
            force=force,
            as_json=as_json,
        )

    return work
