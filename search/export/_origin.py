"""What is to be exported, and where it comes from: a candidate of a run, a known layer, or a genome file."""

import datetime
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import layersearch
from layersearch.errors import BadInputError, RecipeError, StoreError
from layersearch.primitives.graph import Graph
from layersearch.primitives.graph_json import MAX_BYTES, graph_from_json, plain_from_text
from layersearch.primitives.numerics import EXACT
from layersearch.search.candidate import Candidate
from layersearch.search.recipe_yaml import load_file
from layersearch.search.rerank import spread
from layersearch.search.run_settings import ENDS
from layersearch.search.runs import RECIPE_FILE, find_run
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.catalog import SPACES, layers_of
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.evonorm.published import PUBLISHED

__all__ = ["Source", "class_name_of", "from_genome", "from_run", "unguarded"]

_KNOWN_CLASSES = {
    "bn-relu": "BNReLU",
    "gn-relu": "GNReLU",
    "bn-silu": "BNSiLU",
    "frn-tlu": "FRNTLU",
    **{name: f"EvoNorm{name[-2:].upper()}" for name in PUBLISHED if name.startswith("evonorm-")},
}
_TAKEN = frozenset(
    {
        "Any",
        "Blocks",
        "Callable",
        "Config",
        "False",
        "Layer",
        "NamedTuple",
        "None",
        "Sequence",
        "Sizes",
        "Tensor",
        "True",
    }
)
"""Names that Python or exported files use themselves."""
_KINDS = (("search", "stages"), ("re-rank", "rerank_stages"), ("test", "test_stages"))
_REMEDY = "take the genome of an entry of search show NAME --json"
_PLACES = ("data_dir", "runs_dir", "recipe", "json")  # say nothing of what was searched, and differ between machines


@dataclass(frozen=True)
class Source:
    """A genome as it was found, a speaking class name for a layer, and the facts for the docstring.

    ``settings`` are those of the space of the run it comes from, ``seed`` is that of the search, and ``selection`` what
    its trial selected.
    """

    space: str
    genome: JsonObject
    class_name: str
    facts: tuple[tuple[str, str], ...]
    settings: JsonObject | None = None
    seed: int = 0
    selection: JsonObject | None = None

    @property
    def graph(self) -> Graph:
        """Raises: GenomeError if the genome is none of a space of graphs."""
        return graph_from_json(self.genome)


def unguarded(graph: Graph) -> Graph:
    """The same nodes without guards on divisions and logarithms; eps and groups stay."""
    return Graph(graph.nodes, replace(graph.numerics, div_eps=EXACT.div_eps, log_eps=EXACT.log_eps))


def class_name_of(name: str) -> str:
    """Class name for a known layer or a file name: ``EvoNormB0`` for evonorm-b0, ``MyNorm`` for my_norm."""
    if name in _KNOWN_CLASSES:
        return _KNOWN_CLASSES[name]
    words = re.findall(r"[A-Za-z0-9]+", name)
    camel = "".join(word[0].upper() + word[1:] for word in words)[:60]
    return camel if camel[:1].isalpha() and camel not in _TAKEN else "NormAct"


def from_genome(space: str, genome: str) -> Source:
    """``known:NAME`` of the space (exact numerics), or the path of a genome file (its own numerics).

    Raises: UnknownNameError, GenomeError, or BadInputError for a file that cannot be read; one sentence each.
    """
    layers = layers_of(space)
    version = f"exported on {_today()} by layersearch {layersearch.__version__}"
    if genome.startswith("known:"):
        name = genome.removeprefix("known:")
        what = "design" if SPACES[space].network else "layer"
        return Source(
            space, layers.known(name), class_name_of(name), (("Origin", f"published {what} {name}, {version}"),)
        )
    path = Path(genome)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInputError(f"a genome file must be JSON in UTF-8, and {path} is not; {_REMEDY}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInputError(
            f"the genome must be known:NAME or a readable file, got {genome} ({reason}); check --genome"
        ) from None
    if len(content) > MAX_BYTES:
        raise BadInputError(f"a genome file must have at most {MAX_BYTES} bytes, and {path} has more; {_REMEDY}")
    found = plain_from_text(text, source=path.name)
    return Source(space, found, class_name_of(path.stem), (("Origin", f"genome file {path.name}, {version}"),))


