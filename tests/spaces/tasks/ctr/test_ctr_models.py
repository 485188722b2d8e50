"""Click-through models: their formulas, gates in their places, and pruned copies that do the same."""

import itertools

import pytest
import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.primitives.gates.base import HARD, RELAXATIONS, pair_indices
from layersearch.primitives.gates.gate_set import OPEN, Gated, GateSet
from layersearch.spaces.tasks.ctr.models.base import MODELS, CTRModel, ModelSettings

SIZES = (5, 4, 7)
B = 6
OFFSETS = torch.tensor([0, 5, 9])
IDS = OFFSETS + torch.tensor([[b % 5, (2 * b) % 4, (3 * b) % 7] for b in range(B)])
HISTORY = torch.tensor([[0, 1, -1], [2, 3, 4], [-1, -1, -1], [4, -1, -1], [1, 1, 2], [0, -1, -1]])


def make(name: str, hidden: tuple[int, ...] = (6,), **settings: object) -> CTRModel:
    torch.manual_seed(0)
    model = MODELS[name](SIZES, ModelSettings(dim=3, hidden=hidden, std=0.7, **settings))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)))
    return model.double()


def call(model: CTRModel, gated: Gated = OPEN, ids: Tensor = IDS) -> Tensor:
    return model(ids, gated, HISTORY if model.has_history else None)


def reference(model: CTRModel) -> Tensor:
    """Row by row, field by field."""
    out = []
    for b in range(B):
        rows = model.table.weight[IDS[b]]
        first, e = rows[:, 0], rows[:, int(model.has_first) :]
        pairs = [(i, j) for i in range(3) for j in range(i + 1, 3)]
        inner = torch.stack([(e[i] * e[j]).sum() for i, j in pairs]) if model.has_embeddings else None
        flat = e.flatten()
        value = model.bias
        if model.name == "lr":
            value = value + first.sum()
        elif model.name == "fm":
            value = value + first.sum() + inner.sum()  # type: ignore[union-attr]
        elif model.name == "deepfm":
            value = value + first.sum() + inner.sum() + model.mlp(flat)[0]  # type: ignore[union-attr, operator]
        elif model.name == "ipnn":
            value = value + model.mlp(torch.cat([flat, inner]))[0]  # type: ignore[operator, list-item]
        elif model.name in ("dcn", "dcnv2"):
            x = flat
            for layer in model.cross:  # type: ignore[union-attr]
                w, bias = layer.weight, layer.bias.flatten()
                x = (
                    flat * (w.flatten() @ x) + bias + x
                    if model.name == "dcn"
                    else flat * (w.reshape(9, 9) @ x + bias) + x
                )
            value = value + model.out(torch.cat([x, model.mlp(flat)]))[0]  # type: ignore[operator]
        else:
            u = torch.zeros(3, dtype=torch.float64)
            for k in (model.table.weight[h] for h in HISTORY[b] if h >= 0):
                u = u + model.unit.score(torch.cat([e[0], k, e[0] - k, e[0] * k]).unsqueeze(0))[0, 0] * k  # type: ignore[union-attr, operator]
            value = value + model.mlp(torch.cat([flat, u, u * e[0]]).unsqueeze(0))[0, 0]  # type: ignore[operator]
        out.append(value)
    return torch.stack(out)


@pytest.mark.parametrize("name", list(MODELS))
def test_models_are_their_formulas(name: str) -> None:
    model = make(name).eval()
    torch.testing.assert_close(call(model), reference(model))
    assert model.title
    assert model.source


def gates_for(model: CTRModel, hole: bool = True) -> GateSet:
    kinds = ["field", "value", *(["pair", "product"] if model.has_pairs else [])]
    gates = GateSet(kinds, SIZES, RELAXATIONS["continuation"]()).double()
    if hole:
        with torch.no_grad():
            gates.gates["value"].logits[[1, 3, 6, 10, 14]] = -1
            if model.has_pairs:
                gates.gates["pair"].logits[1] = -1
                gates.gates["product"].logits[[0, 3, 5, 9, 11]] = -1
    return gates


@pytest.mark.parametrize("name", list(MODELS))
def test_open_gates_change_nothing(name: str) -> None:
    model = make(name).eval()
    gates = gates_for(model, hole=False)
    for temperature in (1.0, 50.0, HARD):
        gated = gates(IDS, temperature, history=HISTORY)
        torch.testing.assert_close(call(model, gated), call(model))


@pytest.mark.parametrize("name", list(MODELS))
def test_every_gate_reaches_the_output_at_every_temperature(name: str) -> None:
    model = make(name).eval()
    gates = gates_for(model, hole=False)
    call(model, gates(IDS, 2.0, history=HISTORY)).square().sum().backward()
    for kind, part in gates.gates.items():
        assert part.logits.grad is not None
        gradient = part.logits.grad.to_dense().squeeze(-1)
        used = IDS.unique() if part.per_value else torch.arange(len(gradient))
        assert bool((gradient[used] != 0).all()), kind


@pytest.mark.parametrize("name", list(MODELS))
def test_a_pruned_model_is_smaller_and_does_the_same(name: str) -> None:
    model = make(name).eval()
    gates = gates_for(model)
    for closed in (None, 2, 0):
        if closed is not None:
            with torch.no_grad():
                gates.gates["field"].logits[closed] = -1
        pruned = model.pruned(gates.selection())
        assert pruned.table.weight.shape[0] == int(gates.selection().rows().sum()) + 1
        assert pruned.n_parameters() < model.n_parameters()
        torch.testing.assert_close(call(pruned), call(model, gates(IDS, HARD, history=HISTORY)), rtol=0, atol=1e-14)
        assert not torch.allclose(call(pruned), call(model))
    assert model.table.weight.shape[0] == sum(SIZES), "pruning must leave the model as it is"


@pytest.mark.parametrize("name", [n for n in MODELS if MODELS[n].has_pairs])
@pytest.mark.parametrize("per_row", [False, True])
def test_fields_interact_exactly_where_their_gate_is_open(name: str, per_row: bool) -> None:
    """Without hidden layers a model is additive but for its interactions: mixed differences show which there are."""
    model = make(name, hidden=(), n_cross=1).eval()  # in two crosses fields also meet by way of a third
    i, j = pair_indices(3)
    for opened in range(4):
        pairs = torch.zeros(3, dtype=torch.float64)
        pairs[:opened] = 1
        for p in range(3):
            total = 0.0
            for a, b in itertools.product((0, 1), (0, 1)):
                ids = OFFSETS.clone()
                ids[i[p]] += a
                ids[j[p]] += b
                gated = Gated(pairs=pairs.unsqueeze(0) if per_row else pairs)
                total = total + (-1) ** (a + b) * call(model, gated, ids.unsqueeze(0)).item()
            assert (abs(total) > 1e-6) == (p < opened), (opened, p)


@pytest.mark.parametrize("name", [n for n in MODELS if not MODELS[n].has_pairs])
def test_gates_of_pairs_are_refused_where_they_have_no_place(name: str) -> None:
    with pytest.raises(BadInputError, match="has none; use fm"):
        call(make(name), Gated(pairs=torch.ones(3)))


def test_bad_models_are_refused_in_one_sentence() -> None:
    with pytest.raises(BadInputError, match="needs the history"):
        make("din")(IDS)
    for bad in ({"dim": 0}, {"dropout": 1.0}, {"hidden": (0,)}, {"n_cross": 0}, {"std": -1.0}):
        with pytest.raises(BadInputError):
            ModelSettings(**bad)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="one of the 3 fields"):
        MODELS["din"](SIZES, ModelSettings(target=3))
