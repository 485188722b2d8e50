"""Published designs as genomes: seeds, baselines and what a find is recognised as.

A design is its basis, grid or degree, base branch and domain map; weights start by our own rules, and widths are the
run's. Deviations of our bases from the published code stand with the bases.
"""

from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.genome import KANGenome, make
from layersearch.spaces.kan.network import count_parameters

__all__ = ["PUBLISHED", "design", "mlp_of"]

PUBLISHED: dict[str, KANGenome] = {
    # github.com/Blealtan/efficient-kan: 5 intervals on [-1, 1], order 3, SiLU branch, inputs as they come
    "efficient-kan": make("bspline", {"grid": 5, "order": 3}, domain="none"),
    # github.com/ZiyaoLi/fast-kan, arXiv:2405.06721: 8 Gaussians on [-2, 2] as wide as they are apart, layer norm
    "fastkan": make("rbf", {"grid": 8, "width": 1.0, "learn": False}, domain="layernorm"),
    # github.com/Adamdad/kat, arXiv:2409.10594: degree 5/4, 8 groups, no branch
    "kat": make("rational", {"degree": 5, "groups": 8, "start": "silu"}, base="none"),
    # github.com/SynodicMonth/ChebyKAN, arXiv:2405.07200: degree 4 of tanh, no branch
    "chebykan": make("chebyshev", {"degree": 4}, base="none", domain="tanh"),
    # github.com/KindXiaoming/pykan, arXiv:2404.19756: 3 intervals, order 3, SiLU branch
    "pykan": make("bspline", {"grid": 3, "order": 3}, domain="none"),
    # github.com/AthanasiosDelis/faster-kan: 8 switches, layer norm, no branch
    "fasterkan": make("rswaf", {"grid": 8, "learn": False}, base="none", domain="layernorm"),
    # github.com/GistNoesis/FourierKAN: 5 harmonics, no branch
    "fourierkan": make("fourier", {"grid": 5, "frequency": 1.0}, base="none", domain="none"),
}


def design(genome: KANGenome) -> tuple[object, ...]:
    """What makes a published design: all but start and widths."""
    return genome.basis, genome.settings, genome.base, genome.domain


def mlp_of(parameters: int, in_features: int, out_features: int, depth: int = 2) -> KANGenome:
    """The widest SiLU network of ``depth`` equal hidden layers with at most so many parameters (at least width 1)."""
    width = 1
    while True:
        wider = make(MLP, hidden=(width + 1,) * depth)
        if count_parameters(wider, in_features, out_features) > parameters:
            return make(MLP, hidden=(width,) * depth)
        width += 1
