"""The table of embeddings of all fields; a selection makes it smaller, not only sparser."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError, DataError
from layersearch.primitives.ctr.lookup import gated_lookup
from layersearch.primitives.layers._lowered import lowering_name

__all__ = ["FeatureTable"]


class FeatureTable(nn.Module):
    """Rows ``[n, columns]`` by id; ids of all fields are counted through.

    Args:
        n: number of ids, those of unknown values included.
        columns: width of a row.
        std: of the normal distribution that the rows are drawn from.
        zero_columns: so many leading columns begin at 0 (weights of first-order terms).
        sparse: give gradients as sparse rows, for ``RowAdam``.
        generator: of the rows.
        lowering: of the lookup, see ``gated_lookup``; on the CPU all give the same bits.

    A pruned table holds the kept rows, a row of zeros for all others (its last one, never trained), and ``place``, the
    row of each id.
    """

    place: Tensor | None

    def __init__(
        self,
        n: int,
        columns: int,
        *,
        std: float = 0.01,
        zero_columns: int = 0,
        sparse: bool = True,
        generator: torch.Generator | None = None,
        lowering: str = "auto",
    ) -> None:
        super().__init__()
        self.sparse = sparse
        self.lowering = lowering_name(lowering)
        rows = torch.randn(n, columns, generator=generator) * std
        rows[:, :zero_columns] = 0
        self.weight = nn.Parameter(rows)
        self.register_buffer("place", None)

    def forward(self, ids: Tensor, gates: Tensor | None = None) -> Tensor:
        """Rows of ``ids``, ``[...]`` -> ``[..., columns]``, times ``gates``, whose shape expands to that of ``ids``.

        Raises: BadInputError for an id that is not in the table.
        """
        n = self.n_ids
        # Not while training on another device, which would have to be waited for.
        checked = not self.training or ids.device.type == "cpu"
        if checked and ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= n):
            raise BadInputError(
                f"ids must be in [0, {n}), got {int(ids.min())} to {int(ids.max())}; encode rows by the vocabulary of "
                "this model"
            )
        zeros = None
        if self.place is not None:
            ids, zeros = self.place[ids], len(self.weight) - 1
        if self.sparse:
            return gated_lookup(self.weight, ids, gates, padding=zeros, lowering=self.lowering)
        rows = nn.functional.embedding(ids, self.weight, padding_idx=zeros)
        return rows if gates is None else rows * gates.unsqueeze(-1)

    @property
    def n_ids(self) -> int:
        return len(self.weight) if self.place is None else len(self.place)

    @torch.no_grad()
    def pruned(self, kept: Tensor) -> "FeatureTable":
        """A smaller table with the rows of ``kept`` (bool ``[n]``): equal for those, 0 for all other ids.

        ``kept`` may lie on another device.
        """
        if kept.shape != (self.n_ids,) or kept.dtype != torch.bool:
            raise BadInputError(
                f"kept must be {self.n_ids} truth values, one per id, got {list(kept.shape)} {kept.dtype}; take those "
                "of a selection"
            )
        if self.place is not None:
            raise BadInputError("a table can be pruned once, got a pruned one; prune the whole one")
        n_kept = int(kept.sum())
        kept = kept.to(self.weight.device)
        table = FeatureTable(0, self.weight.shape[1], sparse=self.sparse, lowering=self.lowering)
        zeros = self.weight.new_zeros(1, self.weight.shape[1])
        table.weight = nn.Parameter(torch.cat([self.weight[kept], zeros]))
        place = torch.full((self.n_ids,), n_kept, dtype=torch.int32, device=kept.device)
        place[kept] = torch.arange(n_kept, dtype=torch.int32, device=kept.device)
        table.place = place
        return table

    def save(self, path: Path) -> None:
        """A safetensors file, written beside and moved into place."""
        from safetensors.torch import save_file

        tensors = {"weight": self.weight.detach().contiguous()}
        if self.place is not None:
            tensors["place"] = self.place
        beside = path.with_name(path.name + ".part")
        save_file(tensors, beside)
        os.replace(beside, path)

    @classmethod
    def load(cls, path: Path, *, sparse: bool = True) -> "FeatureTable":
        """The table of a file of ``save``. Raises: DataError if it is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
            weight = tensors["weight"]
        except (OSError, SafetensorError, KeyError) as error:
            raise DataError(
                f"{path} must be a table saved by layersearch, but cannot be read ({error}); save it again"
            ) from None
        table = cls(0, weight.shape[1], sparse=sparse)
        table.weight = nn.Parameter(weight)
        table.place = tensors.get("place")
        return table
