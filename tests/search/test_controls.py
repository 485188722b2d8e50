"""Controls are made for the winner of the re-rank, and measured wherever it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from controlled_toy import controlled_spec

from layersearch.search.run_settings import RunSettings
from layersearch.search.runner import RunEvent, Runner
from layersearch.search.store_reader import StoreReader


def run(run_dir: Path, on_event: Callable[[RunEvent], None] | None = None, **changes: Any) -> str:
    run_dir.mkdir(exist_ok=True)
    given = {"evaluations": 10, "population": 8, "rerank_top": 3, "seed": 1, "deterministic": True} | changes
    return Runner(run_dir, controlled_spec(), RunSettings(**given), on_event).run()


def facts(run_dir: Path) -> tuple[int, dict[str, tuple[int, set[str], dict[str, float]]]]:
    with StoreReader(run_dir) as reader:
        found = {
            str(b.name): (b.genome["n"], {r.stage for r in reader.results(b.number)}, dict(b.fitness))
            for b in reader.baselines()
        }
        winner = reader.candidate(reader.meta("winner"))
        assert winner.number == reader.winner()
        return winner.number, found


def test_controls_go_where_the_winner_went(tmp_path: Path) -> None:
    events: list[RunEvent] = []
    assert run(tmp_path / "a", events.append) == "finished"
    assert [e.phase for e in events if e.kind == "phase"] == ["baselines", "rerank", "test"]
    winner, found = facts(tmp_path / "a")
    assert set(found) == {"eight", "nine", f"less of #{winner}", f"more of #{winner}"}
    stages = found["eight"][1]
    with StoreReader(tmp_path / "a") as reader:
        genome = reader.candidate(winner).genome["n"]
        measured = {r.stage for r in reader.results(winner)}
    for name, by in (("less", -1), ("more", 1)):
        n, mine, fitness = found[f"{name} of #{winner}"]
        assert n == genome + by
        assert mine == stages == measured
        assert fitness
    assert not list((tmp_path / "a" / "checkpoints").iterdir())


def test_an_interrupted_run_asks_for_them_once_and_a_longer_one_for_a_new_winner(tmp_path: Path) -> None:
    def stop(event: RunEvent) -> None:
        """Interrupts at the first result of a control: two tracks are open then."""
        if event.phase == "rerank" and event.kind == "result" and event.total == 2:
            raise KeyboardInterrupt

    assert run(tmp_path / "a", stop) == "interrupted"
    with StoreReader(tmp_path / "a") as reader:
        assert len(reader.baselines()) == 4
    assert run(tmp_path / "a") == "finished"
    assert run(tmp_path / "b") == "finished"
    assert facts(tmp_path / "a") == facts(tmp_path / "b")
    assert run(tmp_path / "a", evaluations=30) == "finished"
    winner, found = facts(tmp_path / "a")
    assert {f"less of #{winner}", f"more of #{winner}"} <= set(found)
    assert len(found) == (4 if winner == facts(tmp_path / "b")[0] else 6)


@pytest.mark.parametrize("chosen", [["more"], ["eight", "less"], []], ids=str)
def test_controls_are_chosen_as_baselines_are(tmp_path: Path, chosen: list[str]) -> None:
    assert run(tmp_path / "a", baselines=chosen) == "finished"
    winner, found = facts(tmp_path / "a")
    assert set(found) == {f"{name} of #{winner}" if name in ("less", "more") else name for name in chosen}
