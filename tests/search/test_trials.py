"""Trials without a sampler."""

import random

import pytest

from layersearch.search.trials import AnswerError, Choice, GivenTrial, Range, UniformTrial


def test_uniform_answers_are_within_bounds_and_reach_them() -> None:
    whole, log, choice = set(), set(), set()
    for seed in range(300):
        trial = UniformTrial(random.Random(seed))
        whole.add(trial.suggest_int("whole", 3, 6))
        log.add(trial.suggest_int("log", 1, 4, log=True))
        choice.add(trial.suggest_categorical("choice", ("a", "b")))
        assert -1 <= trial.suggest_float("float", -1, 2) <= 2
        assert 1e-3 <= trial.suggest_float("rate", 1e-3, 1e3, log=True) <= 1e3
    assert (whole, log, choice) == ({3, 4, 5, 6}, {1, 2, 3, 4}, {"a", "b"})


def test_a_rate_is_as_often_below_its_geometric_middle_as_above() -> None:
    rates = [UniformTrial(random.Random(seed)).suggest_float("rate", 1e-3, 1e3, log=True) for seed in range(400)]
    assert 140 < sum(rate < 1 for rate in rates) < 260  # 200 ± 6 standard deviations


def test_a_name_keeps_its_answer_and_its_question() -> None:
    trial = UniformTrial(random.Random(0))
    assert len({trial.suggest_int("n", 0, 10**6) for _ in range(5)}) == 1
    assert trial.questions == {"n": Range(0, 10**6, whole=True)}
    with pytest.raises(ValueError, match="one question"):
        trial.suggest_int("n", 0, 5)


@pytest.mark.parametrize("answer", [None, 7, 2.5, True, "x"])
def test_given_answers_must_fit(answer: object) -> None:
    given = {} if answer is None else {"n": answer}
    with pytest.raises(AnswerError, match="the answer to n must be in"):
        GivenTrial(given).suggest_int("n", 0, 5)  # type: ignore[arg-type]


def test_given_answers_are_given_and_their_questions_noted() -> None:
    trial = GivenTrial({"n": 3, "rate": 0.5, "kind": "a"})
    assert trial.suggest_int("n", 0, 5) == 3
    assert trial.suggest_float("rate", 0, 1) == 0.5
    assert trial.suggest_categorical("kind", ("a", "b")) == "a"
    assert trial.questions["kind"] == Choice(("a", "b"))
    with pytest.raises(AnswerError):
        trial.suggest_categorical("other", ("a",))
