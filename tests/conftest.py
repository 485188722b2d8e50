"""Shared fixtures: one thread, and the data sets where they are."""

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache of built kernels for the whole session, away from the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "layersearch" / "kernels"


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors hold NaN, so that an element that is never written shows."""
    import torch

    was, filled = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(was)
    torch.utils.deterministic.fill_uninitialized_memory = filled
