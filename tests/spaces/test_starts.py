"""Which starts of weights a search draws: a setting of new runs, while recorded runs go on with those that they had."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from toy_runs import content_of

from layersearch.primitives.layers.init import INITS
from layersearch.search.cli import main
from layersearch.search.executors.base import SpaceSpec
from layersearch.search.runner import Runner, RunSettings
from layersearch.search.store_reader import StoreReader
from layersearch.search.trials import Choice, UniformTrial
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import JsonObject, TunableSpace
from layersearch.spaces.kan.choices import MLP

GOLDEN = Path(__file__).parents[1] / "golden" / "before_inits.jsonl"
"""Settings as runs stored them before there was ``network.inits``, and a digest of what was drawn from seed 0.

Never to be recorded again: whatever changes a digest, runs that are recorded cannot be resumed any more.
"""
DATA = [("kan", "fn:f3"), ("kan", "digits"), ("skan", "fn:f3"), ("skan", "digits")]


def space_of(name: str, data: str, **overrides: Any) -> TunableSpace:
    entry = SPACES[name]
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    space = entry.resolve(entry.entry)(entry.settings_of(None, data, None, "smoke", changes, None, "torch"))
    assert isinstance(space, TunableSpace)
    return space


def drawn(space: TunableSpace) -> list[JsonObject]:
    rng = random.Random(0)
    genomes = [space.sample(rng) for _ in range(20)]
    for _ in range(40):
        genomes.append(space.mutate(genomes[-1], rng))
    genomes += [space.suggest(UniformTrial(rng)) for _ in range(20)]
    return [space.to_json(genome) for genome in genomes]


def designs_of(space: TunableSpace) -> set[str]:
    """Starts of seeds and baselines; that of an ``mlp`` has no meaning."""
    written = [space.to_json(genome) for genome in (*space.seeds().values(), *space.baselines().values())]
    return {start_of(genome) for genome in written if genome.get("layer", genome).get("basis") != MLP}


def start_of(genome: JsonObject) -> str:
    return str(genome.get("layer", genome)["init"])


@pytest.mark.parametrize("line", GOLDEN.read_text().splitlines(), ids=map("-".join, DATA))
def test_runs_that_name_no_starts_draw_what_they_drew(line: str) -> None:
    recorded = json.loads(line)
    entry = SPACES[recorded["entry"].split(".")[2]]
    assert recorded["entry"] == entry.entry
    space = entry.resolve(entry.entry)(recorded["settings"])
    text = json.dumps(drawn(space), sort_keys=True)
    assert hashlib.blake2b(text.encode(), digest_size=8).hexdigest() == recorded["digest"]
    assert designs_of(space) == {"variance"}


@pytest.mark.slow
def test_a_run_that_names_no_starts_is_shown_resumed_and_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = json.loads(GOLDEN.read_text().splitlines()[0])
    tiny = {"points": 200, "test_points": 200, "quality_steps": 5, "fitness_steps": 10, "rerank_steps": 10}
    settings = recorded["settings"] | {"task": recorded["settings"]["task"] | tiny}
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "recipe.yaml").write_text("space: kan\n")
    of_run = RunSettings(evaluations=2, population=4, seed=1, rerank_top=0, baselines=[])
    assert Runner(tmp_path / "older", SpaceSpec(recorded["entry"], settings), of_run).run() == "finished"
    runs = ["--runs-dir", str(tmp_path)]
    assert main(["resume", "older", "--evaluations", "3", *runs]) == 0
    assert "starts glorot, power, variance" in capsys.readouterr().out
    assert main(["evolve", "--replay", "older", "--run", "again", *runs]) == 0
    assert content_of(tmp_path / "older") == content_of(tmp_path / "again")
    with StoreReader(tmp_path / "older") as reader:
        assert "inits" not in reader.meta("space")["settings"]["network"]


@pytest.mark.parametrize(("name", "data"), DATA)
def test_new_runs_draw_every_start(name: str, data: str) -> None:
    entry = SPACES[name]
    assert entry.settings_of(None, data, None, "smoke", {}, None, "torch")["network"]["inits"] == list(INITS)
    space, rng = space_of(name, data), random.Random(1)
    assert ("starts", ", ".join(INITS)) in space.describe()
    sampled = {start_of(space.to_json(space.sample(rng))) for _ in range(60)}
    trial = UniformTrial(rng)
    space.suggest(trial)
    assert sampled == set(INITS)
    assert trial.questions["init"] == Choice(INITS)
    for start in ("branch", "variance"):
        genome = next(g for g in iter(lambda: space.sample(rng), None) if start_of(space.to_json(g)) == start)
        assert {start_of(space.to_json(space.mutate(genome, rng))) for _ in range(600)} == set(INITS)


@pytest.mark.parametrize(("name", "data"), DATA)
def test_one_start_alone_is_that_of_everything_that_is_searched(name: str, data: str) -> None:
    space = space_of(name, data, network__inits=["power"])
    trial = UniformTrial(random.Random(0))
    space.suggest(trial)
    assert "init" not in trial.questions
    assert {start_of(genome) for genome in drawn(space)} == designs_of(space) == {"power"}


@pytest.mark.parametrize(("name", "data"), DATA)
def test_designs_by_name_start_by_the_branch_where_that_is_searched(name: str, data: str) -> None:
    space, before = space_of(name, data), space_of(name, data, network__inits=["glorot", "power", "variance"])
    assert designs_of(space) == {"branch"}
    assert designs_of(before) == {"variance"}
    assert list(space.seeds()) == list(before.seeds()) != []
    assert all(space.known_as(genome) == known for known, genome in space.seeds().items())


@pytest.mark.parametrize(("name", "data"), DATA)
def test_an_unknown_start_is_one_sentence(
    name: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["evolve", "--space", name, "--data", data, "--runs-dir", str(tmp_path), "--set"]
    assert main([*run, "network.inits=[power, brnch]"]) == 2
    told = capsys.readouterr().err
    assert "unknown init 'brnch'; did you mean 'branch'? (known: branch, glorot, power, variance)" in told
    assert main([*run, "network.inits=[]"]) == 2
    assert "inits' " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
