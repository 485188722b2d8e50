"""A run as a journal of Optuna: what optuna-dashboard and Optuna's plots open."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layersearch.errors import BadInputError
from layersearch.search.candidate import Candidate, State
from layersearch.search.executors.base import SpaceSpec
from layersearch.search.export.base import RUN_FORMATS, ExportError, RunFormat
from layersearch.search.store_reader import StoreReader
from layersearch.search.trials import Choice, GivenTrial
from layersearch.spaces.contracts import Space, TunableSpace

__all__ = ["write"]

_STATES: dict[State, str] = {
    "evaluated": "COMPLETE",
    "rejected": "PRUNED",
    "stopped": "PRUNED",
    "failed": "FAIL",
    "in_flight": "RUNNING",
    "paused": "RUNNING",
}
"""By state of the candidates that passed the screen; the others are no trials."""


def write(run_dir: Path, path: Path) -> str:
    """Writes one trial per counted candidate that passed the screen, of a run by any driver.

    Its parameters are those for which the space would suggest the genome, where there are such; user attributes are the
    candidate's number, formula, key, origin and why it was rejected; its values are the objectives.
    """
    optuna = _needed()
    with StoreReader(run_dir) as reader, reader.snapshot():
        facts = reader.meta("space")
        if facts is None:
            raise BadInputError(f"a run must have begun to be exported, and {run_dir.name} has not; resume it first")
        space = SpaceSpec(facts["entry"], facts["settings"]).build()
        end_slot = reader.meta("end_slot")
        trials = [
            _trial(optuna, space, candidate)
            for candidate in reader.candidates()
            if candidate.state in _STATES and (end_slot is None or (candidate.slot or 0) <= end_slot)
        ]
        settings = reader.meta("run", {})
    with _quiet(optuna):
        study = optuna.create_study(
            study_name=run_dir.name,
            storage=_storage(optuna, path),
            directions=["maximize" if o.maximize else "minimize" for o in space.objectives],
        )
        study.set_metric_names([o.name for o in space.objectives])
        study.set_user_attr("driver", settings.get("driver"))
        study.set_user_attr("search seed", settings.get("seed"))
        study.add_trials(trials)
        again = optuna.load_study(study_name=run_dir.name, storage=_storage(optuna, path)).get_trials(deepcopy=False)
    if [_facts(trial) for trial in again] != [_facts(trial) for trial in trials]:
        raise ExportError("the journal must hold the trials that were written, and does not; report this")
    return f"{len(trials)} trials of study {run_dir.name}, for optuna-dashboard"


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the names of objectives
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _needed() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError:
        raise BadInputError(
            "format optuna needs the package optuna, which is not installed; pip install optuna"
        ) from None


def _storage(optuna: Any, path: Path) -> Any:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


def _trial(optuna: Any, space: Space, candidate: Candidate) -> Any:
    genome = space.from_json(candidate.genome)
    answers = space.parameters(genome) if isinstance(space, TunableSpace) else None
    given = GivenTrial(answers or {})
    if isinstance(space, TunableSpace) and answers is not None:
        space.suggest(given)
    state = optuna.trial.TrialState[_STATES[candidate.state]]
    return optuna.trial.create_trial(
        state=state,
        values=[candidate.fitness[o.name] for o in space.objectives] if candidate.state == "evaluated" else None,
        params=dict(given.answers),
        distributions=dict(_distributions(optuna, given)),
        user_attrs={
            "candidate": candidate.number,
            "formula": space.formula(genome),
            "key": candidate.key,
            "origin": candidate.name or candidate.known_as or candidate.origin,
            **({"reason": f"{candidate.stage}: {candidate.reason}"} if candidate.reason else {}),
        },
    )


def _distributions(optuna: Any, trial: GivenTrial) -> Iterator[tuple[str, Any]]:
    kinds = optuna.distributions
    for name, question in trial.questions.items():
        if isinstance(question, Choice):
            yield name, kinds.CategoricalDistribution(question.values)
        elif question.whole:
            yield name, kinds.IntDistribution(int(question.low), int(question.high), log=question.log)
        else:
            yield name, kinds.FloatDistribution(question.low, question.high, log=question.log)


def _facts(trial: Any) -> tuple[Any, ...]:
    return trial.state, trial.values, trial.params, trial.distributions, trial.user_attrs


RUN_FORMATS.add("optuna", RunFormat("optuna", ".journal", write))
