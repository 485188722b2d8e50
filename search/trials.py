"""Trials that need no sampler: answers drawn uniformly, or given; both note what was asked."""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from layersearch.errors import LayerSearchError

__all__ = ["Answer", "AnswerError", "Choice", "GivenTrial", "Question", "Range", "UniformTrial"]

Answer: TypeAlias = int | float | str | bool


class AnswerError(LayerSearchError):
    """A given answer is missing or not among those that were asked for."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]


Question: TypeAlias = Range | Choice


class _NotingTrial(ABC):
    """``layersearch.spaces.contracts.Trial`` that keeps ``questions`` and ``answers`` by name, in order.

    Raises: ValueError if a name is asked for twice with different bounds or choices.
    """

    def __init__(self) -> None:
        self.questions: dict[str, Question] = {}
        self.answers: dict[str, Answer] = {}

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self._noted(name, Range(low, high, log, whole=True)))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(self._noted(name, Range(low, high, log)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._noted(name, Choice(tuple(choices)))

    def _noted(self, name: str, question: Question) -> Any:
        if self.questions.setdefault(name, question) != question:
            raise ValueError(f"one name is one question, got {self.questions[name]} and {question} for {name!r}")
        if name not in self.answers:
            self.answers[name] = self._answer(name, question)
        return self.answers[name]

    @abstractmethod
    def _answer(self, name: str, question: Question) -> Answer: ...


class UniformTrial(_NotingTrial):
    """Every answer is as likely as any other."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def _answer(self, name: str, question: Question) -> Answer:
        if isinstance(question, Choice):
            answer: Answer = self._rng.choice(question.values)
            return answer
        low, high = question.low, question.high
        if not question.log:
            return self._rng.randint(int(low), int(high)) if question.whole else self._rng.uniform(low, high)
        if question.whole:  # each whole number stands for what rounds to it
            low, high = low - 0.5, high + 0.5
        drawn = math.exp(self._rng.uniform(math.log(low), math.log(high)))
        drawn = min(max(drawn, question.low), question.high)
        return round(drawn) if question.whole else drawn


class GivenTrial(_NotingTrial):
    """Answers that were given before. Raises: AnswerError where there is none, or another kind is asked for."""

    def __init__(self, given: Mapping[str, Answer]) -> None:
        super().__init__()
        self._given = given

    def _answer(self, name: str, question: Question) -> Answer:
        answer = self._given.get(name)
        if isinstance(question, Choice):
            fits = answer in question.values
        else:
            number = isinstance(answer, int if question.whole else int | float) and not isinstance(answer, bool)
            fits = number and question.low <= answer <= question.high  # type: ignore[operator]
        if answer is None or not fits:
            raise AnswerError(f"the answer to {name} must be in {question}, got {answer!r}; it is of another space")
        return answer
