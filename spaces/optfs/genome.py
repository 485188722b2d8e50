"""What a genome of the optfs space is: a click-through model, its gates, and how their selection is learned."""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

from layersearch.errors import GenomeError
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.optfs.choices import (
    CONTROLS,
    GATES_OF,
    LEAST_RATIO,
    LIMITS,
    NO_GATES,
    OF_PAIRS,
    OWN,
    OneOf,
    Real,
)
from layersearch.spaces.tasks.ctr.models.base import MODELS

__all__ = ["FORMAT", "OptFSGenome", "formula", "from_json", "genome_key", "to_json"]

FORMAT = 1
_PAIRS = "pair_ratio"


@dataclass(frozen=True)
class OptFSGenome:
    """A model with a selection, learned or given. Made by ``generate.Generator`` or ``from_json``, which check it.

    What has no meaning for the others of a genome stands at its default, so that equal genomes do the same.

    Args:
        model: base model, a name of ``MODELS``.
        gates: granularity of the gates, a name of ``GATES_OF``; ``none`` for the full model; one of ``CONTROLS`` for
            a selection that is not learned, see ``ratio``.
        relaxation: how gates are learned, a name of ``RELAXATIONS``.
        operator: how embeddings of two fields meet, of models that leave it open; else ``own``.
        pressure: ``price`` or ``ratio``.
        price: of an open gate, in nats of the log loss summed over all training rows.
        ratio: kept ratio of gates to be reached; of a control that of all values.
        temperature: of the last batch of the search.
        rewind_epoch: weights go back to what they were after so many epochs of the search.
        search_epochs: of the search.
        lr: learning rate of the weights.
        dim: of the embeddings.
        pair_ratio: of a control: the share of pairs of fields that is kept; 0 for no selection of pairs, the least
            ratio for none of them.
    """

    model: str = "fm"
    gates: str = "value"
    relaxation: str = "continuation"
    operator: str = "inner"
    pressure: str = "price"
    price: float = 3.2
    ratio: float = 1.0
    temperature: float = 500.0
    rewind_epoch: int = 1
    search_epochs: int = 7
    lr: float = 0.02
    dim: int = 4
    pair_ratio: float = 0.0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of gates that are learned."""
        return GATES_OF.get(self.gates, ())

    @property
    def selects(self) -> tuple[str, ...]:
        """Kinds of gates that say what is selected, learned or given."""
        if self.gates not in CONTROLS:
            return self.kinds
        return (CONTROLS[self.gates][1], *(("pair",) if self.pair_ratio else ()))

    @property
    def is_control(self) -> bool:
        return self.gates in CONTROLS

    def tidy(self) -> "OptFSGenome":
        """The same, with everything at its default that has no meaning for the others."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        default = OptFSGenome()
        idle: list[str] = []
        if not self.kinds:
            idle += ["relaxation", "pressure", "price", "temperature", "rewind_epoch", "search_epochs"]
            idle += [] if self.is_control else ["ratio"]
        else:
            idle += ["price"] if self.pressure == "ratio" else ["ratio"]
        if not self.is_control:
            idle.append(_PAIRS)
        if not MODELS[self.model].has_embeddings:
            idle.append("dim")
        values |= {name: getattr(default, name) for name in idle}
        if not MODELS[self.model].has_operator:
            values["operator"] = OWN
        return OptFSGenome(**values)


def to_json(genome: OptFSGenome) -> JsonObject:
    """Plain data; inverse of ``from_json``."""
    return {"format": FORMAT, **{field.name: getattr(genome, field.name) for field in fields(genome)}}


