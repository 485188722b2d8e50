"""The command ``search read`` and ``layersearch.read``: trained KANs as curves, functions, one formula, one picture."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from layersearch.errors import BadInputError
from layersearch.search.api import Layer, Run, load
from layersearch.search.export._files import check_target, new_file
from layersearch.search.export._origin import Source, from_run
from layersearch.search.live import LINE_S
from layersearch.search.tables import output, plain_table
from layersearch.spaces.catalog import SPACES, layers_of
from layersearch.spaces.contracts import JsonObject

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layersearch.primitives.symbolic.read import OnStep
    from layersearch.primitives.symbolic.reading import Reading

__all__ = ["FILES", "command", "read", "write"]

_MOST_ROWS = 40
_MOST_TIES = 3


def read(
    what: "str | Path | Run | Layer | nn.Module | Iterable[nn.Module]",
    x: "Tensor | None" = None,
    y: "Tensor | None" = None,
    *,
    candidate: str = "best",
    runs_dir: str | Path = "runs",
    weights: str | Path | None = None,
    names: Sequence[str] | None = None,
    limit: float = 0.99,
    tolerance: float = 0.05,
    refit: bool = True,
) -> "Reading":
    """Reads a trained KAN: which functions its edges are, which matter, and the formula of a small one.

    Args:
        what: a run of the kan or skan space (by name, ``Run``, or a ``Layer`` of it), whose network is trained as by
            ``search export --weights``; or a trained ``KANLinear`` or ``MixedKANLinear`` (what a selecting layer is
            pruned to), or several in a row (``nn.Sequential``, a list).
        x, y: of a module: inputs ``[N, I]`` and, if there are any, targets ``[N, O]``; else it is read for itself.
        candidate, runs_dir: of a run given by name: ``best`` or a number, and the folder of the runs.
        weights: of a run: a file that ``search export --weights`` wrote, in place of training.
        names: of the inputs of a module.
        limit: R² from which an edge is taken for a function of the library.
        tolerance: by how much pruning, and rounding, may raise the error, in parts of it.
        refit: whether constants are fitted to the data again.
    Returns: a ``primitives.symbolic.reading.Reading``: ``.formula``, ``.latex``, ``.edges``, ``.bases``,
        ``.errors``, ``.svg()``.
    Raises: BadInputError for what has no edges to be read, is too large, or lacks its data.
    """
    if isinstance(what, str | Path | Run | Layer):
        if x is not None or y is not None or names is not None:
            raise BadInputError("x, y and names are those of a module, and a run has its own data; leave them out")
        found = _source(what, str(candidate), Path(runs_dir))
        path = None if weights is None else Path(weights)
        return _of_run(found, path, limit, tolerance, refit)
    if x is None:
        raise BadInputError("a module is read on what it sees, and no x was given; give its inputs [N, I]")
    if weights is not None:
        raise BadInputError("weights belong to a run, and a module has its own; leave them out")
    from layersearch.primitives.symbolic.read import read_network

    return read_network(what, x, y, names=names, limit=limit, tolerance=tolerance, refit=refit)


def _source(what: str | Path | Run | Layer, candidate: str, runs_dir: Path) -> Source:
    if isinstance(what, Layer):
        where = dict(what._source)
        if "run" not in where:
            raise BadInputError(
                f"a layer must be of a run to be trained, and {what.name} is of none; give layers and x"
            )
        return from_run(where["run"], where["candidate"], where["runs_dir"])
    run_dir = (what if isinstance(what, Run) else load(what, runs_dir)).run_dir
    return from_run(run_dir.name, candidate, run_dir.parent)


def _of_run(
    found: Source,
    weights: Path | None,
    limit: float,
    tolerance: float,
    refit: bool,
    on_step: "OnStep | None" = None,
) -> "Reading":
    entry = SPACES[found.space]
    if entry.reader is None:
        read = " or ".join(name for name, other in SPACES.items() if other.reader is not None)
        raise BadInputError(f"a run to be read must be of the space {read}, got one of {found.space}; read another run")
    reading: Reading = entry.module(entry.reader).read(
        found.genome,
        found.settings,
        found.seed,
        weights=weights,
        limit=limit,
        tolerance=tolerance,
        refit=refit,
        on_step=on_step,
    )
    return reading


FILES: dict[str, Callable[["Reading", str], str | None]] = {
    "network.svg": lambda reading, title: reading.svg(title),
    "formula.txt": lambda reading, title: None if reading.formula is None else reading.formula + "\n",
    "formula.tex": lambda reading, title: None if reading.latex is None else reading.latex + "\n",
    "reading.json": lambda reading, title: json.dumps(reading.to_json(), indent=1, allow_nan=False) + "\n",
}
"""What is written, and how; nothing for a formula that there is not."""


def write(reading: "Reading", out: Path, title: str = "", force: bool = False) -> list[str]:
    """Writes ``FILES`` to the folder ``out``, which is made if its parent is there, and returns their names.

    Raises: BadInputError if a file is there (without ``force``) or cannot be written.
    """
    _check_folder(out, force)
    out.mkdir(exist_ok=True)
    written = []
    for name, make in FILES.items():
        text = make(reading, title)
        if text is not None:
            with new_file(out / name, force) as draft:
                draft.write_text(text, encoding="utf-8")
            written.append(name)
        elif force:
            (out / name).unlink(missing_ok=True)  # of an earlier reading that had a formula
    return written


def _check_folder(out: Path, force: bool) -> None:
    """Before anything is trained. Raises: BadInputError if ``out`` cannot be that folder, or has files to be kept."""
    if out.is_dir():
        for name in FILES:
            check_target(out / name, force)
    elif out.exists():
        raise BadInputError(f"a reading goes to a folder, but {out} is a file; give another with -o")
    else:
        check_target(out, False)
        try:
            out.mkdir()
            out.rmdir()
        except OSError as error:
            raise BadInputError(
                f"the folder of a reading must be one that can be made, but {out} is not ({error.strerror}); choose "
                "another -o"
            ) from error


class _StepLines:
    """One line on stderr when a step of a reading begins, and every ``LINE_S`` while it goes on."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._last, self._at = "", 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step != self._last or now - self._at >= LINE_S:
            self._last, self._at = step, now
            through = f", {done} of {total} edge{'' if total == 1 else 's'}" if total else ""
            with suppress(OSError):  # nobody reads stderr any more
                print(f"{self._run}: {step}{through}", file=sys.stderr, flush=True)


