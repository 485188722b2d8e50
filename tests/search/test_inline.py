"""The inline backend: what it asks of torch before the first stage."""

import pytest
import torch
from toy_space import toy_spec

from layersearch.search.executors.inline import InlineExecutor


def test_torch_runs_one_thread_and_the_same_algorithms_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    spec = toy_spec()
    InlineExecutor(spec, spec.build())
    assert torch.get_num_threads() == 1
    assert torch.backends.cudnn.deterministic
