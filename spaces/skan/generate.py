"""Random genomes, mutants, and genomes as parameters of a sampler: three views of one table of choices."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from layersearch.spaces.contracts import Trial
from layersearch.spaces.kan.choices import BASE_BRANCHES, Choice, OneOf, Value, Whole
from layersearch.spaces.kan.generate import asked, only, other_depth, other_width
from layersearch.spaces.skan.choices import COLD, COOLINGS, DOMAINS, FULL, PRUNINGS, SELECTIVE, settings_of
from layersearch.spaces.skan.genome import Genome, Pool, SKANGenome

__all__ = ["Generator"]

_TRIES = 20
_IN_POOL = OneOf((False, True))
Shares = tuple[float, float, float]


@dataclass(frozen=True)
class Generator:
    """Genomes of some bases, gates and starts within limits.

    The parameters of a sampler are ``pool.bspline`` … (whether a basis is in the pool), asked in order of names until
    the pool is full, or must have all the rest; the settings of each basis that is in, as ``bspline.grid`` …; ``gate``,
    ``cooling``, ``cold``, ``full`` and ``selective`` (shares), ``pruning``, ``domain``, ``base``, ``init``; ``depth``
    and ``width.1`` … of the hidden layers there are. What has one possibility is not asked for.

    Args:
        bases: names of ``BASES``, sorted.
        min_pool, max_pool: number of bases of a pool.
        gates: kinds of gates.
        inits: names of ``INITS``, sorted.
        shares: of the stages, where they are fixed.
        max_depth: most hidden layers; there may be none.
        min_width, max_width: of a hidden layer.
    """

    bases: tuple[str, ...]
    min_pool: int
    max_pool: int
    gates: tuple[str, ...]
    inits: tuple[str, ...]
    shares: Shares | None
    max_depth: int
    min_width: int
    max_width: int

    @property
    def _width(self) -> Whole:
        return Whole(self.min_width, self.max_width, log=True)

    def _plain(self) -> dict[str, Choice]:
        """Choices that every genome has, but for pool, shares and widths."""
        return {
            "gate": OneOf(self.gates),
            "cooling": COOLINGS,
            "cold": COLD,
            "pruning": PRUNINGS,
            "domain": DOMAINS,
            "base": BASE_BRANCHES,
            "init": OneOf(self.inits),
        }

    def holds(self, genome: Genome) -> bool:
        """Whether a genome can be sampled."""
        if not isinstance(genome, SKANGenome) or not self.min_pool <= len(genome.pool) <= self.max_pool:
            return False
        plain = all(choice.holds(getattr(genome, name)) for name, choice in self._plain().items())
        shape = len(genome.hidden) <= self.max_depth and all(map(self._width.holds, genome.hidden))
        return plain and shape and set(genome.bases) <= set(self.bases) and self._holds_shares(genome.shares)

    def searches(self, genome: Genome) -> TypeGuard[SKANGenome]:
        """Whether its nodes choose, within the limits or not."""
        return isinstance(genome, SKANGenome)

    def _holds_shares(self, shares: Shares) -> bool:
        if self.shares is not None:
            return shares == self.shares
        return FULL.holds(shares[0]) and SELECTIVE.holds(shares[1]) and shares == _shares(shares[0], shares[1])

    def sample(self, rng: random.Random) -> SKANGenome:
        """Every number of bases is as likely as any other, and so is every depth from one hidden layer on."""
        names = sorted(rng.sample(self.bases, rng.randint(self.min_pool, self.max_pool)))
        plain = {name: choice.draw(rng) for name, choice in self._plain().items()}
        depth = rng.randint(min(1, self.max_depth), self.max_depth)
        return SKANGenome(
            pool=tuple((name, _settings(name, rng)) for name in names),
            shares=self._draw_shares(rng),
            hidden=tuple(self._width.draw(rng) for _ in range(depth)),
            **plain,  # type: ignore[arg-type]
        )

    def _draw_shares(self, rng: random.Random) -> Shares:
        return self.shares or _shares(float(FULL.draw(rng)), float(SELECTIVE.draw(rng)))

    def mutate(self, genome: Genome, rng: random.Random) -> SKANGenome:
        """One thing changed: most often a setting, the pool or a width."""
        if not self.searches(genome):
            return self.sample(rng)
        for _ in range(_TRIES):
            change = rng.choices((self._setting, self._pool, self._widths, self._depths, self._one_of), (3, 3, 3, 1, 3))
            mutant = change[0](genome, rng)
            if mutant != genome:
                return mutant
        return self.sample(rng)

    def _setting(self, genome: SKANGenome, rng: random.Random) -> SKANGenome:
        i = rng.randrange(len(genome.pool))
        basis, settings = genome.pool[i]
        name, value = rng.choice(settings)
        changed = dict(settings) | {name: settings_of(basis)[name].near(value, rng)}  # type: ignore[arg-type]
        pool = list(genome.pool)
        pool[i] = (basis, tuple(sorted(changed.items())))
        return replace(genome, pool=tuple(pool))

    def _pool(self, genome: SKANGenome, rng: random.Random) -> SKANGenome:
        """A basis leaves, joins, or both."""
        pool, others = list(genome.pool), [name for name in self.bases if name not in genome.bases]
        joins = bool(others) and rng.random() < 0.7
        leaves = len(pool) > self.min_pool and rng.random() < 0.5
        if leaves or (joins and len(pool) >= self.max_pool):
            del pool[rng.randrange(len(pool))]
        if joins:
            name = rng.choice(others)
            pool.append((name, _settings(name, rng)))
        return replace(genome, pool=_sorted(pool))

    def _widths(self, genome: SKANGenome, rng: random.Random) -> SKANGenome:
        return genome.with_widths(other_width(genome.hidden, self._width, rng))

    def _depths(self, genome: SKANGenome, rng: random.Random) -> SKANGenome:
        return genome.with_widths(other_depth(genome.hidden, self.max_depth, self._width, rng))

    def _one_of(self, genome: SKANGenome, rng: random.Random) -> SKANGenome:
        plain = self._plain()
        name = rng.choice([*plain, "shares"])
        if name == "shares":
            return replace(genome, shares=self._draw_shares(rng))
        changed = plain[name].near(getattr(genome, name), rng)
        return replace(genome, **{name: changed})  # type: ignore[arg-type]

    def suggest(self, trial: Trial) -> SKANGenome:
        """The genome of a trial's answers; legal whatever they are."""
        names: list[str] = []
        for i, name in enumerate(self.bases):
            forced = self._forced(len(names), len(self.bases) - i)
            if forced if forced is not None else _IN_POOL.ask(trial, f"pool.{name}"):
                names.append(name)
        pool: list[tuple[str, tuple[tuple[str, Value], ...]]] = [
            (basis, tuple((n, asked(trial, f"{basis}.{n}", choice)) for n, choice in settings_of(basis).items()))
            for basis in names
        ]
        plain = {name: asked(trial, name, choice) for name, choice in self._plain().items()}
        shares = self.shares
        if shares is None:
            shares = _shares(float(asked(trial, "full", FULL)), float(asked(trial, "selective", SELECTIVE)))
        depth = int(asked(trial, "depth", Whole(0, self.max_depth)))
        hidden = tuple(int(asked(trial, f"width.{i + 1}", self._width)) for i in range(depth))
        return SKANGenome(pool=_sorted(pool), shares=shares, hidden=hidden, **plain)  # type: ignore[arg-type]

    def _forced(self, n_in: int, n_left: int) -> bool | None:
        """Whether the next basis has to be in the pool or out of it, with ``n_in`` there and ``n_left`` to ask."""
        if n_in >= self.max_pool:
            return False
        return True if n_in + n_left <= self.min_pool else None

    def parameters(self, genome: Genome) -> Mapping[str, Value] | None:
        """Answers for which ``suggest`` gives ``genome``; ``None`` if it is beyond the limits or of the kan space."""
        if not self.holds(genome):
            return None
        assert isinstance(genome, SKANGenome)
        answers: dict[str, Value] = {}
        n_in = 0
        for i, name in enumerate(self.bases):
            if self._forced(n_in, len(self.bases) - i) is None:
                answers[f"pool.{name}"] = name in genome.bases
            n_in += name in genome.bases
        questions: list[tuple[str, Choice, Value]] = [
            (f"{basis}.{name}", settings_of(basis)[name], value) for basis, own in genome.pool for name, value in own
        ]
        questions += [(name, choice, getattr(genome, name)) for name, choice in self._plain().items()]
        if self.shares is None:
            questions += [("full", FULL, genome.shares[0]), ("selective", SELECTIVE, genome.shares[1])]
        questions.append(("depth", Whole(0, self.max_depth), len(genome.hidden)))
        questions += [(f"width.{i + 1}", self._width, width) for i, width in enumerate(genome.hidden)]
        return answers | {name: value for name, choice, value in questions if only(choice) is None}


def _settings(basis: str, rng: random.Random) -> tuple[tuple[str, Value], ...]:
    return tuple((name, choice.draw(rng)) for name, choice in settings_of(basis).items())


def _shares(full: float, selective: float) -> Shares:
    """With what is left for pruning; rounded, so that equal shares are equal numbers."""
    return full, selective, round(1 - full - selective, 6)


def _sorted(pool: list[tuple[str, tuple[tuple[str, Value], ...]]]) -> Pool:
    return tuple(sorted(pool, key=lambda row: row[0]))
