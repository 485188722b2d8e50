"""What the sources of exported click-through models are made of; ``model_source`` fills in braces."""

__all__ = ["HEAD", "MODEL", "PARTS"]

HEAD = '''import json
import math

import torch
from torch import Tensor, nn
{functional}
__all__ = ["Model"]


def _is_nothing(value: object) -> bool:
    """None and NaN, and NA and NaT of pandas."""
    return value is None or (not isinstance(value, str) and str(value) in ("nan", "NaN", "NaT", "<NA>"))


def _texts(value: object) -> list:
    """What training may have read a value as: whole numbers become floats on their way, truth values are numbers."""
    if _is_nothing(value):
        return [""]
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if text.lower() in ("true", "false"):
        return [text, str(int(text.lower() == "true"))]
    if hasattr(value, "is_integer") and value.is_integer():
        return [text, str(int(value))]
    return [text]

'''

PARTS = {
    "dice": '''
class Dice(nn.Module):
    """p x + (1 - p) alpha x, p = sigmoid of x normalised by the moments of the batch, in eval mode by running ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if self.training and len(x) > 1:
            p = torch.sigmoid(norm(x))
        else:
            p = torch.sigmoid(F.batch_norm(x, norm.running_mean, norm.running_var, eps=norm.eps))
        return x * (p + (1 - p) * self.alpha)

''',
    "products": '''
class PairProducts(nn.Module):
    """g_ij {product} for fields i < j: ``[B, m, d]`` -> ``[B, P]``."""

    def __init__(self, n_fields: int) -> None:
        super().__init__()
{weight}
    def forward(self, e: Tensor, pairs: Tensor) -> Tensor:
        i, j = torch.triu_indices(e.shape[1], e.shape[1], offset=1, device=e.device)
        return {result}

''',
    "dcn": '''
class Cross(nn.Module):
    """x0 (w x) + b + x; field i of x0 meets field j of x if that pair is kept."""

    def __init__(self, n_fields: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_fields, dim))
        self.bias = nn.Parameter(torch.zeros(n_fields, dim))

    def forward(self, x0: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
        return x0 * (pairs @ (x * self.weight).sum(-1, keepdim=True)) + self.bias + x

''',
    "dcnv2": '''
class Cross(nn.Module):
    """x0 * (W x + b) + x; block (i, j) of W counts if that pair is kept."""

    def __init__(self, n_fields: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_fields, dim, n_fields, dim))
        self.bias = nn.Parameter(torch.zeros(n_fields, dim))

    def forward(self, x0: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
        return x0 * (torch.einsum("iajc,{pairs},bjc->bia", self.weight, pairs, x) + self.bias) + x

''',
    "unit": '''
class Interest(nn.Module):
    """The history, weighed by how much each past item says about the one in question: no softmax, no padding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = {score}

    def forward(self, query: Tensor, keys: Tensor, present: Tensor) -> Tensor:
        rows, places = present.nonzero(as_tuple=True)
        if len(rows) == 0:
            return torch.zeros_like(query)
        q, k = query[rows], keys[rows, places]
        score = self.score(torch.cat([q, k, q - k, q * k], -1))
        return torch.zeros_like(query).index_add(0, rows, score * k)

''',
}

MODEL = '''
class Model(nn.Module):
    """{about}

    ``Model.load(path).predict(values)`` takes values as they come, a list per field by its name: a numeric field
    numbers, any other texts, or what they were read from; None, NaN and NA are missing values. A value that was not
    selected adds nothing; one that training never saw counts as the unknown value of its field, which adds nothing
    either where training had none.{with_history}{of_pairs}
    """

    def __init__(self, n_fields: int, n_rows: int) -> None:
        super().__init__()
        self.register_buffer("fields", torch.zeros(0, dtype=torch.uint8))
        self.table = nn.Parameter(torch.zeros(n_rows, {columns}))
        self.bias = nn.Parameter(torch.zeros(()))
{init}        self.known: dict = {{}}

    def forward(self, rows: Tensor{history_argument}) -> Tensor:
        """Logits ``[B]`` of rows of the table ``[B, m]``{history_shape}."""
        taken = self.table[rows]
{body}

    @torch.no_grad()
    def predict(self, values: dict) -> Tensor:
        """Probabilities of a click ``[B]``, of values by field."""
        return torch.sigmoid(self(*self.rows(values)))

    def rows(self, values: dict) -> tuple[Tensor, ...]:
        """What ``forward`` takes, of values by field."""
        wanted = [field["name"] for field in self.known["fields"]]{history_name}
        missing = [name for name in wanted if name not in values]
        if missing:
            raise ValueError(f"values must have a list for each of {{wanted}}, got none for {{missing}}")
        columns = [
            torch.tensor(self._places(field, values[field["name"]]), dtype=torch.long) for field in self.known["fields"]
        ]
{rows}
{past}
    def _places(self, field: dict, values: list) -> list[int]:
        missing = self.known["missing"]
        read = [_texts(value) for value in values]
        if "edges" in field:
            absent = ["", *missing]
            numbers = [math.nan if any(text in absent for text in texts) else float(texts[-1]) for texts in read]
            found = torch.bucketize(
                torch.tensor(numbers, dtype=torch.float64),
                torch.tensor(field["edges"], dtype=torch.float64),
                right=True,
            )
            return [field["rows"][0 if math.isnan(x) else k + 1] for x, k in zip(numbers, found.tolist())]
        rows, absent = field["rows"], [self.known["as"]]
        blank = missing if "" in rows else ["", *missing]
        read = [absent if any(text in blank for text in texts) else texts for texts in read]
        return [next((rows[text] for text in texts if text in rows), field["other"]) for texts in read]

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "Model":
        """The model with these tensors, in eval mode."""
        known = json.loads(bytes(state["fields"].tolist()).decode("utf-8"))
        model = cls(len(known["fields"]), len(state["table"])).to(state["table"].dtype)
        model.known = known
        model.fields = torch.zeros_like(state["fields"])
        model.load_state_dict(state)
        return model.eval()

    @classmethod
    def load(cls, path: str) -> "Model":
        """The model with the tensors of a .safetensors file, in eval mode."""
        dtypes = {{
            "F64": torch.float64,
            "F32": torch.float32,
            "I64": torch.int64,
            "U8": torch.uint8,
            "BOOL": torch.bool,
        }}
        with open(path, "rb") as file:
            content = bytearray(file.read())
        begin = 8 + int.from_bytes(content[:8], "little")
        state = {{}}
        for name, entry in json.loads(content[8:begin]).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                values = torch.frombuffer(bytearray(content[begin + start : begin + end]), dtype=dtypes[entry["dtype"]])
                state[name] = values.reshape(entry["shape"])
        return cls.of(state)
'''
