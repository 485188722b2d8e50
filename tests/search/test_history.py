"""How a run went: recomputed from what its store holds, result by result."""

import itertools
from pathlib import Path

import pytest

from layersearch.search.history import Judged, evaluated, judged_by, lineage, stage_times
from layersearch.search.rerank import mean_value
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import Objective


def test_evaluated_candidates_come_in_order_with_all_core_time_until_then(finished_run: Path) -> None:
    with StoreReader(finished_run) as reader:
        rows = evaluated(reader)
        numbers = [row.candidate.number for row in rows]
        stages = {stage.id for stage in reader.stages()}
        results = sorted(
            (result for c in reader.candidates() for result in reader.results(c.number) if result.stage in stages),
            key=lambda result: result.seq,
        )
        assert sorted(numbers) == sorted(reader.evaluated())
        for row in rows:
            last = max(result.seq for result in results if result.candidate == row.candidate.number)
            until = sum(result.outcome.cpu_s for result in results if result.seq <= last)
            assert row.core_s == pytest.approx(until)
            assert row.value == mean_value(row.candidate.fitness, reader.objectives())
        assert [row.core_s for row in rows] == sorted(row.core_s for row in rows)
        assert rows[-1].core_s <= reader.search_core_s()


def test_stages_have_their_runs_and_time(finished_run: Path) -> None:
    with StoreReader(finished_run) as reader:
        times = {time.stage: time for time in stage_times(reader)}
        everyone = [*reader.candidates(), *reader.baselines()]
        results = [result for c in everyone for result in reader.results(c.number)]
    assert {"quality", "re-rank", "test"} < set(times)
    assert sum(time.n_runs for time in times.values()) == len(results)
    assert sum(time.core_s for time in times.values()) == pytest.approx(sum(r.outcome.cpu_s for r in results))
    quality = [r.outcome.state for r in results if r.stage.startswith("quality")]
    assert (times["quality"].n_runs, times["quality"].n_passed) == (len(quality), quality.count("passed"))
    assert 0 < times["quality"].n_passed < times["quality"].n_runs


def test_a_line_goes_back_by_first_parents(finished_run: Path) -> None:
    with StoreReader(finished_run) as reader:
        youngest = max(n for n in reader.evaluated() if reader.candidate(n).parents)
        line = lineage(reader, youngest)
    assert line[0].number == youngest
    assert all(child.parents[0] == parent.number for child, parent in itertools.pairwise(line))
    assert line[-1].parents == ()
    assert line[-1].origin in ("seed", "random")


def test_what_judges_is_the_one_objective_with_a_weight_or_the_mean() -> None:
    error, size = Objective("error", maximize=False), Objective("size", maximize=False, weight=0.0)
    accuracy = Objective("accuracy")
    one = judged_by([error, size])
    assert (one.name, one.maximize) == ("error", False)
    assert one.value({"error": 2.0, "size": 9.0}) == 2.0
    assert one.value({"size": 9.0}) is None
    both: Judged = judged_by([error, accuracy, size])
    assert both.maximize
    assert both.value({"error": 2.0, "accuracy": 1.0, "size": 9.0}) == -0.5
