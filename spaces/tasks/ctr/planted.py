"""A click-through task with a known answer: which values, fields and pairs of fields carry the label.

Frequency does not tell: of every few values next to each other in the order of frequency a fixed number is useful.
Pairs have no main effects: their values come in twos of equal frequency and opposite sign, so that each one's effect is
zero on average over its partner field.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import BadInputError
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.tasks.ctr.data import CTRData, Part, Truth

__all__ = ["BAYES_AUC", "PlantedSettings", "planted"]

BAYES_AUC = 0.80
"""AUC of the true probabilities, within .02 for every seed."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PlantedSettings:
    """The task. At its defaults 22 fields with 10,022 ids, of which about a quarter are useful.

    Args:
        mains: fields with effects of single values.
        couples: pairs of fields whose values act only together; these are ``2 · couples`` more fields.
        noise: fields without any effect.
        values: per field, unknown ones aside; a multiple of ``2 · every``.
        every: of so many neighbours in frequency one value of a main field is useful; one of every two twos in a couple.
        main_effect, pair_effect: size of an effect on the logit.
        bias: logit of a row without effects.
        exponent, shift: the probability of the value of rank ``r`` is proportional to ``(r + shift)^-exponent`` (Zipf and
            Mandelbrot); in twos for couples.
        rows: train, validation and test rows.
    """

    mains: int = 6
    couples: int = 3
    noise: int = 10
    values: int = 456
    every: int = 6
    main_effect: float = 1.3
    pair_effect: float = 1.3
    bias: float = -0.6
    exponent: float = 1.0
    shift: float = 8.0
    rows: tuple[int, int, int] = (200_000, 20_000, 20_000)

    def __post_init__(self) -> None:
        if self.values < 2 * self.every or self.values % (2 * self.every) or self.every < 1:
            raise BadInputError(
                f"values of a planted field must be a multiple of 2 · every = {2 * self.every}, got {self.values}; "
                f"use {max(1, self.values // (2 * self.every)) * 2 * self.every}"
            )
        if min(self.mains, self.couples, self.noise) < 0 or self.mains + 2 * self.couples + self.noise < 2:
            raise BadInputError("a planted task must have at least 2 fields, and none of a negative number; add fields")
        if min(self.rows) < 1:
            raise BadInputError(f"a planted task must have rows in all parts, got {list(self.rows)}; add rows")

    @property
    def n_fields(self) -> int:
        return self.mains + 2 * self.couples + self.noise


def planted(seed: int = 0, settings: PlantedSettings | None = None) -> CTRData:
    """The task of ``seed``: which values are useful, the order of fields and ids, and the rows follow from it."""
    s = settings or PlantedSettings()
    rng = np.random.Generator(np.random.PCG64(Seeds(seed).derive("planted")))
    n_fields, size = s.n_fields, s.values + 1
    place = rng.permutation(n_fields)
    mains, coupled = place[: s.mains], place[s.mains : s.mains + 2 * s.couples]
    effects = np.zeros((n_fields, size))
    signs = np.zeros((n_fields, size))
    chances = np.zeros((n_fields, size))
    for f in range(n_fields):
        in_twos = f in coupled
        if f in mains:
            effects[f, 1:] = _main_effects(s, rng)
        if in_twos:
            signs[f, 1:] = _signs(s, rng)
        ranks = np.arange(s.values) // 2 * 2 if in_twos else np.arange(s.values)
        zipf = (ranks + 1 + s.shift) ** -s.exponent
        chances[f, 1:] = zipf / zipf.sum()
        order = 1 + rng.permutation(s.values)  # an id says nothing about frequency
        for table in (effects, signs, chances):
            table[f, 1:] = table[f, order]
    couples = [(int(a), int(b)) for a, b in zip(coupled[::2], coupled[1::2], strict=True)]
    parts, test_logits = [], np.zeros(0)
    for n in s.rows:
        local = np.stack([rng.choice(size, n, p=chances[f]) for f in range(n_fields)], 1)
        logits = s.bias + effects[np.arange(n_fields), local].sum(1)
        for a, b in couples:
            logits += s.pair_effect * signs[a, local[:, a]] * signs[b, local[:, b]]
        labels = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
        ids = (local + size * np.arange(n_fields)).astype(np.int32)
        parts.append(Part(ids, labels))
        test_logits = logits
    names = tuple(f"f{f:02d}" for f in range(n_fields))
    useful = (effects != 0) | (signs != 0)
    truth = Truth(useful.ravel(), useful.any(1), _pair_mask(n_fields, couples), test_logits)
    words = tuple(f"v{k}" for k in range(1, size))
    train, validation, test = parts
    sizes = (size,) * n_fields
    return CTRData("planted", names, sizes, train, validation, test, truth, (words,) * n_fields)


def _main_effects(s: PlantedSettings, rng: np.random.Generator) -> Floats:
    """By rank: one useful value of each ``every``, of alternating sign in a random first one."""
    blocks = s.values // s.every
    effects = np.zeros((blocks, s.every))
    sign = np.where((np.arange(blocks) + rng.integers(2)) % 2 == 0, 1.0, -1.0)
    effects[np.arange(blocks), rng.integers(s.every, size=blocks)] = sign * s.main_effect
    return effects.ravel()


def _signs(s: PlantedSettings, rng: np.random.Generator) -> Floats:
    """By rank: of every two twos one is useful, one of its values with +1, the other with -1."""
    blocks = s.values // 4
    signs = np.zeros((s.values // 2, 2))
    chosen = 2 * np.arange(blocks) + rng.integers(2, size=blocks)
    first = rng.choice([-1.0, 1.0], size=blocks)
    signs[chosen, 0], signs[chosen, 1] = first, -first
    return signs.ravel()


def _pair_mask(n_fields: int, couples: list[tuple[int, int]]) -> NDArray[np.bool_]:
    i, j = np.triu_indices(n_fields, 1)
    wanted = {(min(c), max(c)) for c in couples}
    return np.array([(a, b) in wanted for a, b in zip(i.tolist(), j.tolist(), strict=True)])
