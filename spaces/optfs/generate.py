"""Random genomes, mutants, and genomes as parameters of a sampler: three views of one table of choices."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from layersearch.spaces.contracts import Trial
from layersearch.spaces.optfs.choices import GATES_OF, OWN, Choice, OneOf, Real, Value, grain
from layersearch.spaces.optfs.genome import OptFSGenome
from layersearch.spaces.optfs.published import design
from layersearch.spaces.optfs.settings import SearchSettings
from layersearch.spaces.tasks.ctr.models.base import MODELS

__all__ = ["Generator"]

_TRIES = 20


@dataclass(frozen=True)
class Generator:
    """Genomes within the limits of a run.

    Every part of a genome is a question, asked in one order. Which ones are asked depends on earlier answers: a model
    without interactions of pairs is asked for ``gates.plain`` in place of ``gates``, one with an operator of its own
    not for ``operator``, and of ``price`` and ``ratio`` the one that ``pressure`` names. What has one possibility is
    not asked for.
    """

    search: SearchSettings

    def _questions(self, known: Mapping[str, Any]) -> tuple[str, str, Choice] | None:
        """Field, name and choice of the first question that ``known`` leaves open."""
        s = self.search
        model = MODELS[known["model"]] if "model" in known else None
        order: list[tuple[str, str, Choice]] = [("model", "model", OneOf(s.models))]
        if model is not None:
            gates = OneOf(grain(model.name, s.gates))
            order.append(("gates", "gates" if model.has_pairs else "gates.plain", gates))
            if model.has_operator:
                order.append(("operator", "operator", OneOf(s.operators)))
            if model.has_embeddings:
                order.append(("dim", "dim", OneOf(s.dims)))
        # A ratio is one of values or fields; beside them pairs need a price.
        priced = len(GATES_OF.get(known.get("gates", ""), ())) > 1 and "price" in s.pressures
        order += [
            ("relaxation", "relaxation", OneOf(s.relaxations)),
            ("pressure", "pressure", OneOf(("price",) if priced else s.pressures)),
        ]
        if "pressure" in known:
            asked = str(known["pressure"])
            order.append((asked, asked, Real(*(s.price if asked == "price" else s.ratio))))
        order += [
            ("temperature", "temperature", Real(*s.temperature)),
            ("search_epochs", "search_epochs", OneOf(s.search_epochs)),
            ("rewind_epoch", "rewind_epoch", OneOf(s.rewind_epochs)),
            ("lr", "lr", Real(*s.lr)),
        ]
        return next((question for question in order if question[0] not in known), None)

    def _filled(self, known: dict[str, Any], answer: Any) -> OptFSGenome:
        """Asks what ``known`` leaves open; ``answer(name, choice)``."""
        while (question := self._questions(known)) is not None:
            field, name, choice = question
            only = _only(choice)
            known[field] = answer(name, choice) if only is None else only
        own = {} if MODELS[known["model"]].has_operator else {"operator": OWN}
        return OptFSGenome(**{**known, **own}).tidy()

    def sample(self, rng: random.Random) -> OptFSGenome:
        """Every answer as likely as any other."""
        return self._filled({}, lambda _, choice: choice.draw(rng))

    def suggest(self, trial: Trial) -> OptFSGenome:
        """The genome of a trial's answers; legal whatever they are."""
        return self._filled({}, lambda name, choice: choice.ask(trial, name))

    def mutate(self, genome: OptFSGenome, rng: random.Random) -> OptFSGenome:
        """One answer changed; what no longer fits is drawn anew."""
        if not genome.kinds:
            return self.sample(rng)
        answers = self._answers(genome)
        for _ in range(_TRIES if answers else 0):
            field, _, choice = rng.choice(answers)

            def kept(name: str, choice: Choice) -> Any:
                before = getattr(genome, name.partition(".")[0])
                return before if choice.holds(before) else choice.draw(rng)

            mutant = self._filled({field: choice.near(getattr(genome, field), rng)}, kept)
            if mutant != genome:
                return mutant
        return self.sample(rng)

    def _answers(self, genome: OptFSGenome) -> list[tuple[str, str, Choice]]:
        """Questions with more than one possibility that lead to ``genome``."""
        known: dict[str, Any] = {}
        asked = []
        while (question := self._questions(known)) is not None:
            known[question[0]] = getattr(genome, question[0])
            if _only(question[2]) is None:
                asked.append(question)
        return asked

    def parameters(self, genome: OptFSGenome) -> Mapping[str, Value] | None:
        """Answers for which ``suggest`` gives ``genome``; ``None`` if it is beyond the limits, or learns nothing."""
        if not self.holds(genome):
            return None
        return {name: getattr(genome, field) for field, name, _ in self._answers(genome)}

    def holds(self, genome: OptFSGenome) -> bool:
        """Whether a genome can be sampled."""
        if not genome.kinds or genome.model not in self.search.models:
            return False
        known: dict[str, Any] = {}
        while (question := self._questions(known)) is not None:
            field, _, choice = question
            if not choice.holds(getattr(genome, field)):
                return False
            known[field] = getattr(genome, field)
        return genome == genome.tidy()

    def known(self, name: str) -> OptFSGenome | None:
        """A named design on the reference model, its numbers the default ones within the limits; None if it has none.

        Raises: UnknownNameError.
        """
        gates, relaxation, pressure = design(name)
        s = self.search
        fits = gates in grain(s.reference, s.gates) and relaxation in s.relaxations and pressure in s.pressures
        if not fits:
            return None
        wanted = {"model": s.reference, "gates": gates, "relaxation": relaxation, "pressure": pressure}
        return self.reference(**wanted)

    def reference(self, **given: Any) -> OptFSGenome:
        """The default genome, moved within the limits, but for what is given."""
        default = {field.name: getattr(OptFSGenome(), field.name) for field in fields(OptFSGenome)}
        default |= {"model": self.search.reference, "ratio": 0.5, "operator": "inner"}
        known = dict(given)
        genome = self._filled(
            {f: v for f, v in known.items() if f in _ASKED},
            lambda name, choice: choice.nearest(default[name.partition(".")[0]]),
        )
        return replace(genome, **{f: v for f, v in known.items() if f not in _ASKED}).tidy()


_ASKED = ("model", "gates", "relaxation", "pressure")


def _only(choice: Choice) -> Value | None:
    """The one possibility, if it is the only one."""
    if isinstance(choice, Real):
        return choice.low if choice.low == choice.high else None
    return choice.values[0] if len(choice.values) == 1 else None
