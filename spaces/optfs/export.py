"""A selection as files: the pruned model as one plain torch module, and the features that were selected."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.primitives.gates.gate_set import Selection
from layersearch.spaces.contracts import JsonObject, PythonFile
from layersearch.spaces.funnel import again, rerank_seed
from layersearch.spaces.optfs.choices import OF_PAIRS
from layersearch.spaces.optfs.evaluate import OptFSEvaluator, learn_settings, make_learner
from layersearch.spaces.optfs.genome import OptFSGenome, formula, from_json
from layersearch.spaces.optfs.model_source import model_source
from layersearch.spaces.optfs.settings import OptFSSettings, TaskSettings, parse
from layersearch.spaces.optfs.space import OptFSSpace
from layersearch.spaces.tasks.ctr.arrays import from_arrays
from layersearch.spaces.tasks.ctr.checkpoint import read_checkpoint
from layersearch.spaces.tasks.ctr.data import CTRData
from layersearch.spaces.tasks.ctr.learning import Learner
from layersearch.spaces.tasks.ctr.models.base import MODELS, CTRModel
from layersearch.spaces.tasks.ctr.schema import Column, Schema
from layersearch.spaces.tasks.ctr.selection import selection_csv, selection_json
from layersearch.spaces.tasks.ctr.vocabulary import MISSING
from layersearch.spaces.tasks.drawing import seeded

__all__ = ["exported_state", "features", "python_file", "trained"]

_SUFFIXES = (".csv", ".json")
_CHECK_SIZES = (4, 3, 5, 6)
_CHECK_ROWS = 64


def python_file(genome: JsonObject, settings: JsonObject | None, num_features: int) -> PythonFile:
    """The module of a pruned model; fields and values come with its weights.

    Args:
        genome: of the space.
        settings: of the run it was found in.
        num_features: not used: the weights say how many fields there are.
    Raises: GenomeError.
    """
    parsed = from_json(genome)
    task = TaskSettings(data="planted") if settings is None else parse(settings).task
    title = f"Model: a pruned {MODELS[parsed.model].title} for clicks. Plain PyTorch, needs nothing else."
    return PythonFile(
        class_name="Model",
        title=title,
        formula=formula(parsed),
        body=model_source(parsed, task),
        check=lambda namespace: _difference(parsed, task, namespace),
    )


def trained(genome: JsonObject, settings: JsonObject, run_seed: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """State dict of ``Model`` after the first training of the re-rank, repeated here, and what it measured.

    On the hardware of the run it is that very training; elsewhere numbers may differ in the last digits.

    Raises: DataError if the data is missing; RunError if the model could not be trained.
    """
    parsed = parse(settings)
    learner, measured = _trained(from_json(genome), parsed, genome, run_seed)
    model = learner.pruned() if learner.gates.gates else learner.model
    schema = parsed.task.table_schema
    return exported_state(model, learner.data, Schema.parse(schema).sequence if schema else None), measured


def features(genome: JsonObject, settings: JsonObject | None, run_seed: int, suffix: str) -> tuple[str, str]:
    """The selected features as JSON, or as CSV with a row per value; those of the model that ``trained`` gives.

    Returns: the text, and what it is in a sentence. Raises: BadInputError, DataError, RunError.
    """
    if settings is None:
        raise BadInputError("features are selected in a run, and none was named; give the name of a run")
    if suffix not in _SUFFIXES:
        raise BadInputError(f"features are written to a file {' or '.join(_SUFFIXES)}, got '{suffix}'; change -o")
    parsed = from_json(genome)
    run = parse(settings)
    data = from_arrays(OptFSSpace(run).load_data())
    learner = make_learner(parsed, run.task, data, rerank_seed(run_seed))
    while learner.phase == "search":  # what comes after it does not change the selection
        learner.run(max_steps=learner.steps_per_epoch)
    selection = learner.gates.selection()
    found = selection_json(selection, data)
    n = len(data.fields)
    paired = "" if selection.paired is None else f" ({found['paired']:,} in pairs)"
    what = f"{found['kept']:,} of {found['of']:,} values{paired}, {len(found['fields'])} of {n} fields"
    if "pair" in learner.gates.gates:
        what += f", {len(found['pairs'])} of {n * (n - 1) // 2} pairs of fields"
    if suffix == ".csv":
        return selection_csv(selection, data), what
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n", what


def exported_state(model: CTRModel, data: CTRData, sequence: Column | None = None) -> dict[str, Tensor]:
    """Tensors of the exported class: those of a model, with its table, and how values of the data find their rows.

    ``sequence`` is the column of the history; without one it is called ``history``.
    """
    state = {
        name: tensor.detach().clone() for name, tensor in model.state_dict().items() if not name.startswith("table.")
    }
    if model.has_pairs:
        m = len(model.sizes)
        mask = torch.ones(m * (m - 1) // 2) if model.pair_mask is None else model.pair_mask
        state["pair_mask"] = mask.to(model.bias.dtype)
    weight = model.table.weight.detach()
    zero = len(weight) - 1
    place = model.table.place
    if place is None:
        weight, zero = torch.cat([weight, torch.zeros_like(weight[:1])]), len(weight)
        place = torch.arange(zero)
    state["table"] = weight.clone()
    if model.paired is not None:
        state["paired"] = weight.new_zeros(len(weight))
        state["paired"][place.long()] = model.paired.to(weight.dtype)
    known = _fields(data, place.tolist(), zero)
    if data.train.history is not None:
        column = sequence or Column("history", "sequence", of=data.fields[data.target])
        length = data.train.history.shape[1]
        known["history"] = {"name": column.name, "length": length, "separator": column.separator}
    text = json.dumps(known, ensure_ascii=False, separators=(",", ":"))
    state["fields"] = torch.from_numpy(np.frombuffer(text.encode("utf-8", "replace"), np.uint8).copy())
    return state


def _fields(data: CTRData, place: list[int], zero: int) -> dict[str, Any]:
    """Of each field its name, the rows of its values by text, the row of all others, and bins of numbers.

    Values without a row need not be named where an unknown one has none either.
    """
    found: list[JsonObject] = []
    for f, (name, low, size) in enumerate(zip(data.fields, data.offsets, data.sizes, strict=True)):
        texts = data.vocabulary[f] if data.vocabulary else tuple(map(str, range(1, size)))
        other = place[low]
        if f in data.bins:
            rows = [place[low + k] for k in range(1, size)]
            found.append({"name": name, "edges": list(data.bins[f]), "rows": rows})
            continue
        kept = {text: place[low + k] for k, text in enumerate(texts, 1) if place[low + k] != zero or other != zero}
        found.append({"name": name, "rows": kept, "other": other})
    return {"fields": found, "missing": list(data.missing), "as": MISSING, "target": data.target}


def _trained(
    parsed: OptFSGenome, settings: OptFSSettings, genome: JsonObject, run_seed: int
) -> tuple[Learner, dict[str, float]]:
    evaluator = OptFSEvaluator(settings, OptFSSpace(settings).load_data(), "cpu")
    outcome, checkpoint = again(evaluator, genome, run_seed)
    learner = make_learner(parsed, settings.task, evaluator.data, rerank_seed(run_seed))
    read_checkpoint(checkpoint, learner)
    shares = [f"kept_{kind}" for kind in parsed.selects if kind in OF_PAIRS]  # no objective counts those
    return learner, dict(outcome.fitness) | {name: outcome.metrics[name] for name in shares}


def _difference(genome: OptFSGenome, task: TaskSettings, namespace: Mapping[str, Any]) -> float:
    """Largest difference of the file's ``Model`` from our pruned model in float64, in training and eval mode.

    Relative to 1 + size of the value; with random weights and a random selection on a small vocabulary.
    """
    generator = torch.Generator().manual_seed(0)
    row = MODELS[genome.model]
    settings = learn_settings(genome, task).sizes
    with seeded(0):
        ours = row(_CHECK_SIZES, settings).double()
    for tensor in [*ours.parameters(), *(b for b in ours.buffers() if b.is_floating_point())]:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.1)
    n, m = sum(_CHECK_SIZES), len(_CHECK_SIZES)
    offsets = torch.tensor([0, *np.cumsum(_CHECK_SIZES)[:-1].tolist()])
    values = torch.rand(n, generator=generator) > 0.4
    paired = None
    if "product" in genome.selects:
        values, paired = torch.ones_like(values), values
    pairs = torch.rand(m * (m - 1) // 2, generator=generator) > 0.4 if row.has_pairs else torch.ones(0).bool()
    selection = Selection(values, torch.ones(m, dtype=torch.bool), pairs, tuple(offsets.tolist()), paired)
    ids = offsets + torch.stack([torch.randint(s, (_CHECK_ROWS,), generator=generator) for s in _CHECK_SIZES], 1)
    past = torch.randint(-2, _CHECK_SIZES[0], (_CHECK_ROWS, 5), generator=generator).clamp_min(-1)
    history = past if row.has_history else None
    pruned = ours.pruned(selection)
    assert pruned.table.place is not None
    place = pruned.table.place.long()
    state = exported_state(pruned, _no_data())
    theirs = namespace["Model"].of(state)
    for module in (*theirs.modules(), *pruned.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    worst = 0.0
    for training in (True, False):
        pruned.train(training), theirs.train(training)
        with torch.no_grad():
            expected = pruned(ids, history=history)
            got = theirs(
                place[ids], *([torch.where(past < 0, -1, place[past.clamp_min(0)])] if row.has_history else [])
            )
        worst = max(worst, float(((expected - got).abs() / (1 + expected.abs())).max()))
    return worst


def _no_data() -> CTRData:
    from layersearch.spaces.tasks.ctr.data import Part

    offsets = np.array([0, *np.cumsum(_CHECK_SIZES)[:-1].tolist()], np.int32)
    part = Part(offsets[None, :], np.zeros(1, np.uint8))
    return CTRData("none", tuple("abcd"), _CHECK_SIZES, part, part, part)
