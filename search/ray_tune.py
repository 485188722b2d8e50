"""For people who run Ray Tune: any space and task as a trainable and a search space, and what Tune found as layers."""

import importlib.util
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import layersearch
from layersearch.errors import BadInputError, RecipeError, RunError
from layersearch.primitives.registry import unknown_name
from layersearch.primitives.seeds import Seeds
from layersearch.search.api import Layer
from layersearch.search.executors.base import SpaceSpec
from layersearch.search.export._origin import Source
from layersearch.search.rerank import ranked
from layersearch.search.schedulers.base import rung_ends
from layersearch.search.session import recipe_of
from layersearch.search.trials import GivenTrial
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import Genome, Objective, Space, Stage, TunableSpace

if TYPE_CHECKING:
    from ray.tune import ResultGrid
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch

    from layersearch.search._ray_trainable import StagesTrainable

__all__ = ["FITNESS", "GENOME_SEED", "KNOWN", "RayTune", "levels_of", "ray_tune"]

GENOME_SEED = "genome_seed"
KNOWN = "known"
FITNESS = "fitness"
_OPTIONS = ("series", "data", "data_dir", "preset", "objectives", "lowering", "device", "seed", "seed_layers", "set")
_MOST_SAMPLES = 10_000
_MOST_SEED = 2**31 - 1


def ray_tune(space: str | None = None, *, recipe: str | Path | None = None, eta: int = 3, **options: Any) -> "RayTune":
    """A space and a task for Ray Tune.

    Args:
        space: its name; may be left out with a ``recipe``.
        recipe: a YAML file as of ``search evolve --recipe``; what it says of drivers, workers and ends is left to Tune.
        eta: candidates are measured early, at training steps about this many times apart, where the space has such
            rungs; what ``ASHAScheduler`` calls reduction_factor.
        options: those of ``search evolve`` that say what is searched, by their long names with underscores:
            ``series``, ``data``, ``data_dir``, ``preset``, ``objectives`` (names in a list, or by comma),
            ``lowering``, ``device`` (of the workers: ``cpu`` or ``cuda``, ``auto`` for the GPUs that Tune gives them),
            ``seed``, ``seed_layers``, ``set`` (a mapping).
    Raises: RecipeError, UnknownNameError or BadInputError, one sentence each.

    >>> ray_tune("kan", data="fn:f3").metrics
    {'rmse': 'min', 'parameters': 'min'}
    """
    if importlib.util.find_spec("ray") is None:
        raise BadInputError("ray must be installed to be given a space, but it is not; pip install 'ray[tune]'")
    for name in options:
        if name not in _OPTIONS:
            raise unknown_name("option", name, sorted(_OPTIONS))
    given: dict[str, Any] = {"backend": "inline", "space": space, **options}
    if not isinstance(objectives := given.get("objectives"), str | None):
        given["objectives"] = ",".join(objectives)
    if given.get("data_dir") is not None:
        given["data_dir"] = str(given["data_dir"])
    sets = dict(given.pop("set", None) or {})
    layers = given.pop("seed_layers", None) or ()
    pairs = [f"{key}={json.dumps(value)}" for key, value in sets.items()]
    checked = recipe_of(
        given, None if recipe is None else Path(recipe), pairs, [layers] if isinstance(layers, str) else layers
    )
    entry = checked.entry()
    if entry.rungs is not None:
        checked = checked.model_copy(update={"scheduler": "asha", "set": checked.set | {"scheduler.eta": eta}})
    spec = SpaceSpec(entry.entry, checked.space_settings(), entry.preload)
    return RayTune(checked.space, spec, checked.seed, eta, checked.device)


def levels_of(stages: Iterable[Stage]) -> tuple[str, ...]:
    """Ids of the stages after which every objective is measured: the last of each rung, and the last of all.

    >>> levels_of([Stage("a", "a"), Stage("b", "b", rung=0), Stage("c", "c", rung=0), Stage("d", "d")])
    ('c', 'd')
    """
    stages = list(stages)
    ends = rung_ends(stages)
    return tuple(stage.id for stage in stages if stage.id in ends or stage is stages[-1])


