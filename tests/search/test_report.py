"""The page of ``search report``: whole, self-contained, true to the store, and safe to open whatever names it holds."""

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy_catalog import toy_cli
from toy_command import refused
from toy_runs import run_toy

from layersearch.search import grids
from layersearch.search.report import REPORT_FILE, page
from layersearch.search.report_charts import Chart, Level, Mark, chart, ticks
from layersearch.search.show import show_object


class Page(HTMLParser):
    """Reads a page, checks that every element is closed in turn, and keeps attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_says_what_show_says(finished_run: Path) -> None:
    found, read = show_object(finished_run, 5), Page(page(finished_run, 5))
    text = set(read.text)
    cells = {cell for grid in grids.numbers(found) for row in grid.rows for cell in row.cells if cell}
    cells |= {cell for row in grids.of_funnel(found).rows for cell in row.cells if cell}
    assert cells <= text
    assert {entry["formula"] for entry in found["best"]} <= text
    assert f"#{found['winner']} is the winner" in text
    assert sum(t.startswith(f"#{found['best'][0]['candidate']} (") for t in read.text) == 2, "once in each chart"
    assert read.tags.count("svg") == len(found["objectives"])
    assert read.tags.count("circle") == 2 * found["counts"]["evaluated"] + len(found["baselines"])


def test_it_needs_nothing_but_itself(finished_run: Path) -> None:
    text = page(finished_run, 5)
    read = Page(text)
    assert not {name for name, _ in read.attributes} & {"src", "href", "onload", "onclick"}
    assert "script" not in read.tags
    assert not re.search(r"url\(|@import|https?:", text)


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    name = "a<b>&'x"
    run_toy(tmp_path / name, rerank_top=1)
    read = Page(page(tmp_path / name, 3))
    assert name in read.text
    assert "b" not in read.tags


def test_a_run_that_has_evaluated_nothing(tmp_path: Path) -> None:
    tricks = {str(n): "reject" for n in range(2000)}
    run_toy(tmp_path / "a", {"tricks": tricks}, evaluations=None, minutes=0.002)
    read = Page(page(tmp_path / "a", 3))
    assert "Nothing evaluated yet" in read.text
    assert "svg" not in read.tags


def test_a_run_that_goes_on_is_told_at_one_moment(tmp_path: Path) -> None:
    pages: list[str] = []

    def look(event: object) -> None:
        if (tmp_path / "a" / "run.sqlite").exists():
            pages.append(page(tmp_path / "a", 3))

    run_toy(tmp_path / "a", None, look, evaluations=6)
    texts = [Page(text).text for text in pages[:: max(1, len(pages) // 10)]]
    assert any("running" in part for part in texts[0])
    for text in texts:
        best = next((part for part in text if part.endswith(("is the best so far", "is the winner"))), None)
        back = next((part for part in text if "steps back from" in part), None)
        if best is not None and back is not None:
            assert back.split(" from ")[1].startswith(best.split()[0] + " ")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"command": 3, "packages": {}}'])
def test_a_broken_environment_is_left_out(tmp_path: Path, text: str) -> None:
    run_toy(tmp_path / "a", evaluations=3)
    (tmp_path / "a" / "environment.json").write_text(text)
    assert not any(part.startswith("begun") for part in Page(page(tmp_path / "a", 3)).text)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert toy_cli("evolve", "--space", "toy", "--backend", "inline", "--evaluations", "6", "--run", "a") == 0
    assert "none named 'b'" in refused(capsys, "report", "b")
    own = Path("runs/a") / REPORT_FILE
    own.write_text("an earlier report")
    assert toy_cli("report", "a") == 0
    assert own.read_text(encoding="utf-8") == page(own.parent, 10)
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert "never overwrites" in refused(capsys, "report", "a", "-o", "mine.html")
    assert mine.read_text() == "mine"
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    assert toy_cli("report", "a", "-o", "mine.html", "--force", "--open", "--top", "2") == 0
    assert mine.read_text(encoding="utf-8") == page(own.parent, 2)
    assert opened == [mine.as_uri()]


MARKS = (Mark(0.0, 1.0, "seed", "first"), Mark(10.0, 3.0, "evolved", "last"))


def places(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]* cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_marks_are_where_their_values_are() -> None:
    middle = Mark(5.0, 2.0, "random", "middle")
    (x0, y0), (x1, y1), (x2, y2) = places(chart(Chart("x", "y", (MARKS[0], middle, MARKS[1]))))
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_few_bad_values_do_not_squeeze_the_others(higher_is_better: bool) -> None:
    sign = 1 if higher_is_better else -1
    marks = [Mark(i, sign * (1 + 0.01 * i), "random", "") for i in range(1, 100)]
    steps = ((0.0, sign * -1e6), (1.0, sign * 1.01), (99.0, sign * 1.99))
    what = Chart("x", "y", (*marks, Mark(0, sign * -1e6, "random", "")), (Level(sign * -1e9, "lost"),), steps)
    heights = [y for _, y in places(chart(replace(what, higher_is_better=higher_is_better)))]
    assert max(heights[:99]) - min(heights[:99]) > 200
    assert all(0 <= y <= 340 for y in heights)


def test_errors_of_several_powers_of_ten_are_on_a_logarithmic_axis() -> None:
    marks = [Mark(i, 10.0**-i, "random", "") for i in range(4)]
    svg = chart(Chart("x", "y", tuple(marks), higher_is_better=False))
    heights = [y for _, y in places(svg)]
    steps = [b - a for a, b in itertools.pairwise(heights)]
    assert min(steps) > 50
    assert max(steps) - min(steps) < 0.2
    assert re.findall(r'text-anchor="end">([^<]*)<', svg) == ["0.001", "0.01", "0.1", "1"]


@pytest.mark.parametrize(("n", "least"), [(12, 12.9), (40, 6.9)])
def test_names_of_levels_are_apart_and_stay_inside(n: int, least: float) -> None:
    levels = tuple(Level(1.0 + 1e-3 * i, f"level {i}") for i in range(n))
    svg = chart(Chart("x", "y", MARKS, levels))
    at = [float(y) for y in re.findall(r'y="(-?[\d.]+)">level', svg)]
    assert len(at) == n
    assert min(b - a for a, b in itertools.pairwise(at)) >= least
    assert 0 < min(at) <= max(at) < 340


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3e-7, 2e-6), (0.0, 12345.0), (0.2417, 0.4189), (5.0, 5.5)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 7
    assert low <= found[0]
    assert found[-1] <= high
    steps = {float(f"{b - a:.6g}") for a, b in itertools.pairwise(found)}
    assert len(steps) == 1
    assert f"{steps.pop():.0e}"[0] in "125"


def test_ticks_that_are_near_each_other_are_told_apart() -> None:
    svg = chart(Chart("x", "y", tuple(Mark(i, 0.5 + 1e-9 * i, "seed", "") for i in range(5))))
    texts = re.findall(r'text-anchor="end">([^<]*)<', svg)
    assert len(set(texts)) == len(texts) > 2


def test_one_mark_is_a_chart() -> None:
    assert len(places(chart(Chart("x", "y", MARKS[:1], (Level(1.0, "same"),), ((0.0, 1.0),), from_zero=True)))) == 1
