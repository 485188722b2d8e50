"""What every lowering promises as a module among modules: its state, and torch's ways of training and of inference."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from lowered import Truth, batch, error, limit, oracle_of, results, upstream
from lowering_contract import KNOWN, N_SAMPLE, SOME_KNOWN, Make, Subject, check, same, sample, subjects
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from layersearch.errors import GenomeError
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.graph_json import MAX_NODES, graph_from_json, graph_to_json
from layersearch.primitives.lowering import build_layer
from layersearch.primitives.numerics import Numerics

FLOAT32 = torch.float32

in_float32 = pytest.mark.parametrize("subject", subjects(FLOAT32), indirect=True)
known = pytest.mark.parametrize("name", KNOWN)
some_known = pytest.mark.parametrize("name", SOME_KNOWN)


@pytest.mark.parametrize("graph", [*KNOWN, *range(N_SAMPLE)])
@in_float32
def test_state_dicts_are_those_of_the_oracle(subject: Subject, make: Make, graph: str | int) -> None:
    """Names, their order, and shapes; what one lowering has trained, another goes on with."""
    of = KNOWN[graph] if isinstance(graph, str) else sample(graph)[0]
    layer, oracle = make(of, 12), build_layer(of, 12, lowering="reference", groups=4)
    fresh = build_layer(of, 12, lowering=subject.name, groups=4)
    initial = {k: v.clone() for k, v in oracle.state_dict().items()}
    assert [(k, v.shape, v.dtype) for k, v in layer.state_dict().items()] == [
        (k, v.shape, v.dtype) for k, v in initial.items()
    ]
    assert same(dict(fresh.state_dict()), initial)
    assert [n for n, _ in layer.named_parameters()] == [n for n, _ in oracle.named_parameters()]
    layer(subject.put(batch((2, 12, 3, 3))))
    oracle.load_state_dict(layer.state_dict())
    assert same(dict(oracle.state_dict()), {k: v.cpu() for k, v in layer.state_dict().items()})


@known
@in_float32
def test_deep_copies_have_a_state_of_their_own(subject: Subject, make: Make, name: str) -> None:
    layer, x = make(KNOWN[name], 8), subject.put(batch())
    other = copy.deepcopy(layer)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    got = results(other, x)
    assert same(dict(layer.state_dict()), before)
    assert same(results(layer, x), got)


def pickled(layer: nn.Module) -> nn.Module:
    other: nn.Module = pickle.loads(pickle.dumps(layer))
    return other


def saved(layer: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(nn.Sequential(layer, layer), file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    assert other[0] is other[1]
    loaded: nn.Module = other[0]
    return loaded


def note(module: nn.Module, args: object, y: Tensor) -> Tensor:
    """A hook that can be seen."""
    return y + 1


@some_known
@pytest.mark.parametrize("copied", [pickled, saved, copy.copy, copy.deepcopy])
@in_float32
def test_copies_go_on_as_the_layer(
    subject: Subject, make: Make, name: str, copied: Callable[[nn.Module], nn.Module]
) -> None:
    """Weights, buffers, mode, frozen parameters, hooks and attributes; by the same lowering."""
    layer, x = make(KNOWN[name], 8), subject.put(batch())
    layer(x)
    layer.eval().register_forward_hook(note)
    layer.note = "mine"  # type: ignore[assignment]
    layer.get_parameter("bias").requires_grad_(False)
    other = copied(layer)
    assert type(other) is type(layer)
    assert (other.training, other.note, other.get_parameter("bias").requires_grad) == (False, "mine", False)
    for training in (False, True):
        assert torch.equal(other.train(training)(x), layer.train(training)(x))
    if copied is not copy.copy:
        assert other.get_parameter("weight") is not layer.get_parameter("weight")


@in_float32
def test_canonical_forms_over_the_limits_of_files_are_pickled(subject: Subject) -> None:
    graph = grown()
    layer = build_layer(graph, 3, lowering=subject.name, groups=4)
    x = subject.put(batch((2, 3, 4, 4)))
    with pytest.raises(GenomeError, match="nodes must be a list"):
        graph_from_json(graph_to_json(graph))
    assert torch.equal(pickled(layer).to(subject.device)(x), layer.to(subject.device)(x))


def grown() -> Graph:
    """``x·v0·v1·…``"""
    nodes = [Node("x")]
    for i in range(MAX_NODES // 2):
        nodes += [Node("param", name=f"v{i}", value=1.0), Node("mul", args=(len(nodes) - 1, len(nodes)))]
    return canonical(Graph(tuple(nodes), Numerics()))


@some_known
@in_float32
def test_frozen_parameters_and_a_frozen_x(subject: Subject, make: Make, name: str) -> None:
    x = subject.put(batch())
    expected, g = results(make(KNOWN[name], 8), x), subject.put(upstream(x.shape))
    names = [n for n, _ in make(KNOWN[name], 8).named_parameters()]
    for frozen in ([], names[:1], names[-1:], names):
        for x_frozen in (False, True):
            layer, leaf = make(KNOWN[name], 8), x.clone().requires_grad_(not x_frozen)
            for n in frozen:
                layer.get_parameter(n).requires_grad_(False)
            y = layer(leaf)
            assert torch.equal(y, expected["y"])
            assert y.requires_grad == (not x_frozen or len(frozen) < len(names))
            if not y.requires_grad:
                continue
            y.backward(g)
            for key, t in {"x": leaf, **dict(layer.named_parameters())}.items():
                if key in frozen or (key == "x" and x_frozen):
                    assert t.grad is None
                else:
                    torch.testing.assert_close(t.grad, expected[key], rtol=1e-5, atol=1e-5)


@some_known
@in_float32
def test_without_gradients(subject: Subject, make: Make, name: str) -> None:
    x = subject.put(batch())
    for training in (True, False):
        expected = results(make(KNOWN[name], 8, training), x)
        for mode in (torch.no_grad, torch.inference_mode):
            layer = make(KNOWN[name], 8, training)
            with mode():
                y = layer(x)
            assert not y.requires_grad
            assert torch.equal(y, expected["y"])
            assert all(torch.equal(b, expected[n]) for n, b in layer.named_buffers())


@some_known
@in_float32
def test_running_moments_stay_out_of_graphs(subject: Subject, make: Make, name: str) -> None:
    """Or every step would keep the one before it; an image that is itself trained goes through the dispatcher."""
    x = subject.put(batch())
    for leaf in (nn.Parameter(x), x.clone().requires_grad_(True)):
        layer = make(KNOWN[name], 8)
        layer(leaf).sum().backward()
        assert leaf.grad is not None
        assert not any(b.requires_grad for b in layer.buffers())


@some_known
@in_float32
def test_parametrizations(subject: Subject, make: Make, name: str) -> None:
    layer, x = make(KNOWN[name], 8), subject.put(batch())
    expected = make(KNOWN[name], 8)
    with torch.no_grad():
        expected.get_parameter("weight").mul_(2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    assert torch.equal(layer(x), expected(x))


class Doubled(nn.Module):
    def forward(self, t: Tensor) -> Tensor:
        return 2 * t


@some_known
@in_float32
def test_autocast(subject: Subject, make: Make, name: str) -> None:
    """What a convolution hands over in bfloat16 is computed in float32, and handed on in bfloat16."""
    layer, x = make(KNOWN[name], 8), subject.put(batch((2, 8, 4, 4)))
    with torch.autocast(subject.device, dtype=torch.bfloat16):
        h = nn.Conv2d(8, 8, 1, device=subject.device)(x)
        y, plain = layer(h), make(KNOWN[name], 8)(x)
        y.square().mean().backward()
    assert (h.dtype, y.dtype, plain.dtype) == (torch.bfloat16, torch.bfloat16, FLOAT32)
    expected = oracle_of(KNOWN[name], 8)(h.double().cpu())
    assert error(y.detach(), expected.detach()) < limit(0.0, torch.bfloat16)
    assert all(p.grad is not None and p.grad.dtype is FLOAT32 for p in layer.parameters())


@some_known
@in_float32
def test_checkpointing(subject: Subject, make: Make, name: str) -> None:
    x = subject.put(batch((2, 8, 4, 4)))
    expected = results(make(KNOWN[name], 8), x)
    for use_reentrant in (False, True):
        layer, leaf = make(KNOWN[name], 8), x.clone().requires_grad_(True)
        checkpoint(layer, leaf, use_reentrant=use_reentrant).backward(subject.put(upstream(x.shape)))
        got = {"x": leaf.grad, **{n: p.grad for n, p in layer.named_parameters()}}
        assert all(torch.equal(t, expected[key]) for key, t in got.items() if t is not None)
        assert all(t is not None for t in got.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evonorm-b0"])
@in_float32
def test_torch_compile(subject: Subject, make: Make, name: str) -> None:
    """Traced as a whole, without a break; running moments move once a step."""
    x = subject.put(batch((2, 8, 3, 4)))
    layer = make(KNOWN[name], 8)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    leaf = x.clone().requires_grad_(True)
    y = compiled(leaf)
    y.backward(subject.put(upstream(x.shape)))
    got = {"y": y, "x": leaf.grad, **{n: p.grad for n, p in layer.named_parameters()}, **dict(layer.named_buffers())}
    for key, value in results(make(KNOWN[name], 8), x).items():
        torch.testing.assert_close(got[key], value)


@pytest.mark.torch_allowed
@some_known
@pytest.mark.parametrize("subject", subjects(torch.float64, FLOAT32), indirect=True)
def test_double_backward(subject: Subject, make: Make, name: str) -> None:
    """Gradients of a penalty on the gradient; running moments move once."""
    oracle = oracle_of(KNOWN[name], 4)
    eager = build_layer(KNOWN[name], 4, lowering="reference", groups=4)
    eager.load_state_dict(oracle.state_dict())
    x = batch((2, 4, 3, 3))
    expected, naive = penalty(oracle, x), penalty(eager, x.float())
    told = {key: Truth(value, error(naive[key], value)) for key, value in expected.items()}
    check(penalty(make(KNOWN[name], 4), subject.put(x)), told, subject.dtype)


def penalty(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_(True)
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    named = {"x": x, **dict(layer.named_parameters())}
    grads = torch.autograd.grad(dx.square().sum(), list(named.values()), allow_unused=True)
    found = {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(named.items(), grads, strict=True)}
    return found | {n: b.clone() for n, b in layer.named_buffers()}
