"""Genomes as text: what a user reads in tables and in the head of an exported file."""

from collections.abc import Iterable

from layersearch.primitives.basis import BASES
from layersearch.spaces.kan.choices import MLP, NONE, Value
from layersearch.spaces.kan.genome import KANGenome

__all__ = ["basis_text", "formula", "latex", "layer_text"]


def formula(genome: KANGenome) -> str:
    """E.g. ``KAN …-8-8-…, bspline(grid=5, order=3), base silu, domain none, init variance``."""
    widths = "-".join(["…", *map(str, genome.hidden), "…"])
    if genome.basis == MLP:
        return f"MLP {widths}, {genome.base}"
    return f"KAN {widths}, {layer_text(genome)}"


def layer_text(genome: KANGenome) -> str:
    """The choices of every layer, of a genome that is no ``mlp``."""
    base = "no base" if genome.base == NONE else f"base {genome.base}"
    domain = "no domain map" if genome.domain == NONE else f"domain {genome.domain}"
    return f"{basis_text(genome.basis, genome.settings)}, {base}, {domain}, init {genome.init}"


def latex(genome: KANGenome) -> str:
    """One layer, in the symbols of the basis' source (math mode)."""
    if genome.basis == MLP:
        return rf"y_o=\sum_i w_{{oi}}\,\mathrm{{{genome.base}}}(x_i)+c_o"
    row = BASES[genome.basis].configure(**dict(genome.settings))
    edge = row.latex(row.n_functions - 1).replace(f"{{{row.n_functions - 1}}}", "{k}")
    base = "" if genome.base == NONE else rf"+v_{{oi}}\,\mathrm{{{genome.base}}}(x_i)"
    return rf"y_o=\sum_i\Big(\sum_k w_{{oki}}\,f_k(x_i){base}\Big)+c_o,\quad f_k(x)={edge}"


def basis_text(name: str, settings: Iterable[tuple[str, Value]]) -> str:
    """E.g. ``bspline(grid=5, order=3)``."""
    shown = ((key, f"{value:g}" if isinstance(value, float) else value) for key, value in settings)
    return f"{name}({', '.join(f'{key}={value}' for key, value in shown)})"
