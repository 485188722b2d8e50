"""A run that tests of what came of runs share."""

from pathlib import Path

import pytest
from toy_runs import run_toy


@pytest.fixture(scope="package")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run with a re-rank and a test; to be read alone."""
    path = tmp_path_factory.mktemp("runs") / "toy-0001"
    run_toy(path, rerank_top=2)
    return path
