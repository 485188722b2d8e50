"""The evonorm space: normalization-activation layers as graphs of low-level ops, judged on image networks."""

import functools
import random
from collections.abc import Mapping, Sequence

from layersearch.errors import GenomeError
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import LEAVES, Graph
from layersearch.primitives.graph_json import graph_from_json, graph_to_json
from layersearch.primitives.printing import formula
from layersearch.spaces.contracts import Arrays, Evaluator, JsonObject, Objective, Outline, Probe, Stage, Trial
from layersearch.spaces.evonorm import screen
from layersearch.spaces.evonorm.generate import Generator
from layersearch.spaces.evonorm.published import INPUTS, PUBLISHED, pad
from layersearch.spaces.evonorm.settings import EvonormSettings, parse
from layersearch.spaces.evonorm.suggest import Encoding
from layersearch.spaces.fidelity import cuts
from layersearch.spaces.objectives import cost_objectives, described

__all__ = ["EvonormSpace", "from_settings"]

_BASELINES = ("bn-relu", "gn-relu", "bn-silu", "evonorm-b0", "evonorm-s0")


class EvonormSpace:
    """``layersearch.spaces.contracts.TunableSpace`` of normalization-activation layers (arXiv:2004.02967).

    The B-series is unrestricted; the S-series has no moments over the batch, so that a layer needs no running buffers
    and does not depend on the batch size.
    """

    name = "evonorm"

    def __init__(self, settings: EvonormSettings) -> None:
        self.settings = settings
        task = settings.task
        self.generator = Generator(
            nodes=settings.graph.nodes,
            batch_moments=settings.series == "b",
            p_aggregate=settings.graph.p_aggregate,
            p_connect=settings.graph.p_connect,
            numerics=settings.numerics,
        )
        self.encoding = Encoding(settings.graph.nodes, settings.series == "b", settings.numerics)
        costs = cost_objectives("BN-ReLU", "per channel")
        self.objectives = (*map(Objective, task.networks), *(costs[name] for name in settings.funnel.costs))
        self.stages = _search_stages(settings)
        repeats = [f"{n}:{k}" for k in range(settings.funnel.rerank_seeds) for n in task.networks]
        self.rerank_stages = tuple(Stage(f"rerank:{r}", "rerank") for r in repeats)
        self.test_stages = tuple(Stage(f"test:{r}", "test", resumes=f"rerank:{r}") for r in repeats)

    def sample(self, rng: random.Random) -> Graph:
        return self.generator.sample(rng)

    def mutate(self, genome: Graph, rng: random.Random) -> Graph:
        return self.generator.mutate(genome, rng)

    def suggest(self, trial: Trial) -> Graph:
        return self.encoding.suggest(trial)

    def parameters(self, genome: Graph) -> dict[str, int | str] | None:
        return self.encoding.parameters(genome)

    def seeds(self) -> Mapping[str, Graph]:
        return {name: self._known(name) for name in self.settings.seed_layers if self._legal(PUBLISHED[name])}

    def baselines(self) -> Mapping[str, Graph]:
        return {name: self._known(name) for name in _BASELINES}

    def outline(self, genome: Graph) -> Outline:
        return screen.outline(genome)

    def probe(self, genome: Graph) -> Probe:
        return screen.probe(genome)

    def same(self, a: Graph, b: Graph) -> bool:
        return screen.same_function(a, b)

    def known_as(self, genome: Graph) -> str | None:
        key = screen.probe(genome).key
        for name, known_key in self._published_keys.items():
            if key == known_key and screen.same_function(genome, self._known(name)):
                return name
        return None

    def to_json(self, genome: Graph) -> JsonObject:
        return graph_to_json(genome)

    def from_json(self, data: JsonObject) -> Graph:
        """Baselines are read back in both series: a run stores them beside its candidates."""
        graph = graph_from_json(data)
        if graph.nodes[: len(INPUTS)] != INPUTS:
            raise GenomeError(
                "a genome of evonorm starts with the nodes x, const 0, param v0 (0), param v1 (1); add them"
            )
        for i, node in enumerate(graph.nodes[len(INPUTS) :], len(INPUTS)):
            if node.op in LEAVES:
                raise GenomeError(f"node {i}: nodes after the first {len(INPUTS)} must be ops, got '{node.op}'")
        if not self._legal(graph) and graph not in self.baselines().values():
            raise GenomeError("the S-series has no moments over the batch, got one; use --series b")
        return graph

    def formula(self, genome: Graph) -> str:
        return formula(genome)

    def load_data(self) -> Arrays:
        from layersearch.spaces.tasks.images.data import load_images, to_arrays

        return to_arrays(load_images(self.settings.task.data, self.settings.data_path))

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        from layersearch.spaces.evonorm.evaluate import EvonormEvaluator

        return EvonormEvaluator(self.settings, data, device)

    def describe(self) -> Sequence[tuple[str, str]]:
        task, funnel = self.settings.task, self.settings.funnel
        return (
            ("series", f"{self.settings.series.upper()} ({self.settings.graph.nodes} nodes)"),
            ("networks", ", ".join(task.networks)),
            ("quality", f"{task.quality_steps} steps, {funnel.quality_chance:g} × chance"),
            ("stability", f"gradient norm ≤ {funnel.stability_limit:g} in {funnel.stability_steps} ascent steps"),
            ("lowering", _plan_sentence(self.settings)),
            ("fitness", f"validation accuracy after {task.fitness_steps} steps"),
            *self.settings.described_rungs(),
            *described(funnel.objectives, "BatchNorm2d + ReLU"),
        )

    def _legal(self, graph: Graph) -> bool:
        return self.settings.series == "b" or not canonical(graph).uses_batch_moments()

    def _known(self, name: str) -> Graph:
        """A published layer as a genome of this run: padded, and with the run's guards and groups."""
        return pad(Graph(PUBLISHED[name].nodes, self.settings.numerics), self.settings.graph.nodes)

    @functools.cached_property
    def _published_keys(self) -> dict[str, str]:
        return {name: screen.probe(self._known(name)).key for name in PUBLISHED}


def _search_stages(settings: EvonormSettings) -> tuple[Stage, ...]:
    """Cheapest first. Quality on the first network comes before stability, which costs more and turns away less.

    Of 650 random new layers on digits, quality on the ResNet stopped four in five for .55 core-seconds each; the 100
    double-backward steps of stability cost 1.35 for each layer that passes them (2026-11-25).

    What a layer costs is measured where its kernels are there, and four in five layers are not.

    One training per network, cut where something is measured: each part continues the one before.
    """
    task, funnel = settings.task, settings.funnel
    first = task.networks[0]
    stages = [Stage(f"probe:{first}", "probe", steps=funnel.probe_steps)]
    latest: dict[str, str] = {}
    for cut in cuts(task.quality_steps, task.fitness_steps, settings.rung_steps):
        for network in task.networks:
            id_ = f"{cut.name}:{network}{cut.at}"
            stages.append(Stage(id_, cut.name, latest.get(network), cut.rung, cut.steps))
            latest[network] = id_
            if cut.name == "quality" and network == first:
                stages += [Stage(f"stability:{n}", "stability") for n in funnel.stability_networks]
                stages += [Stage("cost", "cost")] if funnel.costs else []
    return tuple(stages)


def _plan_sentence(settings: EvonormSettings) -> str:
    name, step = settings.lowering.name, settings.lowering.swap_step
    return f"{name}, on {settings.task.networks[0]} from step {step}" if step else name


def from_settings(settings: JsonObject) -> EvonormSpace:
    """The space of a run from the plain settings in its recipe; what workers call."""
    return EvonormSpace(parse(settings))
