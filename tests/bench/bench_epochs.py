"""What an epoch of FM and of DCN costs here, in plain torch and in DeepCTR-Torch, on the same synthetic rows.

    python tests/bench/bench_epochs.py --values 5000 250000
    PYTHONPATH=/folder/with/deepctr_torch python tests/bench/bench_epochs.py      # its column needs it installed

``ours``: a training by ``Learner`` without gates: sparse gradients, ``RowAdam``, batches, the score of 512 validation
rows and the copy of the best model included. ``plain``: ``nn.Embedding`` and ``torch.optim.Adam``. ``plain sparse``:
``nn.Embedding(sparse=True)``, ``torch.optim.SparseAdam`` for the table, Adam for the rest. ``deepctr``: ``fit`` of
``DeepFM(dnn_hidden_units=())`` (its FM) and of ``DCN``, with its data loader, without regularisers. All have embeddings
of 10, Adam at 1e-3, the same batches' size; DCN three cross layers and a perceptron of 64-64. Plain models give the
outputs of ours for the same weights, which is checked first. Median core-time of interleaved epochs, one thread.
"""

import argparse
import contextlib
import importlib.util
import io
from collections.abc import Callable

import numpy as np
import torch
from common import environment, interleaved, table
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.spaces.tasks.ctr.data import CTRData, Part
from layersearch.spaces.tasks.ctr.learning import Learner
from layersearch.spaces.tasks.ctr.models.base import MODELS, ModelSettings
from layersearch.spaces.tasks.ctr.settings import LearnSettings

FIELDS, DIM, N_CROSS, HIDDEN, RATE = 10, 10, 3, (64, 64), 1e-3
SIZES = ModelSettings(dim=DIM, n_cross=N_CROSS, hidden=HIDDEN)


def data_of(values: int, rows: int) -> CTRData:
    """Skewed ids of equal fields, labels by chance."""
    rng = np.random.default_rng(0)
    size = values // FIELDS

    def part(n: int) -> Part:
        ids = np.arange(FIELDS) * size + (rng.random((n, FIELDS)) ** 3 * size).astype(np.int64)
        return Part(ids.astype(np.int32), rng.integers(0, 2, n).astype(np.uint8))

    names = tuple(f"f{i}" for i in range(FIELDS))
    return CTRData("synthetic", names, (size,) * FIELDS, part(rows), part(512), part(512))


class PlainFM(nn.Module):
    """As a user would write it."""

    def __init__(self, n: int, sparse: bool) -> None:
        super().__init__()
        self.first = nn.Embedding(n, 1, sparse=sparse)
        self.embedding = nn.Embedding(n, DIM, sparse=sparse)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        e = self.embedding(ids)
        pairs = (e.sum(1).square() - e.square().sum(1)).sum(-1) / 2
        return self.first(ids).sum((1, 2)) + pairs + self.bias


