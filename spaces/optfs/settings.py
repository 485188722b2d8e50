"""Every knob of the optfs space, with the effective values written into the recipe of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from layersearch.errors import RecipeError
from layersearch.primitives.ctr.interactions import OPERATORS
from layersearch.primitives.ctr.mlp import ACTIVATIONS
from layersearch.primitives.gates.base import RELAXATIONS
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.fidelity import UNCUT, Cut, FidelitySettings, early_cuts
from layersearch.spaces.objectives import legal
from layersearch.spaces.optfs.choices import GATES_OF, LIMITS, OF_PAIRS, PRESSURES
from layersearch.spaces.optfs.published import DESIGNS
from layersearch.spaces.tasks.ctr.models.base import MODELS
from layersearch.spaces.tasks.ctr.sources import has_history, is_file, read_schema
from layersearch.spaces.validation import RunSettings, Settings, all_known, checked, override, torch_alone

__all__ = [
    "THE_CUT",
    "CutFidelity",
    "FunnelSettings",
    "OptFSSettings",
    "SearchSettings",
    "TaskSettings",
    "effective",
    "parse",
]

THE_CUT = "cut"
"""How the stage is called that ends with the search of gates, ``fitness@cut``."""

_REFERENCE_OBJECTIVE = "auc"
_OTHER_OBJECTIVES = ("log_loss", "ratio", "parameters", "latency")


def _names(names: tuple[str, ...], what: str, known: Sequence[str]) -> tuple[str, ...]:
    all_known(names, what, sorted(known))
    if len(set(names)) < len(names):
        raise ValueError(f"{what}s must be different, got {', '.join(names)}")
    return tuple(sorted(names))


class SearchSettings(Settings):
    """What is chosen by the search.

    Args:
        models: base models, names of ``MODELS``; ``din`` needs data with a sequence.
        reference: the model of the named designs and of the full model that candidates are compared with.
        gates: granularities, names of ``GATES_OF``.
        relaxations, operators: names of ``RELAXATIONS`` and ``OPERATORS``.
        pressures: ``price``, ``ratio`` or both.
        dims, search_epochs, rewind_epochs: what may be chosen.
        price, ratio, temperature, lr: least and most.
    """

    models: tuple[str, ...] = Field(min_length=1)
    reference: str = "fm"
    gates: tuple[str, ...] = Field(tuple(GATES_OF), min_length=1)
    relaxations: tuple[str, ...] = Field(tuple(RELAXATIONS), min_length=1)
    operators: tuple[str, ...] = Field(OPERATORS, min_length=1)
    pressures: tuple[str, ...] = Field(PRESSURES, min_length=1)
    dims: tuple[int, ...] = Field(min_length=1)
    search_epochs: tuple[int, ...] = Field(min_length=1)
    rewind_epochs: tuple[int, ...] = Field(min_length=1)
    price: tuple[float, float]
    ratio: tuple[float, float]
    temperature: tuple[float, float]
    lr: tuple[float, float]

    @field_validator("models")
    @classmethod
    def _models(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _names(names, "model", list(MODELS))

    @field_validator("gates")
    @classmethod
    def _gates(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _names(names, "granularity", list(GATES_OF))

    @field_validator("relaxations")
    @classmethod
    def _relaxations(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _names(names, "relaxation", list(RELAXATIONS))

    @field_validator("operators")
    @classmethod
    def _operators(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _names(names, "operator", list(OPERATORS))

    @field_validator("pressures")
    @classmethod
    def _pressures(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _names(names, "pressure", list(PRESSURES))

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        for name, key in (("dims", "dim"), ("search_epochs",) * 2, ("rewind_epochs", "rewind_epoch")):
            values = getattr(self, name)
            if list(values) != sorted(set(values)) or not all(map(LIMITS[key].holds, values)):
                raise ValueError(f"search.{name} must be rising, each {LIMITS[key]}, got {list(values)}")
        for name in ("price", "ratio", "temperature", "lr"):
            low, high = getattr(self, name)
            if not low <= high or not LIMITS[name].holds(low) or not LIMITS[name].holds(high):
                raise ValueError(f"search.{name} must be least and most, {LIMITS[name]}, got {low:g} and {high:g}")
        if self.rewind_epochs[-1] >= self.search_epochs[0]:
            raise ValueError(
                f"search.rewind_epochs must be below search.search_epochs, got {self.rewind_epochs[-1]} of "
                f"{self.search_epochs[0]}"
            )
        if self.reference not in self.models:
            raise ValueError(
                f"search.reference must be one of search.models, got '{self.reference}' of {', '.join(self.models)}"
            )
        if not any(OF_PAIRS.isdisjoint(GATES_OF[name]) for name in self.gates):
            without = [name for name in self.models if not MODELS[name].has_pairs]
            if without:
                raise ValueError(f"search.gates must have value or field for the model '{without[0]}', got none")
        return self


class FunnelSettings(Settings):
    """Limits of the rejecting stage, and what is measured.

    Args:
        objectives: ``auc``, by which candidates are ordered, and of ``log_loss`` (nats), ``ratio`` (kept share of the
            rows of the table: 1 for gates of pairs and products, which shut interactions and whose shares are the
            metrics ``pair_ratio`` and ``kept_product``), ``parameters`` (of the pruned model) and ``latency`` (time of
            a prediction by the pruned model for 512 rows, as a multiple of the reference model with all values; a run
            with it is not repeatable) those for which fewer is better where two are equally good.
        quality_auc: after the quality epochs the validation AUC must be above this. After one epoch (one seed,
            2026-11-25) every base model but DIN (not measured) was above .66 on movielens and frappe at ``small``, lr
            1e-3, FM at .73 on planted; FM and DCN that hardly learn (lr 1e-5 and 1e-7, movielens) were at .49 to .52.
        rerank_seeds: trainings when the best candidates and the baselines are ranked again.
    """

    objectives: tuple[str, ...] = ("auc", "ratio")
    quality_auc: float = Field(0.53, ge=0, lt=1)
    rerank_seeds: int = Field(2, ge=1, le=20)

    @field_validator("objectives")
    @classmethod
    def _legal(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return legal(names, _REFERENCE_OBJECTIVE, _OTHER_OBJECTIVES)


class TaskSettings(Settings):
    """The data, and what all trainings have in common; for the rest see ``LearnSettings``.

    Args:
        data: a name of ``CTR_SETS``, or the path of a table or libsvm file.
        schema: of a table: a mapping (``Schema.parse``), or in options the path of a YAML file with one.
        validation, test: files of those parts, if ``data`` is the one of the training rows.
        seed: of data that are made, and of the split of one table.
        content: of the files when the run began (``cache.content_of``), by which a changed file is refused; set by the
            run, None in runs of versions that did not note it.
        quality_epochs: so many epochs from the start the quality stage takes.
    """

    data: str
    table_schema: dict[str, Any] | None = Field(None, alias="schema")
    validation: str | None = None
    test: str | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    content: str | None = None
    batch: int = Field(1024, ge=2, le=10_000_000)
    epochs: int = Field(10, ge=1, le=1000)
    patience: int = Field(2, ge=1, le=1000)
    slowing: float = Field(1.0, gt=0, le=1)
    quality_epochs: int = Field(1, ge=1, le=1000)
    warm_epochs: int = Field(1, ge=0, le=1000)
    reviews: int = Field(0, ge=0, le=1000)
    review_factor: float = Field(1.85, gt=0, le=1000)
    growth: float = Field(0.3, ge=0, le=1)
    gate_lr: float = Field(0.01, gt=0, le=10)
    decay: float = Field(0.0, ge=0, le=1000)
    penalty: float = Field(0.0, ge=0, le=1000)
    std: float = Field(0.01, ge=0, lt=10)
    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = (64, 32)
    n_cross: int = Field(2, ge=1, le=16)
    activation: str = "relu"
    batch_norm: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True)

    @field_validator("activation")
    @classmethod
    def _known(cls, name: str) -> str:
        return all_known((name,), "activation", list(ACTIVATIONS))[0]

    @model_validator(mode="after")
    def _one_regulariser(self) -> Self:
        if self.decay and self.penalty:
            raise ValueError(
                f"only one of task.decay and task.penalty can be above 0, got {self.decay:g} and {self.penalty:g}; "
                "add --set task.decay=0"
            )
        return self


class CutFidelity(FidelitySettings):
    """Where candidates are measured before the end of their training.

    A fixed number of epochs tells little of a candidate here: in the first ones no gate is learned yet, and after the
    cut the weights begin anew, which is at another epoch for each length of the search. So the rung is the cut itself.
    There all candidates are alike: what they select is known and final, and so is all that is counted of it. The AUC is
    that of the hard selection by the weights of the search; retraining, which is spared to those that wait, changes it.
    Its rank correlation with the AUC at the end was .86 over 20 random candidates on a planted task, that of the AUC
    after any epoch before at most .30 (``tests/bench/RESULTS.md``).

    Args:
        ratio: 0 for no rung; any other one gives the rung at the cut.
        rungs: the ends of these epochs of the search of gates, too, in rising order: the AUC is then that of the model
            with its gates as they are, open before ``task.warm_epochs``.
    """


class OptFSSettings(RunSettings):
    """All of it. ``seed_layers`` are the named designs a population may start from, in order of preference."""

    seed_layers: tuple[str, ...] = tuple(DESIGNS)
    search: SearchSettings
    funnel: FunnelSettings = FunnelSettings()
    fidelity: CutFidelity = CutFidelity()
    task: TaskSettings

    @field_validator("seed_layers")
    @classmethod
    def _published(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return all_known(names, "design", list(DESIGNS))

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        least, reviews = self.search.search_epochs[0], self.task.reviews
        if not self.task.warm_epochs + reviews < least:
            raise ValueError(
                f"task.warm_epochs and task.reviews must together be fewer than search.search_epochs, got "
                f"{self.task.warm_epochs} and {reviews} of {least}"
            )
        self.fidelity.check(least, f"epoch {least}, the end of the shortest search")
        if "din" in self.search.models and not has_history(self.task.data, self.task.table_schema):
            raise ValueError(f"the model din needs a sequence, and '{self.task.data}' has none")
        return self

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Of a training. Their steps are left out: how many a training has is known at its end."""
        epochs = self.fidelity.rungs
        if not epochs and not self.fidelity.ratio:
            return UNCUT
        early = early_cuts(self.task.quality_epochs, epochs).values()
        return (*early, Cut("fitness", f"@{THE_CUT}", len(epochs)), Cut("fitness"))


