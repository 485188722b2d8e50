"""What was selected, for people and for other programs; and the controls that a selection is held against."""

import csv
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import BadInputError
from layersearch.primitives.gates.gate_set import Selection
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.tasks.ctr.data import CTRData

__all__ = [
    "by_frequency",
    "by_random",
    "pairs_by_frequency",
    "pairs_by_random",
    "selection_csv",
    "selection_json",
]

UNKNOWN = "(unknown)"
"""How the id of values that did not occur in train is written."""


def selection_json(selection: Selection, data: CTRData) -> dict[str, Any]:
    """Plain data: kept fields with their kept values and counts, and kept pairs of such fields, all by name.

    With gates of products ``paired`` says which values are kept in pairs, and how many, and pairs are those of fields
    that both have such values.
    """
    fields: list[dict[str, Any]] = []
    meeting, n, n_paired = set(), 0, 0
    for f, name, values in _kept(selection, data):
        kept_values: list[dict[str, Any]] = [{"value": text, "count": int(data.counts[k])} for k, text in values]
        open_ones = len(values)
        if selection.paired is not None:
            for entry, (k, _) in zip(kept_values, values, strict=True):
                entry["paired"] = bool(selection.paired[k])
            open_ones = sum(entry["paired"] for entry in kept_values)
        if open_ones:
            meeting.add(f)
        fields.append({"name": name, "kept": len(values), "of": data.sizes[f], "values": kept_values})
        n, n_paired = n + len(values), n_paired + open_ones
    i, j = np.triu_indices(len(data.fields), 1)
    pairs = [
        [data.fields[a], data.fields[b]]
        for a, b, kept in zip(i.tolist(), j.tolist(), selection.pairs.tolist(), strict=True)
        if kept and a in meeting and b in meeting
    ]
    found = {"format": 1, "data": data.name, "kept": n, "of": sum(data.sizes), "fields": fields, "pairs": pairs}
    return found if selection.paired is None else found | {"paired": n_paired}


def selection_csv(selection: Selection, data: CTRData) -> str:
    """A row per kept value: field, value, occurrences in train; with gates of products 1 if kept in pairs, or 0."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    paired = selection.paired
    writer.writerow(["field", "value", "count", *([] if paired is None else ["paired"])])
    for _, name, values in _kept(selection, data):
        for k, value in values:
            writer.writerow([name, value, int(data.counts[k]), *([] if paired is None else [int(paired[k])])])
    return out.getvalue()


def _kept(selection: Selection, data: CTRData) -> list[tuple[int, str, list[tuple[int, str]]]]:
    """Per field with kept values: its number and name, and ids and texts of the values."""
    rows = selection.rows().numpy()
    found = []
    for f, (name, low, size) in enumerate(zip(data.fields, data.offsets, data.sizes, strict=True)):
        texts = data.vocabulary[f] if data.vocabulary else tuple(map(str, range(1, size)))
        kept = [(low + k, texts[k - 1] if k else UNKNOWN) for k in np.flatnonzero(rows[low : low + size]).tolist()]
        if kept:
            found.append((f, name, kept))
    return found


def by_frequency(data: CTRData, ratio: float) -> NDArray[np.bool_]:
    """The control: the ``round(ratio · n)`` most frequent ids, ties by id."""
    kept = np.zeros(len(data.counts), bool)
    kept[np.argsort(-data.counts, kind="stable")[: _n(ratio, len(kept))]] = True
    return kept


def by_random(data: CTRData, ratio: float, seed: int) -> NDArray[np.bool_]:
    """The control: ``round(ratio · n)`` ids at random, of those that occur in train while there are such."""
    rng = np.random.Generator(np.random.PCG64(Seeds(seed).derive("random gates")))
    order = rng.permutation(len(data.counts))
    order = order[np.argsort(data.counts[order] == 0, kind="stable")]
    kept = np.zeros(len(order), bool)
    kept[order[: _n(ratio, len(kept))]] = True
    return kept


def pairs_by_frequency(data: CTRData, ratio: float) -> NDArray[np.bool_]:
    """The control: the ``round(ratio · P)`` pairs of fields whose crossed values occur most often on average."""
    sizes = np.array(data.sizes, np.float64)
    i, j = np.triu_indices(len(sizes), 1)
    kept = np.zeros(len(i), bool)
    kept[np.argsort(sizes[i] * sizes[j], kind="stable")[: _n(ratio, len(kept))]] = True
    return kept


def pairs_by_random(data: CTRData, ratio: float, seed: int) -> NDArray[np.bool_]:
    """The control: ``round(ratio · P)`` pairs of fields at random."""
    rng = np.random.Generator(np.random.PCG64(Seeds(seed).derive("random pairs")))
    n = len(data.fields)
    kept = np.zeros(n * (n - 1) // 2, bool)
    kept[rng.permutation(len(kept))[: _n(ratio, len(kept))]] = True
    return kept


def _n(ratio: float, n: int) -> int:
    if not 0 < ratio <= 1:
        raise BadInputError(f"ratio must be in (0, 1], got {ratio}; use for example 0.2")
    return round(ratio * n)
