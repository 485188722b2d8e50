"""The command ``search export``: finds the layer, writes the file, checks it, and says what it did."""

import shlex
from pathlib import Path

from layersearch.errors import BadInputError
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph_json import graph_to_json
from layersearch.primitives.printing import formula
from layersearch.primitives.registry import unknown_name
from layersearch.search.export._files import check_target, new_file
from layersearch.search.export._network import network_file, network_text, write_network, write_text
from layersearch.search.export._origin import Source, from_genome, from_run, unguarded
from layersearch.search.export._written import READ_BACK, compared, digest, report
from layersearch.search.export.base import FORMATS, RUN_FORMATS, Subject
from layersearch.search.runs import find_run
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import JsonObject

__all__ = ["run", "source"]

_MOST_CHANNELS = 65536


def run(
    *,
    out: Path,
    format: str = "python",
    run: str | None = None,
    candidate: str = "best",
    runs_dir: Path = Path("runs"),
    space: str | None = None,
    genome: str | None = None,
    exact: bool = False,
    num_features: int = 64,
    weights: bool = False,
    force: bool = False,
    found: Source | None = None,
) -> JsonObject:
    """Exports a candidate of a run, the layer of a genome, or a run.

    Args:
        out: file to write; its folder must exist.
        format: a name of ``FORMATS``, of the ``formats`` of the space or, for a run as a whole, of ``RUN_FORMATS``.
        run: name of the run, or ``None`` where ``space`` and ``genome`` are given.
        candidate: ``best`` or a number.
        runs_dir: folder of the runs.
        space: e.g. ``evonorm``.
        genome: ``known:NAME`` or the path of a genome file.
        exact: drops the guards on divisions and logarithms.
        num_features: channels of the formats that fix them (pt2, onnx), or inputs of a network that is of no run.
        weights: of a network of a run: trains it as the re-rank did, and writes its weights beside the file.
        force: replaces an existing file.
        found: a layer from elsewhere, in place of ``run``, or of ``space`` and ``genome``.
    Returns: ``path, format, sha256``; of a layer ``formula, class, genome, max_error`` (of the check after writing, see
        ``Format``) and ``unchecked`` (what it left out, or None); what was written and checked as a text each, ``what``
        and ``check``.
    Raises: BadInputError and its kin for bad input, ExportError if the written file is wrong; no file is left.
    """
    of_spaces = {name for entry in SPACES.values() for name in entry.formats}
    if format not in FORMATS and format not in RUN_FORMATS and format not in of_spaces:
        raise unknown_name("format", format, sorted({*FORMATS, *RUN_FORMATS, *of_spaces}))
    if not 1 <= num_features <= _MOST_CHANNELS:
        raise BadInputError(f"num_features must be in [1, {_MOST_CHANNELS}], got {num_features}; use for example 64")
    out = Path(out)
    check_target(out, force)
    if format in RUN_FORMATS:
        if run is None or space is not None or genome is not None:
            raise BadInputError(f"format {format} writes a run, and none was named; give the name of a run alone")
        if weights:
            raise BadInputError(f"weights must be left out for format {format}, which writes a run; leave them out")
        return _run_as_a_whole(format, find_run(runs_dir, run), out, force)
    found, words = _find(run, candidate, runs_dir, space, genome, found)
    words += ["--format", format, *(["--exact"] if exact else []), *(["--weights"] if weights else [])]
    words += ["-o", out.name]
    if format in SPACES[found.space].formats:
        return write_text(found, out, format, exact or weights, force)
    if SPACES[found.space].exporter is not None:
        return write_network(found, shlex.join(words), out, format, exact, num_features, weights, force)
    if weights:
        raise BadInputError(f"weights must be left out for a layer of {found.space}, which is trained in a model")
    row = FORMATS[format]
    subject = _subject(found, exact, num_features, (("Exported by", shlex.join(words)),))
    with new_file(out, force) as draft:
        max_error = row.write(subject, draft)
        sha256 = digest(draft)
    unchecked = row.unchecked()
    about = {"formula": formula(subject.graph), "class": subject.class_name, "genome": graph_to_json(subject.graph)}
    return report(
        out,
        format,
        sha256,
        what=f"{subject.class_name}, {about['formula']}",
        check=compared(max_error, unchecked),
        **about,
        max_error=max_error,
        unchecked=unchecked,
    )


def _run_as_a_whole(format: str, run_dir: Path, out: Path, force: bool) -> JsonObject:
    with new_file(out, force) as draft:
        what = RUN_FORMATS[format].write(run_dir, draft)
        sha256 = digest(draft)
    return report(out, format, sha256, what=what, check=READ_BACK)


def source(
    *,
    run: str | None = None,
    candidate: str = "best",
    runs_dir: Path = Path("runs"),
    space: str | None = None,
    genome: str | None = None,
    exact: bool = False,
    found: Source | None = None,
) -> str:
    """Text of the python format, not checked; arguments and errors as of ``run``."""
    from layersearch.search.export.python import python_text

    found = _find(run, candidate, runs_dir, space, genome, found)[0]
    if SPACES[found.space].exporter is not None:
        return network_text(found, network_file(found, exact, 64), ())
    return python_text(_subject(found, exact))


def _find(
    run: str | None, candidate: str, runs_dir: Path, space: str | None, genome: str | None, found: Source | None
) -> tuple[Source, list[str]]:
    """The layer, and the words of the command that finds it."""
    if found is not None:
        return found, ["Layer.export"]
    if run is not None and space is None and genome is None:
        return from_run(run, candidate, runs_dir), ["search", "export", run, "--candidate", candidate]
    if run is None and space is not None and genome is not None:
        shown = genome if genome.startswith("known:") else Path(genome).name
        return from_genome(space, genome), ["search", "export", "--space", space, "--genome", shown]
    raise BadInputError("an export needs either the name of a run, or --space and --genome; give one of the two")


def _subject(found: Source, exact: bool, num_features: int = 64, facts: tuple[tuple[str, str], ...] = ()) -> Subject:
    graph = canonical(unguarded(found.graph) if exact else found.graph)
    return Subject(graph, found.class_name, (*found.facts, *facts), num_features)
