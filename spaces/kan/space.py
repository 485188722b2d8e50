"""The kan space: Kolmogorov-Arnold networks of any basis, judged on regression targets."""

import functools
from collections.abc import Mapping, Sequence

from layersearch.spaces.contracts import Arrays, Evaluator, JsonObject, Objective, Outline, Probe
from layersearch.spaces.funnel import NetworkSpace
from layersearch.spaces.kan import formula as _formula
from layersearch.spaces.kan import genome as _genome
from layersearch.spaces.kan import screen
from layersearch.spaces.kan.data import has_images
from layersearch.spaces.kan.generate import Generator
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.images import settings as images
from layersearch.spaces.kan.images.space import ImageKANSpace
from layersearch.spaces.kan.network import count_parameters
from layersearch.spaces.kan.published import PUBLISHED, design, mlp_of
from layersearch.spaces.kan.settings import KANSettings, parse
from layersearch.spaces.objectives import cost_objectives, described

__all__ = ["KANSpace", "from_settings"]

_BASELINES = ("efficient-kan", "fastkan", "chebykan", "kat")
_OUTPUTS = 1


class KANSpace(NetworkSpace[KANGenome]):
    """``layersearch.spaces.contracts.TunableSpace`` of Kolmogorov-Arnold networks."""

    name = "kan"
    generator: Generator

    def __init__(self, settings: KANSettings) -> None:
        self.settings = settings
        network = settings.network
        generator = Generator(network.bases, network.inits, network.max_depth, network.min_width, network.max_width)
        super().__init__(generator, settings.funnel.rerank_seeds, settings.cuts)
        # Ordered by error alone: in a mean, counts of parameters would drown it.
        known = {"rmse": Objective("rmse", maximize=False), **cost_objectives("MLP")}
        self.objectives = tuple(known[name] for name in settings.funnel.objectives)

    def seeds(self) -> Mapping[str, KANGenome]:
        """Published designs with the reference widths, where those are within the limits of the run."""
        found = {name: self._known(name) for name in self.settings.seed_layers}
        return self.sampled(found)

    def baselines(self) -> Mapping[str, KANGenome]:
        """Published designs with the reference widths, and two networks of plain linear layers.

        ``mlp`` has the parameters of ``efficient-kan``, ``mlp-most`` as many as any candidate may have.
        """
        inputs, most = self.settings.in_features, self.settings.network.most_parameters
        found = {name: self._known(name) for name in _BASELINES}
        found = self.possible(found)
        like = count_parameters(self._known(_BASELINES[0]), inputs, _OUTPUTS)
        found["mlp"] = mlp_of(min(like, most), inputs, _OUTPUTS)
        found["mlp-most"] = mlp_of(most, inputs, _OUTPUTS)
        return self.possible(found)

    def outline(self, genome: KANGenome) -> Outline:
        return screen.outline(genome, self.settings.in_features, _OUTPUTS, self.settings.network.most_parameters)

    def probe(self, genome: KANGenome) -> Probe:
        return screen.probe(genome, self.settings.in_features, _OUTPUTS)

    def same(self, a: KANGenome, b: KANGenome) -> bool:
        return screen.same_function(a, b, self.settings.in_features, _OUTPUTS)

    def known_as(self, genome: KANGenome) -> str | None:
        return _designs().get(design(genome))

    def to_json(self, genome: KANGenome) -> JsonObject:
        return _genome.to_json(genome)

    def from_json(self, data: JsonObject) -> KANGenome:
        return _genome.from_json(data)

    def formula(self, genome: KANGenome) -> str:
        return _formula.formula(genome)

    def load_data(self) -> Arrays:
        from layersearch.spaces.tasks.regression.data import to_arrays
        from layersearch.spaces.tasks.regression.sets import load_regression

        task = self.settings.task
        return to_arrays(load_regression(task.data, self.settings.data_path, task.sampling, task.split))

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        from layersearch.spaces.kan.evaluate import KANEvaluator

        return KANEvaluator(self.settings, data, device)

    def describe(self) -> Sequence[tuple[str, str]]:
        task, network, funnel = self.settings.task, self.settings.network, self.settings.funnel
        shape = f"at most {network.max_depth} hidden layers of {network.min_width} to {network.max_width}"
        return (
            ("data", task.data),
            ("networks", f"{len(network.bases)} bases, {shape}, {network.most_parameters} parameters"),
            network.described(),
            ("quality", f"{task.quality_steps} steps, error < {funnel.quality_rmse:g} of the target's deviation"),
            ("fitness", f"validation rmse after {task.fitness_steps} steps, in deviations of the target"),
            *self.settings.described_rungs(),
            *described(funnel.objectives, "an MLP of equal widths"),
        )

    def _known(self, name: str) -> KANGenome:
        network = self.settings.network
        return network.started(PUBLISHED[name].with_widths(network.reference))


@functools.cache
def _designs() -> dict[tuple[object, ...], str]:
    return {design(genome): name for name, genome in PUBLISHED.items()}


def from_settings(settings: JsonObject) -> KANSpace | ImageKANSpace:
    """The space of a run from the plain settings in its recipe; what workers call."""
    if has_images(settings):
        return ImageKANSpace(images.parse(settings))
    return KANSpace(parse(settings))
