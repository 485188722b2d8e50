"""Random genomes, mutants, and genomes as parameters of a sampler: three views of one table of choices."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from layersearch.spaces.contracts import Trial
from layersearch.spaces.kan.choices import (
    BASE_BRANCHES,
    MLP,
    Choice,
    OneOf,
    Value,
    Whole,
    domains_of,
    settings_of,
)
from layersearch.spaces.kan.genome import KANGenome

__all__ = ["Generator", "asked", "only"]

_TRIES = 20


@dataclass(frozen=True)
class Generator:
    """Genomes of some bases and starts within limits of depth and width.

    The parameters of a sampler are ``basis``; the settings of that basis as ``bspline.grid`` …; ``domain`` (of a basis
    with a choice of its own ``laguerre.domain``), ``base`` and ``init``; ``depth``; and ``width.1`` … of the hidden
    layers there are. What has one possibility is not asked for. So names stand for the same question in every trial,
    and a sampler learns about a basis from the trials that had it.

    Args:
        bases: names of ``BASES``, sorted.
        inits: names of ``INITS``, sorted.
        max_depth: most hidden layers; there may be none.
        min_width, max_width: of a hidden layer.
    """

    bases: tuple[str, ...]
    inits: tuple[str, ...]
    max_depth: int
    min_width: int
    max_width: int

    @property
    def _basis(self) -> OneOf:
        return OneOf(self.bases)

    @property
    def _init(self) -> OneOf:
        return OneOf(self.inits)

    @property
    def _depth(self) -> Whole:
        return Whole(0, self.max_depth)

    @property
    def _width(self) -> Whole:
        return Whole(self.min_width, self.max_width, log=True)

    def holds(self, genome: KANGenome) -> bool:
        """Whether a genome can be sampled."""
        known = genome.basis in self.bases and genome.init in self.inits and self._depth.holds(len(genome.hidden))
        return known and all(map(self._width.holds, genome.hidden))

    def searches(self, genome: KANGenome) -> bool:
        """Whether it is a KAN, within the limits or not."""
        return genome.basis != MLP

    def sample(self, rng: random.Random) -> KANGenome:
        """Every basis is as likely as any other, and so is every depth from one hidden layer on."""
        basis = rng.choice(self.bases)
        hidden = tuple(self._width.draw(rng) for _ in range(rng.randint(min(1, self.max_depth), self.max_depth)))
        return KANGenome(
            basis,
            tuple((name, choice.draw(rng)) for name, choice in settings_of(basis).items()),
            str(BASE_BRANCHES.draw(rng)),
            str(domains_of(basis).draw(rng)),
            str(self._init.draw(rng)),
            hidden,
        )

    def mutate(self, genome: KANGenome, rng: random.Random) -> KANGenome:
        """One thing changed: most often a setting of the basis or a width, sometimes the basis itself."""
        if not self.searches(genome):
            return self.sample(rng)
        for _ in range(_TRIES):
            change = rng.choices(
                (self._setting, self._widths, self._depths, self._one_of, self._other_basis), (3, 3, 1, 3, 1)
            )[0]
            mutant = change(genome, rng)
            if mutant != genome:
                return mutant
        return self.sample(rng)

    def _setting(self, genome: KANGenome, rng: random.Random) -> KANGenome:
        choices = settings_of(genome.basis)
        name, value = rng.choice(genome.settings)
        changed = dict(genome.settings) | {name: choices[name].near(value, rng)}  # type: ignore[arg-type]
        return replace(genome, settings=tuple(sorted(changed.items())))

    def _widths(self, genome: KANGenome, rng: random.Random) -> KANGenome:
        return genome.with_widths(other_width(genome.hidden, self._width, rng))

    def _depths(self, genome: KANGenome, rng: random.Random) -> KANGenome:
        return genome.with_widths(other_depth(genome.hidden, self.max_depth, self._width, rng))

    def _one_of(self, genome: KANGenome, rng: random.Random) -> KANGenome:
        name, choice = rng.choice((("base", BASE_BRANCHES), ("domain", domains_of(genome.basis)), ("init", self._init)))
        changed = str(choice.near(getattr(genome, name), rng))
        return replace(genome, **{name: changed})  # type: ignore[arg-type]

    def _other_basis(self, genome: KANGenome, rng: random.Random) -> KANGenome:
        """Settings with a name that both bases have are kept where they are legal."""
        basis = str(self._basis.near(genome.basis, rng))
        before = dict(genome.settings)
        settings: dict[str, Value] = {}
        for name, choice in settings_of(basis).items():
            settings[name] = before[name] if name in before and choice.holds(before[name]) else choice.draw(rng)
        domains = domains_of(basis)
        domain = genome.domain if domains.holds(genome.domain) else str(domains.draw(rng))
        return replace(genome, basis=basis, settings=tuple(sorted(settings.items())), domain=domain)

    def suggest(self, trial: Trial) -> KANGenome:
        """The genome of a trial's answers; legal whatever they are."""
        basis = str(asked(trial, "basis", self._basis))
        settings = tuple((n, asked(trial, f"{basis}.{n}", choice)) for n, choice in settings_of(basis).items())
        domain = str(asked(trial, *_domain(basis)))
        base, init = str(asked(trial, "base", BASE_BRANCHES)), str(asked(trial, "init", self._init))
        depth = int(asked(trial, "depth", self._depth))
        hidden = tuple(int(asked(trial, f"width.{i + 1}", self._width)) for i in range(depth))
        return KANGenome(basis, settings, base, domain, init, hidden)

    def parameters(self, genome: KANGenome) -> Mapping[str, Value] | None:
        """Answers for which ``suggest`` gives ``genome``; ``None`` if it is beyond the limits or no KAN."""
        if not self.holds(genome):
            return None
        choices = settings_of(genome.basis)
        questions: list[tuple[str, Choice, Value]] = [("basis", self._basis, genome.basis)]
        questions += [(f"{genome.basis}.{name}", choices[name], value) for name, value in genome.settings]
        questions += [
            (*_domain(genome.basis), genome.domain),
            ("base", BASE_BRANCHES, genome.base),
            ("init", self._init, genome.init),
            ("depth", self._depth, len(genome.hidden)),
            *((f"width.{i + 1}", self._width, width) for i, width in enumerate(genome.hidden)),
        ]
        return {name: value for name, choice, value in questions if only(choice) is None}