_DEEP = ("dcn", "dcnv2", "deepfm", "fm", "ipnn", "lr")
_SEARCH: dict[str, dict[str, Any]] = {
    # For the planted task. With a review factor of 1.85 these prices ask for 5.2 to 7.0 nats: odds of a false alarm of
    # 1.3e-3 to 1.8e-4 per value and question, a few of 10,000 values.
    "smoke": {
        "models": ["fm"],
        "operators": ["inner", "weighted"],
        "dims": [4],
        "search_epochs": [7, 8],
        "rewind_epochs": [0, 1, 2],
        "price": [2.8, 3.8],
        "ratio": [0.05, 0.5],
        "temperature": [100.0, 2000.0],
        "lr": [0.01, 0.03],
    },
    "small": {
        "models": list(_DEEP),
        "dims": [4, 8, 10, 16],
        "search_epochs": [4, 5, 6, 8],
        "rewind_epochs": [0, 1, 2, 3],
        "price": [0.01, 5.0],
        "ratio": [0.05, 0.98],
        "temperature": [50.0, 5000.0],
        "lr": [5e-4, 0.02],
    },
}
_SEARCH["paper"] = _SEARCH["small"] | {"search_epochs": [5, 10, 15, 20], "dims": [10, 16, 32]}
_TASK: dict[str, dict[str, Any]] = {
    "smoke": {"warm_epochs": 3, "reviews": 2, "decay": 0.5, "std": 0.3},
    "small": {"epochs": 20, "std": 0.1, "reviews": 2},
    "paper": {
        "epochs": 100,
        "hidden": [400, 400, 400],
        "n_cross": 3,
        "batch_norm": True,
        "dropout": 0.2,
        "batch": 4096,
    },
}


