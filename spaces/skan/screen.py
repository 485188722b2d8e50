"""What can be known of a genome without training: can it work at all, and is it new."""

import torch

from layersearch.primitives.basis import Basis
from layersearch.spaces.contracts import Outline, Probe
from layersearch.spaces.kan.network import Network
from layersearch.spaces.kan.screen import agree, outlined, probe_inputs, probed
from layersearch.spaces.skan.genome import SKANGenome
from layersearch.spaces.skan.network import build, most_parameters, plans

__all__ = ["learning", "outline", "probe", "same"]


def outline(genome: SKANGenome, in_features: int, out_features: int, most: int) -> Outline:
    """Structural key, and why the network cannot be made or may be too large once it is pruned."""
    training = _canonical(genome, in_features, out_features)
    count = most_parameters(genome, in_features, out_features)
    return outlined(training, genome.domain, genome.hidden, {"parameters": (count, most)})


def probe(genome: SKANGenome, in_features: int, out_features: int) -> Probe:
    """Functional key, and why the network cannot work if one forward and backward pass tells.

    The key is the output of the network with equal gates, weights drawn from a fixed seed, on a fixed float64 batch,
    with the number of its parameters and how it learns. Novelty is the design without its numbers.
    """
    novelty = f"{'+'.join(genome.bases)}|{genome.gate}|{genome.base}|{genome.domain}|{len(genome.hidden)}"
    drawn, x = (lambda: _drawn(genome, in_features, out_features, 0)), probe_inputs(in_features)[0]
    return probed(drawn, x, novelty, learning=f"|{learning(genome)}")


def same(a: SKANGenome, b: SKANGenome, in_features: int, out_features: int) -> bool:
    """Whether both learn alike and outputs agree to 1e-9 with other weights, on a batch that no key is made from."""
    networks = [_drawn(genome, in_features, out_features, 1) for genome in (a, b)]
    return learning(a) == learning(b) and agree(networks, probe_inputs(in_features)[1])


def learning(genome: SKANGenome) -> tuple[object, ...]:
    """How it learns to choose: what two trainings of the same layers may differ in."""
    return genome.gate, genome.cooling, genome.cold, genome.shares, genome.pruning


def _canonical(genome: SKANGenome, in_features: int, out_features: int) -> tuple[object, ...]:
    """Equal for genomes that stand for the same training of the same layers."""
    layers: tuple[tuple[int, int, tuple[Basis, ...]], ...] = plans(genome, in_features, out_features)
    domain = genome.domain if genome.hidden or genome.domain != "layernorm" else "none"
    return layers, genome.base, domain, genome.init, learning(genome)


def _drawn(genome: SKANGenome, in_features: int, out_features: int, seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    return build(genome, in_features, out_features, generator=generator, dtype=torch.float64)
