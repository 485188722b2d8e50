"""Genomes that their space writes itself: the module is put under its docstring, run, and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layersearch.errors import BadInputError
from layersearch.search.export._docstring import paragraphs, plain
from layersearch.search.export._files import check_target, new_file
from layersearch.search.export._origin import Source
from layersearch.search.export._written import READ_BACK, compared, digest, names_of, report
from layersearch.search.export.base import ExportError
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import JsonObject, PythonFile

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["network_file", "network_text", "write_network", "write_text"]

_LARGEST_DIFFERENCE = 1e-9
_FORMAT = "python"


def network_file(found: Source, exact: bool, num_features: int) -> PythonFile:
    """The module as the space gives it. Raises: BadInputError, GenomeError."""
    if exact:
        raise BadInputError(f"exact is for graphs of ops, and a genome of {found.space} has no guards; leave it out")
    selected = (found.selection,) if SPACES[found.space].selects else ()
    file: PythonFile = _exporter(found).python_file(found.genome, found.settings, num_features, *selected)
    return file


def network_text(found: Source, file: PythonFile, facts: tuple[tuple[str, str], ...]) -> str:
    """The whole text: docstring, then what the space wrote."""
    doc = paragraphs([plain(file.title), f"    {plain(file.formula)}"], (*found.facts, *facts))
    return f'"""{doc}"""\n\n{file.body}'


def write_network(
    found: Source, command: str, out: Path, format: str, exact: bool, num_features: int, weights: bool, force: bool
) -> JsonObject:
    """Writes the file, and its weights if asked for; see ``command.run``."""
    if format != _FORMAT:
        known = " or ".join([_FORMAT, *sorted(SPACES[found.space].formats)])
        raise BadInputError(f"format must be {known} for a network of {found.space}, got {format}; leave it out")
    if weights and found.settings is None:
        raise BadInputError("weights come from the data of a run, and none was named; give the name of a run")
    weights_out = out.with_suffix(".safetensors")
    if weights:
        if weights_out == out:
            raise BadInputError(f"the file of the network must not end in .safetensors, got {out.name}; use .py")
        check_target(weights_out, force)
    weighed = _trained(found) if weights else None
    if weighed is not None:
        found = replace(found, selection=weighed.selection)
    file = network_file(found, exact, num_features)
    text = network_text(found, file, (("Exported by", command),))
    with new_file(out, force) as draft:
        draft.write_text(text, encoding="utf-8")
        namespace = names_of(draft.read_text(encoding="utf-8"), out.name, file.class_name)
        max_error = _checked(file, namespace)
        sha256 = digest(draft)
        beside = {} if weighed is None else _write_weights(weighed, file, namespace, weights_out, force)
    return report(
        out,
        format,
        sha256,
        what=f"{file.class_name}, {file.formula}{_shown(beside, weights_out)}",
        check=compared(max_error),
        formula=file.formula,
        **{"class": file.class_name},
        genome=found.genome,
        max_error=max_error,
        **beside,
    )


def write_text(found: Source, out: Path, format: str, changed: bool, force: bool) -> JsonObject:
    """Writes a file in a format of the space alone; ``changed``: options were given that have no meaning for it."""
    if changed:
        raise BadInputError(f"format {format} takes neither --exact nor --weights, got one of them; leave it out")
    entry = SPACES[found.space]
    text, what = entry.resolve(entry.formats[format])(found.genome, found.settings, found.seed, out.suffix)
    with new_file(out, force) as draft:
        draft.write_text(text, encoding="utf-8")
        if draft.read_text(encoding="utf-8") != text:
            raise ExportError(f"{out.name} must hold what was written, and does not; try another disk")
        sha256 = digest(draft)
    return report(out, format, sha256, what=what, check=READ_BACK, genome=found.genome)


def _shown(beside: dict[str, Any], path: Path) -> str:
    if not beside:
        return ""
    return f"; weights in {path.name} ({', '.join(f'{k} {v:.4f}' for k, v in beside['measured'].items())})"


def _exporter(found: Source) -> Any:
    entry = SPACES[found.space]
    assert entry.exporter is not None
    return entry.module(entry.exporter)


def _checked(file: PythonFile, namespace: dict[str, Any]) -> float:
    difference = file.check(namespace)
    if not difference <= _LARGEST_DIFFERENCE:
        raise ExportError(
            f"the exported {file.class_name} must equal its genome, and differs by {difference:.3g}; nothing was "
            "written, report this with the genome"
        )
    return difference


@dataclass(frozen=True)
class _Trained:
    """State dict, what was measured, and what this training selected, which on other hardware may not be what the run
    has recorded."""

    state: Mapping[str, "Tensor"]
    measured: Mapping[str, float]
    selection: JsonObject | None


def _trained(found: Source) -> _Trained:
    state, measured, *selection = _exporter(found).trained(found.genome, found.settings, found.seed)
    return _Trained(state, measured, *selection or (None,))


def _write_weights(
    weighed: _Trained, file: PythonFile, namespace: dict[str, Any], path: Path, force: bool
) -> dict[str, Any]:
    """Writes, loads by the exported class, and compares tensor by tensor."""
    from safetensors.torch import save_file

    state = dict(weighed.state)
    with new_file(path, force) as draft:
        save_file(state, draft)
        loaded = namespace[file.class_name].load(str(draft)).state_dict()
        if sorted(loaded) != sorted(state) or not all(tensor.equal(state[name]) for name, tensor in loaded.items()):
            raise ExportError("the exported class must load the weights that were written, and does not; report this")
        sha256 = digest(draft)
    return {"weights": str(path), "weights_sha256": sha256, "measured": dict(weighed.measured)}
