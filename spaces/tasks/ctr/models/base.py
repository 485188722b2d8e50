"""What a click-through model is: one lookup, gates on what was looked up, a body that gives a logit."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.ctr.interactions import OPERATORS
from layersearch.primitives.ctr.table import FeatureTable
from layersearch.primitives.gates.base import pair_indices
from layersearch.primitives.gates.gate_set import OPEN, Gated, Selection
from layersearch.primitives.registry import Registry, unknown_name

__all__ = ["MODELS", "CTRModel", "ModelSettings", "Row"]


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of a model.

    Args:
        dim: of the embeddings.
        hidden: widths of the perceptron, where there is one.
        n_cross: cross layers, where there are any.
        activation: of the perceptron, a name of ``ACTIVATIONS``.
        batch_norm, dropout: in the perceptron.
        operator: how embeddings of two fields meet, one of ``OPERATORS``; for models that say ``has_operator``.
        std: of fresh embeddings.
        target: field whose values the history of a row is made of, for models of sequences; a training takes the one of
            its data.
    Raises: BadInputError.
    """

    dim: int = 8
    hidden: tuple[int, ...] = (64, 32)
    n_cross: int = 2
    activation: str = "relu"
    batch_norm: bool = False
    dropout: float = 0.0
    std: float = 0.01
    target: int = 0
    operator: str = "inner"

    def __post_init__(self) -> None:
        for name, low, high in (("dim", 1, 1024), ("n_cross", 1, 16), ("target", 0, 10_000)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadInputError(f"{name} of a model must be in [{low}, {high}], got {value}; change it")
        if self.operator not in OPERATORS:
            raise unknown_name("operator", self.operator, list(OPERATORS))
        if not all(1 <= width <= 65_536 for width in self.hidden):
            raise BadInputError(f"hidden widths must be in [1, 65536], got {list(self.hidden)}; change them")
        if not 0 <= self.dropout < 1 or not 0 <= self.std < 10:
            raise BadInputError(
                f"dropout must be in [0, 1) and std in [0, 10), got {self.dropout} and {self.std}; change them"
            )


@dataclass(frozen=True)
class Row:
    """What a body gets, gates applied.

    Args:
        first: ``[B, m]`` first-order weights, if the model has them.
        e: ``[B, m, d]`` embeddings.
        pairs: gates of interactions, ``[P]``, ``[B, P]`` or None.
        history: ``[B, L, d]`` embeddings of the past, and where there is one, bool ``[B, L]``.
    """

    first: Tensor | None
    e: Tensor
    pairs: Tensor | None
    history: Tensor | None = None
    present: Tensor | None = None


class CTRModel(nn.Module, ABC):
    """A model of the probability of a click.

    Class attributes, the fixed part of a row of ``MODELS``:
        name, title, source: as in the other registries.
        has_first: first-order weights lie in column 0 of the table.
        has_embeddings: there are embeddings beside them.
        has_pairs: interactions of pairs of fields can be told apart, so gates per pair have a place.
        has_operator: the operator that pairs meet by can be chosen (else it is the model's own).
        has_mlp: has a perceptron.
        has_history: a sequence of past values is used.

    Args:
        sizes: ids per field.
        settings: of the model.
        sparse: sparse gradients of the table.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    has_first: ClassVar[bool] = False
    has_embeddings: ClassVar[bool] = True
    has_pairs: ClassVar[bool] = True
    has_operator: ClassVar[bool] = False
    has_mlp: ClassVar[bool] = True
    has_history: ClassVar[bool] = False

    pair_mask: Tensor | None
    paired: Tensor | None

    def __init__(self, sizes: Sequence[int], settings: ModelSettings | None = None, *, sparse: bool = True) -> None:
        super().__init__()
        settings = settings or ModelSettings()
        if settings.target >= len(sizes):
            raise BadInputError(f"target must be one of the {len(sizes)} fields, got {settings.target}; change it")
        self.sizes = tuple(sizes)
        self.settings = settings
        columns = int(self.has_first) + (settings.dim if self.has_embeddings else 0)
        self.table = FeatureTable(
            sum(sizes), columns, std=settings.std, zero_columns=int(self.has_first), sparse=sparse
        )
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("pair_mask", None)
        self.register_buffer("paired", None)
        self.make(len(sizes), settings)

    @abstractmethod
    def make(self, n_fields: int, settings: ModelSettings) -> None:
        """Adds the layers of the body."""

    @abstractmethod
    def body(self, row: Row) -> Tensor:
        """Logits ``[B]``, without the bias."""

    def forward(self, ids: Tensor, gated: Gated = OPEN, history: Tensor | None = None) -> Tensor:
        """Logits ``[B]`` of the probability of a click.

        Args:
            ids: int64 ``[B, m]``, counted over all fields.
            gated: what to multiply by; ``OPEN`` for a plain or a pruned model.
            history: int64 ``[B, L]``, ids of the target field, negative where the past has ended.
        Raises: BadInputError for gates on pairs in a model without them, or no history where one is needed.
        """
        rows = self.table(ids, gated.features)
        if self.paired is not None:
            open_values = self.paired[ids].to(rows.dtype)
            i, j = pair_indices(ids.shape[1], ids.device)
            products = open_values[:, i] * open_values[:, j]
            gated = replace(gated, pairs=products if gated.pairs is None else gated.pairs * products)
        return self.from_rows(rows, gated, history)

    def from_rows(self, rows: Tensor, gated: Gated = OPEN, history: Tensor | None = None) -> Tensor:
        """Logits of the table rows ``[B, m, columns]`` of a batch, their gates applied; else as ``forward``."""
        if gated.pairs is not None and not self.has_pairs:
            raise BadInputError(f"gates of pairs need interactions of pairs, '{self.name}' has none; use fm or ipnn")
        first = rows[..., 0] if self.has_first else None
        e = rows[..., int(self.has_first) :]
        pairs = gated.pairs
        if self.pair_mask is not None:
            mask = self.pair_mask.to(e.dtype)
            pairs = mask if pairs is None else pairs * mask
        past, present = None, None
        if self.has_history:
            if history is None:
                raise BadInputError(f"'{self.name}' needs the history of each row, got none; use data with a sequence")
            present = history >= 0
            past = self.table(history.clamp_min(0), gated.history)[..., int(self.has_first) :]
        return self.body(Row(first, e, pairs, past, present)) + self.bias

    def pruned(self, selection: Selection) -> Self:
        """A copy that needs no gates: a table of the kept rows alone, the kept pairs, and which values meet in them.

        Its outputs are those of this model with the gates of ``selection`` at their limit.
        """
        table, self.table = self.table, FeatureTable(0, 1)
        try:
            model = copy.deepcopy(self)
        finally:
            self.table = table
        model.table = table.pruned(selection.rows())
        if not bool(selection.pairs.all()):
            model.pair_mask = selection.pairs.to(self.bias.device, copy=True)
        if selection.paired is not None:
            model.paired = selection.paired.to(self.bias.device, copy=True)
        return model

    def n_parameters(self) -> int:
        """Numbers in all parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


MODELS: Registry[type[CTRModel]] = Registry("model", package="layersearch.spaces.tasks.ctr.models")
"""The models, one file each."""
