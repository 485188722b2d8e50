"""A training whose lookups and row steps are the Triton kernels that a GPU takes, by Triton's interpreter."""

from dataclasses import replace

import pytest
import torch
from histories import with_history
from interpreted import INTERPRETS, interpreted, once_interpreted
from tiny_clicks import QUICK

from layersearch.kernels.lookup.row_adam_triton import TritonRowAdam
from layersearch.kernels.lookup.triton import TritonLookup
from layersearch.primitives.ctr import lookup
from layersearch.primitives.gates import row_adam
from layersearch.primitives.gates.rewind import Rewind
from layersearch.spaces.tasks.ctr.learning import Learner
from layersearch.spaces.tasks.ctr.planted import PlantedSettings, planted

CPU_SECONDS = 40
SETTINGS = replace(QUICK, gates=("value",), search_epochs=2, warm_epochs=0, decay=0.5)


@pytest.mark.skipif(not INTERPRETS, reason="on the CPU Triton is interpreted")
@pytest.mark.parametrize("model", ["fm", "din"])
def test_a_training_by_triton_is_that_by_torch(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = PlantedSettings(mains=2, couples=0, noise=2, values=12, every=3, rows=(300, 100, 100))
    data = with_history(planted(0, task))
    done = {TritonLookup: 0, TritonRowAdam: 0}
    found = {}
    for by in ("torch", "triton"):
        for module in (lookup, row_adam):
            monkeypatch.setattr(module, "chosen", lambda lowering, x, by=by: by)
        for kind, name in ((TritonLookup, "backward"), (TritonRowAdam, "step")):
            plain = getattr(kind, name)

            def counted(*args: object, plain: object = plain, kind: type = kind) -> object:
                done[kind] += 1
                return plain(*args)  # type: ignore[operator]

            monkeypatch.setattr(kind, name, counted)
        learner = Learner(data, replace(SETTINGS, model=model), 1)
        learner.run()
        found[by] = learner
        assert (min(done.values()) > 0) == (by == "triton")
        monkeypatch.undo()
    expected, got = (Rewind(learner.model).tensors for learner in found.values())
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    gates = [learner.gates.gates["value"].logits for learner in found.values()]
    torch.testing.assert_close(*gates, rtol=1e-3, atol=1e-4)


@once_interpreted
def test_the_interpreter_runs_the_training() -> None:
    passed, cpu_s = interpreted(__file__)
    assert passed == 2
    assert cpu_s < CPU_SECONDS