class RayTune:
    """What ``ray_tune`` gives: the parts of a ``ray.tune.Tuner``, and its results as layers.

    A trial is one candidate, taken through the stages of the space. Tune gets a report at each rung and at the end of
    the training:

    - ``fitness``, larger is better: the mean over the objectives that orders candidates; and each objective by its own
      name, in natural sign (``metrics`` has its mode); NaN at a rung that says nothing of it yet.
    - ``state``: ``passed`` at a rung, then ``evaluated``; or ``rejected`` or ``failed``, with ``reason`` and ``stage``.
      These end the trial, and what was not measured is NaN, which is what Tune leaves out of its best result.
    - ``budget``: 1 at the first rung, ``eta`` times that at the next: the ``time_attr`` of schedulers.
    - ``training_steps`` so far, and ``selection``: what the trial selected, in spaces where it does, else None.

    What a trial is trained on depends on its genome and ``seed`` alone, not on Tune's order. Nothing is deduplicated
    or re-ranked, and nothing is kept beyond what Tune keeps: for that there is ``search tune``.
    """

    def __init__(self, name: str, spec: SpaceSpec, seed: int, eta: int, device: str) -> None:
        self.name = name
        self.seed = seed
        self.eta = eta
        self._spec = spec
        self.device = device
        self._built: Space | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}

    @property
    def space(self) -> Space:
        if self._built is None:
            self._built = self._spec.build()
        return self._built

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.space.objectives

    @property
    def metrics(self) -> dict[str, str]:
        """Objectives and their modes, for searchers of several: ``metric=list(m), mode=list(m.values())``."""
        return {o.name: "max" if o.maximize else "min" for o in self.objectives}

    @property
    def max_budget(self) -> int:
        """``budget`` of the last report."""
        return int(self.eta ** (len(levels_of(self.space.stages)) - 1))

    # The parts of a Tuner

    def trainable(self) -> "type[StagesTrainable]":
        """A class Trainable for ``tune.Tuner``, also within ``tune.with_resources``.

        Reads the data set here, once; each node of the cluster gets one copy. Give the Tuner
        ``TuneConfig(reuse_actors=True)``, so that a worker keeps what it compiled. A trial is checkpointed after any
        report, as Tune asks (``CheckpointConfig(checkpoint_frequency=1)``), and goes on from there with the numbers of
        one that was not interrupted.

        Raises: DataError if the data is missing.
        """
        from ray import tune

        from layersearch.search._ray_trainable import StagesTrainable

        data, spec = self.space.load_data(), self._spec
        entry = SPACES[self.name]
        if entry.plan is not None:
            device = "cpu" if self.device == "auto" else self.device
            settings = entry.resolve(entry.plan)(spec.settings, data, device)
            spec = SpaceSpec(spec.entry, settings, spec.preload)
        made: type[StagesTrainable] = tune.with_parameters(
            StagesTrainable, task=RayTune(self.name, spec, self.seed, self.eta, self.device), data=dict(data)
        )
        return made

    def define(self, trial: Any) -> None:
        """The search space in Optuna's define-by-run: ``OptunaSearch(task.define, metric="fitness", mode="max")``.

        Raises: RecipeError if the space has no parameters.
        """
        self._tunable().suggest(trial)

    def known(self) -> list[dict[str, Any]]:
        """Parameters of the layers that a search starts from, for ``points_to_evaluate`` of OptunaSearch."""
        found = (self._tunable().parameters(genome) for genome in self.space.seeds().values())
        return [dict(parameters) for parameters in found if parameters is not None]

    def param_space(self) -> dict[str, Any]:
        """The search space for Tune's own samplers: ``Tuner(…, param_space=task.param_space())``.

        A number draws a genome, the first legal one of its stream: enough for random search, of no use to samplers
        that learn. ``{"known": NAME}`` instead stands for a layer that a search starts from.
        """
        from ray import tune

        return {GENOME_SEED: tune.randint(0, _MOST_SEED)}

    def optuna(self, **options: Any) -> "OptunaSearch":
        """``OptunaSearch`` on this space; ``options`` are its own, e.g. ``sampler`` or ``metric`` and ``mode``.

        It starts from the ``known`` layers, maximises ``fitness``, and tells Optuna that a rejected trial is pruned and
        a failed one failed. (OptunaSearch itself would leave both open, with a warning: NaN is no value to Optuna.)
        """
        from layersearch.search._ray_trainable import PruningOptunaSearch

        defaults: dict[str, Any] = {"metric": FITNESS, "mode": "max", "points_to_evaluate": self.known()}
        return PruningOptunaSearch(self.define, **(defaults | options))

    def asha(self, **options: Any) -> "AsyncHyperBandScheduler":
        """``ASHAScheduler`` with the rungs of this space; ``options`` are its own.

        Raises: RecipeError if the space has no rungs: then there is one report per trial, and nothing to stop early.
        """
        from ray.tune.schedulers import ASHAScheduler

        if self.max_budget == 1:
            raise RecipeError(
                f"early stopping must have rungs, but {self.name} measures candidates only at the end of their "
                "training; use another scheduler"
            )
        rungs = {"time_attr": "budget", "grace_period": 1, "max_t": self.max_budget, "reduction_factor": self.eta}
        defaults: dict[str, Any] = {"metric": FITNESS, "mode": "max", **rungs}
        return ASHAScheduler(**(defaults | options))

    # What came of it

    def genome(self, config: Mapping[str, Any]) -> Genome:
        """The genome of a trial's ``config``, of whichever search space. Raises: AnswerError, UnknownNameError."""
        if KNOWN in config:
            seeds = self.space.seeds()
            if config[KNOWN] not in seeds:
                raise unknown_name("layer", str(config[KNOWN]), sorted(seeds))
            return seeds[config[KNOWN]]
        if GENOME_SEED in config:
            return self._drawn(int(config[GENOME_SEED]))
        return self._tunable().suggest(GivenTrial(config))

    def layers(self, results: "ResultGrid") -> tuple[Layer, ...]:
        """The evaluated trials of ``Tuner.fit()`` as layers, best mean first."""
        names = [o.name for o in self.objectives]
        fitness: dict[int, dict[str, float]] = {}
        for i in range(len(results)):
            reported = results[i].metrics or {}
            if reported.get("state") == "evaluated":
                fitness[i] = {name: float(reported[name]) for name in names}
        return tuple(self.layer(results[i]) for i in ranked(fitness, self.objectives))

    def best(self, results: "ResultGrid") -> Layer:
        """The best of ``layers``. Raises: RunError if no trial came to its end."""
        layers = self.layers(results)
        if not layers:
            raise RunError(f"a trial must be evaluated to its end, but none of {len(results)} was; run more of them")
        return layers[0]

    def layer(self, result: Any) -> Layer:
        """One ``ray.tune.Result`` as a layer, with what was measured last."""
        reported: Mapping[str, Any] = result.metrics or {}
        config = result.config if result.config is not None else reported["config"]
        trial, space = str(reported.get("trial_id", "unknown")), self.space
        genome = space.to_json(self.genome(config))
        fitness = {
            o.name: reported[o.name] for o in self.objectives if reported.get("state") in ("passed", "evaluated")
        }
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in fitness.items()) or "none measured"
        origin = (
            f"trial {trial} of Ray Tune on the space {self.name}, seed {self.seed}, "
            f"layersearch {layersearch.__version__}"
        )
        facts = (("Origin", origin), ("Numbers", numbers))
        selection = reported.get("selection")
        source = Source(self.name, genome, "TunedNormAct", facts, self._spec.settings, self.seed, selection)
        return Layer(self.name, trial, genome, fitness, dict(reported.get("metrics", {})), {"found": source})

    def _tunable(self) -> TunableSpace:
        space = self.space
        if not isinstance(space, TunableSpace):
            raise RecipeError(
                f"a space must have parameters to be suggested, and '{self.name}' has none; use param_space()"
            )
        return space

    def _drawn(self, number: int) -> Genome:
        rng: random.Random = Seeds(self.seed).stream("ray tune", number)
        for _ in range(_MOST_SAMPLES):
            genome = self.space.sample(rng)
            if self.space.outline(genome).reason is None and self.space.probe(genome).reason is None:
                return genome
        raise RunError(
            f"a genome must be legal, but {_MOST_SAMPLES} in a row drawn by {GENOME_SEED}={number} were not; widen the "
            "space"
        )
