"""Shared fixtures: one thread, and the data sets where they are."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the data sets, or a skip with the reason."""
    folder = os.environ.get("LAYERSEARCH_DATA")
    if not folder:
        pytest.skip("LAYERSEARCH_DATA is not set: the data sets are not here")
    return Path(folder)


@pytest.fixture(scope="session")
def rounds() -> int:
    """Rounds of repeated random tests."""
    return int(os.environ.get("LAYERSEARCH_ROUNDS", "2"))