def effective(
    series: str | None,
    data: str,
    data_dir: str | None,
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    seed_layers: Sequence[str] | None = None,
    lowering: str = "torch",
) -> JsonObject:
    """Settings of a run as plain data: the preset's, with ``--set`` overrides applied.

    Args:
        series: the space has none.
        data: a name of ``CTR_SETS``, or a file.
        data_dir: folder of the data sets, if the set needs one.
        preset: ``smoke``, ``small`` or ``paper``.
        overrides: values by dotted key, e.g. ``{"search.price": [1, 4], "task.batch": 512}``.
        seed_layers: named designs to start from.
        lowering: ``auto`` or ``torch``, the only one there is here.
    Raises: RecipeError or UnknownNameError with one sentence for an unknown name or an illegal value.
    """
    torch_alone("optfs", series, lowering)
    task = TaskSettings(data=data, **_TASK[preset]).model_dump(mode="json", by_alias=True)
    base: JsonObject = {
        "seed_layers": list(DESIGNS if seed_layers is None else seed_layers),
        "data_dir": data_dir,
        "search": SearchSettings(**_SEARCH[preset]).model_dump(mode="json"),
        "funnel": FunnelSettings().model_dump(mode="json"),
        "fidelity": CutFidelity().model_dump(mode="json"),
        "task": task,
    }
    given = dict(overrides or {})
    is_table = is_file(data)
    if given.get("task.schema") is not None:
        if not is_table:
            raise RecipeError(f"task.schema is for tables, and '{data}' is a set with fields of its own; leave it out")
        given["task.schema"] = read_schema(given["task.schema"])
    if "search.models" not in given and has_history(data, given.get("task.schema")):
        base["search"]["models"] = [*base["search"]["models"], "din"]
    override(base, ("search", "funnel", "fidelity", "task"), given)
    for key in ("data", "validation", "test") if is_table else ():
        if isinstance(base["task"][key], str):
            base["task"][key] = _absolute(base["task"][key], data_dir)
    return parse(base).model_dump(mode="json", by_alias=True)


def _absolute(name: str, data_dir: str | None) -> str:
    """A run goes on from any folder; a file that is in the data folder stays relative to it."""
    path = Path(name).expanduser()
    if not path.exists() and data_dir is not None and (Path(data_dir) / path).exists():
        return str(path)
    return str(path.absolute())


def parse(settings: JsonObject) -> OptFSSettings:
    """Checked settings from plain data. Raises: RecipeError with one sentence."""
    return checked(OptFSSettings, settings)
