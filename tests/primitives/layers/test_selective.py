"""Layers whose nodes choose: gates, the layer they are pruned to, what fitting keeps, and errors."""

import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from layersearch.errors import BadInputError, UnknownNameError
from layersearch.primitives import (
    BASES,
    KANConv2d,
    KANLinear,
    MixedKANConv2d,
    MixedKANLinear,
    SelectiveKANConv2d,
    SelectiveKANLinear,
)
from layersearch.primitives.layers.domain_map import DOMAINS
from layersearch.primitives.layers.node_fit import fit_nodes
from layersearch.primitives.layers.selection import GATE_KINDS, NodeGates

POOL = ("bspline", "chebyshev", "jacobi", "rational", "relu", "sine")
CHOICE = (5, 0, 3, 3, 1, 0, 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


@torch.no_grad()
def chosen(layer: SelectiveKANLinear | SelectiveKANConv2d, choice: tuple[int, ...]) -> None:
    """Gates that are one-hot."""
    layer.gates.logits.zero_()
    layer.gates.logits[torch.arange(len(choice)), torch.tensor(choice)] = 1e6
    layer.set_stage(1e-3)


@pytest.mark.parametrize("domain", [None, *(d for d in DOMAINS if d != "softplus")])
def test_pruning_keeps_the_output_of_hard_gates(domain: str | None) -> None:
    x, images = normal(16, 7), normal(2, 7, 6, 5)
    linear = SelectiveKANLinear(7, 3, POOL, domain=domain, dtype=torch.float64, generator=seeded())
    conv = SelectiveKANConv2d(7, 3, (3, 2), POOL, 2, 1, domain=domain, dtype=torch.float64, generator=seeded())
    linear(x), conv(images)  # a running range is set
    for layer, data in ((linear, x), (conv, images)):
        chosen(layer, CHOICE)
        layer.eval()
        pruned = layer.pruned()
        assert pruned.selected() == tuple(POOL[m] for m in CHOICE)
        assert not pruned.training
        torch.testing.assert_close(pruned(data), layer(data), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(BASES))
def test_a_mixed_layer_is_the_sum_over_layers_of_one_basis(name: str) -> None:
    other = "taylor" if name != "taylor" else "rbf"
    mixed = MixedKANLinear(5, 3, (name, other), (1, 0, 0, 1, 0), dtype=torch.float64, generator=seeded())
    conv = MixedKANConv2d(5, 3, 3, (name, other), (1, 0, 0, 1, 0), padding=1, dtype=torch.float64, generator=seeded())
    x, images = normal(9, 5), normal(2, 5, 4, 4)
    assert mixed.bias is not None
    total = mixed.bias.detach().expand(9, 3).clone()
    total_image = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    offset, places = 0, [torch.tensor([1, 2, 4]), torch.tensor([0, 3])]
    for j, (basis, nodes) in enumerate(zip((name, other), places, strict=True)):
        one = KANLinear(len(nodes), 3, basis, bias=False, dtype=torch.float64)
        image = KANConv2d(len(nodes), 3, 3, padding=1, basis=basis, bias=False, dtype=torch.float64)
        k = one.basis.n_functions
        at_base = mixed.weight.shape[1] - 5 + torch.tensor([0, 1, 2] if j == 0 else [3, 4])
        with torch.no_grad():
            for layer, source in ((one, mixed), (image, conv)):
                own = {n: t for n, t in source.spaces[j].state_dict().items() if not n.startswith("domain")}
                layer.functions.load_state_dict(own, strict=False)
                columns = source.weight[:, offset : offset + k * len(nodes)]
                layer.weight.copy_(columns.reshape(layer.weight.shape))
                assert layer.base_weight is not None
                layer.base_weight.copy_(source.weight[:, at_base])
            total += one(x[:, nodes])
            total_image += image(images[:, nodes])
        offset += k * len(nodes)
    torch.testing.assert_close(mixed(x), total)
    torch.testing.assert_close(conv(images), total_image)


def test_each_basis_is_evaluated_on_its_own_nodes_alone() -> None:
    mixed = MixedKANLinear(7, 3, POOL, CHOICE)
    seen = []
    for space in mixed.spaces:
        space.domain.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].shape[-1]))
    mixed(torch.zeros(2, 7))
    assert seen == [2, 1, 1, 2, 1]
    functions = {name: BASES[name].n_functions for name in POOL}
    assert mixed.weight.shape == (3, sum(functions[POOL[m]] for m in CHOICE) + 7)


