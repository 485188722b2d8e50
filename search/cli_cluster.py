"""Commands of ``search`` for runs that are jobs of a Ray cluster."""

from pathlib import Path
from typing import Annotated

import typer

from layersearch.search import options as o
from layersearch.search.command_line import Work

__all__ = ["fetch", "logs", "status", "stop", "submit"]


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

        return jobs.submit(jobs.address_of(address), arguments, runtime_env, as_json)

    return work


def status(job: o.JobName, address: o.JobApi = None, as_json: o.AsJson = False) -> Work:
    """Say how far a submitted job is."""

    def work() -> int:
        from layersearch.search.cluster import jobs

        return jobs.status(jobs.address_of(address), job, as_json)

    return work


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


def stop(job: o.JobName, address: o.JobApi = None, as_json: o.AsJson = False) -> Work:
    """End a submitted job so that its run can be resumed."""

    def work() -> int:
        from layersearch.search.cluster import jobs

        return jobs.stop(jobs.address_of(address), job, as_json)

    return work


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

        return jobs.fetch(jobs.address_of(address), job, Path(runs_dir).expanduser(), force, as_json)

    return work