def genome_key(genome: OptFSGenome) -> str:
    """A digest of what the genome does."""
    text = json.dumps(to_json(genome.tidy()), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def from_json(data: Any) -> OptFSGenome:
    """The genome in plain data that anyone may have written.

    Raises: GenomeError with one sentence for anything malformed, illegal or over the limits.
    """
    names = [field.name for field in fields(OptFSGenome)]
    if not isinstance(data, dict) or sorted(map(str, data)) != sorted(["format", *names]):
        shown = ", ".join(sorted(map(str, data))[:8]) if isinstance(data, dict) else type(data).__name__
        raise GenomeError(
            f"a genome of optfs must be an object with format, {', '.join(names)}, got {shown or 'nothing'}; correct it"
        )
    if data["format"] != FORMAT or isinstance(data["format"], bool):
        raise GenomeError(f"format of a genome must be {FORMAT}, got {data['format']!r:.40}; use a matching version")
    values: dict[str, Any] = {}
    for name in names:
        value = data[name]
        if name in (_PAIRS, *(n for n, c in LIMITS.items() if isinstance(c, Real))) and type(value) is int:
            value = float(value)  # 1.0 comes back from JavaScript as 1
        values[name] = value
        if name == _PAIRS:
            if not isinstance(value, float) or not 0 <= value <= 1:
                raise GenomeError(f"{name} of a genome must be in [0, 1], got {value!r:.40}; correct it")
            continue
        choice = LIMITS[name]
        if isinstance(choice, OneOf) and isinstance(choice.values[0], str):
            if not isinstance(value, str):
                raise GenomeError(f"{name} of a genome must be a text, got {value!r:.40}; correct it")
            if value not in choice.values:
                raise GenomeError(str(unknown_name(name, value[:40], sorted(map(str, choice.values)))))
        elif not choice.holds(value):
            low = choice.low if isinstance(choice, Real) else choice.values[0]
            high = choice.high if isinstance(choice, Real) else choice.values[-1]
            kind = "a number" if isinstance(choice, Real) else "a whole number"
            raise GenomeError(f"{name} of a genome must be {kind} in [{low}, {high}], got {value!r:.40}; correct it")
    genome = OptFSGenome(**values)
    _check(genome)
    return genome.tidy()


def _check(genome: OptFSGenome) -> None:
    model = MODELS[genome.model]
    if not model.has_pairs and genome.pair_ratio:
        raise GenomeError(f"pair_ratio must be 0 for '{genome.model}', got {genome.pair_ratio}; correct the genome")
    if not model.has_pairs and not OF_PAIRS.isdisjoint(genome.selects):
        raise GenomeError(
            f"gates '{genome.gates}' need interactions of pairs, '{genome.model}' has none; use value or field"
        )
    if genome.kinds and genome.rewind_epoch >= genome.search_epochs:
        raise GenomeError(
            f"rewind_epoch must be below search_epochs, got {genome.rewind_epoch} of {genome.search_epochs}; rewind to "
            "an earlier epoch"
        )
    if model.has_operator == (genome.operator == OWN):
        rule = "of its own must be chosen" if model.has_operator else "must be 'own'"
        raise GenomeError(f"an operator {rule} for '{genome.model}', got '{genome.operator}'; correct the genome")


def formula(genome: OptFSGenome) -> str:
    """As text, e.g. ``fm(d=4, inner), value gates by continuation to τ=500, price 3.2; 7 epochs, rewound to 1``."""
    model = MODELS[genome.model]
    about = [f"d={genome.dim}"] if model.has_embeddings else []
    about += [genome.operator] if model.has_operator else []
    head = f"{genome.model}({', '.join(about)})" if about else genome.model
    if genome.gates == NO_GATES:
        return f"{head}, all values, lr {genome.lr:g}"
    if genome.is_control:
        chosen, kind = CONTROLS[genome.gates]
        which = f"{'most frequent' if chosen == 'frequency' else 'random'} values"
        if kind == "product":
            which = f"pairs of {which}"
        share = "none" if genome.pair_ratio == LEAST_RATIO else f"{genome.pair_ratio:.3g}"
        pairs = f" and {share} of the pairs" if genome.pair_ratio else ""
        return f"{head}, {which} at ratio {genome.ratio:.4g}{pairs}, lr {genome.lr:g}"
    goal = f"price {genome.price:g}" if genome.pressure == "price" else f"ratio {genome.ratio:g}"
    return (
        f"{head}, {genome.gates} gates by {genome.relaxation} to τ={genome.temperature:g}, {goal}; "
        f"{genome.search_epochs} epochs, rewound to {genome.rewind_epoch}, lr {genome.lr:g}"
    )
