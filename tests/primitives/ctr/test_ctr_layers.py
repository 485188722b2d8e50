"""Layers of click-through models: table, Dice, local activation unit, products and crosses."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from layersearch.errors import BadInputError, DataError, UnknownNameError
from layersearch.primitives.ctr.attention_unit import LocalActivationUnit
from layersearch.primitives.ctr.cross import CrossMatrix, CrossVector
from layersearch.primitives.ctr.dice import Dice
from layersearch.primitives.ctr.interactions import inner_products, pair_matrix, second_order
from layersearch.primitives.ctr.mlp import mlp
from layersearch.primitives.ctr.table import FeatureTable


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_pruned_table_is_smaller_and_gives_the_same_rows(tmp_path: Path) -> None:
    table = FeatureTable(100, 3, std=1.0, zero_columns=1, generator=torch.Generator().manual_seed(0))
    assert bool((table.weight[:, 0] == 0).all())
    with torch.no_grad():
        table.weight[:, 0] = 1
    kept = torch.rand(100, generator=torch.Generator().manual_seed(1)) < 0.2
    small = table.pruned(kept)
    assert small.weight.shape == (int(kept.sum()) + 1, 3)
    ids = torch.arange(100).reshape(10, 10)
    assert torch.equal(small(ids), table(ids) * kept[ids].unsqueeze(-1))
    small(ids).sum().backward()
    assert small.weight.grad is not None
    assert not bool(small.weight.grad.to_dense()[-1].any()), "the row of zeros must not be trained"
    for which, name in ((table, "whole"), (small, "small")):
        which.save(tmp_path / name)
        assert torch.equal(FeatureTable.load(tmp_path / name)(ids), which(ids))
    assert (tmp_path / "small").stat().st_size < (tmp_path / "whole").stat().st_size
    with pytest.raises(BadInputError, match="pruned once"):
        small.pruned(kept)
    with pytest.raises(BadInputError, match="one per id"):
        table.pruned(kept[:5])


def test_ids_that_are_not_there_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    table = FeatureTable(5, 2)
    for bad in ([[5]], [[-1]]):
        with pytest.raises(BadInputError, match=r"ids must be in \[0, 5\)"):
            table(torch.tensor(bad))
    assert table(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3, 2)
    (tmp_path / "x").write_bytes(b"no table")
    with pytest.raises(DataError, match="saved by layersearch"):
        FeatureTable.load(tmp_path / "x")


def test_dice_uses_the_moments_of_the_batch_and_keeps_running_ones() -> None:
    dice = Dice(3).double()
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.0, 0.25, -1.0]))
    x = randn(50, 3) * 2 + 1
    p = torch.sigmoid((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-8).sqrt())
    torch.testing.assert_close(dice(x), p * x + (1 - p) * dice.alpha.detach() * x)
    for _ in range(200):
        dice(x)
    torch.testing.assert_close(dice.norm.running_mean, x.mean(0), rtol=1e-6, atol=1e-6)
    dice.eval()
    p = torch.sigmoid((x - x.mean(0)) / (x.var(0) + 1e-8).sqrt())
    torch.testing.assert_close(dice(x), p * x + (1 - p) * dice.alpha.detach() * x, rtol=1e-5, atol=1e-5)
    assert bool(Dice(3)(torch.ones(1, 3)).isfinite().all())
    fresh = Dice(3).double()
    assert torch.autograd.gradcheck(fresh, (randn(6, 3).requires_grad_(),))


@pytest.mark.parametrize("normalize", [False, True])
def test_the_activation_unit_ignores_padding_and_the_length_of_other_histories(normalize: bool) -> None:
    torch.manual_seed(0)
    unit = LocalActivationUnit(4, (5,), normalize=normalize).double()
    query, keys = randn(3, 4), randn(3, 6, 4, seed=1)
    present = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    out = unit(query, keys, present)
    after = {n: b.clone() for n, b in unit.named_buffers()}
    assert bool((out[2] == 0).all())
    longer = torch.cat([keys, torch.full((3, 5, 4), 1e6, dtype=torch.float64)], 1)
    again = LocalActivationUnit(4, (5,), normalize=normalize).double()
    again.load_state_dict(unit.state_dict())
    for module in (again, unit):
        module.score[1].norm.reset_running_stats()  # type: ignore[union-attr, operator]
    torch.testing.assert_close(again(query, longer, torch.nn.functional.pad(present, (0, 5))), out)
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, after[name]), "padding must not reach the moments"
    rows = [(b, i) for b in range(3) for i in range(6) if present[b, i]]
    pairs = torch.stack([torch.cat([q := query[b], k := keys[b, i], q - k, q * k]) for b, i in rows])
    scores = unit.score(pairs).squeeze(-1)
    expected = torch.zeros_like(query)
    for b in (0, 1):
        of_row = torch.stack([s for s, (r, _) in zip(scores, rows, strict=True) if r == b])
        weights = torch.softmax(of_row / 2, 0) if normalize else of_row
        expected[b] = sum(w * keys[b, i] for w, i in zip(weights, [i for r, i in rows if r == b], strict=True))
    torch.testing.assert_close(out, expected)
    assert torch.equal(unit(query, keys, torch.zeros_like(present)), torch.zeros_like(query))


def test_products_of_pairs_in_their_order() -> None:
    e, pairs = randn(2, 4, 3), randn(6, seed=2)
    expected = [[(e[b, i] * e[b, j]).sum() for i in range(4) for j in range(i + 1, 4)] for b in range(2)]
    products = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(inner_products(e), products)
    torch.testing.assert_close(inner_products(e, pairs), products * pairs)
    torch.testing.assert_close(second_order(e), products.sum(1))
    torch.testing.assert_close(second_order(e, pairs), (products * pairs).sum(1))
    matrix = pair_matrix(pairs, 4)
    assert torch.equal(matrix, matrix.T)
    assert matrix.diagonal().tolist() == [1] * 4
    assert matrix[1, 2] == pairs[3]


@pytest.mark.parametrize("kind", [CrossVector, CrossMatrix])
def test_crosses_are_their_formulas_with_a_gate_on_each_block(kind: type[CrossVector | CrossMatrix]) -> None:
    torch.manual_seed(0)
    layer = kind(3, 2).double()
    with torch.no_grad():
        layer.bias.copy_(randn(3, 2, seed=5))
    x0, x, pairs = randn(4, 3, 2, seed=1), randn(4, 3, 2, seed=2), randn(3, seed=3)
    gates = pair_matrix(pairs, 3)
    expected = torch.empty_like(x)
    for i in range(3):
        if kind is CrossVector:
            met = sum(gates[i, j] * (x[:, j] * layer.weight[j]).sum(-1, keepdim=True) for j in range(3))
            expected[:, i] = x0[:, i] * met + layer.bias[i] + x[:, i]
        else:
            met = sum(gates[i, j] * x[:, j] @ layer.weight[i, :, j].T for j in range(3))
            expected[:, i] = x0[:, i] * (met + layer.bias[i]) + x[:, i]
    torch.testing.assert_close(layer(x0, x, pairs), expected)
    torch.testing.assert_close(layer(x0, x, pairs.expand(4, -1)), expected)
    torch.testing.assert_close(layer(x0, x), layer(x0, x, torch.ones(3, dtype=torch.float64)))


def test_a_perceptron_has_the_layers_asked_for() -> None:
    kinds = [type(layer).__name__ for layer in mlp(4, (3,), 1, activation="dice", batch_norm=True, dropout=0.1)]
    assert kinds == ["Linear", "BatchNorm1d", "Dice", "Dropout", "Linear"]
    with pytest.raises(UnknownNameError, match="did you mean 'relu'"):
        mlp(4, (3,), 1, activation="rellu")