def from_run(run: str, candidate: str, runs_dir: Path) -> Source:
    """A candidate of a run, by number or ``best`` (the winner of the re-rank, else the best of the search).

    Raises: BadInputError or StoreError if there is no such run or candidate, or nothing was evaluated yet.
    """
    with StoreReader(find_run(Path(runs_dir), run)) as reader, reader.snapshot():
        chosen = reader.candidate(_number(reader, candidate))
        space: Mapping[str, Any] = reader.meta("space", {})
        name = class_name_of(chosen.known_as) if chosen.known_as else _searched_name(chosen)
        settings: Mapping[str, Any] = reader.meta("run", {})
        parents = f", parents {', '.join(map(str, chosen.parents))}" if chosen.parents else ""
        origin = (
            f"run {run}, candidate {chosen.number} ({chosen.origin}{parents}), search seed {settings.get('seed')}, "
            f"searched with layersearch {reader.meta('version', 'unknown')}, exported on {_today()}"
        )
        facts = [("Origin", origin)]
        if chosen.known_as:
            facts.append(("Known as", chosen.known_as))
        facts += [("Numbers", _numbers(reader, chosen)), ("Searched by", _search_command(reader, settings))]
        selection = reader.selection(chosen.number)
    return Source(
        str(space.get("name")), chosen.genome, name, tuple(facts), space.get("settings"), int(settings.get("seed", 0)),
        selection,
    )  # fmt: skip


def _number(reader: StoreReader, candidate: str) -> int:
    if candidate != "best":
        if not re.fullmatch(r"[0-9]{1,12}", candidate):
            raise BadInputError(f"--candidate must be 'best' or a number, got '{candidate}'; see search show")
        return int(candidate)
    winner = reader.winner()
    if winner is None:
        raise StoreError("the run must have an evaluated candidate, and has none; let it run on or name one")
    return winner


def _searched_name(candidate: Candidate) -> str:
    return {"evolved": "EvolvedNormAct", "random": "RandomNormAct", "suggested": "SuggestedNormAct"}.get(
        candidate.origin, "NormAct"
    )


def _numbers(reader: StoreReader, chosen: Candidate) -> str:
    """Fitness per objective of the layer and of the baselines, wherever it was measured."""
    rows = [("this layer", chosen), *((c.name or "baseline", c) for c in reader.baselines())]
    width = max(len(name) for name, _ in rows) + 2
    lines = []
    for kind, stages in _KINDS:
        ids = [stage.id for stage in reader.stages(stages) if stage.rung is None]
        measured = [(name, spread(reader.results(c.number), ids)) for name, c in rows]
        there = {column for _, values in measured for column in values}
        columns = [o.name for o in reader.objectives() if o.name in there]
        if not columns:
            continue
        lines.append(kind.ljust(width) + "  ".join(columns))
        for name, values in measured:
            cells = [_cell(values.get(column)).rjust(len(column)) for column in columns]
            lines.append(name.ljust(width) + "  ".join(cells))
    return "\n".join(lines) if lines else "none measured"


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    several = f"±{value['std']:.4f}" if value["n"] > 1 else ""
    return f"{value['mean']:.4f}{several}"


def _search_command(reader: StoreReader, settings: Mapping[str, Any]) -> str:
    """The command of the run's recipe; without one, what the store knows of it."""
    space = reader.meta("space", {}).get("name", "unknown")
    path = reader.run_dir / RECIPE_FILE
    try:
        given = load_file(path) if path.is_file() else {k: settings[k] for k in ("driver", "seed") if k in settings}
    except RecipeError:
        return f"search evolve --space {space} (the recipe of the run cannot be read)"
    given |= {end: settings[end] for end in ENDS if end in settings}  # a resume may have moved it
    tuned = given.get("driver") == "optuna"
    words = ["search", "tune" if tuned else "evolve", "--space", str(space)]
    for key, value in given.items():
        if key in ("space", *_PLACES) or value is None or (tuned and key == "driver"):
            continue
        option = f"--{str(key).replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        elif isinstance(value, dict):
            words += [
                word for k, v in value.items() for word in (option, f"{k}={v if isinstance(v, str) else json.dumps(v)}")
            ]
        elif isinstance(value, list):
            words += [option, ",".join(map(str, value)) or "none"]
        else:
            words += [option, str(value)]
    return shlex.join(words)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
