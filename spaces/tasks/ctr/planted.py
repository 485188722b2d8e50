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

CALIBRATION_ROWS = 50_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PlantedSettings:
    """The task. At its defaults 22 fields with 10,736 values, of which 860 are useful.

    Args:
        mains: fields with effects of single values.
        couples: pairs of fields whose values act only together; these are ``2 · couples`` more fields.
        noise: fields without any effect.
        values: per field outside of couples, unknown ones aside; a multiple of ``2 · every``.
        couple_values: per field of a couple; a multiple of 4.
        every: of so many neighbours by frequency one value of a main field acts; of every two twos of a couple one.
        main_effect, pair_effect: size of an effect on the logit, before all are multiplied by the factor (about 1) that
            makes the AUC of the true probabilities ``BAYES_AUC``.
        bias: logit of a row without effects; other than 0 it gives the values of couples a small effect of their own on
            the probability of a click.
        exponent, shift: the probability of the value of rank ``r`` is proportional to ``(r + shift)^-exponent`` (Zipf
            and Mandelbrot); in twos for couples.
        rows: train, validation and test rows.
    """

    mains: int = 5
    couples: int = 2
    noise: int = 13
    values: int = 552
    couple_values: int = 200
    every: int = 6
    main_effect: float = 1.25
    pair_effect: float = 1.5
    bias: float = 0.0
    exponent: float = 1.2
    shift: float = 1.0
    rows: tuple[int, int, int] = (400_000, 20_000, 20_000)

    def __post_init__(self) -> None:
        if self.values < 2 * self.every or self.values % (2 * self.every) or self.every < 1:
            raise BadInputError(
                f"values of a planted field must be a multiple of 2 · every = {2 * self.every}, got {self.values}; "
                f"use {max(1, self.values // (2 * self.every)) * 2 * self.every}"
            )
        if self.couple_values < 4 or self.couple_values % 4:
            raise BadInputError(f"couple_values must be a multiple of 4, got {self.couple_values}; use 200")
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
    n_fields = s.n_fields
    place = rng.permutation(n_fields)
    mains, coupled = place[: s.mains], place[s.mains : s.mains + 2 * s.couples]
    effects: list[Floats] = []
    signs: list[Floats] = []
    chances: list[Floats] = []
    for f in range(n_fields):
        n_values = s.couple_values if f in coupled else s.values
        ranks = np.arange(n_values) // 2 * 2 if f in coupled else np.arange(n_values)
        zipf = (ranks + 1 + s.shift) ** -s.exponent
        nothing = np.zeros(n_values)
        order = rng.permutation(n_values)  # an id says nothing about frequency
        effects.append(_with_unknown(_main_effects(s, rng) if f in mains else nothing, order))
        signs.append(_with_unknown(_signs(s, rng) if f in coupled else nothing, order))
        chances.append(_with_unknown(zipf / zipf.sum(), order))
    couples = [(int(a), int(b)) for a, b in zip(coupled[::2], coupled[1::2], strict=True)]
    sizes = tuple(len(chance) for chance in chances)
    offsets = np.cumsum([0, *sizes[:-1]])

    def draw(n: int) -> tuple[NDArray[np.int64], Floats]:
        """Values and the effects on the logit of ``n`` rows."""
        local = np.stack([rng.choice(len(chance), n, p=chance) for chance in chances], 1)
        logits = np.zeros(n)
        for f in mains:
            logits += effects[f][local[:, f]]
        for a, b in couples:
            logits += s.pair_effect * signs[a][local[:, a]] * signs[b][local[:, b]]
        return local, logits

    # Which of the most frequent values are useful moves the AUC by .02; the size of all effects makes up for it.
    scale = _scale(draw(CALIBRATION_ROWS)[1], s)
    parts, test_logits = [], np.zeros(0)
    for n in s.rows:
        local, logits = draw(n)
        test_logits = s.bias + scale * logits
        labels = (rng.random(n) < 1 / (1 + np.exp(-test_logits))).astype(np.uint8)
        parts.append(Part((local + offsets).astype(np.int32), labels))
    useful = [(effects[f] != 0) | (signs[f] != 0) for f in range(n_fields)]
    fields = np.array([mask.any() for mask in useful])
    truth = Truth(np.concatenate(useful), fields, _pair_mask(n_fields, couples), test_logits)
    names = tuple(f"f{f:02d}" for f in range(n_fields))
    vocabulary = tuple(tuple(f"v{k}" for k in range(1, size)) for size in sizes)
    train, validation, test = parts
    return CTRData("planted", names, sizes, train, validation, test, truth, vocabulary)


def _scale(logits: Floats, s: PlantedSettings) -> float:
    """Factor of the effects at which the AUC of the true probabilities is ``BAYES_AUC``; 1 if there are no effects."""
    if not logits.any():
        return 1.0
    low, high = 0.0, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _expected_auc(s.bias + middle * logits) < BAYES_AUC else (low, middle)
    return (low + high) / 2


def _expected_auc(logits: Floats) -> float:
    """AUC of scores ``logits`` when labels are drawn with these log odds; ties counted half."""
    levels, back = np.unique(logits, return_inverse=True)
    chance = 1 / (1 + np.exp(-levels))
    sizes = np.bincount(back)
    clicks, others = sizes * chance, sizes * (1 - chance)
    below = np.cumsum(others) - others
    return float((clicks * (below + others / 2)).sum() / (clicks.sum() * others.sum()))


def _with_unknown(by_rank: Floats, order: NDArray[np.int64]) -> Floats:
    """By id: nothing for unknown values, then the values in ``order``."""
    return np.concatenate([[0.0], by_rank[order]])


def _main_effects(s: PlantedSettings, rng: np.random.Generator) -> Floats:
    """By rank: one useful value of each ``every``, of alternating sign in a random first one."""
    blocks = s.values // s.every
    effects = np.zeros((blocks, s.every))
    sign = np.where((np.arange(blocks) + rng.integers(2)) % 2 == 0, 1.0, -1.0)
    effects[np.arange(blocks), rng.integers(s.every, size=blocks)] = sign * s.main_effect
    return effects.ravel()


def _signs(s: PlantedSettings, rng: np.random.Generator) -> Floats:
    """By rank: of every two twos one is useful, one of its values with +1, the other with -1."""
    blocks = s.couple_values // 4
    signs = np.zeros((s.couple_values // 2, 2))
    chosen = 2 * np.arange(blocks) + rng.integers(2, size=blocks)
    first = rng.choice([-1.0, 1.0], size=blocks)
    signs[chosen, 0], signs[chosen, 1] = first, -first
    return signs.ravel()


def _pair_mask(n_fields: int, couples: list[tuple[int, int]]) -> NDArray[np.bool_]:
    i, j = np.triu_indices(n_fields, 1)
    wanted = {(min(c), max(c)) for c in couples}
    return np.array([(a, b) in wanted for a, b in zip(i.tolist(), j.tolist(), strict=True)])
