"""The optfs space: what a click-through model looks at, learned by gates, and controls that it is held against."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layersearch.spaces.contracts import Arrays, Evaluator, JsonObject, Objective, Outline, Probe
from layersearch.spaces.funnel import NetworkSpace
from layersearch.spaces.objectives import cost_objectives
from layersearch.spaces.optfs import genome as _genome
from layersearch.spaces.optfs.choices import CONTROLS, LEAST_RATIO, NO_GATES
from layersearch.spaces.optfs.generate import Generator
from layersearch.spaces.optfs.genome import OptFSGenome, genome_key
from layersearch.spaces.optfs.published import named
from layersearch.spaces.optfs.settings import OptFSSettings, parse
from layersearch.spaces.tasks.ctr.models.base import MODELS

__all__ = ["OptFSSpace", "from_settings"]

_OBJECTIVES = {
    "auc": Objective("auc"),
    # In other units than the AUC: they count where one candidate dominates another.
    "log_loss": Objective("log_loss", maximize=False, weight=0.0, unit="nats"),
    "ratio": Objective("ratio", maximize=False, weight=0.0),
}


class OptFSSpace(NetworkSpace[OptFSGenome]):
    """``layersearch.spaces.contracts.TunableSpace`` and ``ControlledSpace`` of selections of features."""

    name = "optfs"
    control_names = ("full", *sorted({chosen for chosen, _ in CONTROLS.values()}))
    generator: Generator

    def __init__(self, settings: OptFSSettings) -> None:
        self.settings = settings
        super().__init__(Generator(settings.search), settings.funnel.rerank_seeds, settings.cuts)
        known = {**_OBJECTIVES, **cost_objectives(f"full {settings.search.reference}")}
        self.objectives = tuple(known[name] for name in settings.funnel.objectives)

    def seeds(self) -> Mapping[str, OptFSGenome]:
        """Named designs on the reference model, where they are within the limits of the run."""
        found = {name: self.generator.known(name) for name in self.settings.seed_layers}
        return {name: genome for name, genome in found.items() if genome is not None}

    def baselines(self) -> Mapping[str, OptFSGenome]:
        """The reference model with all values."""
        return {"full": self.generator.reference(gates=NO_GATES)}

    def controls(self, genome: OptFSGenome, measured: Mapping[str, float]) -> Mapping[str, OptFSGenome]:
        """The winner's model with all values, and with as many values as it keeps: the most frequent, and any.

        Where the winner selects pairs of fields, both keep as many pairs as it does, too, be it none. Where its gates
        are of products, both keep all values, and the interactions of as many as it does.
        """
        full = _with_gates(genome, NO_GATES)
        found = {} if genome_key(full) == genome_key(self.baselines()["full"]) else {"full": full}
        kind, share = ("product", "kept_product") if "product" in genome.kinds else ("value", "ratio")
        ratio = _share(measured.get(share, 1.0))
        pairs = _share(measured.get("pair_ratio", 1.0)) if "pair" in genome.kinds else 0.0
        if genome.kinds and (ratio < 1 or 0 < pairs < 1):
            names = {chosen: gates for gates, (chosen, of) in CONTROLS.items() if of == kind}
            found |= {name: _with_gates(genome, gates, float(f"{ratio:.6g}"), pairs) for name, gates in names.items()}
        return found

    def outline(self, genome: OptFSGenome) -> Outline:
        """Whether the search is long enough for what all of them share; the key."""
        task = self.settings.task
        reason, reviews = None, task.reviews if "value" in genome.kinds else 0
        if genome.kinds and task.warm_epochs + reviews >= genome.search_epochs:
            reason = f"no epoch for gates after {task.warm_epochs} to warm up and before {reviews} of review"
        return Outline(genome_key(genome), reason)

    def probe(self, genome: OptFSGenome) -> Probe:
        """There is nothing to run: what can be built follows from the genome. Novelty is the design."""
        return Probe(genome_key(genome), f"{genome.model}|{genome.gates}|{genome.relaxation}|{genome.operator}")

    def same(self, a: OptFSGenome, b: OptFSGenome) -> bool:
        return a.tidy() == b.tidy()

    def known_as(self, genome: OptFSGenome) -> str | None:
        return named(genome)

    def to_json(self, genome: OptFSGenome) -> JsonObject:
        return _genome.to_json(genome)

    def from_json(self, data: JsonObject) -> OptFSGenome:
        return _genome.from_json(data)

    def formula(self, genome: OptFSGenome) -> str:
        return _genome.formula(genome)

    def load_data(self) -> Arrays:
        from layersearch.spaces.optfs.evaluate import load_data
        from layersearch.spaces.tasks.ctr.arrays import to_arrays

        return to_arrays(load_data(self.settings))

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        from layersearch.spaces.optfs.evaluate import OptFSEvaluator

        return OptFSEvaluator(self.settings, data, device)

    def describe(self) -> Sequence[tuple[str, str]]:
        task, search, funnel = self.settings.task, self.settings.search, self.settings.funnel
        epochs = f"{task.quality_epochs} epoch{'s' if task.quality_epochs > 1 else ''}"
        early = [f"epoch {epoch}" for epoch in self.settings.fidelity.rungs]
        rungs = [cut for cut in self.settings.cuts if cut.rung is not None]
        review = f", the last {task.reviews} epochs of the search reviewed" if task.reviews else ""
        return (
            ("data", task.data),
            ("models", ", ".join(search.models)),
            ("gates", ", ".join(search.gates)),
            ("quality", f"{epochs}, validation AUC > {funnel.quality_auc:g}"),
            ("fitness", f"validation AUC after cut, rewind and at most {task.epochs} epochs again{review}"),
            *([("rungs", f"also after {', '.join([*early, 'the cut'])}")] if rungs else []),
        )


def _share(measured: float) -> float:
    """As a ratio of a genome, in which 0 is not one, or no selection at all."""
    return min(1.0, max(LEAST_RATIO, measured))


def _with_gates(genome: OptFSGenome, gates: str, ratio: float = 1.0, pair_ratio: float = 0.0) -> OptFSGenome:
    pair_ratio = pair_ratio if MODELS[genome.model].has_pairs else 0.0
    kept = OptFSGenome(gates=gates, ratio=ratio, pair_ratio=pair_ratio)
    return replace(kept, model=genome.model, operator=genome.operator, lr=genome.lr, dim=genome.dim).tidy()


def from_settings(settings: JsonObject) -> OptFSSpace:
    """The space of a run from the plain settings in its recipe; what workers call."""
    return OptFSSpace(parse(settings))
