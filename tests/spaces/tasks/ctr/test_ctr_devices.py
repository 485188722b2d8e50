"""Trainings of a selection on another device than the CPU: nothing stays behind, and the numbers are the CPU's."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from elsewhere import ELSEWHERE, elsewhere
from histories import with_history
from safetensors.torch import load
from tiny_clicks import QUICK

from layersearch.primitives.ctr.dropout import Dropout, drawing_from
from layersearch.primitives.gates.base import RELAXATIONS
from layersearch.primitives.gates.rewind import Rewind
from layersearch.primitives.gates.row_adam import RowAdam
from layersearch.spaces.tasks.ctr import placed as placing
from layersearch.spaces.tasks.ctr.checkpoint import read_checkpoint, write_checkpoint
from layersearch.spaces.tasks.ctr.data import CTRData
from layersearch.spaces.tasks.ctr.learning import Learner, predict
from layersearch.spaces.tasks.ctr.models.base import MODELS
from layersearch.spaces.tasks.ctr.placed import Placed
from layersearch.spaces.tasks.ctr.planted import PlantedSettings, planted
from layersearch.spaces.tasks.drawing import seeded

TASK = PlantedSettings(
    mains=2, couples=0, noise=2, values=12, every=3, main_effect=2.0, exponent=0.3, rows=(400, 200, 100)
)


@pytest.fixture(scope="module")
def data() -> CTRData:
    return with_history(planted(0, TASK))


@pytest.fixture
def cpu_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators of the stand-in are the CPU's, as its numbers are."""

    class OfCPU(torch.Generator):
        def __new__(cls, device: object = "cpu") -> "OfCPU":
            return super().__new__(cls, "cpu")

    monkeypatch.setattr(torch, "Generator", OfCPU)


def of_gates(model: str) -> tuple[str, ...]:
    return ("field", "value", *(("pair", "product") if MODELS[model].has_pairs else ()))


def state(learner: Learner) -> dict[str, torch.Tensor]:
    """On the CPU."""
    parts = {**Rewind(learner.model).tensors, **{f"g:{k}": v for k, v in Rewind(learner.gates).tensors.items()}}
    return {name: tensor.cpu() for name, tensor in parts.items()}


def assert_close(one: Learner, other: Learner, rtol: float = 1e-3, atol: float = 1e-4) -> None:
    """The same course within rounding, and the same selection."""
    assert (one.phase, one.step) == (other.phase, other.step)
    for mine, theirs in zip(one.history, other.history, strict=True):
        assert mine["phase"] == theirs["phase"]
        assert mine | {"phase": 0} == pytest.approx(theirs | {"phase": 0}, rel=rtol)
    torch.testing.assert_close(state(one), state(other), rtol=rtol, atol=atol)
    for name, gates in one.gates.gates.items():
        assert torch.equal(gates.selected().cpu(), other.gates.gates[name].selected().cpu())


def same_elsewhere(here: Learner) -> Learner:
    """The training of ``here`` on the other device, which must have come to the same."""
    there = Learner(here.data, here.settings, 1, placed=Placed(here.data, ELSEWHERE))
    there.run()
    assert_close(there, here)
    return there


@pytest.mark.parametrize(
    ("model", "relaxation"),
    sorted({*zip(MODELS, itertools.cycle(RELAXATIONS)), *(("fm", relaxation) for relaxation in RELAXATIONS)}),
)
def test_every_training_can_be_done_elsewhere(model: str, relaxation: str, data: CTRData, cpu_draws: None) -> None:
    """Search, review, cut, rewind, retraining, prediction, pruning: an operator with tensors of two devices raises."""
    sizes = replace(QUICK.sizes, activation="dice", dropout=0.2)
    settings = replace(QUICK, model=model, sizes=sizes, gates=of_gates(model), relaxation=relaxation, reviews=1)
    here = Learner(data, settings, 1)
    here.run()
    with elsewhere():
        there = same_elsewhere(here)
        assert {p.device for p in (*there.model.parameters(), *there.gates.parameters())} == {ELSEWHERE}
        pruned = there.pruned()
        assert pruned.table.weight.device == ELSEWHERE
        np.testing.assert_allclose(predict(pruned, data, "test"), predict(here.pruned(), data, "test"), atol=1e-3)


