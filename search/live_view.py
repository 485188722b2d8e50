"""The live view of a run in a terminal: funnel, speed, best layer with its formula, Pareto front, time left."""

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from layersearch.search.live import Moment, clock, funnel_rows
from layersearch.search.tables import candidate_cells, objective_headers, plain_table

__all__ = ["LiveView", "picture"]

_PHASES = {
    "start": "getting ready: loading data and starting workers",
    "search": "1/4 search",
    "baselines": "2/4 baselines: known layers, trained by the same code",
    "rerank": "3/4 re-rank: best and baselines, on unseen data",
    "test": "4/4 test: winner and baselines, once",
}


class LiveView:
    """Draws on stderr, and leaves nothing behind: what remains is printed after the run."""

    def __init__(self) -> None:
        self._live = Live(console=Console(stderr=True, highlight=False), auto_refresh=False, transient=True)
        self._live.start()

    def draw(self, moment: Moment) -> None:
        # Two columns stay free for the ^C that a terminal echoes; a wrapped one would shift the next drawing.
        self._live.update(picture(moment, self._live.console.width - 2), refresh=True)

    def close(self) -> None:
        self._live.stop()


def picture(moment: Moment, width: int) -> RenderableType:
    """What is drawn, ``width`` columns wide."""
    parts: list[RenderableType] = [_headline(moment)]
    if moment.counts:
        parts += [Text(), _funnel(moment)]
    if moment.found.best is not None:
        parts += [Text(), Text("best so far", style="bold"), _best(moment), Text(), _front(moment)]
    if moment.last:
        parts += [Text(), Text(f"last: {moment.last}", style="dim", no_wrap=True, overflow="ellipsis")]
    hint = "Ctrl-C: finish what is running, save, and stop; the run can be resumed"
    if moment.stopping:
        hint = "finishing what is running; Ctrl-C again stops at once, and loses only what is running"
    return Panel(
        Group(*parts),
        title=Text(moment.run, style="bold"),
        subtitle=Text(hint, style="yellow" if moment.stopping else "dim"),
        width=width,
        title_align="left",
        subtitle_align="left",
    )


def _headline(moment: Moment) -> Text:
    text = Text(_PHASES.get(moment.phase, moment.phase), style="bold")
    facts = []
    if moment.phase == "search":
        facts.append(f"{clock(moment.elapsed_s)} so far")
        if moment.evaluations is not None:
            facts.append(f"{moment.counts.get('evaluated', 0)} of {moment.evaluations} evaluated")
        facts.append(f"{moment.asked_per_s:.1f} candidates/s")
    elif moment.total:
        facts.append(f"{moment.done} of {moment.total} candidates")
    if moment.phase != "start":
        facts.append(f"ends in {clock(moment.eta_s)}" if moment.eta_s is not None else "end not known")
    for fact in facts:
        text.append(f"  ·  {fact}", style="not bold")
    return text


def _funnel(moment: Moment) -> Table:
    counts = moment.counts
    table = plain_table("funnel", ">removed", ">left")
    table.add_row("asked", "", f"{counts['asked']:,}")
    for name, removed, left in funnel_rows(counts, moment.found.stages):
        table.add_row(name, f"{removed:,}", f"{left:,}")
    table.add_row("in flight", "", f"{counts['in_flight']:,}", style="dim")
    if counts["paused"]:
        table.add_row("paused", "", f"{counts['paused']:,}", style="dim")
    table.add_row("evaluated", "", f"{counts['evaluated']:,}", style="bold")
    return table


def _best(moment: Moment) -> Text:
    best = moment.found.best
    assert best is not None, "asked for only with one"
    known = f"  ({best.known_as})" if best.known_as else ""
    return Text(f"#{best.number}{known}  {moment.found.formula}", overflow="fold")


def _front(moment: Moment) -> Table:
    found = moment.found
    table = plain_table("Pareto front", "origin", *objective_headers(found.objectives), ">mean")
    for candidate in found.front:
        table.add_row(*candidate_cells(candidate, found.objectives))
    return table