@pytest.mark.parametrize("kind", GATE_KINDS)
def test_gates_have_the_norm_one_and_tend_to_the_choice(kind: str) -> None:
    gates = NodeGates(4, 3, kind).double()
    torch.testing.assert_close(gates(), torch.full((4, 3), 3**-0.5, dtype=torch.float64))
    with torch.no_grad():
        gates.logits.copy_(normal(4, 3))
    assert gates.choice().tolist() == gates.logits.argmax(1).tolist()
    for temperature in (1.0, 0.1, 0.003):
        gates.set_temperature(temperature)
        gates.draw(seeded(2))
        assert torch.allclose(gates().square().sum(1), torch.ones(4, dtype=torch.float64))
    gates.eval()
    torch.testing.assert_close(gates(), torch.nn.functional.one_hot(gates.choice(), 3).double())
    gates.set_temperature(1.0)
    (gates() * normal(4, 3, seed=3)).sum().backward()
    assert gates.logits.grad is not None
    assert bool((gates.logits.grad != 0).any())


@pytest.mark.parametrize("kind", GATE_KINDS)
def test_the_stage_is_in_the_state_dict(kind: str) -> None:
    layer = SelectiveKANLinear(4, 3, POOL, gate=kind, generator=seeded()).eval()
    with torch.no_grad():
        layer.gates.logits.copy_(2 * normal(4, len(POOL)))
    x = normal(9, 4).float()
    for temperature in (0.1, None):
        layer.set_stage(temperature, seeded())
        held = safetensors.torch.load(safetensors.torch.save(layer.state_dict()))
        other = SelectiveKANLinear(4, 3, POOL, gate=kind).eval()
        other.set_stage(0.7, seeded())
        other.load_state_dict(held)
        assert other.gates.temperature == temperature
        assert torch.equal(other(x), layer(x))
    older = {name: tensor for name, tensor in layer.state_dict().items() if name != "gates._extra_state"}
    assert len(older) < len(held)
    other.set_stage(0.7, seeded())
    other.load_state_dict(older)
    assert other.gates.temperature == 0.7


def test_noise_is_of_the_generator_and_of_training_alone() -> None:
    gates = NodeGates(4, 3, "gumbel")
    gates.set_temperature(1.0)
    still = gates()
    before = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        gates.draw(seeded(seed))
        drawn.append(gates())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    gates.eval()
    assert torch.equal(gates(), still)
    tied = NodeGates(2, 3)
    assert tied.choice().tolist() == [0, 0]


@pytest.mark.parametrize("pool", [("bspline", "chebyshev", "mexican_hat", "rbf"), ("rational", "fourier")])
def test_outputs_keep_their_variance_before_and_after_pruning(pool: tuple[str, ...]) -> None:
    x = normal(400, 64).float()
    layer = SelectiveKANLinear(64, 256, pool, generator=seeded())
    choice = [i % len(pool) for i in range(64)]
    with torch.no_grad():
        for y in (layer(x), layer.pruned(choice)(x), MixedKANLinear(64, 256, pool, choice, generator=seeded())(x)):
            assert 0.5 < float(y.var()) < 2