def test_a_ratio_reviewed_and_a_penalty_can_be_had_elsewhere(data: CTRData, cpu_draws: None) -> None:
    settings = replace(QUICK, model="fm", reviews=1, ratio=0.4, price=0.0, decay=0.0, penalty=0.02, slowing=0.5)
    here = Learner(data, settings, 1)
    here.run()
    with elsewhere():
        same_elsewhere(here)


def steps_waited_for(learner: Learner, waits: Counter[str]) -> dict[str, int]:
    """Of one step between others; the reading of losses at the end of a run is left out."""
    learner.run(max_steps=2)
    waits.clear()
    learner.run(max_steps=1)
    return dict(waits - Counter({"_to_copy": 1}))


@pytest.mark.parametrize("model", ["fm", "din"])
def test_a_step_waits_for_rows_that_occur_alone(model: str, data: CTRData) -> None:
    """Per gradient of rows once for their number and once for their order."""
    with elsewhere() as waits:
        settings = replace(QUICK, model=model, gates=(), decay=0.1)
        plain = steps_waited_for(Learner(data, settings, placed=Placed(data, ELSEWHERE)), waits)
        gated = replace(settings, gates=("value",), warm_epochs=0)
        learned = steps_waited_for(Learner(data, gated, placed=Placed(data, ELSEWHERE)), waits)
    history = {"nonzero": 1} if model == "din" else {}
    looked_up = 2 if model == "din" else 1
    assert {k: plain[k] for k in plain if k != "_coalesce"} == {"_local_scalar_dense": 1, **history}
    assert {k: learned[k] for k in learned if k != "_coalesce"} == {"_local_scalar_dense": 2, **history}
    assert plain["_coalesce"] <= looked_up + 1
    assert learned["_coalesce"] <= 2 * looked_up + 1 + 2


@pytest.mark.parametrize("there_first", [True, False])
def test_a_checkpoint_continues_on_another_device(data: CTRData, there_first: bool) -> None:
    settings = replace(QUICK, model="dcn", gates=("value", "pair"), ratio=0.5, decay=0.1)
    whole = Learner(data, settings, 2)
    whole.run()
    with elsewhere():
        learners = [Learner(data, settings, 2, placed=Placed(data, ELSEWHERE)), Learner(data, settings, 2)]
        first, second = learners if there_first else learners[::-1]
        first.run(max_steps=10)
        saved = write_checkpoint(first)
        assert {tensor.device.type for tensor in load(saved).values()} == {"cpu"}
        read_checkpoint(saved, second)
        second.run()
        assert_close(second, whole)


def test_elsewhere_a_checkpoint_continues_bit_for_bit(data: CTRData, cpu_draws: None) -> None:
    sizes = replace(QUICK.sizes, dropout=0.2)
    settings = replace(QUICK, model="din", gates=("value",), relaxation="gumbel", decay=0.1, sizes=sizes)
    with elsewhere():
        whole, first, second = (Learner(data, settings, 3, placed=Placed(data, ELSEWHERE)) for _ in range(3))
        whole.run()
        first.run(max_steps=9)
        read_checkpoint(write_checkpoint(first), second)
        second.run()
        assert whole.history == second.history
        assert all(torch.equal(a, b) for a, b in zip(state(whole).values(), state(second).values(), strict=True))


