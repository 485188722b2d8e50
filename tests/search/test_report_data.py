"""The object that ``search show`` prints."""

import json
from pathlib import Path

from toy_runs import run_toy
from toy_space import ToySpace

from layersearch.search.report_data import show
from layersearch.search.store_reader import StoreReader


def test_the_object_of_show(tmp_path: Path) -> None:
    run_toy(tmp_path / "toy-0001", rerank_top=2)
    with StoreReader(tmp_path / "toy-0001") as reader:
        shown = show(reader, ToySpace(), k=4)
    json.dumps(shown, allow_nan=False)
    assert {"run", "space", "state", "seed", "counts", "best", "baselines"} <= set(shown)
    assert (shown["run"], shown["space"], shown["state"], shown["seed"]) == ("toy-0001", "toy", "finished", 3)
    assert shown["counts"]["evaluated"] == 25
    assert len(shown["best"]) == 4
    best = shown["best"][0]
    assert best["candidate"] == shown["winner"]
    assert best["formula"] == f"y = {best['genome']['n']}"
    assert set(best["fitness"]) == {"o0", "o1"}
    assert set(best["metrics"]) == {"accuracy", "loss.o0", "loss.o1"}
    assert best["origin"] in ("seed", "random", "evolved")
    assert best["rerank"]["o0"]["n"] == best["test"]["o0"]["n"] == 2
    assert [entry["rerank"] != {} for entry in shown["best"]] == [True, True, False, False]
    assert [entry["name"] for entry in shown["baselines"]] == ["eight", "nine"]
    assert all(entry["test"] for entry in shown["baselines"])


def test_a_run_can_be_shown_before_anything_was_measured(tmp_path: Path) -> None:
    tricks = {str(n): "reject" for n in range(2000)}
    seen = []

    def look(event: object) -> None:
        with StoreReader(tmp_path / "a") as reader:
            seen.append(show(reader, ToySpace()))

    run_toy(tmp_path / "a", {"tricks": tricks}, look, evaluations=None, minutes=0.002)
    assert seen[0]["best"] == []
    assert seen[0]["state"] == "running"
    assert seen[-1]["winner"] is None
    assert seen[-1]["counts"]["rejected"]["quality"] > 0
