"""Random models, mutants, and models as parameters of a sampler: the layer's generator, and the shape around it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from layersearch.spaces.contracts import Trial
from layersearch.spaces.funnel import Maker
from layersearch.spaces.kan.choices import Choice, OneOf, Value, Whole
from layersearch.spaces.kan.generate import asked, only
from layersearch.spaces.kan.images.choices import HEAD, Multiples, ShapeLimits
from layersearch.spaces.kan.images.genome import CONV, ImageGenome
from layersearch.spaces.tasks.images.models.conv import ConvShape
from layersearch.spaces.tasks.images.models.vit import ViTShape

__all__ = ["ImageGenerator", "LayerMaker"]

_KIND = "kind"
_TRIES = 20

Layer = TypeVar("Layer")


class LayerMaker(Maker[Layer], Protocol[Layer]):
    """Makes layers, as genomes without hidden ones."""

    def searches(self, genome: Any) -> bool:
        """Whether it is of the sort that is made here, whatever the limits; others are what these are compared with."""
        ...


@dataclass(frozen=True)
class ImageGenerator(Generic[Layer]):
    """Genomes of some layers in some kinds of models.

    The parameters of a sampler are ``kind``; those of the layer, as its maker asks them; and those of the model, as
    ``conv.stem``, ``conv.blocks``, ``conv.channels.1`` …, ``kat.width``. Widths are asked for in units of 4 or 8.

    Args:
        layers: makes what all layers of a model have.
        kinds: of models, sorted.
        limits: of their sizes.
    """

    layers: LayerMaker[Layer]
    kinds: tuple[str, ...]
    limits: ShapeLimits

    @property
    def _kind(self) -> OneOf:
        return OneOf(self.kinds)

    def holds(self, genome: ImageGenome[Layer]) -> bool:
        """Whether a genome can be sampled."""
        if not self.layers.holds(genome.layer) or genome.kind not in self.kinds:
            return False
        return genome.shape.side == self.limits.side and all(c.holds(v) for _, c, v in self._facts(genome))

    def sample(self, rng: random.Random) -> ImageGenome[Layer]:
        """Every kind and number of blocks is as likely as any other; layers are as their maker draws them."""
        layer = self.layers.sample(rng)
        return self._around(layer, rng.choice(self.kinds), rng)

    def mutate(self, genome: ImageGenome[Layer], rng: random.Random) -> ImageGenome[Layer]:
        """One thing changed: most often a choice of the layer, else a size, seldom the kind of model."""
        if not self.layers.searches(genome.layer):
            return self.sample(rng)
        for _ in range(_TRIES):
            change = rng.choices((self._layer, self._size, self._blocks, self._other_kind), (10, 5, 1, 1))[0]
            mutant = change(genome, rng)
            if mutant != genome:
                return mutant
        return self.sample(rng)

    def _layer(self, genome: ImageGenome[Layer], rng: random.Random) -> ImageGenome[Layer]:
        return replace(genome, layer=self.layers.mutate(genome.layer, rng))

    def _size(self, genome: ImageGenome[Layer], rng: random.Random) -> ImageGenome[Layer]:
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

    def _blocks(self, genome: ImageGenome[Layer], rng: random.Random) -> ImageGenome[Layer]:
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

    def _other_kind(self, genome: ImageGenome[Layer], rng: random.Random) -> ImageGenome[Layer]:
        kind = str(self._kind.near(genome.kind, rng))
        return genome if kind == genome.kind else self._around(genome.layer, kind, rng)

    def _around(self, layer: Layer, kind: str, rng: random.Random) -> ImageGenome[Layer]:
        values = {name: choice.draw(rng) for name, choice in self.limits.of(kind).items()}
        n_blocks = self.limits.blocks.draw(rng) if kind == CONV else 0
        return self._made(layer, kind, values, tuple(self.limits.channels.draw(rng) for _ in range(n_blocks)))

    def _made(self, layer: Layer, kind: str, values: dict[str, Value], channels: tuple[int, ...]) -> ImageGenome[Layer]:
        head = str(values.pop(HEAD))
        sizes = {"side": self.limits.side, **values}
        if kind == CONV:
            return ImageGenome(layer, ConvShape(channels=channels, **sizes), head)  # type: ignore[arg-type]
        return ImageGenome(layer, ViTShape(**sizes), head)  # type: ignore[arg-type]

    def suggest(self, trial: Trial) -> ImageGenome[Layer]:
        """The genome of a trial's answers; legal whatever they are."""
        kind = str(asked(trial, _KIND, self._kind))
        layer = self.layers.suggest(trial)
        values = {name: asked(trial, f"{kind}.{name}", choice) for name, choice in self.limits.of(kind).items()}
        n_blocks = int(asked(trial, f"{kind}.blocks", self.limits.blocks)) if kind == CONV else 0
        channels = tuple(int(asked(trial, f"{kind}.channels.{i + 1}", self.limits.channels)) for i in range(n_blocks))
        return self._made(layer, kind, values, channels)

    def parameters(self, genome: ImageGenome[Layer]) -> Mapping[str, Value] | None:
        """Answers for which ``suggest`` gives ``genome``; ``None`` if it is beyond the limits or not searched."""
        layer = self.layers.parameters(genome.layer)
        if layer is None or not self.holds(genome):
            return None
        found: dict[str, Value] = {_KIND: genome.kind} if only(self._kind) is None else {}
        found |= layer
        for name, choice, value in self._facts(genome):
            if only(choice) is None:
                answer = choice.answer(int(value)) if isinstance(choice, Multiples) else value
                found[f"{genome.kind}.{name}"] = answer
        return found

    def _facts(self, genome: ImageGenome[Layer]) -> list[tuple[str, Choice, Value]]:
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