def test_fitting_keeps_what_a_space_can_say() -> None:
    """Nodes whose function lies in one space are given back exactly, by the choice that finds it."""
    pool = ("chebyshev", "fourier", "rbf")
    layer = SelectiveKANLinear(3, 4, pool, dtype=torch.float64, generator=seeded())
    x = normal(500, 3)
    with torch.no_grad():
        weights, _ = layer.weights_by_space(layer.weight)
        for node, space in enumerate((2, 0, 1)):
            for m in range(3):
                if m != space:
                    weights[m][node] = 0.0  # a view of the weight
    layer.eval()
    fit = fit_nodes(layer, x)
    assert fit.choice() == (2, 0, 1)
    assert float(fit.residual[torch.arange(3), torch.tensor([2, 0, 1])].max()) < 1e-9
    pruned = layer.pruned("fit", x)
    torch.testing.assert_close(pruned(x), layer(x), rtol=1e-5, atol=1e-5)
    lost = [(layer.pruned([1, 1, 1], data)(x) - layer(x)).square().mean() for data in (x, None)]
    assert 1e-5 < lost[0] < lost[1] / 100  # Fourier can say most of what the other two hold, but has to be told
    plain = SelectiveKANLinear(3, 4, pool, bias=False, base=None, dtype=torch.float64, generator=seeded())
    assert plain.pruned("gate", x)(x).shape == (500, 4)


def test_fitting_a_convolution_keeps_it_inside_the_border() -> None:
    layer = SelectiveKANConv2d(2, 3, 3, ("chebyshev", "legendre"), padding=1, dtype=torch.float64, generator=seeded())
    images = normal(4, 2, 9, 9)
    with torch.no_grad():
        layer.weight[:, 10:20] = 0.0  # Legendre of both channels: all is said by Chebyshev
    layer.eval()
    pruned = layer.pruned("fit", images)
    assert pruned.selected() == ("chebyshev", "chebyshev")
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(pruned(images)[inner], layer(images)[inner], rtol=1e-5, atol=1e-5)
    layer.pruned([1, 1], images)(images)


def test_fitting_a_convolution_sees_all_columns_of_many_images() -> None:
    """Of more pixels than a fit takes, every so many in order would be the left edge alone."""
    layer = SelectiveKANConv2d(1, 2, 1, ("chebyshev", "rbf"), dtype=torch.float64, generator=seeded()).eval()
    images = torch.linspace(-2, 2, 16, dtype=torch.float64).expand(256, 1, 16, 16)
    with torch.no_grad():
        wanted = layer(images)
        lost = (layer.pruned([1], images)(images) - wanted).var() / wanted.var()
    assert lost < 0.01


def test_fitting_leaves_every_module_in_its_mode() -> None:
    layer = SelectiveKANLinear(4, 3, POOL, generator=seeded())
    layer.spaces.eval()
    for x, refused in ((normal(9, 4).float(), False), (normal(9, 3).float(), True)):
        modes = {name: module.training for name, module in layer.named_modules()}
        assert len(set(modes.values())) == 2
        if refused:
            with pytest.raises(BadInputError):
                fit_nodes(layer, x)
        else:
            fit_nodes(layer, x)
        assert {name: module.training for name, module in layer.named_modules()} == modes


def test_a_choice_may_be_a_tensor_or_an_array() -> None:
    layer = SelectiveKANLinear(4, 3, POOL, generator=seeded())
    with torch.no_grad():
        layer.gates.logits.copy_(normal(4, len(POOL)))
    x, own = normal(9, 4).float(), layer.choice()
    expected = layer.pruned(own)(x)
    for choice in (layer.gates.choice(), np.array(own), [np.int64(m) for m in own], list(layer.gates.choice())):
        pruned = layer.pruned(choice)  # type: ignore[arg-type]
        assert torch.equal(pruned(x), expected)
        assert all(type(m) is int for m in pruned._chosen)
    several = torch.zeros(4, 1, dtype=torch.int64)
    for wrong in (torch.zeros(4), several, several[0, 0], np.zeros(5, int), None):
        with pytest.raises(BadInputError, match="must name one of 6 spaces"):
            layer.pruned(wrong)  # type: ignore[arg-type]


