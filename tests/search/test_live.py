"""The live view: what it says at each moment, that it reads from the store, and that it costs next to nothing."""

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toy_runs import run_toy
from toy_space import toy_spec

from layersearch.search import live
from layersearch.search.live import Progress, line, watching
from layersearch.search.live_view import picture
from layersearch.search.run_settings import RunSettings
from layersearch.search.runner import RunEvent


def settings(**given: Any) -> RunSettings:
    return RunSettings(**({"evaluations": 25, "population": 8, "seed": 3, "deterministic": True} | given))


def drawn(moment: live.Moment, width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, quiet=True, force_terminal=False)
    with console.capture() as capture:
        console.quiet = False
        console.print(picture(moment, width))
    return capture.get()


def test_every_moment_of_a_run_can_be_drawn(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "a", toy_spec(), settings())
    seen: dict[str, str] = {"start": drawn(progress.moment())}
    lines: dict[str, str] = {}

    def on_event(event: RunEvent) -> None:
        progress.on_event(event)
        moment = progress.moment()
        seen[event.phase] = drawn(moment)
        lines[event.phase] = line(moment)

    run_toy(tmp_path / "a", on_event=on_event)
    progress.close()
    assert set(seen) == {"start", "search", "baselines", "rerank", "test"}
    for part in ("best so far", "y = ", "Pareto front", "25 of 25 evaluated", "screen", "dedup", "quality", "o1 ↓"):
        assert part in seen["search"], part
    assert "25 of 25 evaluated" in lines["search"]
    assert "best" in lines["search"]
    assert "2 of 2 candidates" in lines["baselines"]
    assert "known layers" in seen["baselines"]
    assert max(map(len, seen["search"].splitlines())) == 100, "nothing is wider than the terminal"


def test_the_line_counts_who_waits_and_who_was_stopped(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "a", toy_spec(ratio=3), settings())
    lines: list[str] = []

    def on_event(event: RunEvent) -> None:
        progress.on_event(event)
        if event.phase == "search" and event.kind == "result":
            lines.append(line(progress.moment()))

    run_toy(tmp_path / "a", {"ratio": 3}, on_event, scheduler="asha", evaluations=3)
    progress.close()
    assert ", 0 failed, 1 paused" in " ".join(lines)
    assert " paused" not in lines[0]
    duplicates = {int(n): word for text in lines for n, word in re.findall(r"(\d+) (duplicates?)\b", text)}
    assert {0, 1} <= set(duplicates)
    assert all((word == "duplicate") == (n == 1) for n, word in duplicates.items())
    moment = progress.moment()
    stopped = replace(moment, phase="search", counts=moment.counts | {"stopped": 4})
    assert ", 4 stopped" in line(stopped)
    assert "1 of 1 candidate, " in line(replace(moment, phase="test", done=1, total=1, eta_s=2.0))


def test_the_first_ctrl_c_is_answered(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "a", toy_spec(), settings())
    run_toy(tmp_path / "a", on_event=progress.on_event)
    progress.stopping = True
    assert "Ctrl-C again" in drawn(progress.moment())
    assert "Ctrl-C again" in line(progress.moment())
    progress.close()


def test_time_left_follows_the_end_that_was_asked_for(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "a", toy_spec(), settings(evaluations=None, minutes=2.0))
    assert progress.moment().eta_s is None
    events: list[RunEvent] = []

    def both(event: RunEvent) -> None:
        progress.on_event(event)
        events.append(event)

    run_toy(tmp_path / "a", on_event=both)
    progress.on_event(next(event for event in events if event.phase == "search"))
    left = progress.moment().eta_s
    assert left is not None
    assert 100 < left <= 120
    progress.close()


def test_the_end_of_the_search_is_not_guessed_from_its_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They pass the funnel, and most others do not."""
    now = 100.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    progress = Progress(tmp_path / "a", toy_spec(), settings())
    guesses: dict[int, float | None] = {}

    def on_event(event: RunEvent) -> None:
        nonlocal now
        now += 1 if event.kind == "result" else 0
        progress.on_event(event)
        guesses.setdefault(event.counts["evaluated"], progress.moment().eta_s)

    run_toy(tmp_path / "a", on_event=on_event)
    progress.close()
    assert guesses[0] is guesses[1] is None, "of the two seeds one is rejected"
    assert guesses[2] is not None
    assert guesses[2] >= 23 * 3, "three stages each"
    assert guesses[25] == 0


def test_what_was_done_before_a_resume_took_no_time(tmp_path: Path) -> None:
    stopped = False

    def stop(event: RunEvent) -> None:
        nonlocal stopped
        if event.phase == "rerank" and event.done == 2 and not stopped:
            stopped = True
            os.kill(os.getpid(), signal.SIGINT)

    assert run_toy(tmp_path / "a", on_event=stop, rerank_top=3) == "interrupted"
    progress = Progress(tmp_path / "a", toy_spec(), settings())
    guesses: list[tuple[int, float | None]] = []

    def on_event(event: RunEvent) -> None:
        progress.on_event(event)
        if event.phase == "rerank" and event.kind == "result":
            guesses.append((event.done, progress.moment().eta_s))

    assert run_toy(tmp_path / "a", on_event=on_event, rerank_top=3) == "finished"
    progress.close()
    assert guesses[0] == (2, None)
    assert [done for done, guess in guesses if guess is not None] == [3, 3, 4, 4, 5]


def test_a_store_that_cannot_be_read_yet_is_no_error(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "none", toy_spec(), settings())
    assert progress.moment().found.best is None


def test_lines_are_written_elsewhere_than_in_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PERIOD_S", 0.01)
    progress = Progress(tmp_path / "a", toy_spec(), settings())
    with watching(progress, quiet=False):
        run_toy(tmp_path / "a", {"sleep_s": 0.005}, on_event=progress.on_event)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert any("a: search" in text for text in lines)
    assert any("a: baselines" in text for text in lines)
    assert len(lines) < 10, "a line per phase, and one every ten seconds"


def test_events_cost_the_runner_microseconds(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "a", toy_spec(), settings())
    events: list[RunEvent] = []
    run_toy(tmp_path / "a", on_event=events.append)
    began = time.process_time()
    for _ in range(1000):
        progress.on_event(events[-1])
    assert (time.process_time() - began) / 1000 < 1e-3  # 5 µs on an idle machine
