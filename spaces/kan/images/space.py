"""The kan space on images: convolutional networks and transformers of KAN layers, judged by accuracy."""

from collections.abc import Mapping, Sequence

from layersearch.spaces.contracts import Arrays, Evaluator, JsonObject, Objective, Outline, Probe
from layersearch.spaces.funnel import NetworkSpace
from layersearch.spaces.kan.generate import Generator
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.images import formula as _formula
from layersearch.spaces.kan.images import genome as _genome
from layersearch.spaces.kan.images import screen
from layersearch.spaces.kan.images.generate import ImageGenerator
from layersearch.spaces.kan.images.genome import ImageGenome
from layersearch.spaces.kan.images.published import CONV_RELU, DESIGNS, VIT_GELU, design, known, ordinary
from layersearch.spaces.kan.images.settings import ImageKANSettings
from layersearch.spaces.objectives import cost_objectives, described

__all__ = ["ImageKANSpace", "baselines", "published"]

_LIKE = {CONV_RELU: "kan-conv", VIT_GELU: "kat-vit"}
"""Ordinary networks, and the design whose parameters they have."""


class ImageKANSpace(NetworkSpace[ImageGenome]):
    """``layersearch.spaces.contracts.TunableSpace`` of models of KAN layers for one set of images."""

    name = "kan"
    generator: ImageGenerator[KANGenome]

    def __init__(self, settings: ImageKANSettings) -> None:
        self.settings = settings
        network = settings.network
        layers = Generator(network.bases, network.inits, 0, 1, 1)
        generator = ImageGenerator(layers, network.kinds, settings.limits)
        super().__init__(generator, settings.funnel.rerank_seeds, settings.cuts)
        # Ordered by accuracy alone: in a mean, counts of parameters would drown it.
        objectives = {"accuracy": Objective("accuracy"), **cost_objectives("ReLU/GELU network")}
        self.objectives = tuple(objectives[name] for name in settings.funnel.objectives)

    def seeds(self) -> Mapping[str, ImageGenome]:
        """Published designs in the reference sizes, where those are within the limits of the run."""
        found = {name: published(self.settings, name) for name in self.settings.seed_layers}
        return self.sampled(found)

    def baselines(self) -> Mapping[str, ImageGenome]:
        """Published designs in the reference sizes, and ordinary networks of as many parameters.

        ``conv-relu`` has those of ``kan-conv``, ``vit-gelu`` those of ``kat-vit``.
        """
        found = baselines(self.settings)
        return self.possible(found)

    def outline(self, genome: ImageGenome) -> Outline:
        settings, network = self.settings, self.settings.network
        return screen.outline(
            genome, settings.in_channels, settings.classes, network.most_parameters, network.most_operations
        )

    def probe(self, genome: ImageGenome) -> Probe:
        return screen.probe(genome, self.settings.in_channels, self.settings.classes)

    def same(self, a: ImageGenome, b: ImageGenome) -> bool:
        return screen.same_function(a, b, self.settings.in_channels, self.settings.classes)

    def known_as(self, genome: ImageGenome) -> str | None:
        return design(genome)

    def to_json(self, genome: ImageGenome) -> JsonObject:
        return _genome.to_json(genome)

    def from_json(self, data: JsonObject) -> ImageGenome:
        genome = _genome.from_json(data)
        _genome.check_side(genome, self.settings.task.image_size)
        return genome

    def formula(self, genome: ImageGenome) -> str:
        return _formula.formula(genome)

    def load_data(self) -> Arrays:
        from layersearch.spaces.tasks.images.data import load_images, to_arrays

        return to_arrays(load_images(self.settings.task.data, self.settings.data_path))

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        from layersearch.spaces.kan.images.evaluate import ImageKANEvaluator

        return ImageKANEvaluator(self.settings, data, device)

    def describe(self) -> Sequence[tuple[str, str]]:
        task, network, funnel = self.settings.task, self.settings.network, self.settings.funnel
        limits = f"{network.most_parameters} parameters, {network.most_operations / 1e6:g} million operations per image"
        return (
            ("data", f"{task.data}, {task.image_size}×{task.image_size}"),
            ("networks", f"{len(network.bases)} bases in {' and '.join(network.kinds)}, {limits}"),
            network.described(),
            ("quality", f"{task.quality_steps} steps, {funnel.quality_chance:g} × chance"),
            ("fitness", f"validation accuracy after {task.fitness_steps} steps"),
            *self.settings.described_rungs(),
            *described(funnel.objectives, "a ReLU network or GELU transformer of the same shape"),
        )


def published(settings: ImageKANSettings, name: str) -> ImageGenome:
    """A published design in the reference size of a run, as its networks start."""
    return settings.network.started_image(known(name, settings.reference_conv, settings.reference_vit))


def baselines(settings: ImageKANSettings) -> dict[str, ImageGenome]:
    """All there are for a run, by name."""
    found = {name: published(settings, name) for name in DESIGNS}
    alike = {n: ordinary(found[of], settings.in_channels, settings.classes) for n, of in _LIKE.items()}
    return found | {name: genome for name, genome in alike.items() if genome is not None}