def _domain(basis: str) -> tuple[str, OneOf]:
    choice = domains_of(basis)
    return ("domain" if choice == domains_of("chebyshev") else f"{basis}.domain"), choice


def only(choice: Choice) -> Value | None:
    """The one possibility, if it is the only one."""
    if isinstance(choice, Whole):
        return choice.low if choice.low == choice.high else None
    return choice.values[0] if len(choice.values) == 1 else None


def other_width(hidden: tuple[int, ...], width: Whole, rng: random.Random) -> tuple[int, ...]:
    """One of the widths changed, if there is one."""
    if not hidden:
        return hidden
    i = rng.randrange(len(hidden))
    return (*hidden[:i], width.near(hidden[i], rng), *hidden[i + 1 :])


def other_depth(hidden: tuple[int, ...], most: int, width: Whole, rng: random.Random) -> tuple[int, ...]:
    """A layer less or, while there are fewer than ``most``, one more."""
    if hidden and (len(hidden) >= most or rng.random() < 0.5):
        i = rng.randrange(len(hidden))
        return (*hidden[:i], *hidden[i + 1 :])
    if len(hidden) < most:
        i = rng.randint(0, len(hidden))
        return (*hidden[:i], width.draw(rng), *hidden[i:])
    return hidden


def asked(trial: Trial, name: str, choice: Choice) -> Value:
    """The answer of a trial; what has one possibility is not asked for."""
    single = only(choice)
    return choice.ask(trial, name) if single is None else single
