"""The command ``search``: reads options, and turns every bad input into one sentence. Nothing heavy is imported here.

Exit codes: 0 done, 1 the run failed, 2 bad input, 130 interrupted (resumable).
"""

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

import layersearch
from layersearch.errors import BadInputError, LayerSearchError, RecipeError
from layersearch.primitives.registry import unknown_name
from layersearch.search import options as o

__all__ = ["app", "main"]

Work: TypeAlias = Callable[[], int]
"""What a command has to do. It is done after parsing, so that the parser never sees its errors."""

app = typer.Typer(
    name="search",
    help="Searches for better neural-network layers and writes the winner as one plain PyTorch file.",
    epilog="Begin with: search evolve --space evonorm",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"layersearch {layersearch.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
@o.begins_run(driver=o.Driver, replay=o.Replay)
def evolve(**given: Any) -> Work:
    """Begin a run.

    Searches for layers, trains known ones by the same code to compare with, and measures the best again on data that
    the search did not see. With --space alone: about three minutes on 2 cores, on bundled data. Ctrl-C ends a run so
    that it can be resumed.
    """
    return _begin(given)


@app.command()
@o.begins_run(sampler=o.Sampler)
def tune(**given: Any) -> Work:
    """Begin a run whose layers are suggested by a sampler of Optuna.

    Everything else is as in search evolve.
    """
    return _begin({**given, "driver": "optuna"})


def _begin(given: dict[str, Any]) -> Work:
    apart = ("recipe", "set_", "seed_layers", "as_json")
    options = {name: value for name, value in given.items() if name not in apart}
    recipe, pairs, seed_layers, as_json = (given[name] for name in apart)

    def work() -> int:
        from layersearch.search import session

        if given["driver"] == "optuna" and "sampler" not in given:
            raise RecipeError(
                "driver must be evolution or random, got optuna, which is that of search tune; use search tune"
            )
        if options.pop("replay", None) is not None:
            return session.replay(given, as_json)
        return session.evolve(session.recipe_of(options, recipe, pairs or (), seed_layers or ()), as_json)

    return work


@app.command()
def resume(
    name: o.RunName,
    evaluations: o.Evaluations = None,
    minutes: o.Minutes = None,
    core_minutes: o.CoreMinutes = None,
    workers: o.Workers = None,
    backend: o.Backend = None,
    address: o.Address = None,
    gpus_per_worker: o.GpusPerWorker = None,
    cpus_per_worker: o.CpusPerWorker = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    runs_dir: o.RunsDir = "runs",
    as_json: o.AsJson = False,
) -> Work:
    """Go on with a run, or extend it.

    A finished run needs a new end, --evaluations, --minutes or --core-minutes in total. What is not given stays as it
    was; the defaults below are those of a new run.
    """
    given = {
        "evaluations": evaluations, "minutes": minutes, "core_minutes": core_minutes, "workers": workers,
        "backend": backend, "address": address, "gpus_per_worker": gpus_per_worker,
        "cpus_per_worker": cpus_per_worker, "device": device, "data_dir": data_dir,
    }  # fmt: skip

    def work() -> int:
        from layersearch.search import session

        return session.resume(name, Path(runs_dir), given, as_json)

    return work


@app.command()
def submit(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="-- evolve|resume|tune …", help="What to run on the cluster, with its options."),
    ],
    address: o.JobApi = None,
    runtime_env: Annotated[
        Path | None,
        typer.Option(
            "--runtime-env",
            metavar="FILE",
            help="YAML of Ray's runtime environment: pip, env_vars, … (default: what is installed on the nodes).",
        ),
    ] = None,
    as_json: o.AsJson = False,
) -> Work:
    """Run on a Ray cluster, as a job.

    The run is on the head of the cluster: in its --runs-dir, if that is given, or else in ~/layersearch-runs; search
    fetch brings it here. Its backend is ray, with as many workers as fit, unless the options say otherwise.
    """

    def work() -> int:
        from layersearch.search.cluster import jobs

        return jobs.submit(jobs.address_of(address), arguments, _parse, runtime_env, as_json)

    return work


@app.command()
def status(job: o.JobName, address: o.JobApi = None, as_json: o.AsJson = False) -> Work:
    """Say how far a submitted job is."""

    def work() -> int:
        from layersearch.search.cluster import jobs

        return jobs.status(jobs.address_of(address), job, as_json)

    return work


@app.command()
def logs(
    job: o.JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    address: o.JobApi = None,
) -> Work:
    """Print what a submitted job has written."""

    def work() -> int:
        from layersearch.search.cluster import jobs

        return jobs.logs(jobs.address_of(address), job, follow)

    return work


@app.command()
def stop(job: o.JobName, address: o.JobApi = None, as_json: o.AsJson = False) -> Work:
    """End a submitted job so that its run can be resumed."""

    def work() -> int:
        from layersearch.search.cluster import jobs

        return jobs.stop(jobs.address_of(address), job, as_json)

    return work


@app.command()
def fetch(
    job: o.JobName,
    address: o.JobApi = None,
    runs_dir: o.RunsDir = "runs",
    force: Annotated[bool, typer.Option("--force", help="Replace a run of this name.")] = False,
    as_json: o.AsJson = False,
) -> Work:
    """Bring the run of a submitted job here.

    All but its checkpoints, also while it goes on; then show, export and resume work on it.
    """

    def work() -> int:
        from layersearch.search.cluster import jobs

        return jobs.fetch(jobs.address_of(address), job, Path(runs_dir), force, as_json)

    return work


