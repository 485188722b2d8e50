"""Genomes as text: what a user reads in tables and in the head of an exported file."""

from layersearch.primitives.basis import BASES
from layersearch.spaces.kan.choices import MLP, NONE
from layersearch.spaces.kan.genome import KANGenome

__all__ = ["formula", "latex", "layer_text"]


def formula(genome: KANGenome) -> str:
    """E.g. ``KAN …-8-8-…, bspline(grid=5, order=3), base silu, domain none, init variance``."""
    widths = "-".join(["…", *map(str, genome.hidden), "…"])
    if genome.basis == MLP:
        return f"MLP {widths}, {genome.base}"
    return f"KAN {widths}, {layer_text(genome)}"


def layer_text(genome: KANGenome) -> str:
    """The choices of every layer, of a genome that is no ``mlp``."""
    settings = ", ".join(f"{name}={_shown(value)}" for name, value in genome.settings)
    base = "no base" if genome.base == NONE else f"base {genome.base}"
    domain = "no domain map" if genome.domain == NONE else f"domain {genome.domain}"
    return f"{genome.basis}({settings}), {base}, {domain}, init {genome.init}"


def latex(genome: KANGenome) -> str:
    """One layer, in the symbols of the basis' source (math mode)."""
    if genome.basis == MLP:
        return rf"y_o=\sum_i w_{{oi}}\,\mathrm{{{genome.base}}}(x_i)+c_o"
    row = BASES[genome.basis].configure(**dict(genome.settings))
    edge = row.latex(row.n_functions - 1).replace(f"{{{row.n_functions - 1}}}", "{k}")
    base = "" if genome.base == NONE else rf"+v_{{oi}}\,\mathrm{{{genome.base}}}(x_i)"
    return rf"y_o=\sum_i\Big(\sum_k w_{{oki}}\,f_k(x_i){base}\Big)+c_o,\quad f_k(x)={edge}"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
