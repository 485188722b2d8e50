"""Genomes as networks: which layers a genome stands for, how many parameters they have, and the modules."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layersearch.errors import GenomeError, LayerSearchError
from layersearch.primitives.activations import activation
from layersearch.primitives.basis import BASES, Basis
from layersearch.primitives.layers._lowered import set_lowering
from layersearch.primitives.layers.linear import KANLinear
from layersearch.spaces.kan.choices import MLP, NONE
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.tasks.plain_layers import seeded_linear

__all__ = ["LayerPlan", "Network", "build", "canonical", "count_parameters", "layer_plan", "linear_of", "plans"]


@dataclass(frozen=True)
class LayerPlan:
    """One layer of a KAN.

    Args:
        inputs, outputs: I and O.
        basis: configured row.
        base: activation of the base branch, or ``None``.
        domain: map of the inputs.
        init: how weights start.
    """

    inputs: int
    outputs: int
    basis: Basis
    base: str | None
    domain: str
    init: str

    @property
    def n_parameters(self) -> int:
        """Of ``KANLinear``: weights, base weights, bias, and the trained tensors of the basis."""
        return self.n_parameters_of(1)

    def n_parameters_of(self, area: int) -> int:
        """Of ``KANConv2d`` with a kernel of ``area`` places."""
        learned = sum(tensor.numel() for name, tensor in self._state().items() if name in self.basis.learned)
        edges = self.inputs * self.outputs * area
        return edges * (self.basis.n_functions + (self.base is not None)) + self.outputs + learned

    def _state(self) -> dict[str, Tensor]:
        return self.basis.state(self.inputs) if self.basis.learned else {}


def plans(genome: KANGenome, in_features: int, out_features: int) -> tuple[LayerPlan, ...]:
    """The layers of a genome that is no ``mlp``.

    A rational has the largest number of groups that divides its inputs and does not exceed the genome's, and starts as
    the identity in the first layer, as in KAT.
    """
    widths = (in_features, *genome.hidden, out_features)
    found = [layer_plan(genome, inputs, outputs) for inputs, outputs in itertools.pairwise(widths)]
    domain = NONE if genome.domain == "layernorm" else genome.domain
    return (layer_plan(genome, *widths[:2], start="identity", domain=domain), *found[1:])


def layer_plan(
    genome: KANGenome, inputs: int, outputs: int, *, start: str | None = None, domain: str | None = None
) -> LayerPlan:
    """One layer of a genome that is no ``mlp``, whatever its ``hidden``.

    Args:
        start: activation that a rational starts as, in place of the genome's.
        domain: map of the inputs, in place of the genome's.
    """
    values = dict(genome.settings)
    if "groups" in values:
        values["groups"] = max(g for g in range(1, int(values["groups"]) + 1) if inputs % g == 0)
        values["start"] = start or values["start"]
    base = None if genome.base == NONE else genome.base
    basis = BASES[genome.basis].configure(**values)
    return LayerPlan(inputs, outputs, basis, base, domain or genome.domain, genome.init)


def count_parameters(genome: KANGenome, in_features: int, out_features: int) -> int:
    """Trained numbers of ``build``, without building it."""
    if genome.basis == MLP:
        widths = (in_features, *genome.hidden, out_features)
        return sum((i + 1) * o for i, o in itertools.pairwise(widths))
    return sum(plan.n_parameters for plan in plans(genome, in_features, out_features))


def canonical(genome: KANGenome, in_features: int, out_features: int) -> tuple[object, ...]:
    """Equal for genomes that stand for the same layers: what makes no difference is dropped."""
    if genome.basis == MLP:
        return (MLP, genome.base if genome.hidden else NONE, genome.hidden)
    return tuple(plans(genome, in_features, out_features))


class Network(nn.Sequential):
    """``[..., in_features] -> [..., out_features]``; KAN layers in a row, or linear layers with activations between.

    Run by the lowering torch: networks this small gain nothing from kernels (0.6 to 1.2 × of their speed with 8 nodes,
    2026-11-25), and their results do not depend on a compiler.
    """

    def __init__(self, layers: Sequence[nn.Module], in_features: int, out_features: int) -> None:
        super().__init__(*layers)
        self.in_features, self.out_features = in_features, out_features
        set_lowering(self, "torch")


class _Activation(nn.Module):
    """An activation by name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.function = activation(name)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


def build(
    genome: KANGenome,
    in_features: int,
    out_features: int = 1,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """The network of a genome. Weights are drawn on the CPU from ``generator``, or from torch's own one.

    Raises: GenomeError if the layers cannot be made for these widths.
    """
    layers: list[nn.Module] = []
    if genome.basis == MLP:
        widths = (in_features, *genome.hidden, out_features)
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            layers += [_Activation(genome.base)] if i else []
            layers.append(seeded_linear(inputs, outputs, generator, dtype))
    else:
        try:
            layers += [linear_of(plan, generator, dtype) for plan in plans(genome, in_features, out_features)]
        except LayerSearchError as error:
            raise GenomeError(f"the layers of a genome must fit its widths, but {error}") from None
    return Network(layers, in_features, out_features).to(device)


def linear_of(plan: LayerPlan, generator: torch.Generator | None, dtype: torch.dtype | None) -> KANLinear:
    """The layer of a plan, with weights drawn from ``generator``."""
    return KANLinear(
        plan.inputs,
        plan.outputs,
        plan.basis,
        base=plan.base,
        domain=plan.domain,
        init=plan.init,
        generator=generator,
        dtype=dtype,
    )
