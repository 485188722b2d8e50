"""A training of a selection as bytes: safetensors, so that nothing in it can run, with its position as JSON."""

import hashlib
import json
import math
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from layersearch.errors import BadInputError, StoreError
from layersearch.primitives.gates.rewind import Rewind
from layersearch.spaces.tasks.ctr.learning import Learner, Score

__all__ = ["read_checkpoint", "write_checkpoint"]

_ADDED = {"slowing": 1.0, "penalty": 0.0}
"""Settings that the first checkpoints did not know: with these values they go on."""
_ON_HOST = ("log_decay", "step")
"""State of optimisers that lies on the CPU wherever the parameter is."""


def write_checkpoint(learner: Learner) -> bytes:
    """Everything that the rest of the training depends on, bit for bit; it can be read on any device."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in {**Rewind(learner.model).tensors, **_prefixed("g:", Rewind(learner.gates).tensors)}.items():
        tensors[f"now/{name}"] = tensor
    for title, snapshot in (("start", learner.start), ("best", learner.best)):
        if snapshot is not None:
            tensors |= _prefixed(f"{title}/", snapshot.tensors)
    for name, parameter in _parameters(learner).items():
        for optimiser in _optimisers(learner):
            state = optimiser.state.get(parameter, {})
            tensors |= {f"optimiser/{name}/{key}": value for key, value in state.items()}
    cut = learner.cut_score
    progress = {
        "phase": learner.phase,
        "step": learner.step,
        "history": learner.history,
        "best_auc": None if math.isinf(learner.best_auc) else learner.best_auc,
        "best_epoch": learner.best_epoch,
        "losses": learner.losses,
        "rate": learner.rate,
        "cut": None if cut is None else [cut.auc, cut.log_loss],
        "training": _fingerprint(learner),
    }
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(plain, metadata={"progress": json.dumps(progress)})


def read_checkpoint(data: bytes, learner: Learner) -> None:
    """Puts a fresh ``learner`` where the one of the checkpoint was.

    Raises: StoreError if ``data`` is no checkpoint, or one of another training.
    """
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        progress: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["progress"])
        training = progress["training"]
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"a checkpoint must be whole, this one cannot be read ({error!s:.80}); train from the start"
        ) from None
    if training != _fingerprint(learner):
        raise StoreError("a checkpoint must be continued with its own data, settings and seed, got others; use those")
    now = _part(tensors, "now/")
    gates = _part(now, "g:")
    try:
        _snapshot({name: tensor for name, tensor in now.items() if not name.startswith("g:")}).restore(learner.model)
        _snapshot(gates).restore(learner.gates)
    except BadInputError as error:
        raise StoreError(f"a checkpoint must be of the model it continues ({error}); train from the start") from None
    learner.phase, learner.step, learner.history = progress["phase"], progress["step"], progress["history"]
    learner.best_auc = -math.inf if progress["best_auc"] is None else progress["best_auc"]
    learner.best_epoch = progress["best_epoch"]
    learner.losses = progress["losses"]
    learner.set_rate(progress.get("rate", learner.settings.lr))
    learner.cut_score = None if progress["cut"] is None else Score(*progress["cut"])
    start, best = _part(tensors, "start/"), _part(tensors, "best/")
    learner.start = _snapshot(start) if start else None
    learner.best = _snapshot(best) if best else None
    if learner.phase != "search":
        learner.gates.requires_grad_(False)
    parameters = _parameters(learner)
    owners = {id(p): o for o in _optimisers(learner) for group in o.param_groups for p in group["params"]}
    for key, value in _part(tensors, "optimiser/").items():
        name, _, what = key.rpartition("/")
        parameter = parameters[name]
        place = value.device if what in _ON_HOST else parameter.device
        owners[id(parameter)].state[parameter][what] = value.to(place)


def _fingerprint(learner: Learner) -> str:
    data, settings = learner.data, repr(learner.settings)
    for name, value in _ADDED.items():
        settings = settings.replace(f", {name}={value!r}", "")
    about = [data.name, data.sizes, len(data.train), int(data.counts.max()), settings]
    return hashlib.sha256(repr([*about, learner.seeds.run_seed]).encode()).hexdigest()[:16]


def _optimisers(learner: Learner) -> list[torch.optim.Optimizer]:
    return [learner.table_optimiser, learner.dense_optimiser, *learner.gate_optimisers]


def _parameters(learner: Learner) -> dict[str, torch.nn.Parameter]:
    gates = {f"g:{name}": parameter for name, parameter in learner.gates.named_parameters()}
    return {**dict(learner.model.named_parameters()), **gates}


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _snapshot(tensors: dict[str, Tensor]) -> Rewind:
    snapshot = Rewind(torch.nn.Module())
    snapshot.tensors = tensors
    return snapshot
