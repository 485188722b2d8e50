"""Every knob of the evonorm space, with the effective values written into the recipe of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from layersearch.primitives.graph_json import MAX_DEPTH
from layersearch.primitives.lowering import LOWERINGS
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.fidelity import FidelitySettings, SteppedSettings
from layersearch.spaces.objectives import COSTS, legal
from layersearch.spaces.tasks.images.presets import preset as image_preset
from layersearch.spaces.tasks.images.settings import ImageSettings
from layersearch.spaces.validation import Settings, all_known, checked, override

__all__ = [
    "AUTO",
    "DEFAULT_SEEDS",
    "EvonormSettings",
    "FunnelSettings",
    "GraphSettings",
    "LoweringSettings",
    "effective",
    "parse",
]

AUTO = "auto"
"""The lowering that ``plan.planned`` replaces by the one that is fastest here."""

DEFAULT_SEEDS = ("bn-relu", "gn-relu", "bn-silu", "frn-tlu")
"""Hand-designed layers from before the space's own discoveries; EvoNorms are seeds only where named."""


_CALIBRATED: dict[tuple[str, str], dict[str, dict[str, float]]] = {
    # One of five GN-ReLU trainings on EfficientNet learns late: .106 of its batches at step 60, .187 of the validation
    # images at step 100, where the defaults ask for .12 and .20 (2026-11-25).
    ("small", "cifar10"): {"funnel": {"early_step": 0, "quality_chance": 1.5}},
}
"""Where a known layer failed a default limit: what was changed for a preset and data set, and why."""


class GraphSettings(Settings):
    """How genomes are drawn and what guards they carry (``Generator``, ``Numerics``)."""

    nodes: int = Field(10, ge=1, le=MAX_DEPTH - 1)
    p_aggregate: float = Field(0.35, ge=0, le=1)
    p_connect: float = Field(0.5, ge=0, le=1)
    eps: float = Field(1e-5, gt=0, le=1)
    div_eps: float = Field(1e-5, ge=0, le=1)
    log_eps: float = Field(1e-5, ge=0, le=1)


class FunnelSettings(Settings):
    """Limits of the rejecting stages, and what is measured. Those of accuracy are multiples of chance (1 / classes).

    Args:
        objectives: ``accuracy``, which stands for one objective per anchor network, and what layers cost, of ``COSTS``.
        probe_steps: training steps of the network probe.
        stability_networks: anchor networks of the stability stage. Plain ReLU passes on the two others.
        stability_steps, stability_rate, stability_batch: steps and step size of the gradient ascent on the gradient
            norm, and images of its fixed batch. At a step size of 0.1 BN-ReLU and GN-ReLU are at the limit.
        stability_limit: largest gradient norm allowed.
        early_step, early_chance: after ``early_step`` training steps the accuracy of the last ten batches must reach
            ``early_chance`` × chance.
        quality_chance: validation accuracy after the quality steps must reach ``quality_chance`` × chance.
        rerank_seeds: trainings per network when the best candidates and the baselines are ranked again.
    """

    probe_steps: int = Field(2, ge=1)
    stability_networks: tuple[str, ...] = ("resnet",)
    stability_steps: int = Field(100, ge=0)
    stability_rate: float = Field(0.01, gt=0)
    stability_batch: int = Field(8, ge=1)
    stability_limit: float = Field(1e8, gt=0)
    early_step: int = Field(60, ge=0)
    early_chance: float = Field(1.2, ge=0)
    quality_chance: float = Field(2.0, ge=0)
    rerank_seeds: int = Field(1, ge=1, le=20)
    objectives: tuple[str, ...] = ("accuracy",)

    @field_validator("objectives")
    @classmethod
    def _legal(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return legal(names, "accuracy")

    @property
    def costs(self) -> tuple[str, ...]:
        return tuple(name for name in self.objectives if name in COSTS)


class LoweringSettings(Settings):
    """How layers are run, the same for all candidates of a run; stability, which differentiates twice, never compiles.

    Args:
        name: of a row of ``LOWERINGS``, or ``AUTO``.
        swap_step: training step of the first network at which ``name`` takes over from ``torch``, which is built at
            once: most candidates do not live long enough to be worth compiling.
    """

    name: str = "torch"
    swap_step: int = Field(0, ge=0)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != AUTO and name not in LOWERINGS:
            raise ValueError(str(unknown_name("lowering", name, [AUTO, *LOWERINGS])))
        return name


class EvonormSettings(SteppedSettings):
    """All of it.

    ``seed_layers`` are the known layers a population may start from, in order of preference; ``task.groups`` is the
    group limit of every genome: anchor networks are narrower than published ones.
    """

    series: Literal["b", "s"] = "b"
    seed_layers: tuple[str, ...] = DEFAULT_SEEDS
    data_dir: str | None = None
    graph: GraphSettings = GraphSettings()
    funnel: FunnelSettings = FunnelSettings()
    fidelity: FidelitySettings = FidelitySettings()
    lowering: LoweringSettings = LoweringSettings()
    task: ImageSettings

    @field_validator("seed_layers")
    @classmethod
    def _published(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return all_known(names, "layer", list(PUBLISHED))

    @model_validator(mode="after")
    def _stability_on_anchors(self) -> Self:
        given, anchors = self.funnel.stability_networks, self.task.networks
        if len(set(given)) < len(given) or not set(given) <= set(anchors):
            raise ValueError(
                f"funnel.stability_networks must be different anchors, of {', '.join(anchors)}, got {', '.join(given)}"
            )
        return self

    @property
    def numerics(self) -> Numerics:
        return Numerics(self.graph.eps, self.graph.div_eps, self.graph.log_eps, self.task.groups)

    @property
    def data_path(self) -> Path | None:
        return None if self.data_dir is None else Path(self.data_dir)


def effective(
    series: Literal["b", "s"],
    data: str,
    data_dir: str | None,
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    seed_layers: Sequence[str] | None = None,
    lowering: str = "torch",
) -> JsonObject:
    """Settings of a run as plain data: the preset's, with ``--set`` overrides applied.

    Args:
        series: ``b`` (unrestricted) or ``s`` (no batch moments).
        data: name of the image set.
        data_dir: folder of the data sets, if the set needs one.
        preset: ``smoke``, ``small`` or ``paper``.
        overrides: values by dotted key, e.g. ``{"funnel.stability_rate": 0.02, "task.batch": 64}``.
        seed_layers: known layers to start from, by name; by default those of ``DEFAULT_SEEDS`` that are legal.
        lowering: how layers are run, ``AUTO`` or a row of ``LOWERINGS``.
    Raises: RecipeError with one sentence for an unknown key or an illegal value.
    """
    base: JsonObject = {
        "series": series,
        "seed_layers": list(DEFAULT_SEEDS if seed_layers is None else seed_layers),
        "data_dir": data_dir,
        "graph": GraphSettings().model_dump(mode="json"),
        "funnel": FunnelSettings().model_dump(mode="json"),
        "fidelity": FidelitySettings().model_dump(mode="json"),
        "lowering": LoweringSettings().model_dump(mode="json") | {"name": lowering},
        "task": image_preset(preset, data, series).model_dump(mode="json"),
    }
    for part, changes in _CALIBRATED.get((preset, data), {}).items():
        base[part] |= changes
    override(base, ("graph", "funnel", "fidelity", "lowering", "task"), overrides)
    return parse(base).model_dump(mode="json")


def parse(settings: JsonObject) -> EvonormSettings:
    """Checked settings from plain data. Raises: RecipeError with one sentence."""
    return checked(EvonormSettings, settings)