def command(
    *,
    run: str,
    candidate: str,
    runs_dir: Path,
    out: Path | None,
    weights: Path | None,
    limit: float,
    tolerance: float,
    refit: bool,
    force: bool,
    as_json: bool,
) -> int:
    """``search read``. Returns the exit code."""
    found = from_run(run, candidate, runs_dir)
    if out is not None:
        _check_folder(out, force)
    reading = _of_run(found, weights, limit, tolerance, refit, _StepLines(run))
    formula = str(layers_of(found.space).formula(found.genome))
    title = f"{run}, candidate {candidate}: {formula}"
    written = [] if out is None else write(reading, out, title, force)
    if as_json:
        files: JsonObject = {"out": None if out is None else str(out), "files": written}
        print(json.dumps({"run": run, "candidate": candidate, **reading.to_json(), **files}, indent=2, allow_nan=False))
        return 0
    _print(reading, title)
    if written:
        print(f"wrote {', '.join(written)} to {out}")
    return 0


def _print(reading: "Reading", title: str) -> None:
    console = output()
    live = reading.live
    symbolic = sum(edge.symbolic for edge in live)
    console.print(Text(title))
    steps = ", ".join(f"{name} {value:.4g}" for name, value in reading.errors.items())
    console.print(Text(f"error on validation data, in deviations of the target: {steps}"))
    console.print(Text(f"{len(live)} of {len(reading.edges)} edges left, {symbolic} of them read as functions"))
    console.print(Text("\n".join(reading.by_basis())))
    console.print()
    table = plain_table("edge", ">share", "function", ">R²", "as good")
    for edge in live[:_MOST_ROWS]:
        table.add_row(*map(Text, _cells(reading, edge)))
    console.print(table)
    if len(live) > _MOST_ROWS:
        console.print(Text(f"… and {len(live) - _MOST_ROWS} edges with smaller shares (--json has them all)"))
    print(f"\n{reading.formula}" if reading.formula is not None else f"\nno formula: {reading.reason}")


def _cells(reading: "Reading", edge: Any) -> list[str]:
    source = reading.node(edge.layer, edge.input)
    what = f"norm({source})" if edge.normalised else source
    text = edge.match.text(what) if edge.symbolic else f"numeric (nearest: {edge.match.form})"
    ties = ", ".join(f"{name} {r2:.5f}" for name, r2 in edge.match.ties[:_MOST_TIES]) if edge.symbolic else ""
    return [
        f"{what} → {reading.node(edge.layer + 1, edge.output)}",
        f"{edge.share:.3f}",
        text,
        f"{edge.match.r2:.5f}",
        ties,
    ]
