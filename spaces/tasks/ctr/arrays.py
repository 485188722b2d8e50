"""Click-through data as plain arrays, so that workers of one machine share them, and back."""

import json
from typing import Any

import numpy as np

from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.ctr.data import CTRData, Part, Truth

__all__ = ["from_arrays", "to_arrays"]

_PARTS = ("train", "validation", "holdout", "test")
_COLUMNS = ("ids", "labels", "history", "groups")


def to_arrays(data: CTRData) -> dict[str, np.ndarray[Any, Any]]:
    """Inverse of ``from_arrays``; texts are one array of bytes. Logits of a planted truth are left out."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name in _PARTS:
        part = getattr(data, name)
        if part is not None:
            columns = {column: getattr(part, column) for column in _COLUMNS}
            arrays |= {f"{name}.{column}": array for column, array in columns.items() if array is not None}
    if data.truth is not None:
        arrays |= {f"truth.{key}": getattr(data.truth, key) for key in ("values", "fields", "pairs")}
    about = {
        "name": data.name,
        "fields": data.fields,
        "sizes": data.sizes,
        "vocabulary": data.vocabulary,
        "target": data.target,
        "bins": {str(place): edges for place, edges in data.bins.items()},
        "missing": data.missing,
        "content": data.content,
    }
    text = json.dumps(about, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return arrays | {"about": np.frombuffer(text, np.uint8)}


def from_arrays(arrays: Arrays) -> CTRData:
    """The data whose arrays these are."""
    about = json.loads(arrays["about"].tobytes().decode("utf-8", "surrogatepass"))

    def part(name: str) -> Part | None:
        if f"{name}.ids" not in arrays:
            return None
        found = {column: arrays.get(f"{name}.{column}") for column in _COLUMNS}
        return Part(arrays[f"{name}.ids"], arrays[f"{name}.labels"], found["history"], found["groups"])

    parts = {name: part(name) for name in _PARTS}
    truth = None
    if "truth.values" in arrays:
        truth = Truth(arrays["truth.values"], arrays["truth.fields"], arrays["truth.pairs"], np.zeros(0))
    return CTRData(
        name=about["name"],
        fields=tuple(about["fields"]),
        sizes=tuple(about["sizes"]),
        truth=truth,
        vocabulary=tuple(map(tuple, about["vocabulary"])),
        target=about["target"],
        bins={int(place): tuple(edges) for place, edges in about["bins"].items()},
        missing=tuple(about["missing"]),
        content=about["content"],
        **parts,  # type: ignore[arg-type]
    )