def test_a_loss_that_is_not_finite_is_found_at_its_step(data: CTRData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere after some more steps have been done: at the end of the epoch, or of so many steps."""

    def found(make: Callable[[], Learner]) -> int:
        learner = make()
        learner.run(max_steps=2)
        with torch.no_grad():
            learner.model.bias.fill_(torch.nan)
        with pytest.raises(FloatingPointError, match="at step 3 of retrain"):
            learner.run()
        return learner.step

    settings = replace(QUICK, gates=())
    assert found(lambda: Learner(data, settings)) == 2
    with elsewhere():
        assert found(lambda: Learner(data, settings, placed=Placed(data, ELSEWHERE))) == 2
        monkeypatch.setattr("layersearch.spaces.tasks.ctr.learning.LOSSES_AHEAD", 2)
        assert found(lambda: Learner(data, settings, placed=Placed(data, ELSEWHERE))) == 2


def test_batches_are_the_same_wherever_rows_are_held(data: CTRData, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(placed: Placed) -> list[torch.Tensor]:
        order = placed.order("train", np.random.default_rng(0).permutation(len(data.train)))
        found = [placed.batch("train", order[20:50]), placed.batch("validation", slice(5, 30))]
        return [t.cpu() for b in found for t in (b.ids, b.labels, b.history) if t is not None]

    expected = batches(Placed(data))
    assert [t.dtype for t in expected] == [torch.int64, torch.float32, torch.int64] * 2
    with elsewhere():
        assert all(map(torch.equal, expected, batches(Placed(data, ELSEWHERE))))
        monkeypatch.setattr(placing, "_room", lambda device: 0.0)
        assert all(map(torch.equal, expected, batches(Placed(data, ELSEWHERE))))


def test_a_state_dict_of_rows_keeps_on_the_host_what_is_read_there() -> None:
    def optimiser() -> tuple[torch.nn.Parameter, RowAdam]:
        table = torch.nn.Parameter(torch.ones(5, 2).to(ELSEWHERE))
        return table, RowAdam([table], lr=0.1, weight_decay=0.5)

    with elsewhere():
        (table, one), (other_table, other) = optimiser(), optimiser()
        for _ in range(2):
            rows = torch.tensor([[1, 3]]).to(ELSEWHERE)
            table.grad = torch.sparse_coo_tensor(rows, torch.ones(2, 2).to(ELSEWHERE), (5, 2), check_invariants=False)
            one.step()
        other.load_state_dict(one.state_dict())
        places = {name: value.device.type for name, value in other.state[other_table].items()}
        assert places == {"log_decay": "cpu"} | dict.fromkeys(("mean", "square", "count", "decayed"), ELSEWHERE.type)
        assert other.state[other_table]["count"].cpu().tolist() == [0, 2, 0, 2, 0]


def test_dropout_of_a_generator_has_the_bits_of_torch_and_moves_no_other() -> None:
    x = torch.rand(30, 40)
    layers = torch.nn.Sequential(Dropout(0.3), torch.nn.ReLU(), Dropout(0.6))
    plain = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Dropout(0.6))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        expected = plain(x)
    before = torch.random.get_rng_state()
    with drawing_from(torch.Generator().manual_seed(11), layers):
        assert torch.equal(layers(x), expected)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(layers.eval()(x), x)
    assert layers[0].generator is None


def test_weights_are_drawn_by_one_thread_at_a_time() -> None:
    """Layers draw from torch's own generator, and on a GPU several trainings run in one process."""
    inside = threading.Event()

    def other() -> None:
        with seeded(2):
            inside.set()

    with seeded(1):
        thread = threading.Thread(target=other)
        thread.start()
        assert not inside.wait(0.1)
    thread.join()
    assert inside.is_set()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", ["fm", "dcn", "din"])
def test_a_gpu_does_the_same_training(model: str, data: CTRData) -> None:
    settings = replace(QUICK, model=model, gates=of_gates(model), relaxation="gumbel", reviews=1, decay=0.1)
    here = Learner(data, settings, 1)
    here.run()
    whole, first, second = (Learner(data, settings, 1, placed=Placed(data, "cuda")) for _ in range(3))
    whole.run()
    assert_close(whole, here, rtol=1e-2, atol=1e-2)
    first.run(max_steps=9)
    read_checkpoint(write_checkpoint(first), second)
    second.run()
    assert whole.history == second.history
    assert all(torch.equal(a, b) for a, b in zip(state(whole).values(), state(second).values(), strict=True))
