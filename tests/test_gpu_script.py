"""The script that measures on a GPU can be tried out without one, and no section takes the others down with it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parent / "bench"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    import gpu

    return gpu


def test_without_a_gpu_it_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().out.count("\n") == 1


def test_a_section_that_fails_is_recorded(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def breaks(_: object) -> list[dict[str, object]]:
        """What it would have measured."""
        raise RuntimeError("out of order\nat length")

    def works(_: object) -> list[dict[str, object]]:
        return [{"a | b": 1.23456, "c": "x | y"}, {"d": 2}]

    monkeypatch.setattr(gpu, "SECTIONS", {"breaks": (breaks, 0.5), "works": (works, 0.5)})
    assert gpu.main(["--dry-run", "--out", str(tmp_path)]) == 0
    sections = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert sections["breaks"]["failed"] == "RuntimeError: out of order"
    assert sections["works"]["failed"] is None
    text = (tmp_path / "gpu.md").read_text()
    assert "What it would have measured." in text
    assert "| 1.23 | x / y |  |" in text
    assert "whose figures mean nothing" in text


@pytest.mark.slow
def test_every_section_runs_dry(tmp_path: Path) -> None:
    """As a user runs it: from the tree, with none of the packages that a GPU machine may lack."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('pydantic', 'sklearn', 'safetensors', 'deap', 'optuna', 'ray', 'typer'):\n"
        "    sys.modules[name] = None\n"
    )
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu.py"), "--dry-run", "--out", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads((tmp_path / "gpu.json").read_text())
    sections = report["sections"]
    assert list(sections) == [
        "bandwidth", "correctness", "layers", "rationals", "products", "lookups", "clicks", "graph_step", "streams",
        "compiled",
    ]  # fmt: skip
    for name, found in sections.items():
        assert found["failed"] is None, name
        assert found["rows"], name
        assert not [note for note in found["notes"] if "failed" in note or "stopped" in note], name
    assert all(row["worst, × eager"] < 10 and row["failed"] == 0 for row in sections["correctness"]["rows"])
    assert all(row["forward: of floor"] > 0 for row in sections["layers"]["rows"] if row["by"] == "torch")
    assert all(row["difference from stored"] < 0.02 for row in sections["products"]["rows"] if row["by"] == "fused")
    assert all(row["ms"] > 0 for row in sections["clicks"]["rows"])
    for name in ("graph_step", "streams"):
        assert {row["same losses"] for row in sections[name]["rows"]} == {"yes"}
    assert (tmp_path / "gpu.md").read_text().count("###") == len(sections)
