"""The skan space: Kolmogorov-Arnold networks whose nodes choose a basis in training, judged on regression targets."""

import functools
from collections.abc import Mapping, Sequence

from layersearch.spaces.contracts import Arrays, Evaluator, JsonObject, Objective, Outline, Probe
from layersearch.spaces.funnel import NetworkSpace
from layersearch.spaces.kan import screen as kan_screen
from layersearch.spaces.kan.data import has_images
from layersearch.spaces.kan.published import mlp_of
from layersearch.spaces.objectives import cost_objectives, described
from layersearch.spaces.skan import formula as _formula
from layersearch.spaces.skan import genome as _genome
from layersearch.spaces.skan import screen
from layersearch.spaces.skan.generate import Generator
from layersearch.spaces.skan.genome import Genome, SKANGenome
from layersearch.spaces.skan.images import settings as images
from layersearch.spaces.skan.images.space import ImageSKANSpace
from layersearch.spaces.skan.network import most_parameters
from layersearch.spaces.skan.published import PUBLISHED, design, single
from layersearch.spaces.skan.settings import SKANSettings, parse

__all__ = ["SKANSpace", "from_settings"]

_EFFICIENT = "efficient-kan"
_OUTPUTS = 1


class SKANSpace(NetworkSpace[Genome]):
    """``layersearch.spaces.contracts.TunableSpace`` of networks that select; ``SelectingSpace``, too."""

    name = "skan"
    generator: Generator

    def __init__(self, settings: SKANSettings) -> None:
        self.settings = settings
        network = settings.network
        generator = settings.pool.generator(network.inits, network.max_depth, network.min_width, network.max_width)
        super().__init__(generator, settings.funnel.rerank_seeds, settings.cuts)
        # Ordered by error alone, as in kan.
        known = {"rmse": Objective("rmse", maximize=False), **cost_objectives("MLP")}
        self.objectives = tuple(known[name] for name in settings.funnel.objectives)

    def seeds(self) -> Mapping[str, Genome]:
        """Designs by name with the reference widths, where those are within the limits of the run."""
        found = {name: self._known(name) for name in self.settings.seed_layers}
        return self.sampled(found)

    def baselines(self) -> Mapping[str, Genome]:
        """Networks of the reference widths with each basis of the pools alone, efficient-kan's, and SiLU networks.

        ``mlp`` has the parameters that ``skan`` has at most, ``mlp-most`` as many as any candidate may have.
        """
        inputs, most = self.settings.in_features, self.settings.network.most_parameters
        network, names = self.settings.network, (*self.settings.pool.bases, _EFFICIENT)
        found: dict[str, Genome] = {name: network.started(single(name, network.reference)) for name in names}
        like = most_parameters(self._known("skan"), inputs, _OUTPUTS)
        found["mlp"] = mlp_of(min(like, most), inputs, _OUTPUTS)
        found["mlp-most"] = mlp_of(most, inputs, _OUTPUTS)
        return self.possible(found)

    def outline(self, genome: Genome) -> Outline:
        known = screen.outline if isinstance(genome, SKANGenome) else kan_screen.outline
        return known(genome, self.settings.in_features, _OUTPUTS, self.settings.network.most_parameters)  # type: ignore[arg-type]

    def probe(self, genome: Genome) -> Probe:
        known = screen.probe if isinstance(genome, SKANGenome) else kan_screen.probe
        return known(genome, self.settings.in_features, _OUTPUTS)  # type: ignore[arg-type]

    def same(self, a: Genome, b: Genome) -> bool:
        if isinstance(a, SKANGenome) and isinstance(b, SKANGenome):
            return screen.same(a, b, self.settings.in_features, _OUTPUTS)
        if isinstance(a, SKANGenome) or isinstance(b, SKANGenome):
            return False
        return kan_screen.same_function(a, b, self.settings.in_features, _OUTPUTS)

    def known_as(self, genome: Genome) -> str | None:
        return _designs().get(design(genome)) if isinstance(genome, SKANGenome) else None

    def to_json(self, genome: Genome) -> JsonObject:
        return _genome.to_json(genome)

    def from_json(self, data: JsonObject) -> Genome:
        return _genome.from_json(data)

    def formula(self, genome: Genome) -> str:
        return _formula.formula(genome)

    def selected(self, selection: JsonObject) -> str:
        return _formula.selected(selection["layers"])

    def load_data(self) -> Arrays:
        from layersearch.spaces.tasks.regression.data import to_arrays
        from layersearch.spaces.tasks.regression.sets import load_regression

        task = self.settings.task
        return to_arrays(load_regression(task.data, self.settings.data_path, task.sampling, task.split))

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        from layersearch.spaces.skan.evaluate import SKANEvaluator

        return SKANEvaluator(self.settings, data, device)

    def describe(self) -> Sequence[tuple[str, str]]:
        task, network, funnel = self.settings.task, self.settings.network, self.settings.funnel
        shape = f"at most {network.max_depth} hidden layers of {network.min_width} to {network.max_width}"
        return (
            ("data", task.data),
            *self.settings.pool.described(),
            ("networks", f"{shape}, {network.most_parameters} parameters once pruned"),
            network.described(),
            ("quality", f"{task.quality_steps} steps, error < {funnel.quality_rmse:g} of the target's deviation"),
            ("fitness", f"validation rmse after {task.fitness_steps} steps, in deviations of the target"),
            *self.settings.described_rungs(),
            *described(funnel.objectives, "an MLP of the same widths"),
        )

    def _known(self, name: str) -> SKANGenome:
        network = self.settings.network
        return network.started(PUBLISHED[name].with_widths(network.reference))


@functools.cache
def _designs() -> dict[tuple[object, ...], str]:
    return {design(genome): name for name, genome in PUBLISHED.items()}


def from_settings(settings: JsonObject) -> SKANSpace | ImageSKANSpace:
    """The space of a run from the plain settings in its recipe; what workers call."""
    if has_images(settings):
        return ImageSKANSpace(images.parse(settings))
    return SKANSpace(parse(settings))
