"""The options of the command line, declared once; those of ``search evolve`` are the keys of a recipe.

Numbers are taken as text: they are checked where those of a recipe are, so that both get the same sentence.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

__all__ = [
    "Address",
    "AsJson",
    "Backend",
    "Baselines",
    "Candidate",
    "CoreMinutes",
    "CpusPerWorker",
    "Data",
    "DataDir",
    "Deterministic",
    "Device",
    "Driver",
    "Evaluations",
    "GpusPerWorker",
    "JobApi",
    "JobName",
    "Lookahead",
    "Lowering",
    "Minutes",
    "Objectives",
    "Population",
    "Preset",
    "RecipeFile",
    "Replay",
    "RerankTop",
    "Run",
    "RunName",
    "RunsDir",
    "Sampler",
    "Scheduler",
    "Seed",
    "SeedLayers",
    "Series",
    "Set",
    "Space",
    "Workers",
    "begins_run",
]

Result = TypeVar("Result")

RunName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a run, as in search list.")]
RunsDir = Annotated[str, typer.Option("--runs-dir", metavar="DIR", help="Folder of the runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, progress on stderr.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of a job, as search submit printed it.")]
JobApi = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="http://HEAD:8265",
        help="Job API of a Ray cluster (default: RAY_API_SERVER_ADDRESS); its token as for Ray.",
    ),
]

Space = Annotated[
    str | None, typer.Option("--space", metavar="NAME", help="What to search, e.g. evonorm; see search spaces.")
]
Series = Annotated[
    str | None,
    typer.Option("--series", metavar="b|s", help="evonorm: layers with moments over the batch, or none (default: b)."),
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME", help="Data set, see search spaces (default: one that is bundled)."),
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", metavar="DIR", help="Folder of the data sets (default: LAYERSEARCH_DATA)."),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="smoke|small|paper",
        help="Networks and trainings for minutes, for hours, or as published (default: smoke).",
    ),
]
Evaluations = Annotated[
    str | None,
    typer.Option(
        "--evaluations",
        metavar="N",
        help="End the search once N candidates passed every stage, in total (default: by preset).",
    ),
]
Minutes = Annotated[
    str | None,
    typer.Option(
        "--minutes", metavar="M", help="Or after M minutes, in total; baselines and re-rank come on top of them."
    ),
]
CoreMinutes = Annotated[
    str | None,
    typer.Option(
        "--core-minutes",
        metavar="C",
        help="Or after C minutes of CPU time on candidates, in total: equal budgets on a busy machine.",
    ),
]
Population = Annotated[
    str | None,
    typer.Option(
        "--population",
        metavar="P",
        help="Evolution breeds from the P youngest candidates; a generation of nsga2 and nsga3 (default: by preset).",
    ),
]
Driver = Annotated[
    str | None,
    typer.Option(
        "--driver",
        metavar="evolution|random",
        help="What proposes candidates; random is the control; for Optuna's samplers see search tune (default: "
        "evolution).",
    ),
]
Replay = Annotated[
    str | None,
    typer.Option(
        "--replay",
        metavar="NAME",
        help="Repeat a run by its recipe and in its recorded order, train anew, and stop where something comes out "
        "differently; --workers, --backend and the like may be others.",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        metavar="tpe|nsga2|nsga3|gp|cmaes|random",
        help="Which of Optuna's samplers suggests candidates; cmaes is for one objective and numbers alone, "
        "as optfs has where --set fixes its choices (default: tpe).",
    ),
]
Objectives = Annotated[
    str | None,
    typer.Option(
        "--objectives",
        metavar="NAMES",
        help="What is searched for, by comma: accuracy (images), rmse (kan, skan) or auc (optfs), and what it costs: "
        "latency, memory (not of optfs), parameters, optfs also log_loss, ratio (default: accuracy; kan and skan "
        "rmse,parameters or accuracy,parameters; auc,ratio).",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="straight|asha|racing",
        help="How far candidates are trained: all to the end, the best of each rung, or until they fall behind "
        "(default: straight).",
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="inline|pool|streams|ray",
        help="Train in this process, in several, in threads of this one, which fills a GPU, or on a Ray cluster "
        "(default: inline for one worker, else pool, or streams on a GPU).",
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="W",
        help="Processes or threads that train (default: cores, at most 8; all that fit on a cluster).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="ray: a running cluster, from one of its nodes (default: RAY_ADDRESS, or one of this machine alone).",
    ),
]
GpusPerWorker = Annotated[
    str | None,
    typer.Option(
        "--gpus-per-worker", metavar="F", help="ray: share of a GPU, e.g. 0.25, or whole ones (default: 1 if on cuda)."
    ),
]
CpusPerWorker = Annotated[
    str | None, typer.Option("--cpus-per-worker", metavar="F", help="ray: CPUs that a worker takes (default: 1).")
]
Seed = Annotated[str | None, typer.Option("--seed", metavar="S", help="Seed of everything random (default: 0).")]
Run = Annotated[str | None, typer.Option("--run", metavar="NAME", help="Name of the run (default: <space>-NNNN).")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="auto|cpu|cuda[:i]", help="Where layers are trained (default: auto, of optfs cpu)."
    ),
]
Lowering = Annotated[
    str | None,
    typer.Option(
        "--lowering",
        metavar="NAME",
        help="How layers of evonorm are run: auto (the fastest, measured once), reference, torch, c or triton "
        "(default: auto).",
    ),
]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--deterministic/--no-deterministic",
        help="Same outcome for any number of workers, at some waiting (default: for inline only).",
    ),
]
Lookahead = Annotated[
    str | None,
    typer.Option("--lookahead", metavar="L", help="Deterministic runs: candidates ahead of results (default: P / 4)."),
]
SeedLayers = Annotated[
    list[str] | None,
    typer.Option(
        "--seed-layers",
        metavar="NAMES",
        help="Known layers to start from, by comma, or none (default: by space, e.g. bn-relu,gn-relu,bn-silu,frn-tlu).",
    ),
]
Baselines = Annotated[
    str | None,
    typer.Option(
        "--baselines",
        metavar="all|none|NAMES",
        help="Known layers to train and compare with, by comma; an unknown name lists those of the run (default: all).",
    ),
]
RerankTop = Annotated[
    str | None,
    typer.Option(
        "--rerank-top",
        metavar="K",
        help="How many of the best are measured again, on unseen data (default: by preset).",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="key=value",
        help="Any other setting: task.batch=64, driver.p_random=0.3, …; repeatable. An unknown key lists the space's.",
    ),
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="YAML file of options; flags override it.")
]
Candidate = Annotated[str, typer.Option("--candidate", metavar="best|ID", help="Which candidate of the run.")]


def _of_a_run(
    *,
    space: Space = None,
    series: Series = None,
    data: Data = None,
    data_dir: DataDir = None,
    preset: Preset = None,
    evaluations: Evaluations = None,
    minutes: Minutes = None,
    core_minutes: CoreMinutes = None,
    population: Population = None,
    objectives: Objectives = None,
    scheduler: Scheduler = None,
    backend: Backend = None,
    workers: Workers = None,
    address: Address = None,
    gpus_per_worker: GpusPerWorker = None,
    cpus_per_worker: CpusPerWorker = None,
    seed: Seed = None,
    run: Run = None,
    runs_dir: Annotated[
        str | None, typer.Option("--runs-dir", metavar="DIR", help="Folder of the runs (default: runs).")
    ] = None,
    device: Device = None,
    lowering: Lowering = None,
    deterministic: Deterministic = None,
    lookahead: Lookahead = None,
    seed_layers: SeedLayers = None,
    baselines: Baselines = None,
    rerank_top: RerankTop = None,
    recipe: RecipeFile = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """The options of every command that begins a run, in the order of the help text."""


def begins_run(**own: Any) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Gives a command that takes any keywords the options of a run and, after --population, its ``own`` ones."""
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(_of_a_run).parameters.values():
        parameters.append(parameter)
        if parameter.name == "population":
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters += [inspect.Parameter(name, kind, default=None, annotation=own[name]) for name in own]

    def give(command: Callable[..., Result]) -> Callable[..., Result]:
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return give
