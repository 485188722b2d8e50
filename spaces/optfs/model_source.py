"""The source of a pruned click-through model: plain torch, for one base model of given sizes.

Fields, values and rows are not in the text: they come with the weights, so that the file stays short.
"""

import textwrap
from collections.abc import Mapping, Sequence

from layersearch.spaces.optfs.genome import OptFSGenome
from layersearch.spaces.optfs.model_texts import HEAD, MODEL, PARTS
from layersearch.spaces.optfs.settings import TaskSettings
from layersearch.spaces.tasks.ctr.models.base import MODELS

__all__ = ["model_source"]

_MLP_IN = {
    "dcn": "n_fields * {dim}",
    "dcnv2": "n_fields * {dim}",
    "deepfm": "n_fields * {dim}",
    "din": "(n_fields + 2) * {dim}",
    "ipnn": "n_fields * {dim} + n_fields * (n_fields - 1) // 2",
}
_BODIES: Mapping[str, Sequence[str]] = {
    "dcn": (
        "pairs = self._pair_matrix(pairs)",
        "x = e",
        "for layer in self.cross:",
        "    x = layer(e, x, pairs)",
        "return self.out(torch.cat([x.flatten(1), self.mlp(e.flatten(1))], -1)).squeeze(-1) + self.bias",
    ),
    "deepfm": (
        "met = self.products(e, pairs).sum(-1)",
        "return first.sum(-1) + met + self.mlp(e.flatten(1)).squeeze(-1) + self.bias",
    ),
    "din": (
        "past = self.table[history.clamp_min(0)]",
        'target = e[:, self.known["target"]]',
        "u = self.unit(target, past, history >= 0)",
        "return self.mlp(torch.cat([e.flatten(1), u, u * target], -1)).squeeze(-1) + self.bias",
    ),
    "fm": ("return first.sum(-1) + self.products(e, pairs).sum(-1) + self.bias",),
    "ipnn": (
        "met = self.products(e, pairs)",
        "return self.mlp(torch.cat([e.flatten(1), met], -1)).squeeze(-1) + self.bias",
    ),
    "lr": ("return taken[..., 0].sum(-1) + self.bias",),
}

_PAIRS_OF_VALUES = (
    "paired = self.paired[rows]",
    "i, j = torch.triu_indices(rows.shape[1], rows.shape[1], offset=1, device=rows.device)",
    "pairs = self.pair_mask * paired[:, i] * paired[:, j]",
)
_PAIR_MATRIX = """
    def _pair_matrix(self, pairs: Tensor) -> Tensor:
        m = self.n_fields
        i, j = torch.triu_indices(m, m, offset=1)
        upper = pairs.new_zeros(*pairs.shape[:-1], m, m)
        upper[..., i, j] = pairs
        return upper + upper.transpose(-1, -2) + torch.eye(m, dtype=upper.dtype, device=upper.device)
"""


