"""``search export``: what it takes, what it says, and that it never leaves half a file or overwrites one."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from layersearch.errors import BadInputError, LayerSearchError
from layersearch.primitives.graph import Graph
from layersearch.primitives.graph_json import graph_to_json
from layersearch.primitives.lowering import build_layer
from layersearch.primitives.numerics import Numerics
from layersearch.search.candidate import Candidate, Finish, StageResult
from layersearch.search.export import FORMATS, ExportError, Format
from layersearch.search.export._origin import class_name_of
from layersearch.search.export.command import run
from layersearch.search.store import Store
from layersearch.spaces.contracts import Outcome
from layersearch.spaces.evonorm.published import PUBLISHED, pad

GUARDED = Numerics()


def load(path: Path) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(path.read_text(encoding="utf-8"), path.name, "exec"), namespace)
    return namespace


def known(name: str, out: Path, **options: Any) -> dict[str, Any]:
    return run(space="evonorm", genome=f"known:{name}", out=out, **options)


@pytest.fixture
def genome_file(tmp_path: Path) -> Path:
    path = tmp_path / "my-best norm.json"
    path.write_text(json.dumps(graph_to_json(pad(Graph(PUBLISHED["evonorm-b2"].nodes, GUARDED), 10))))
    return path


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """One run with an evolved winner, a rejected candidate, a re-rank, a test, and one baseline."""
    folder = tmp_path / "runs" / "evonorm-0001"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(
        "space: evonorm\nseries: b\ndata: digits\ndata_dir: /secret/place\nevaluations: 3\nseed: 7\n"
        "deterministic: true\nminutes: null\nset: {task.batch: 64}\n"
    )

    def genome(name: str) -> dict[str, Any]:
        return graph_to_json(pad(Graph(PUBLISHED[name].nodes, GUARDED), 10))

    def measured(number: int, stage: str, value: float) -> StageResult:
        return StageResult(number, stage, Outcome("passed", fitness={"resnet": value}))

    stage = {"resumes": None}
    with Store(folder) as store:
        store.set_meta(
            run={"seed": 7, "driver": "evolution"},
            space={"name": "evonorm"},
            version="0.1.0",
            objectives=[{"name": "resnet", "maximize": True}],
            stages=[{"id": "fitness:resnet", "name": "fitness", **stage}],
            rerank_stages=[{"id": f"rerank:resnet:{k}", "name": "rerank", **stage} for k in range(2)],
            test_stages=[{"id": "test:resnet:0", "name": "test", **stage}],
        )
        store.asked([Candidate(-1, None, "baseline", genome("bn-relu"), name="bn-relu")])
        store.asked([Candidate(0, 0, "seed", genome("frn-tlu"), key="a", known_as="frn-tlu", name="frn-tlu")])
        store.asked([Candidate(1, 1, "evolved", genome("evonorm-s1"), key="b", parents=(0,))])
        store.asked([Candidate(2, 2, "random", genome("gn-relu"), key="c")])
        store.told(measured(-1, "fitness:resnet", 0.5), Finish("evaluated", fitness={"resnet": 0.5}))
        store.told(measured(0, "fitness:resnet", 0.6), Finish("evaluated", fitness={"resnet": 0.6}, told=0))
        store.told(measured(1, "fitness:resnet", 0.7125), Finish("evaluated", fitness={"resnet": 0.7125}, told=1))
        rejected = StageResult(2, "fitness:resnet", Outcome("rejected", "loss is not finite"))
        store.told(rejected, Finish("rejected", "fitness", "loss is not finite", told=2))
        for k, value in enumerate((0.80, 0.82)):
            store.told(measured(1, f"rerank:resnet:{k}", value))
            store.told(measured(-1, f"rerank:resnet:{k}", value - 0.1))
        store.told(measured(1, "test:resnet:0", 0.79))
    return tmp_path / "runs"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_known_layer_is_exact_and_speaks_its_name(name: str, tmp_path: Path) -> None:
    out = tmp_path / "layer.py"
    told = known(name, out)
    assert json.loads(json.dumps(told)) == told
    assert told["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert (told["path"], told["format"]) == (str(out), "python")
    assert told["max_error"] < 1e-13
    assert told["formula"] in out.read_text()
    assert told["genome"]["numerics"]["div_eps"] == 0
    assert told["class"] in load(out)["__all__"]
    assert f"known:{name} --format python -o layer.py" in out.read_text()
    x = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(load(out)["Layer"](8)(x), build_layer(PUBLISHED[name], 8, lowering="reference")(x))


def test_class_names() -> None:
    names = {name: class_name_of(name) for name in PUBLISHED}
    assert names["evonorm-b0"] == "EvoNormB0"
    assert names["evonorm-s2"] == "EvoNormS2"
    assert (names["bn-relu"], names["frn-tlu"]) == ("BNReLU", "FRNTLU")
    assert class_name_of("my_best norm.v2") == "MyBestNormV2"
    for odd in ("", "3x", "layer", "tensor", "none", "../..", "日本", "\n"):
        assert class_name_of(odd) == "NormAct"
    assert all(name.isidentifier() for name in (*names.values(), class_name_of("class"), class_name_of("nn")))


def test_a_genome_file_keeps_its_numerics_unless_exact(genome_file: Path, tmp_path: Path) -> None:
    guarded, exact = tmp_path / "guarded.py", tmp_path / "exact.py"
    told = run(space="evonorm", genome=str(genome_file), out=guarded)
    assert told["class"] == "MyBestNorm"
    assert told["genome"]["numerics"] == GUARDED.to_json()
    told = run(space="evonorm", genome=str(genome_file), out=exact, exact=True)
    assert told["genome"]["numerics"] == {**GUARDED.to_json(), "div_eps": 0.0, "log_eps": 0.0}
    assert "--exact" in exact.read_text()
    assert str(tmp_path) not in exact.read_text()
    x = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    apart = float((load(guarded)["Layer"](8)(x) - load(exact)["Layer"](8)(x)).detach().abs().max())
    assert 1e-7 < apart < 1e-2


def test_the_winner_of_a_run_with_its_numbers(runs_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "norm.py"
    told = run(run="evonorm-0001", runs_dir=runs_dir, out=out)
    assert told["class"] == "EvolvedNormAct"
    text = out.read_text()
    for piece in (
        "run evonorm-0001, candidate 1 (evolved, parents 0), search seed 7, searched with layersearch 0.1.0",
        "    search      resnet\n    this layer  0.7125\n    bn-relu     0.5000\n",
        "    re-rank     resnet\n    this layer  0.8100±0.0141\n    bn-relu     0.7100±0.0141\n",
        "    test        resnet\n    this layer  0.7900\n    bn-relu          -\n",
        "search evolve --space evonorm --series b --data digits --evaluations 3 --seed 7 --deterministic",
        "--set task.batch=64",
        "Exported by: search export evonorm-0001 --candidate best --format python -o norm.py",
    ):
        assert piece in text, piece
    assert "secret" not in text
    assert load(out)["Layer"](6)(torch.randn(2, 6, 3, 3)).shape == (2, 6, 3, 3)


def test_the_search_command_gives_the_same_run(runs_dir: Path, tmp_path: Path) -> None:
    (runs_dir / "evonorm-0001" / "recipe.yaml").write_text(
        "space: evonorm\nevaluations: 3\nseed: 0\ndeterministic: false\nseed_layers: []\nrerank_top: 0\n"
        "baselines: [bn-relu, bn-silu]\n"
    )
    with Store(runs_dir / "evonorm-0001") as store:
        store.set_meta(run={"seed": 0, "evaluations": None, "minutes": 5.0})  # extended by a resume
    run(run="evonorm-0001", runs_dir=runs_dir, out=tmp_path / "norm.py")
    given = "--seed 0 --no-deterministic --seed-layers none --rerank-top 0 --baselines bn-relu,bn-silu --minutes 5.0\n"
    assert f"Searched by: search evolve --space evonorm {given}" in (tmp_path / "norm.py").read_text()


def test_a_candidate_by_number(runs_dir: Path, tmp_path: Path) -> None:
    assert run(run="evonorm-0001", candidate="0", runs_dir=runs_dir, out=tmp_path / "a.py")["class"] == "FRNTLU"
    assert run(run="evonorm-0001", candidate="2", runs_dir=runs_dir, out=tmp_path / "b.py")["class"] == "RandomNormAct"
    with Store(runs_dir / "evonorm-0001") as store:
        store.set_meta(winner=0)
    assert run(run="evonorm-0001", runs_dir=runs_dir, out=tmp_path / "c.py")["class"] == "FRNTLU"


def test_a_run_without_a_recipe_file(runs_dir: Path, tmp_path: Path) -> None:
    recipe = runs_dir / "evonorm-0001" / "recipe.yaml"
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nset: {c: *b}"
    for content in (None, "- a list", "{broken", "space: [1", bomb):
        recipe.unlink() if content is None else recipe.write_text(content)
        run(run="evonorm-0001", runs_dir=runs_dir, out=tmp_path / "a.py", force=True)
        text = (tmp_path / "a.py").read_text()
        assert "search evolve --space evonorm" in text
        assert ("cannot be read" in text) == (content is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": "nothing"}, "there is none named"),
        ({"run": "../runs/evonorm-0001"}, "name of a run must be"),
        ({"run": ""}, "name of a run must be"),
        ({"run": "evonorm-0001", "candidate": "99"}, "candidate must be one of 0 to 2"),
        ({"run": "evonorm-0001", "candidate": "-1"}, "'best' or a number"),
        ({"run": "evonorm-0001", "candidate": "first"}, "'best' or a number"),
        ({"run": "evonorm-0001", "space": "evonorm"}, "either the name of a run"),
        ({"space": "evonorm"}, "either the name of a run"),
        ({}, "either the name of a run"),
        ({"space": "evnorm", "genome": "known:bn-relu"}, "did you mean 'evonorm'"),
        ({"space": "evonorm", "genome": "known:bn-rleu"}, "did you mean 'bn-relu'"),
        ({"space": "evonorm", "genome": "nothing.json"}, "readable file"),
        ({"space": "evonorm", "genome": "a\0b"}, "readable file"),
        ({"space": "evonorm", "genome": "."}, "readable file"),
        ({"space": "evonorm", "genome": "known:bn-relu", "format": "pyton"}, "did you mean 'python'"),
        ({"space": "evonorm", "genome": "known:bn-relu", "num_features": 0}, "num_features must be in"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    options: dict[str, Any], message: str, runs_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "layer.py"
    out.parent.mkdir()
    with pytest.raises(BadInputError, match=message) as error:
        run(runs_dir=runs_dir, out=out, **options)
    assert "\n" not in str(error.value)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[1]", b'{"format": 1}', b"[" * 50_000, b"x" * 70_000], ids=range(7)
)
def test_a_broken_genome_file_is_one_sentence(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "genome.json").write_bytes(text)
    with pytest.raises(BadInputError) as error:
        run(space="evonorm", genome=str(tmp_path / "genome.json"), out=tmp_path / "layer.py")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "layer.py").exists()


def test_a_genome_file_without_end(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="at most 65536 bytes"):
        run(space="evonorm", genome="/dev/zero", out=tmp_path / "layer.py")


def test_an_existing_file_is_kept_without_force(tmp_path: Path) -> None:
    out = tmp_path / "layer.py"
    out.write_text("mine")
    with pytest.raises(BadInputError, match=r"never overwrites a file, and .* exists; .*--force"):
        known("bn-relu", out)
    assert out.read_text() == "mine"
    known("bn-relu", out, force=True)
    assert "BNReLU" in out.read_text()
    link = tmp_path / "link.py"
    link.symlink_to(tmp_path / "nowhere.py")
    with pytest.raises(BadInputError, match="never overwrites"):
        known("bn-relu", link)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["layer.py", "link.py"]


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    for out, message in (
        (tmp_path, "is a folder"),
        (Path(), "is a folder"),
        (tmp_path / "missing" / "layer.py", "folder of the output must exist"),
        (tmp_path / ("x" * 300 + ".py"), "name too long"),
        (tmp_path / "a\0.py", "must be writable"),
    ):
        with pytest.raises(BadInputError, match=message) as error:
            known("bn-relu", out)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BadInputError, match="must be writable"):
        known("bn-relu", tmp_path / "layer.py")
    tmp_path.chmod(0o700)


@pytest.fixture
def broken_format(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the python format by one whose writing goes wrong at the end."""

    def install(error: Exception) -> None:
        def write(subject: object, path: Path) -> float:
            path.write_text("half")
            raise error

        FORMATS["python"]
        monkeypatch.setitem(FORMATS._rows, "python", Format("python", ".py", write))

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ExportError("the file is wrong"), 1),
        (OSError(28, "No space left on device"), 1),
        (OSError(30, "Read-only file system"), 2),
        (KeyboardInterrupt(), None),
    ],
    ids=["mismatch", "disk full", "read-only", "interrupt"],
)
def test_after_an_error_no_file_is_left(
    error: BaseException, code: int | None, tmp_path: Path, broken_format: Any
) -> None:
    broken_format(error)
    out = tmp_path / "layer.py"
    with pytest.raises(KeyboardInterrupt if code is None else LayerSearchError) as raised:
        known("bn-relu", out)
    assert list(tmp_path.iterdir()) == []
    if code is not None:
        assert raised.value.exit_code == code
    out.write_text("mine")
    with pytest.raises(BaseException):  # noqa: B017, PT011
        known("bn-relu", out, force=True)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


def test_a_file_that_turns_up_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "layer.py"
    row = FORMATS["python"]

    def write(subject: Any, path: Path) -> float:
        out.write_text("mine")
        return row.write(subject, path)

    monkeypatch.setitem(FORMATS._rows, "python", Format("python", ".py", write))
    with pytest.raises(BadInputError, match="exists"):
        known("bn-relu", out)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_other_formats_of_a_run(form: str, runs_dir: Path, tmp_path: Path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    out = tmp_path / "layer.bin"  # any name will do
    told = run(run="evonorm-0001", runs_dir=runs_dir, out=out, format=form, num_features=12)
    assert told["max_error"] < 1e-5
    assert out.is_file()


def test_a_run_as_a_whole_has_no_weights(runs_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="weights must be left out for format optuna"):
        run(run="evonorm-0001", runs_dir=runs_dir, out=tmp_path / "x.journal", format="optuna", weights=True)
    assert not (tmp_path / "x.journal").exists()
