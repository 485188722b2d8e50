"""The command ``search``: its commands, and how each ends. Nothing heavy is imported here.

Exit codes: 0 done, 1 the run failed, 2 bad input, 130 interrupted (resumable).
"""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from layersearch.errors import LayerSearchError, RecipeError
from layersearch.search import cli_cluster, cli_results
from layersearch.search import options as o
from layersearch.search.command_line import Work, app, parse, whole

__all__ = ["app", "main"]


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


app.command()(cli_cluster.submit)
app.command()(cli_cluster.status)
app.command()(cli_cluster.logs)
app.command()(cli_cluster.stop)
app.command()(cli_cluster.fetch)
app.command("list")(cli_results.list_)
app.command()(cli_results.show)
app.command()(cli_results.report)
app.command()(cli_results.export)
app.command()(cli_results.read)


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

    Also which data sets are there, and whether the limits of the search can be trusted on them. The options --series,
    --data, --preset, --seeds and --set are for --calibrate.
    """
    given: dict[str, Any] = {
        "space": space, "series": series, "data": data, "data_dir": data_dir, "preset": preset,
    }  # fmt: skip

    def work() -> int:
        from layersearch.search import doctor as it

        if not calibrate:
            for option, value in (("series", series), ("data", data), ("preset", preset), ("set", set_)):
                if value:
                    raise RecipeError(f"--{option} must come with --calibrate, got it alone; add --calibrate")
            return it.doctor(space, data_dir, as_json)
        return it.calibrate(given, set_ or [], whole("--seeds", seeds, 1000), as_json)

    return work


def _call(arguments: Sequence[str]) -> int:
    """Parses and works. Raises: LayerSearchError, KeyboardInterrupt, OSError."""
    work = parse(arguments)
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
    except UnicodeEncodeError as error:  # bytes that are no text came as an argument
        return _complain(f"arguments must be text in UTF-8, got {error.object[:60]!a}; correct it", 2)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _complain(f"the disk must have room, but it is full{where}; make room, then search resume", 1)


def _complain(sentence: str, code: int) -> int:
    print(f"search: {' '.join(sentence.split())}", file=sys.stderr)
    return code