@app.command("list")
def list_(runs_dir: o.RunsDir = "runs", as_json: o.AsJson = False) -> Work:
    """Show all runs."""

    def work() -> int:
        from layersearch.search.listing import list_runs

        return list_runs(Path(runs_dir), as_json)

    return work


@app.command()
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

        print_show(find_run(Path(runs_dir), name), _whole("--top", top, 10_000), as_json)
        return 0

    return work


@app.command()
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
            num_features=_whole("--num-features", num_features, 65_536),
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


@app.command()
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
            limit=_number("--r2", r2, 1.0),
            tolerance=_number("--tolerance", tolerance, 10.0),
            refit=refit,
            force=force,
            as_json=as_json,
        )

    return work


@app.command()
def spaces(as_json: o.AsJson = False) -> Work:
    """Show what can be searched."""

    def work() -> int:
        from layersearch.search.listing import list_spaces

        return list_spaces(as_json)

    return work


@app.command()
def doctor(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the limits anew: known layers must pass.")
    ] = False,
    space: Annotated[str, typer.Option("--space", metavar="NAME", help="Whose data and limits.")] = "evonorm",
    series: o.Series = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    preset: o.Preset = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="K", help="Trainings per layer and stage.")] = "5",
    set_: o.Set = None,
    as_json: o.AsJson = False,
) -> Work:
    """Say what this machine can do, and why not.

    Also which data sets are there, and whether the limits of the search can be trusted on them.
    """
    given: dict[str, Any] = {
        "space": space, "series": series, "data": data, "data_dir": data_dir, "preset": preset,
    }  # fmt: skip

    def work() -> int:
        from layersearch.search import doctor as it

        if not calibrate:
            return it.doctor(space, data_dir, as_json)
        return it.calibrate(given, set_ or [], _whole("--seeds", seeds, 1000), as_json)

    return work


def _whole(option: str, text: str, most: int) -> int:
    """The number in ``text``, in [1, most]."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise RecipeError(f"{option} must be a whole number in [1, {most}], got {text!r:.40}; change it")
    return int(text)


def _number(option: str, text: str, most: float) -> float:
    """The number in ``text``, in [0, most]."""
    if not re.fullmatch(r"[0-9]{0,9}\.?[0-9]{1,15}", text) or not float(text) <= most:
        raise RecipeError(f"{option} must be a number in [0, {most:g}], got {text!r:.40}; change it")
    return float(text)


_PARSER_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)  # typer carries click inside, or not, depending on its version


def _sentence(error: Any) -> str:
    """What the option parser complains about, as rule, value and remedy."""
    message = " ".join(str(error.format_message()).rstrip(".").split())
    context = getattr(error, "ctx", None)
    command: Any = getattr(context, "command", None)
    help_of = f"see {getattr(context, 'command_path', 'search')} --help"
    match type(error).__name__:
        case "NoSuchOption":
            commands = getattr(getattr(context, "parent", None), "command", None)
            others = [
                f"search {name}"
                for name, other in getattr(commands, "commands", {}).items()
                if any(error.option_name in parameter.opts for parameter in other.params)
            ]
            if others:
                here = getattr(context, "command_path", "search")
                return (
                    f"{error.option_name} must be left out of {here}, it is an option of {', '.join(others)}; {help_of}"
                )
            names = sorted(name for parameter in command.params for name in parameter.opts if name.startswith("--"))
            return str(unknown_name("option", error.option_name, names))
        case "MissingParameter":
            parameter = error.param
            option = next((name for name in parameter.opts if name.startswith("-")), None)
            return f"{option or parameter.metavar} must be given, got nothing; {help_of}"
    names = list(getattr(command, "commands", ()))
    if message.startswith("Missing command"):
        return f"a command must be given ({', '.join(names)}), got none; {help_of}"
    unknown = re.match(r"No such command '(.*?)'", message)
    if unknown:
        return str(unknown_name("command", unknown[1], sorted(names)))
    return f"the command line must be as documented, but: {message[:1].lower()}{message[1:]}; {help_of}"


def _parse(arguments: Sequence[str]) -> Any:
    """The work that a command line asks for. Raises: BadInputError if it cannot be parsed."""
    command = typer.main.get_command(app)
    try:
        return command.main(args=list(arguments), prog_name="search", standalone_mode=False)
    except _PARSER_ERROR as error:
        raise BadInputError(_sentence(error)) from None


def _call(arguments: Sequence[str]) -> int:
    """Parses and works. Raises: LayerSearchError, KeyboardInterrupt, OSError."""
    work = _parse(arguments)
    code = work() if callable(work) else int(work or 0)
    sys.stdout.flush()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code."""
    code = _exit_code(arguments)
    ray = sys.modules.get("layersearch.search.executors._ray_cluster")
    if ray is not None and ray.abandoned():  # Ray's threads, still waiting for a head, may fault as Python ends
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _exit_code(arguments: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows no ± must not end a run
            stream.reconfigure(errors="replace")
    try:
        return _call(sys.argv[1:] if arguments is None else arguments)
    except LayerSearchError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _complain(
            f"the disk must have room, but it is full ({error.filename}); make room, then search resume", 1
        )


def _complain(sentence: str, code: int) -> int:
    print(f"search: {' '.join(sentence.split())}", file=sys.stderr)
    return code
