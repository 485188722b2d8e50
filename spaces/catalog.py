"""Which search spaces there are: what the command line must know of each before anything heavy is imported."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from layersearch.errors import BadInputError
from layersearch.primitives.registry import Registry

__all__ = ["SPACES", "Budget", "SpaceEntry", "layers_of"]


@dataclass(frozen=True)
class Budget:
    """How far a run goes by default.

    Args:
        evaluations: candidates that pass the last stage.
        population: candidates that the driver keeps.
        rerank_top: how many of the best are measured again.
    """

    evaluations: int
    population: int
    rerank_top: int


@dataclass(frozen=True)
class SpaceEntry:
    """One space. Code is named as ``module:function`` and imported on first use.

    Args:
        entry: makes the space from its settings (plain data).
        settings: ``(series, data, data_dir, preset, overrides, seed_layers, lowering)`` -> checked settings as plain
            data; raises RecipeError or UnknownNameError with one sentence.
        presets: default budget by name of preset.
        series: variants of the space, the default one first; empty if it has none.
        data: name of the default data set.
        device: what ``--device auto`` stands for: ``auto``, a GPU where there is one, or ``cpu``.
        data_sets: registry of the data sets, by name.
        load: ``(name, data_dir)`` -> data; reads a data set, or raises DataError with one sentence.
        plan: ``(settings, data, device)`` -> settings in which nothing is left to be found out at the start of a run,
            as what the lowering ``auto`` is, or what its files contain; if the space has any such setting.
        network: whether genomes are whole networks, built for ``out_features``, too; else they are layers.
        rungs: key of the setting that takes a ratio and has candidates measured early, at training steps that are this
            many times apart or where the space sees fit; if the space has one.
        objectives: key of the setting that takes names of objectives (``layersearch.spaces.objectives``); without one
            the space has those that it has.
        layers: module with ``known(name)``, ``build(genome, num_features, lowering, groups)``, ``formula(genome)`` and
            ``latex(genome)``; genomes are plain data (``layers_of``). ``build`` of a network also takes
            ``out_features``.
        exporter: module that writes genomes as plain torch modules: ``python_file(genome, settings, num_features)``
            gives a ``contracts.PythonFile`` (``settings`` of the run, or ``None``), ``trained(genome, settings,
            run_seed)`` the state dict to go with it, trained as in the re-rank, and what it measured. If there is none,
            genomes are graphs of ops, which the engine writes itself.
        selects: its trials select what an exported file is made of (``Outcome.selection``): ``python_file`` of the
            exporter takes it as a fourth argument, ``trained`` gives it as a third value.
        reader: module whose ``read(genome, settings, run_seed, …)`` reads a trained network as functions, a
            ``primitives.symbolic.reading.Reading``; if the networks of the space have edges to be read.
        formats: further formats of ``search export``, each ``module:function``: ``(genome, settings, run_seed,
            suffix)`` -> text of a file of that ending, and what it is.
        calibration: module with ``calibrate``, ``verdict`` and ``recorded``, if the space has a self-test.
        preload: modules that worker processes share by being forked after their import.
    """

    name: str
    summary: str
    entry: str
    settings: str
    presets: Mapping[str, Budget]
    series: tuple[str, ...] = ()
    data: str = "digits"
    device: str = "auto"
    data_sets: str | None = None
    load: str | None = None
    plan: str | None = None
    network: bool = False
    rungs: str | None = None
    objectives: str | None = None
    layers: str | None = None
    exporter: str | None = None
    selects: bool = False
    reader: str | None = None
    formats: Mapping[str, str] = field(default_factory=dict)
    calibration: str | None = None
    preload: tuple[str, ...] = ("torch",)

    def resolve(self, path: str) -> Any:
        """The object that ``module:name`` is."""
        module, _, name = path.partition(":")
        return getattr(self.module(module), name)

    def module(self, path: str) -> ModuleType:
        """The module of that name."""
        return importlib.import_module(path)

    def settings_of(self, *args: Any) -> dict[str, Any]:
        """Calls ``settings``."""
        make: Callable[..., dict[str, Any]] = self.resolve(self.settings)
        return make(*args)


SPACES: Registry[SpaceEntry] = Registry("space")
SPACES.add(
    "evonorm",
    SpaceEntry(
        name="evonorm",
        summary="normalization-activation layers as graphs of low-level ops, judged in three image networks",
        entry="layersearch.spaces.evonorm.space:from_settings",
        settings="layersearch.spaces.evonorm.settings:effective",
        presets={
            "paper": Budget(evaluations=2500, population=256, rerank_top=10),
            "small": Budget(evaluations=60, population=16, rerank_top=5),
            "smoke": Budget(evaluations=8, population=8, rerank_top=2),
        },
        series=("b", "s"),
        data_sets="layersearch.spaces.tasks.images.data:IMAGE_SETS",
        load="layersearch.spaces.tasks.images.data:load_images",
        plan="layersearch.spaces.evonorm.plan:planned",
        rungs="fidelity.ratio",
        objectives="funnel.objectives",
        layers="layersearch.spaces.evonorm.layers",
        calibration="layersearch.spaces.evonorm.calibration",
    ),
)

SPACES.add(
    "kan",
    SpaceEntry(
        name="kan",
        summary="Kolmogorov-Arnold networks of any basis, judged on functions, equations, tables and images",
        entry="layersearch.spaces.kan.space:from_settings",
        settings="layersearch.spaces.kan.settings:effective",
        presets={
            "paper": Budget(evaluations=500, population=64, rerank_top=10),
            "small": Budget(evaluations=120, population=32, rerank_top=5),
            "smoke": Budget(evaluations=40, population=16, rerank_top=3),
        },
        data="fn:f3",
        data_sets="layersearch.spaces.kan.data:DATA_SETS",
        load="layersearch.spaces.kan.data:load",
        network=True,
        rungs="fidelity.ratio",
        objectives="funnel.objectives",
        layers="layersearch.spaces.kan.layers",
        exporter="layersearch.spaces.kan.export",
        reader="layersearch.spaces.kan.reading",
    ),
)

SPACES.add(
    "skan",
    SpaceEntry(
        name="skan",
        summary="Kolmogorov-Arnold networks and convolutions whose nodes choose a basis of a pool in training",
        entry="layersearch.spaces.skan.space:from_settings",
        settings="layersearch.spaces.skan.settings:effective",
        presets={
            "paper": Budget(evaluations=300, population=48, rerank_top=10),
            "small": Budget(evaluations=80, population=24, rerank_top=5),
            "smoke": Budget(evaluations=20, population=10, rerank_top=3),
        },
        data="fn:r3",
        data_sets="layersearch.spaces.kan.data:DATA_SETS",
        load="layersearch.spaces.kan.data:load",
        network=True,
        rungs="fidelity.ratio",
        objectives="funnel.objectives",
        layers="layersearch.spaces.skan.layers",
        exporter="layersearch.spaces.skan.export",
        selects=True,
        reader="layersearch.spaces.skan.reading",
    ),
)

SPACES.add(
    "optfs",
    SpaceEntry(
        name="optfs",
        summary="gates on values, fields and pairs of click-through models, judged by AUC and by what they keep",
        entry="layersearch.spaces.optfs.space:from_settings",
        settings="layersearch.spaces.optfs.settings:effective",
        presets={
            "paper": Budget(evaluations=200, population=32, rerank_top=5),
            "small": Budget(evaluations=40, population=16, rerank_top=3),
            "smoke": Budget(evaluations=6, population=6, rerank_top=2),
        },
        data="planted",
        device="cpu",
        data_sets="layersearch.spaces.tasks.ctr.prepared:CTR_SETS",
        load="layersearch.spaces.tasks.ctr.sources:load_source",
        plan="layersearch.spaces.optfs.plan:planned",
        network=True,
        rungs="fidelity.ratio",
        objectives="funnel.objectives",
        layers="layersearch.spaces.optfs.layers",
        exporter="layersearch.spaces.optfs.export",
        formats={"features": "layersearch.spaces.optfs.export:features"},
    ),
)


def layers_of(space: str) -> ModuleType:
    """Module ``SpaceEntry.layers`` of a space. Raises: UnknownNameError; BadInputError if the space has none."""
    entry = SPACES[space]
    if entry.layers is None:
        raise BadInputError(f"a space must make layers to be asked for one, and '{space}' does not; see search spaces")
    return entry.module(entry.layers)
