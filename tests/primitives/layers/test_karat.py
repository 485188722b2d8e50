"""Learnable attention computes its formula, keeps the size of what it weights, and refuses to explode."""

import pytest
import torch

from layersearch.errors import BadInputError, UnknownNameError
from layersearch.primitives import BASES, KArAt, LearnableAttention, karat_stack
from layersearch.primitives.layers.karat import karat_parameters


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("base", [None, "silu"])
def test_the_operator_is_the_sum_over_its_edges(rank: int | None, base: str | None) -> None:
    operator = KArAt(5, 2, "fourier", rank, base=base, grid=2, dtype=torch.float64)
    scores = torch.randn(2, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        f = operator.functions(scores)  # [B, h, N, N, K]
        expected = torch.einsum("bhnqk,hkqp->bhnp", f, operator.weight)
        if operator.base_weight is not None:
            expected = expected + torch.einsum("bhnq,hqp->bhnp", torch.nn.functional.silu(scores), operator.base_weight)
        if operator.mix is not None:
            expected = torch.einsum("bhnp,hpm->bhnm", expected, operator.mix)
        torch.testing.assert_close(operator(scores), expected)
    counted = karat_parameters(5, 2, 4, rank, base is not None)
    assert counted == sum(p.numel() for p in operator.parameters())


@pytest.mark.parametrize("name", ["fourier", "bspline", "chebyshev", "dog", "rational"])
def test_every_kind_of_basis_can_attend_and_learn(name: str) -> None:
    attention = LearnableAttention(8, KArAt(6, 2, name, rank=4))
    x = torch.randn(3, 6, 8)
    y = attention(x)
    assert y.shape == (3, 6, 8)
    y.square().sum().backward()
    for parameter in attention.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("rank", [None, 12])
def test_weighted_values_keep_their_second_moment(rank: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    operator = KArAt(49, 3, "fourier", rank, grid=3, generator=generator)
    scores = torch.randn(8, 3, 49, 49, generator=generator)
    values = torch.randn(8, 3, 49, 16, generator=generator)
    with torch.no_grad():
        assert 0.7 < float((operator(scores) @ values).square().mean()) < 1.4


def test_blocks_have_their_own_operators_or_share_one() -> None:
    own = karat_stack(3, 8, 6, 2, "blockwise", rank=4, grid=2)
    shared = karat_stack(3, 8, 6, 2, "universal", rank=4, grid=2)
    assert len({id(block.operator) for block in own}) == 3  # type: ignore[arg-type]
    assert len({id(block.operator) for block in shared}) == 1  # type: ignore[arg-type]
    operator = karat_parameters(6, 2, 4, 4)
    count = [sum(p.numel() for p in stack.parameters()) for stack in (own, shared)]
    assert count[0] - count[1] == 2 * operator
    torch.nn.Sequential(*shared)(torch.randn(1, 6, 8)).sum().backward()


def test_a_size_that_explodes_is_refused_before_it_is_built() -> None:
    with pytest.raises(BadInputError) as refused:
        KArAt(4096, 12, "fourier", rank=None)
    message = str(refused.value)
    assert message.startswith("KArAt on 4096 tokens and 12 heads would have 2,013,265,920 parameters, more than ")
    assert message.endswith("use rank=12, or raise the limit")
    assert refused.value.exit_code == 2
    KArAt(197, 3, "fourier", rank=12, grid=3)
    with pytest.raises(BadInputError, match=r"would have 4,\d+,\d+ parameters, more than max_parameters=1,000,000"):
        karat_stack(24, 48, 197, 3, rank=24, grid=6, max_parameters=1_000_000)
    karat_stack(24, 48, 197, 3, "universal", rank=24, grid=6, max_parameters=1_000_000)


def test_bad_input_is_refused_in_one_sentence() -> None:
    operator = KArAt(6, 2, rank=4)
    with pytest.raises(BadInputError, match=r"built for 2 heads and 6 tokens, got scores of shape \[1, 2, 5, 5\]"):
        operator(torch.zeros(1, 2, 5, 5))
    with pytest.raises(BadInputError, match="heads must divide dim, got 2 for 7"):
        LearnableAttention(7, operator)
    with pytest.raises(UnknownNameError, match="unknown sharing 'blocks'; did you mean 'blockwise'"):
        karat_stack(2, 8, 6, 2, "blocks")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="rank must be a whole number of at least 1, got 0"):
        KArAt(6, 2, rank=0)
    assert "fourier" in BASES