def test_fitting_does_not_run_wild_between_the_values_of_a_column() -> None:
    pool = (BASES["chebyshev"].configure(degree=12), "rbf")
    layer = SelectiveKANLinear(1, 2, pool, dtype=torch.float64, generator=seeded())
    few = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]], dtype=torch.float64).repeat(50, 1)
    between = torch.linspace(-1.5, 1.5, 61, dtype=torch.float64).unsqueeze(-1)
    layer.eval()
    pruned = layer.pruned([0], few)
    assert float((pruned(between) - layer(between)).detach().abs().max()) < 0.5


def test_every_weight_learns_and_half_precision_works() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        layer = SelectiveKANLinear(4, 3, tuple(BASES), dtype=dtype, generator=seeded())
        x = normal(32, 4).to(dtype)
        layer.set_stage(0.5)
        y = layer(x)
        assert y.dtype == dtype
        (y * torch.linspace(-1, 1, 3).to(dtype)).square().sum().backward()
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
        assert layer.pruned().eval()(x).dtype == dtype


def test_convolutions_pickle() -> None:
    layer, x = SelectiveKANConv2d(3, 4, 3, stride=2, padding=1), torch.randn(2, 3, 5, 5)
    for one in (layer, layer.pruned()):
        assert torch.equal(pickle.loads(pickle.dumps(one))(x), one(x))


def test_weights_of_another_choice_are_refused() -> None:
    a, b = (MixedKANLinear(2, 1, ("chebyshev", "legendre"), choice) for choice in ((0, 1), (1, 0)))
    with pytest.raises(RuntimeError, match="choice must be that of the layer"):
        a.load_state_dict(b.state_dict())
    assert a.selected() == ("chebyshev", "legendre")
    a.load_state_dict(MixedKANLinear(2, 1, ("chebyshev", "legendre"), (0, 1)).state_dict())


def test_bad_input_is_one_sentence() -> None:
    cases = [
        (lambda: SelectiveKANLinear(2, 1, ("bspline", "bsplin")), "did you mean 'bspline'"),
        (lambda: SelectiveKANLinear(2, 1, ("bspline",)), "at least 2 bases, got bspline"),
        (lambda: SelectiveKANLinear(2, 1, "bspline"), "must be a list of at least 2"),
        (lambda: SelectiveKANLinear(2, 1, ()), "got none"),
        (lambda: SelectiveKANLinear(2, 1, ("rbf", "rbf")), "got 'rbf' twice"),
        (lambda: SelectiveKANLinear(2, 1, ("rbf", BASES["rational"].configure(groups=2))), "must have groups=1, got 2"),
        (lambda: SelectiveKANLinear(2, 1, gate="sofmax"), "did you mean 'softmax'"),
        (lambda: SelectiveKANLinear(2, 1, domain="tan"), "unknown domain map"),
        (lambda: SelectiveKANLinear(1, 1, domain="layernorm"), "layernorm of 1 feature"),
        (lambda: SelectiveKANLinear(0, 1), "in_features must be"),
        (lambda: SelectiveKANConv2d(2, 1, (3,)), "kernel_size must have 2 numbers"),  # type: ignore[arg-type]
        (lambda: MixedKANLinear(2, 1, ("rbf", "dog"), (0,)), "for each of 2 nodes, got \\[0\\]"),
        (lambda: MixedKANLinear(2, 1, ("rbf", "dog"), (0, 2)), "one of 2 spaces"),
        (lambda: SelectiveKANLinear(2, 1).set_stage(0.0), "temperature of gates"),
        (lambda: SelectiveKANLinear(2, 1).pruned("fit"), "needs data"),
        (lambda: SelectiveKANLinear(2, 1).pruned("best"), "unknown choice"),  # type: ignore[arg-type]
        (lambda: SelectiveKANLinear(2, 1).pruned("fit", torch.full((3, 2), torch.nan)), "needs finite data"),
    ]
    for make, sentence in cases:
        with pytest.raises((BadInputError, UnknownNameError), match=sentence) as caught:
            make()
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
