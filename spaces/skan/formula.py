"""Genomes and what was selected as text: what a user reads in tables and in the head of an exported file."""

from collections import Counter
from collections.abc import Sequence

from layersearch.primitives.basis import BASES
from layersearch.spaces.kan import formula as kan
from layersearch.spaces.kan.choices import NONE
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.skan.choices import OWN
from layersearch.spaces.skan.genome import Genome, SKANGenome

__all__ = ["formula", "latex", "layer_text", "selected"]

_MOST_NODES = 64


def formula(genome: Genome) -> str:
    """E.g. ``S-KAN …-8-8-…, one of bspline(grid=5, order=3) | chebyshev(degree=4) per node, base silu, …``."""
    if isinstance(genome, KANGenome):
        return kan.formula(genome)
    widths = "-".join(["…", *map(str, genome.hidden), "…"])
    return f"S-KAN {widths}, {layer_text(genome, 'node')}"


def layer_text(genome: SKANGenome, unit: str) -> str:
    """All but the widths; ``unit`` is what chooses."""
    pool = " | ".join(kan.basis_text(name, own) for name, own in genome.pool)
    base = "no base" if genome.base == NONE else f"base {genome.base}"
    domain = {NONE: "no domain map", OWN: "own domain maps"}.get(genome.domain, f"domain {genome.domain}")
    stages = "/".join(f"{100 * share:g}" for share in genome.shares)
    learned = f"{genome.gate} gates to {genome.cold:g} {genome.cooling}, stages {stages} %, pruned by {genome.pruning}"
    return f"one of {pool} per {unit}, {base}, {domain}, init {genome.init}, {learned}"


def latex(genome: Genome) -> str:
    """One layer after pruning, in the symbols of the bases' sources (math mode)."""
    if isinstance(genome, KANGenome):
        return kan.latex(genome)
    base = "" if genome.base == NONE else rf"+v_{{oi}}\,\mathrm{{{genome.base}}}(x_i)"
    edges = []
    for name, settings in genome.pool:
        row = BASES[name].configure(**dict(settings))
        edges.append(row.latex(row.n_functions - 1).replace(f"{{{row.n_functions - 1}}}", "{k}"))
    pool = r",\ ".join(edges)
    return rf"y_o=\sum_i\Big(\sum_k w_{{oki}}\,f^{{(i)}}_k(x_i){base}\Big)+c_o,\quad f^{{(i)}}_k\in\Big\{{{pool}\Big\}}"


def selected(selection: Sequence[Sequence[str]]) -> str:
    """Per layer the nodes of each space: ``2: bspline 0-1 | 8: bspline 0,3, rbf 1-2,4-7``; of wide layers how many."""
    return " | ".join(f"{len(layer)}: {_layer(layer)}" for layer in selection)


def _layer(names: Sequence[str]) -> str:
    counts = Counter(names)
    if len(counts) == 1:
        return f"{names[0]} all"
    if len(names) > _MOST_NODES:
        return ", ".join(f"{name} ×{counts[name]}" for name in sorted(counts))
    return ", ".join(f"{name} {_ranges([i for i, n in enumerate(names) if n == name])}" for name in sorted(counts))


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
