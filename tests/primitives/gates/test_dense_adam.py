"""Adam with a penalty on the whole table, against torch's own on the same loss."""

import torch
from torch import nn
from torch.nn import functional as F

from layersearch.primitives.gates.dense_adam import DenseAdam


def test_sparse_gradients_are_stepped_as_the_penalised_loss_of_a_dense_table() -> None:
    """The penalty is in the loss of the one and in the optimiser of the other; rows that never occur shrink in both."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    sparse, dense = nn.Parameter(first.clone()), nn.Parameter(first.clone())
    mine, theirs = DenseAdam([sparse], lr=0.02, weight_decay=0.05), torch.optim.Adam([dense], lr=0.02)
    for _ in range(20):
        rows = torch.randint(0, 6, (5,), generator=generator)
        target = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        mine.zero_grad()
        mine.catch_up(sparse, rows)
        F.mse_loss(F.embedding(rows, sparse, sparse=True), target).backward()
        mine.step()
        theirs.zero_grad()
        (F.mse_loss(F.embedding(rows, dense), target) + 0.05 / 2 * dense.square().sum()).backward()
        theirs.step()
    mine.flush()
    torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)
    assert (sparse[6].abs() < first[6].abs()).all()


def test_a_closure_is_evaluated_first() -> None:
    table = nn.Parameter(torch.ones(2, 1))
    optimiser = DenseAdam([table], lr=0.1)

    def closure() -> float:
        loss = F.embedding(torch.tensor([0]), table, sparse=True).sum()
        loss.backward()
        return loss.item()

    assert optimiser.step(closure) == 1.0
    assert table[0] < 1
    assert table[1] == 1
