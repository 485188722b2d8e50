"""Fixtures of the contracts of lowerings."""

import pytest
from lowering_contract import Make, Subject, ready, refuse_fallback
from torch import nn

from layersearch.primitives.graph import Graph


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Subject:
    return ready(request.param)


@pytest.fixture
def make(subject: Subject, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Make:
    """Makes layers that cannot fall back to the torch lowering, unless the test allows it."""

    def made(graph: Graph, channels: int, training: bool = True) -> nn.Module:
        layer = subject.layer(graph, channels, training)
        if subject.name != "torch" and request.node.get_closest_marker("torch_allowed") is None:
            refuse_fallback(monkeypatch, layer)
        return layer

    return made
