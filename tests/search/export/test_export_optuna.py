"""A run as a journal that Optuna and its dashboard open."""

from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from toy_runs import run_toy
from toy_space import ToySpace

from layersearch.errors import BadInputError, UnknownNameError
from layersearch.search.candidate import State
from layersearch.search.export import FORMATS, RUN_FORMATS
from layersearch.search.export.command import run
from layersearch.search.export.optuna import _STATES
from layersearch.search.store_reader import StoreReader


def loaded(path: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


@pytest.mark.parametrize(
    "settings", [{"driver": "optuna", "driver_settings": {"sampler": "tpe"}}, {"driver": "evolution"}], ids=str
)
def test_a_journal_holds_what_the_store_holds(tmp_path: Path, settings: dict[str, Any]) -> None:
    run_toy(tmp_path / "toy-0001", {"tricks": {"10": "fail"}}, **settings)
    out = tmp_path / "study.journal"
    about = run(out=out, format="optuna", run="toy-0001", runs_dir=tmp_path)
    study = loaded(out, "toy-0001")
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    assert study.metric_names == ["o0", "o1"]
    assert study.user_attrs == {"driver": settings["driver"], "search seed": 3}
    by_number = {trial.user_attrs["candidate"]: trial for trial in study.trials}
    with StoreReader(tmp_path / "toy-0001") as reader:
        counts, candidates = reader.counts(), {c.number: c for c in reader.candidates()}
    assert len(by_number) == counts["evaluated"] + counts["failed"] + sum(counts.to_json()["rejected"].values())
    assert about["what"].startswith(f"{len(by_number)} trials of study toy-0001")
    states = set()
    for number, trial in by_number.items():
        candidate, genome = candidates[number], candidates[number].genome["n"]
        states.add(trial.state)
        assert trial.params == ToySpace().parameters(genome)
        assert set(trial.distributions) == set(trial.params)
        assert trial.user_attrs["formula"] == f"y = {genome}"
        assert trial.user_attrs["key"] == candidate.key
        if candidate.state == "evaluated":
            assert trial.values == [candidate.fitness["o0"], candidate.fitness["o1"]]
        else:
            assert trial.user_attrs["reason"] == f"quality: {candidate.reason}"
    assert states == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["study.journal"]
    assert study.best_trials


def test_every_candidate_past_the_screen_is_a_trial() -> None:
    assert set(_STATES) == set(get_args(State)) - {"screened_out", "duplicate"}


def test_it_takes_a_run_alone_and_overwrites_nothing(tmp_path: Path) -> None:
    run_toy(tmp_path / "toy-0001", evaluations=3)
    out = tmp_path / "study.journal"
    for given in ({}, {"space": "evonorm", "genome": "known:bn-relu"}):
        with pytest.raises(BadInputError, match="give the name of a run alone"):
            run(out=out, format="optuna", **given)  # type: ignore[arg-type]
    out.write_text("keep")
    with pytest.raises(BadInputError, match="never overwrites"):
        run(out=out, format="optuna", run="toy-0001", runs_dir=tmp_path)
    assert out.read_text() == "keep"
    run(out=out, format="optuna", run="toy-0001", runs_dir=tmp_path, force=True)
    assert len(loaded(out, "toy-0001").trials) >= 3


def test_one_list_of_names() -> None:
    assert not set(FORMATS) & set(RUN_FORMATS)
    with pytest.raises(UnknownNameError, match=r"did you mean 'optuna'\? \(known: features, onnx, optuna, "):
        run(out=Path("x"), format="optuma")
