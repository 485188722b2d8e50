"""What can be known of a genome without training: can it work at all, and is it new."""

import functools
import hashlib
import random
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from layersearch.errors import GenomeError
from layersearch.spaces.contracts import Outline, Probe
from layersearch.spaces.fingerprint import fingerprint, same_outputs
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.network import Network, build, canonical, count_parameters

__all__ = ["agree", "outline", "outlined", "probe", "probe_inputs", "probed", "same_function"]

_ROWS = 16
_SMALLEST_VARIATION = 1e-6


def outline(genome: KANGenome, in_features: int, out_features: int, most_parameters: int) -> Outline:
    """Structural key, and why the network cannot be made or is too large."""
    layers = canonical(genome, in_features, out_features)
    count = count_parameters(genome, in_features, out_features)
    return outlined(layers, genome.domain, genome.hidden, {"parameters": (count, most_parameters)})


def outlined(
    canonical: object, domain: str, inputs: Collection[int], costs: Mapping[str, tuple[float, int]]
) -> Outline:
    """Structural key, and the first rule that a model breaks.

    Args:
        canonical: equal for genomes that stand for the same model.
        domain: map of the inputs of its layers.
        inputs: how many there are of each of these layers.
        costs: what the model costs, and the most that it may cost, by what is counted.
    """
    key = hashlib.blake2b(repr(canonical).encode(), digest_size=16).hexdigest()
    if domain == "layernorm" and 1 in inputs:
        return Outline(key, "layer norm of one feature")
    too_large = (f"more than {most} {unit}" for unit, (count, most) in costs.items() if count > most)
    return Outline(key, next(too_large, None))


def probe(genome: KANGenome, in_features: int, out_features: int) -> Probe:
    """Functional key, and why the network cannot work if one forward and backward pass tells.

    The key is the output of the network, weights drawn from a fixed seed, on a fixed float64 batch, with the number of
    trained parameters: what is equal in both starts and trains alike. Novelty is the design without its numbers.
    """
    novelty = f"{genome.basis}|{genome.base}|{genome.domain}|{len(genome.hidden)}"
    return probed(lambda: _drawn(genome, in_features, out_features, 0), probe_inputs(in_features)[0], novelty)


def probed(drawn: Callable[[], nn.Module], x: Tensor, novelty: str, learning: str = "") -> Probe:
    """The probe of the network that ``drawn`` makes, on ``x``; ``learning`` says how it learns, and is in the key."""
    x = x.clone().requires_grad_(True)
    try:
        network = drawn()
    except GenomeError as error:
        return Probe(novelty, novelty, str(error))
    y = network(x)
    key = fingerprint(y.detach(), f"{sum(p.numel() for p in network.parameters())}|")
    return Probe(key + learning, novelty, _fault(x, y, network))


def same_function(a: KANGenome, b: KANGenome, in_features: int, out_features: int) -> bool:
    """Whether outputs agree to 1e-9 with other weights, on a batch that no key is made from."""
    return agree([_drawn(genome, in_features, out_features, 1) for genome in (a, b)], probe_inputs(in_features)[1])


def agree(networks: Sequence[nn.Module], x: Tensor) -> bool:
    """Whether the outputs of two networks for ``x`` are equal to 1e-9."""
    with torch.no_grad():
        ya, yb = (network(x) for network in networks)
    return same_outputs(ya, yb)


def _drawn(genome: KANGenome, in_features: int, out_features: int, seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    return build(genome, in_features, out_features, generator=generator, dtype=torch.float64)


def _fault(x: Tensor, y: Tensor, network: nn.Module) -> str | None:
    """Why ``network`` cannot work, which gave ``y`` for the inputs ``x``; ``None`` if nothing shows."""
    if not bool(y.isfinite().all()):
        return "output is not finite"
    values = y.detach()
    if float(values.std(0, correction=0).max()) <= _SMALLEST_VARIATION * float(values.abs().max()):
        return "output is constant at initialization"
    gradients = torch.autograd.grad(y.square().sum(), [x, *network.parameters()], allow_unused=True)
    if gradients[0] is None or not bool((gradients[0] != 0).any()):
        return "no gradient reaches x"
    if not all(bool(g.isfinite().all()) for g in gradients if g is not None):
        return "gradient is not finite"
    return None


@functools.cache
def probe_inputs(in_features: int) -> tuple[Tensor, ...]:
    """Two batches of normal inputs; python's generator is stable across versions."""
    rng = random.Random("layersearch.kan.probe")
    return tuple(
        torch.tensor([rng.gauss(0.0, 0.8) for _ in range(_ROWS * in_features)], dtype=torch.float64).reshape(
            _ROWS, in_features
        )
        for _ in range(2)
    )
