"""Random models, mutants, and models as parameters of a sampler: the layer's generator, and the shape around it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from layersearch.spaces.contracts import Trial
from layersearch.spaces.kan.choices import MLP, Choice, OneOf, Value, Whole
from layersearch.spaces.kan.generate import Generator, asked, only
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.images.choices import HEAD, Multiples, ShapeLimits
from layersearch.spaces.kan.images.genome import CONV, ImageGenome
from layersearch.spaces.tasks.images.models.conv import ConvShape
from layersearch.spaces.tasks.images.models.vit import ViTShape

__all__ = ["ImageGenerator"]

_KIND = "kind"
_TRIES = 20


@dataclass(frozen=True)
class ImageGenerator:
    """Genomes of some bases and kinds of models.

    The parameters of a sampler are ``kind``; those of the layer, as in ``Generator``; and those of the model, as
    ``conv.stem``, ``conv.blocks``, ``conv.channels.1`` …, ``kat.width``. Widths are asked for in units of 4 or 8.

    Args:
        bases: names of ``BASES``, sorted.
        kinds: of models, sorted.
        limits: of their sizes.
    """

    bases: tuple[str, ...]
    kinds: tuple[str, ...]
    limits: ShapeLimits

    @property
    def _layers(self) -> Generator:
        return Generator(self.bases, 0, 1, 1)

    @property
    def _kind(self) -> OneOf:
        return OneOf(self.kinds)

    def holds(self, genome: ImageGenome) -> bool:
        """Whether a genome can be sampled."""
        if genome.layer.basis not in self.bases or genome.kind not in self.kinds:
            return False
        return genome.shape.side == self.limits.side and all(c.holds(v) for _, c, v in self._facts(genome))

    def sample(self, rng: random.Random) -> ImageGenome:
        """Every kind, basis and number of blocks is as likely as any other."""
        layer = self._layers.sample(rng)
        return self._around(layer, rng.choice(self.kinds), rng)

    def mutate(self, genome: ImageGenome, rng: random.Random) -> ImageGenome:
        """One thing changed: most often a choice of the layer, else a size, seldom the kind of model."""
        if genome.layer.basis == MLP:
            return self.sample(rng)
        for _ in range(_TRIES):
            change = rng.choices((self._layer, self._size, self._blocks, self._other_kind), (10, 5, 1, 1))[0]
            mutant = change(genome, rng)
            if mutant != genome:
                return mutant
        return self.sample(rng)

    def _layer(self, genome: ImageGenome, rng: random.Random) -> ImageGenome:
        return replace(genome, layer=self._layers.mutate(genome.layer, rng))

    def _size(self, genome: ImageGenome, rng: random.Random) -> ImageGenome:
        shape, choices = genome.shape, self.limits.of(genome.kind)
        names = [*choices, *(range(len(shape.channels)) if isinstance(shape, ConvShape) else ())]
        name = rng.choice(names)
        if isinstance(name, int):
            assert isinstance(shape, ConvShape), "only those have channels"
            channels = list(shape.channels)
            channels[name] = self.limits.channels.near(channels[name], rng)
            return replace(genome, shape=replace(shape, channels=tuple(channels)))
        if name == HEAD:
            return replace(genome, head=str(choices[HEAD].near(genome.head, rng)))  # type: ignore[arg-type]
        changed = choices[name].near(getattr(shape, name), rng)
        return replace(genome, shape=replace(shape, **{name: changed}))  # type: ignore[arg-type]

    def _blocks(self, genome: ImageGenome, rng: random.Random) -> ImageGenome:
        """One more or one less; of a transformer ``_size`` changes the depth."""
        shape = genome.shape
        if not isinstance(shape, ConvShape):
            return genome
        channels, limit = list(shape.channels), self.limits.blocks
        if len(channels) > limit.low and (len(channels) >= limit.high or rng.random() < 0.5):
            del channels[rng.randrange(len(channels))]
        elif len(channels) < limit.high:
            channels.insert(rng.randint(0, len(channels)), self.limits.channels.draw(rng))
        return replace(genome, shape=replace(shape, channels=tuple(channels)))

    def _other_kind(self, genome: ImageGenome, rng: random.Random) -> ImageGenome:
        kind = str(self._kind.near(genome.kind, rng))
        return genome if kind == genome.kind else self._around(genome.layer, kind, rng)

    def _around(self, layer: KANGenome, kind: str, rng: random.Random) -> ImageGenome:
        values = {name: choice.draw(rng) for name, choice in self.limits.of(kind).items()}
        n_blocks = self.limits.blocks.draw(rng) if kind == CONV else 0
        return self._made(layer, kind, values, tuple(self.limits.channels.draw(rng) for _ in range(n_blocks)))

    def _made(self, layer: KANGenome, kind: str, values: dict[str, Value], channels: tuple[int, ...]) -> ImageGenome:
        head = str(values.pop(HEAD))
        sizes = {"side": self.limits.side, **values}
        if kind == CONV:
            return ImageGenome(layer, ConvShape(channels=channels, **sizes), head)  # type: ignore[arg-type]
        return ImageGenome(layer, ViTShape(**sizes), head)  # type: ignore[arg-type]

    def suggest(self, trial: Trial) -> ImageGenome:
        """The genome of a trial's answers; legal whatever they are."""
        kind = str(asked(trial, _KIND, self._kind))
        layer = self._layers.suggest(trial)
        values = {name: asked(trial, f"{kind}.{name}", choice) for name, choice in self.limits.of(kind).items()}
        n_blocks = int(asked(trial, f"{kind}.blocks", self.limits.blocks)) if kind == CONV else 0
        channels = tuple(int(asked(trial, f"{kind}.channels.{i + 1}", self.limits.channels)) for i in range(n_blocks))
        return self._made(layer, kind, values, channels)

    def parameters(self, genome: ImageGenome) -> Mapping[str, Value] | None:
        """Answers for which ``suggest`` gives ``genome``; ``None`` if it is beyond the limits or no KAN."""
        layer = self._layers.parameters(genome.layer)
        if layer is None or not self.holds(genome):
            return None
        found: dict[str, Value] = {_KIND: genome.kind} if only(self._kind) is None else {}
        found |= layer
        for name, choice, value in self._facts(genome):
            if only(choice) is None:
                answer = choice.answer(int(value)) if isinstance(choice, Multiples) else value
                found[f"{genome.kind}.{name}"] = answer
        return found

    def _facts(self, genome: ImageGenome) -> list[tuple[str, Choice, Value]]:
        """What was chosen of the model, with the choices there were, in the order of the questions."""
        shape = genome.shape
        facts: list[tuple[str, Choice, Value]] = [
            (name, choice, genome.head if name == HEAD else getattr(shape, name))
            for name, choice in self.limits.of(genome.kind).items()
        ]
        if isinstance(shape, ConvShape):
            blocks: Whole = self.limits.blocks
            facts.append(("blocks", blocks, len(shape.channels)))
            facts += [(f"channels.{i + 1}", self.limits.channels, width) for i, width in enumerate(shape.channels)]
        return facts