class PlainDCN(nn.Module):
    """Cross layers and a perceptron side by side."""

    def __init__(self, n: int, sparse: bool) -> None:
        super().__init__()
        size = FIELDS * DIM
        self.embedding = nn.Embedding(n, DIM, sparse=sparse)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(size) * 0.1) for _ in range(N_CROSS)])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(size)) for _ in range(N_CROSS)])
        first, second = HIDDEN
        self.mlp = nn.Sequential(nn.Linear(size, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU())
        self.out = nn.Linear(size + second, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        x0 = x = self.embedding(ids).flatten(1)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = x0 * (x @ weight).unsqueeze(-1) + bias + x
        return self.out(torch.cat([x, self.mlp(x0)], -1)).squeeze(-1) + self.bias


PLAIN: dict[str, type[PlainFM] | type[PlainDCN]] = {"fm": PlainFM, "dcn": PlainDCN}


def check(name: str) -> None:
    """The plain model with the weights of ours has its outputs."""
    torch.manual_seed(0)
    ours, plain = MODELS[name]((5,) * FIELDS, SIZES), PLAIN[name](5 * FIELDS, sparse=False)
    rows = torch.randn_like(ours.table.weight)
    with torch.no_grad():
        ours.table.weight.copy_(rows)
        plain.embedding.weight.copy_(rows[:, -DIM:])
        if isinstance(plain, PlainFM):
            plain.first.weight.copy_(rows[:, :1])
        else:
            for i, layer in enumerate(ours.cross):  # type: ignore[arg-type]
                plain.weights[i].copy_(layer.weight.flatten())
            plain.mlp.load_state_dict({k.replace("mlp.", ""): v for k, v in ours.mlp.state_dict().items()})  # type: ignore[operator,union-attr]
            plain.out.load_state_dict(ours.out.state_dict())  # type: ignore[operator,union-attr]
    ids = torch.randint(5, (20, FIELDS)) + 5 * torch.arange(FIELDS)
    torch.testing.assert_close(ours(ids), plain(ids), rtol=1e-4, atol=1e-4)


def ours_epoch(name: str, data: CTRData, batch: int) -> Callable[[], object]:
    settings = LearnSettings(
        model=name, sizes=SIZES, gates=(), price=0.0, decay=0.0, batch=batch, lr=RATE, epochs=10_000, patience=10_000
    )
    learner = Learner(data, settings)
    return lambda: learner.run(max_steps=learner.steps_per_epoch)


def plain_epoch(name: str, data: CTRData, batch: int, sparse: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    model = PLAIN[name](sum(data.sizes), sparse)
    tables = [p for n, p in model.named_parameters() if n.split(".")[0] in ("embedding", "first")]
    others = [p for p in model.parameters() if not any(p is t for t in tables)]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.Adam([*others, *([] if sparse else tables)], lr=RATE)]
    if sparse:
        optimisers.append(torch.optim.SparseAdam(tables, lr=RATE))
    ids = torch.from_numpy(data.train.ids.astype(np.int64))
    labels = torch.from_numpy(data.train.labels.astype(np.float32))

    def epoch() -> None:
        for rows in torch.randperm(len(ids)).split(batch):
            loss = F.binary_cross_entropy_with_logits(model(ids[rows]), labels[rows])
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimiser in optimisers:
                optimiser.step()

    return epoch


def deepctr_epoch(name: str, data: CTRData, batch: int) -> Callable[[], object]:
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DCN, DeepFM

    columns = [SparseFeat(f, n, embedding_dim=DIM) for f, n in zip(data.fields, data.sizes, strict=True)]
    shared = {"l2_reg_linear": 0, "l2_reg_embedding": 0, "device": "cpu"}
    if name == "fm":
        model = DeepFM(columns, columns, dnn_hidden_units=(), **shared)
    else:
        model = DCN(columns, columns, cross_num=N_CROSS, dnn_hidden_units=HIDDEN, l2_reg_cross=0, **shared)
    model.compile("adam", "binary_crossentropy")
    local = data.train.ids - np.array(data.offsets)
    inputs = {f: local[:, i] for i, f in enumerate(data.fields)}
    labels = data.train.labels.astype(np.float32)

    def epoch() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(inputs, labels, batch_size=batch, epochs=1, verbose=0)

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, nargs="+", default=[5_000, 250_000])
    parser.add_argument("--rows", type=int, default=40_960)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    has_peer = importlib.util.find_spec("deepctr_torch") is not None
    print(environment(*(["deepctr-torch"] if has_peer else [])))
    rows = {}
    for name in PLAIN:
        check(name)
        for values in args.values:
            data = data_of(values, args.rows)
            runs = {
                "ours": ours_epoch(name, data, args.batch),
                "plain": plain_epoch(name, data, args.batch, sparse=False),
                "plain sparse": plain_epoch(name, data, args.batch, sparse=True),
            }
            if has_peer:
                runs["deepctr"] = deepctr_epoch(name, data, args.batch)
            for run in runs.values():
                run()
            seconds = interleaved(runs, args.rounds)
            row: dict[str, object] = {"ours core-s": seconds["ours"], "rows / core-s": args.rows / seconds["ours"]}
            rows[f"{name}, {values:,} values"] = row | {
                f"{way} / ours": seconds[way] / seconds["ours"] for way in runs if way != "ours"
            }
    table(f"an epoch of {args.rows:,} rows x {FIELDS} fields, batch {args.batch}", rows)


if __name__ == "__main__":
    main()
