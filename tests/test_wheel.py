"""What is built is what is in the folders."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("kernels", "primitives", "spaces", "search")


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(
        ".git", "build", "runs", "tests", "*.egg-info", "__pycache__", ".*_cache", ".venv*"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("layersearch-*.whl")
    built = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("layersearch/")}
    expected = {
        f"layersearch/{path.relative_to(ROOT)}"
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*")
        if path.suffix in (".py", ".json") and "__pycache__" not in path.parts
    }
    assert built == expected | {f"layersearch/{name}" for name in ("__init__.py", "errors.py", "py.typed")}