def model_source(genome: OptFSGenome, task: TaskSettings) -> str:
    """Everything after the docstring of the module."""
    row = MODELS[genome.model]
    crossed = genome.model in ("dcn", "dcnv2")
    by_value = "product" in genome.selects
    first = int(row.has_first)
    dim = genome.dim if row.has_embeddings else 0
    parts = []
    uses_dice = row.has_mlp and task.activation == "dice"
    if uses_dice:
        parts.append(PARTS["dice"])
    init: list[str] = []
    if row.has_pairs:
        init.append('self.register_buffer("pair_mask", torch.ones(n_fields * (n_fields - 1) // 2))')
    if by_value:
        init.append('self.register_buffer("paired", torch.ones(n_rows))')
    if row.has_operator:
        parts.append(_products(genome.operator, dim))
        init.append("self.products = PairProducts(n_fields)")
    if crossed:
        parts.append(PARTS[genome.model].replace("{pairs}", "bij" if by_value else "ij"))
        init.append("self.n_fields = n_fields")
        init.append(f"self.cross = nn.ModuleList(Cross(n_fields, {dim}) for _ in range({task.n_cross}))")
    if genome.model == "din":
        score = _mlp("4 * dim", (80, 40), "1", task, plain=True)
        parts.append(PARTS["unit"].format(score=textwrap.indent(score, " " * 8).lstrip()))
        init.append(f"self.unit = Interest({dim})")
    if row.has_mlp:
        n_in = _MLP_IN[genome.model].format(dim=dim)
        init.append(f"self.mlp = {_mlp(n_in, task.hidden, None if crossed else '1', task)}")
        if crossed:
            last = str(task.hidden[-1]) if task.hidden else f"n_fields * {dim}"
            init.append(f"self.out = nn.Linear(n_fields * {dim} + {last}, 1, bias=False)")
    body = []
    if row.has_embeddings:
        body += ["first = taken[..., 0]", "e = taken[..., 1:]"] if first else ["e = taken"]
    if row.has_pairs:
        body += _PAIRS_OF_VALUES if by_value else ["pairs = self.pair_mask"]
    body += _BODIES["dcn" if crossed else genome.model]
    history = row.has_history
    model = MODEL.format(
        about=f"{row.title[:1].upper()}{row.title[1:]} over the selected values.",
        with_history=_WITH_HISTORY if history else "",
        of_pairs="\n    Two values meet where ``paired`` is 1 for the rows of both." if by_value else "",
        columns=first + dim,
        init="".join(f"{textwrap.indent(line, ' ' * 8)}\n" for line in init),
        history_argument=", history: Tensor" if history else "",
        history_name=' + [self.known["history"]["name"]]' if history else "",
        history_shape=", and of the past ``[B, L]``, -1 where there is nothing" if history else "",
        body=textwrap.indent("\n".join(body), " " * 8),
        rows=textwrap.indent(_ROWS_WITH_HISTORY if history else "return (torch.stack(columns, 1),)", " " * 8),
        past=_PAST if history else "",
    )
    if crossed:
        model = model.replace(
            "\n    @torch.no_grad()\n    def predict", _PAIR_MATRIX + "\n    @torch.no_grad()\n    def predict"
        )
    functional = "from torch.nn import functional as F\n" if uses_dice else ""
    return HEAD.format(functional=functional) + "".join([*parts, model])


_WITH_HISTORY = """ The past of a row, by the name of its column, is a list or a text as in the
    table; as many of its last values count as in training."""
_ROWS_WITH_HISTORY = """history, target = self.known["history"], self.known["fields"][self.known["target"]]
lists = [self._places(target, self._past(cell)[-history["length"] :]) for cell in values[history["name"]]]
longest = max([1, *map(len, lists)])
past = [[*places, *[-1] * (longest - len(places))] for places in lists]
return torch.stack(columns, 1), torch.tensor(past, dtype=torch.long).view(-1, longest)"""
_PAST = """
    def _past(self, cell: object) -> list:
        if not isinstance(cell, str) and not _is_nothing(cell):
            return list(cell)
        absent = _is_nothing(cell) or not cell or cell in self.known["missing"]
        return [] if absent else cell.split(self.known["history"]["separator"])
"""


def _products(operator: str, dim: int) -> str:
    products = "(e @ e.transpose(1, 2))[:, i, j] * pairs"
    if operator == "matrix":
        result = 'torch.einsum("bpc,pcd,bpd->bp", e[:, i], self.weight, e[:, j]) * pairs'
        weight = f"        self.weight = nn.Parameter(torch.zeros(n_fields * (n_fields - 1) // 2, {dim}, {dim}))\n"
        return PARTS["products"].format(product="e_i W_ij e_j", weight=weight, result=result)
    if operator == "weighted":
        weight = "        self.weight = nn.Parameter(torch.zeros(n_fields * (n_fields - 1) // 2))\n"
        return PARTS["products"].format(product="r_ij <e_i, e_j>", weight=weight, result=f"{products} * self.weight")
    return PARTS["products"].format(product="<e_i, e_j>", weight="", result=products)


_ACTIVATIONS = {"dice": "Dice({})", "prelu": "nn.PReLU({})", "relu": "nn.ReLU()", "sigmoid": "nn.Sigmoid()"}


def _mlp(n_in: str, hidden: Sequence[int], n_out: str | None, task: TaskSettings, plain: bool = False) -> str:
    """The layers of ``primitives.ctr.mlp``; ``plain``: without batch norm and dropout."""
    layers = []
    for width in hidden:
        layers.append(f"nn.Linear({n_in}, {width})")
        if task.batch_norm and not plain:
            layers.append(f"nn.BatchNorm1d({width})")
        layers.append(_ACTIVATIONS[task.activation].format(width))
        if task.dropout and not plain:
            layers.append(f"nn.Dropout({task.dropout:g})")
        n_in = str(width)
    if n_out is not None:
        layers.append(f"nn.Linear({n_in}, {n_out})")
    lines = "".join(f"    {layer},\n" for layer in layers)
    return f"nn.Sequential(\n{lines})" if layers else "nn.Sequential()"
