"""The recipe of a run: every option by its long name, checked as a whole, with the defaults that depend on others."""

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

import layersearch
from layersearch.errors import RecipeError
from layersearch.primitives.registry import unknown_name
from layersearch.search.drivers.optuna import DEFAULT_SAMPLER
from layersearch.search.executors.base import AS_MANY_AS_FIT
from layersearch.search.recipe_yaml import load_text
from layersearch.search.run_settings import BACKENDS, ENDS, RunSettings, default_backend
from layersearch.search.schedulers.base import SCHEDULERS
from layersearch.spaces.catalog import SPACES, SpaceEntry
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.objectives import NOISY
from layersearch.spaces.validation import sentence

__all__ = ["CLUSTER", "MOST_DEFAULT_WORKERS", "Recipe", "parse_set"]

CLUSTER = ("address", "gpus_per_worker", "cpus_per_worker")
"""Options of the backend ray."""

MOST_DEFAULT_WORKERS = 8
_DRIVER = "driver."  # settings under --set that are knobs of the driver
_SCHEDULER = "scheduler."  # those of the scheduler
_PLACES = {"run", "runs_dir"}  # where the recipe lies says it

_Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Minutes = Annotated[float, Field(gt=0, le=10_000_000)]


class Recipe(BaseModel):
    """What ``search evolve`` or ``tune`` was asked for. ``None`` stands for a default that depends on other options.

    Raises: RecipeError (by ``parse``) with one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    space: str
    series: str | None = None
    data: str | None = None
    data_dir: str | None = None
    preset: str = "smoke"
    evaluations: _Count | None = None
    minutes: _Minutes | None = None
    core_minutes: _Minutes | None = None
    population: _Count | None = None
    driver: str = "evolution"
    sampler: str | None = None
    objectives: list[str] | None = None
    scheduler: str = "straight"
    backend: Literal["inline", "pool", "ray", "streams"] | None = None
    workers: Annotated[int, Field(ge=1, le=AS_MANY_AS_FIT)] | None = None
    address: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    gpus_per_worker: Annotated[float, Field(ge=0, le=1024)] | None = None
    cpus_per_worker: Annotated[float, Field(gt=0, le=1024)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    run: str | None = None
    runs_dir: str = "runs"
    lowering: str = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$")] = "auto"
    deterministic: bool | None = None
    lookahead: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed_layers: list[str] | None = None
    baselines: list[str] | None = None
    rerank_top: Annotated[int, Field(ge=0, le=1000)] | None = None
    set: dict[str, JsonValue] = {}

    @field_validator("set")
    @classmethod
    def _finite(cls, values: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for key, value in values.items():
            if not _is_finite(value):
                raise ValueError(f"{key} must be finite, got {value}")
        return values

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        ends = [f"{name} {value:g}" for name in ENDS if (value := getattr(self, name)) is not None]
        if len(ends) > 1:
            raise ValueError(f"a run must have one end, got both {' and '.join(ends)}")
        if self.sampler is not None and self.driver != "optuna":
            raise ValueError(f"sampler must be left out with driver '{self.driver}', got {self.sampler}")
        if self.backend == "inline" and (self.workers or 1) > 1:
            raise ValueError(f"the inline backend must have one worker, got {self.workers}")
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Recipe":
        """From plain values, as of YAML."""
        if values.get("space") is None:
            raise RecipeError(f"a space must be given, got none; add --space, one of {', '.join(SPACES)}")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise RecipeError(_sentence(error)) from None

    def entry(self) -> SpaceEntry:
        """The row of the space. Raises: UnknownNameError."""
        return SPACES[self.space]

    def completed(self, cores: int) -> "Recipe":
        """With every default filled in, but ``device`` and the space's own.

        Args:
            cores: that this process may use.
        Raises: RecipeError or UnknownNameError with one sentence.
        """
        entry = self.entry()
        if self.preset not in entry.presets:
            raise unknown_name("preset", self.preset, sorted(entry.presets))
        if self.series is not None and not entry.series:
            raise RecipeError(f"series must be left out for the space {self.space}, got '{self.series}'; leave it out")
        if self.series is not None and self.series not in entry.series:
            raise unknown_name("series", self.series, list(entry.series))
        budget = entry.presets[self.preset]
        workers = self.workers
        backend: str | None = self.backend or ("ray" if self.on_cluster else None)
        fills = self.address or self.gpus_per_worker or "RAY_ADDRESS" in os.environ
        if workers is None and backend == "ray" and fills:
            workers = AS_MANY_AS_FIT
        if workers is None:
            workers = 1 if backend == "inline" else min(cores, MOST_DEFAULT_WORKERS)
        backend = backend or default_backend(workers, self.device)
        population = self.population or budget.population
        values = {
            "series": self.series or next(iter(entry.series), None),
            "data": self.data or entry.data,
            "evaluations": self.evaluations or (None if self.minutes or self.core_minutes else budget.evaluations),
            "population": population,
            "sampler": self.sampler or (DEFAULT_SAMPLER if self.driver == "optuna" else None),
            "backend": backend,
            "workers": workers,
            "rerank_top": budget.rerank_top if self.rerank_top is None else self.rerank_top,
        }
        complete = self.model_copy(update=values)
        settings = complete.run_settings().resolved([name for name in self.objectives or () if name in NOISY])
        update = {"deterministic": settings.deterministic, "lookahead": settings.lookahead}
        return complete.model_copy(update=update)

    @property
    def on_cluster(self) -> bool:
        """Whether options are given that only the backend ray has."""
        return any(getattr(self, name) is not None for name in CLUSTER)

    def space_settings(self) -> dict[str, Any]:
        """Checked settings of the space, of a completed recipe. Raises: RecipeError or UnknownNameError."""
        overrides = {key: value for key, value in self.set.items() if not key.startswith((_DRIVER, _SCHEDULER))}
        entry, ratio = self.entry(), SCHEDULERS[self.scheduler].ratio
        if ratio is not None and entry.rungs is not None:
            overrides = {entry.rungs: ratio(self._scheduler_settings()), **overrides}
        overrides |= self._chosen_objectives(entry)
        return entry.settings_of(
            self.series, self.data, self.data_dir, self.preset, overrides, self.seed_layers, self.lowering
        )

    def _chosen_objectives(self, entry: SpaceEntry) -> dict[str, Any]:
        """As a setting of the space. Raises: RecipeError."""
        key = entry.objectives
        if key in self.set:
            raise RecipeError(f"objectives must be given by --objectives, got --set {key}; write --objectives NAMES")
        if self.objectives is None:
            return {}
        if key is None:
            given = ", ".join(self.objectives)
            raise RecipeError(
                f"objectives must be left out, the space {self.space} has its own, got {given}; drop them"
            )
        return {key: self.objectives}

    def with_plan(self, settings: JsonObject) -> "Recipe":
        """Names the lowering that was chosen in ``settings`` of the space, so that the recipe makes the same run.

        What is noted of the data is left out: the recipe can be followed with others.
        """
        if "lowering" not in settings:
            return self
        plan: JsonObject = settings["lowering"]
        knobs = {f"lowering.{key}": value for key, value in plan.items() if key != "name"}
        return self.model_copy(update={"lowering": plan["name"], "set": self.set | knobs})

    def _scheduler_settings(self) -> dict[str, float]:
        knobs: dict[str, float] = {}
        for key, value in self.set.items():
            if key.startswith(_SCHEDULER):
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise RecipeError(f"{key} must be a number, got {value!r:.60}; change it")
                knobs[key.removeprefix(_SCHEDULER)] = value
        return knobs

    def run_settings(self) -> RunSettings:
        """Settings of the runner, of a completed recipe. Raises: RecipeError."""
        knobs: dict[str, float | str] = {} if self.sampler is None else {"sampler": self.sampler}
        for key, value in self.set.items():
            if key.startswith(_DRIVER):
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise RecipeError(f"{key} must be a number, got {value!r:.60}; change it")
                knobs[key.removeprefix(_DRIVER)] = value
        return RunSettings(
            evaluations=self.evaluations,
            minutes=self.minutes,
            core_minutes=self.core_minutes,
            population=self.population or 1,
            driver=self.driver,
            driver_settings=knobs,
            scheduler=self.scheduler,
            scheduler_settings=self._scheduler_settings(),
            backend=self.backend or "inline",
            workers=self.workers or 1,
            seed=self.seed,
            deterministic=self.deterministic,
            lookahead=self.lookahead,
            rerank_top=self.rerank_top or 0,
            baselines=self.baselines,
            device=self.device,
            address=self.address,
            gpus_per_worker=self.gpus_per_worker,
            cpus_per_worker=self.cpus_per_worker,
        )

    def to_yaml(self) -> str:
        """The file that ``--recipe`` takes to make the same run under another name."""
        values = {key: value for key, value in self.model_dump(exclude=_PLACES).items() if value not in (None, {})}
        command = "tune" if self.driver == "optuna" else "evolve"
        return f"# search {command}, layersearch {layersearch.__version__}\n" + yaml.safe_dump(
            values, sort_keys=False, allow_unicode=True
        )


def parse_set(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` texts of ``--set`` as plain values. Raises: RecipeError with one sentence."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise RecipeError(
                f"--set must be given as key=value, got {pair!r:.80}; write for example --set task.batch=64"
            )
        values[key] = load_text(text, f"the value of --set {key}")
    return values


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list) else True


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if name == "set" and len(first["loc"]) > 1:
        rule = first["msg"].replace("Input should be", "must be")
        return f"{first['loc'][1]} {rule}, got {first['input']!r:.60}; correct the option"
    if first["type"] == "string_pattern_mismatch":
        return f"device must be auto, cpu, cuda or cuda:N, got {first['input']!r:.60}; correct the option"
    if first["type"] == "literal_error":
        return str(unknown_name(name, str(first["input"])[:60], list(BACKENDS)))
    return sentence(error, list(Recipe.model_fields), kind="option")
