"""The skan space on images: convolutional networks whose channels choose a basis in training, judged by accuracy."""

from collections.abc import Mapping, Sequence
from typing import cast

from layersearch.spaces.contracts import Arrays, Evaluator, JsonObject, Objective, Outline, Probe
from layersearch.spaces.funnel import Maker, NetworkSpace
from layersearch.spaces.kan.images import screen as kan_screen
from layersearch.spaces.kan.images.generate import ImageGenerator
from layersearch.spaces.kan.images.genome import CONV, check_side
from layersearch.spaces.kan.images.published import CONV_RELU, largest, of_parameters, plain_like
from layersearch.spaces.objectives import cost_objectives, described
from layersearch.spaces.skan.formula import selected
from layersearch.spaces.skan.genome import Genome
from layersearch.spaces.skan.images import formula as _formula
from layersearch.spaces.skan.images import genome as _genome
from layersearch.spaces.skan.images import screen
from layersearch.spaces.skan.images.genome import AnyImageGenome, selects
from layersearch.spaces.skan.images.network import most_parameters
from layersearch.spaces.skan.images.published import design, known, single_conv
from layersearch.spaces.skan.images.settings import ImageSKANSettings

__all__ = ["ImageSKANSpace"]

_REFERENCE = "sconvkan"


class ImageSKANSpace(NetworkSpace[AnyImageGenome]):
    """``layersearch.spaces.contracts.TunableSpace`` of S-ConvKANs for one set of images; ``SelectingSpace``, too."""

    name = "skan"

    def __init__(self, settings: ImageSKANSettings) -> None:
        self.settings = settings
        generator: ImageGenerator[Genome] = ImageGenerator(
            settings.pool.generator(settings.network.inits, 0, 1, 1), (CONV,), settings.limits
        )
        maker = cast("Maker[AnyImageGenome]", generator)
        super().__init__(maker, settings.funnel.rerank_seeds, settings.cuts)
        # Ordered by accuracy alone, as in kan.
        objectives = {"accuracy": Objective("accuracy"), **cost_objectives("ReLU network")}
        self.objectives = tuple(objectives[name] for name in settings.funnel.objectives)

    def seeds(self) -> Mapping[str, AnyImageGenome]:
        """Designs by name in the reference size, where those are within the limits of the run."""
        shape, started = self.settings.reference_conv, self.settings.network.started_image
        return self.sampled({name: started(known(name, shape)) for name in self.settings.seed_layers})

    def baselines(self) -> Mapping[str, AnyImageGenome]:
        """Networks of each basis of the pools alone, and with ReLU, of as many parameters as ``sconvkan`` has at most.

        ``conv-relu-most`` is as large as any candidate may be. What is too large at its smallest is left out.
        """
        settings, shape, started = self.settings, self.settings.reference_conv, self.settings.network.started_image
        sizes = (settings.in_channels, settings.classes)
        reference = known(_REFERENCE, shape)
        most = min(most_parameters(reference, *sizes), settings.network.most_parameters)
        plain = plain_like(reference)
        singles = {name: started(single_conv(name, shape)) for name in settings.pool.bases}
        found = {name: of_parameters(genome, most, *sizes) for name, genome in singles.items()}
        found[CONV_RELU] = of_parameters(plain, most, *sizes)
        found[f"{CONV_RELU}-most"] = largest(plain, lambda sized: self.outline(sized).reason is None)
        return self.possible({name: genome for name, genome in found.items() if genome is not None})

    def outline(self, genome: AnyImageGenome) -> Outline:
        settings, network = self.settings, self.settings.network
        limits = (settings.in_channels, settings.classes, network.most_parameters, network.most_operations)
        return screen.outline(genome, *limits) if selects(genome) else kan_screen.outline(genome, *limits)

    def probe(self, genome: AnyImageGenome) -> Probe:
        sizes = (self.settings.in_channels, self.settings.classes)
        return screen.probe(genome, *sizes) if selects(genome) else kan_screen.probe(genome, *sizes)

    def same(self, a: AnyImageGenome, b: AnyImageGenome) -> bool:
        sizes = (self.settings.in_channels, self.settings.classes)
        if selects(a) and selects(b):
            return screen.same(a, b, *sizes)
        if selects(a) or selects(b):
            return False
        return kan_screen.same_function(a, b, *sizes)

    def known_as(self, genome: AnyImageGenome) -> str | None:
        return design(genome) if selects(genome) else None

    def to_json(self, genome: AnyImageGenome) -> JsonObject:
        return _genome.to_json(genome)

    def from_json(self, data: JsonObject) -> AnyImageGenome:
        genome = _genome.from_json(data)
        check_side(genome, self.settings.task.image_size)
        return genome

    def formula(self, genome: AnyImageGenome) -> str:
        return _formula.formula(genome)

    def selected(self, selection: JsonObject) -> str:
        return selected(selection["layers"])

    def load_data(self) -> Arrays:
        from layersearch.spaces.tasks.images.data import load_images, to_arrays

        return to_arrays(load_images(self.settings.task.data, self.settings.data_path))

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        from layersearch.spaces.skan.images.evaluate import ImageSKANEvaluator

        return ImageSKANEvaluator(self.settings, data, device)

    def describe(self) -> Sequence[tuple[str, str]]:
        task, network, funnel = self.settings.task, self.settings.network, self.settings.funnel
        limits = f"{network.most_parameters} parameters once pruned"
        mean = f"{network.most_operations / 1e6:g} million operations per image on the mean of a training"
        return (
            ("data", f"{task.data}, {task.image_size}×{task.image_size}"),
            *self.settings.pool.described(),
            ("networks", f"convolutions, {limits}, {mean}"),
            network.described(),
            ("quality", f"{task.quality_steps} steps, {funnel.quality_chance:g} × chance"),
            ("fitness", f"validation accuracy after {task.fitness_steps} steps"),
            *self.settings.described_rungs(),
            *described(funnel.objectives, "a ReLU network of the same shape"),
        )
