"""The driver behind ``search tune``: ask and tell of an Optuna study in memory, rebuilt from the recorded events."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from layersearch.errors import StoreError
from layersearch.search.drivers._common import seed_proposals
from layersearch.search.drivers._samplers import sampler
from layersearch.search.drivers.base import Proposal, Told
from layersearch.search.trials import Answer, UniformTrial
from layersearch.spaces.contracts import Genome, TunableSpace

__all__ = ["OptunaDriver"]

_MOST_SUGGESTIONS = 20


@dataclass(frozen=True)
class _Fate:
    """What a trial is told. ``missed`` is the share of stages that were not passed."""

    state: TrialState
    values: tuple[float, ...] | None = None
    missed: float = 0.0


_NOTHING_KNOWN = _Fate(TrialState.FAIL)
_SCREENED_OUT = _Fate(TrialState.PRUNED, missed=1.0)


@dataclass
class _Out:
    """A proposal whose fate is open: a trial of the study, or answers that become one when the fate is known."""

    trial: optuna.Trial | None = None
    answers: Mapping[str, Answer] | None = None


class OptunaDriver:
    """Proposes what an Optuna sampler suggests.

    Known layers come first, as trials with given answers. Then each slot gets suggestions of the sampler, at most 20;
    if all of them are turned away, uniformly drawn answers follow, of which only the one that passes becomes a trial.

    An evaluated candidate is a complete trial with the values of all objectives. A rejected or screened-out one is
    pruned, with the share of stages that it did not pass as a constraint, so that TPE ranks it after all evaluated ones
    and the later rejections before the earlier (as failed trials, screened-out ones came back four times as often). A
    failed one is a failed trial, which samplers ignore. A duplicate is told what its first was.

    Every proposal has a sampler of its own, seeded from the slot: what is suggested depends on the trials so far and on
    nothing else, so that recorded trials can be put in place of suggestions.

    Args:
        name: of a sampler.
    """

    def __init__(self, space: TunableSpace, population: int, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._population = population
        self._name = name
        self._seeds = seed_proposals(space, population)
        self._study = optuna.create_study(
            directions=["maximize" if o.maximize else "minimize" for o in space.objectives],
            sampler=sampler(name, 0, population),
        )
        self._out: dict[int, _Out] = {}  # by slot
        self._fates: dict[int, _Fate] = {}  # by candidate
        self._waiting: dict[int, list[optuna.Trial]] = {}  # duplicates of a candidate whose fate is open

    def ask(self, slot: int, rng: random.Random) -> Iterator[Proposal]:
        return self._proposals(slot, rng, ())

    def _proposals(self, slot: int, rng: random.Random, recorded: Sequence[Genome]) -> Iterator[Proposal]:
        """As ``ask``; where a genome is ``recorded``, the sampler need not be asked for it."""
        first = 0
        if slot < len(self._seeds):
            seed, first = self._seeds[slot], 1
            self._out[slot] = _Out(answers=self._space.parameters(seed.genome))
            yield seed
        for i in range(first, first + _MOST_SUGGESTIONS):
            answers = self._space.parameters(recorded[i]) if i < len(recorded) else None
            trial, genome = self._suggested(rng.getrandbits(32), answers)
            self._out[slot] = _Out(trial)
            yield Proposal(genome, "suggested")
        while True:
            drawn = UniformTrial(rng)
            genome = self._space.suggest(drawn)
            self._out[slot] = _Out(answers=drawn.answers)
            yield Proposal(genome, "random")

    def _suggested(self, seed: int, answers: Mapping[str, Answer] | None) -> tuple[optuna.Trial, Genome]:
        """A new trial of the study and its genome: what the sampler suggests, or what ``answers`` say."""
        self._study.sampler = sampler(self._name, seed, self._population)
        if answers is not None:
            self._study.enqueue_trial(dict(answers))
        trial = self._study.ask()
        trial.relative_params  # noqa: B018 (left out where all answers are given, and with it the trial's generation)
        return trial, self._space.suggest(trial)

    def turned_away(self, told: Told) -> None:
        out = self._out.pop(told.slot)
        first = told.candidate if told.duplicate_of is None else told.duplicate_of
        if told.duplicate_of is None:
            self._fates[first] = _SCREENED_OUT
        if out.trial is None:
            return
        if first in self._fates:
            self._settle(out.trial, self._fates[first])
        else:
            self._waiting.setdefault(first, []).append(out.trial)

    def tell(self, told: Told) -> None:
        fate = self._fate(told)
        self._fates[told.candidate] = fate
        out = self._out.pop(told.slot)
        if out.answers is not None:
            out.trial, _ = self._suggested(0, out.answers)
        for trial in (*([] if out.trial is None else [out.trial]), *self._waiting.pop(told.candidate, ())):
            self._settle(trial, fate)

    def _fate(self, told: Told) -> _Fate:
        if told.state == "evaluated":
            return _Fate(TrialState.COMPLETE, tuple(told.fitness[o.name] for o in self._space.objectives))
        if told.state in ("rejected", "stopped"):
            n_stages = len(self._space.stages)
            return _Fate(TrialState.PRUNED, missed=(n_stages - told.n_passed) / n_stages)
        return _NOTHING_KNOWN

    def _settle(self, trial: optuna.Trial, fate: _Fate) -> None:
        if fate.missed > 0 and self._name == "tpe":  # the others have no use for it, or say so in a warning
            trial.set_constraint("stages not passed", fate.missed)
        self._study.tell(trial, fate.values, fate.state)

    def recall(self, slot: int, rng: random.Random, recorded: Sequence[Told], check: bool) -> None:
        genomes = [] if check else [told.genome for told in recorded]
        for told, proposal in zip(recorded, self._proposals(slot, rng, genomes), strict=False):
            if proposal.genome != told.genome:
                raise StoreError(
                    "a run is resumed by proposing again what is recorded, but another genome came up than that of "
                    f"candidate {told.candidate}; resume with the versions in its environment.json or begin another run"
                )
            if told is not recorded[-1]:
                self.turned_away(told)
