"""What a genome of the skan space is: a pool of bases, how nodes learn to choose one, and the network around them."""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from layersearch.errors import GenomeError
from layersearch.primitives.basis import BASES
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan import genome as kan
from layersearch.spaces.kan.choices import BASE_BRANCHES, INIT_NAMES, Choice, OneOf, Value
from layersearch.spaces.kan.genome import MAX_DEPTH, MAX_WIDTH, KANGenome
from layersearch.spaces.skan.choices import COOLINGS, DOMAINS, DROP, GATES, MAX_POOL, OWN, PRUNINGS, settings_of

__all__ = ["FORMAT", "Genome", "Pool", "SKANGenome", "fault_of_shares", "from_json", "make", "to_json"]

FORMAT = 1
_KEYS = ("format", "pool", "gate", "cooling", "cold", "shares", "pruning", "base", "domain", "init", "hidden")
_PRUNINGS = OneOf((DROP, *PRUNINGS.values))
_STAGES = ("full", "selective", "pruning")

Pool: TypeAlias = tuple[tuple[str, tuple[tuple[str, Value], ...]], ...]
"""Bases, sorted by name, each with all settings that can be chosen, sorted by name."""


@dataclass(frozen=True)
class SKANGenome:
    """How a network is made whose nodes choose. Made by ``make`` or ``from_json``, which check it.

    What is chosen is no part of it: the training of a trial finds that (``Outcome.selection``).

    Args:
        pool: activation spaces of every node.
        gate: kind of gates, of ``GATE_KINDS``.
        cooling, cold: how the temperature falls from 1, and to what.
        shares: of the training steps for the full, the selective and the pruning stage; their sum is 1.
        pruning: how a node's space is chosen and its weights go on: ``fit``, ``gate`` or ``drop``.
        base: activation of the base branch, or ``none``.
        domain: map of the inputs of hidden layers, ``own`` for that of each basis; see ``KANGenome``.
        init: how weights start.
        hidden: widths of the hidden layers.
    """

    pool: Pool
    gate: str
    cooling: str
    cold: float
    shares: tuple[float, float, float]
    pruning: str
    base: str
    domain: str
    init: str
    hidden: tuple[int, ...]

    @property
    def bases(self) -> tuple[str, ...]:
        """Names of the pool."""
        return tuple(name for name, _ in self.pool)

    def with_widths(self, hidden: tuple[int, ...]) -> "SKANGenome":
        """The same design with other hidden layers."""
        return replace(self, hidden=hidden)


Genome: TypeAlias = SKANGenome | KANGenome
"""Searched are networks that select; those of kan are what they are compared with."""


def make(
    pool: dict[str, dict[str, Value]],
    *,
    gate: str = "softmax",
    cooling: str = "exponential",
    cold: float = 0.05,
    shares: tuple[float, float, float] = (0.1, 0.2, 0.7),
    pruning: str = "fit",
    base: str = "silu",
    domain: str = OWN,
    init: str = "variance",
    hidden: tuple[int, ...] = (8, 8),
) -> SKANGenome:
    """A genome with settings of bases that are not given at their defaults. Raises: GenomeError with one sentence."""
    for name in pool:
        _known(name)
    full = {
        name: {key: getattr(BASES[name], key) for key in settings_of(name)} | settings
        for name, settings in pool.items()
    }
    genome = SKANGenome(_sorted(full), gate, cooling, cold, shares, pruning, base, domain, init, hidden)
    _check(genome)
    return genome


def to_json(genome: Genome) -> JsonObject:
    """Plain data; inverse of ``from_json``."""
    if isinstance(genome, KANGenome):
        return kan.to_json(genome)
    return {
        "format": FORMAT,
        "pool": {name: dict(settings) for name, settings in genome.pool},
        "gate": genome.gate,
        "cooling": genome.cooling,
        "cold": genome.cold,
        "shares": dict(zip(_STAGES, genome.shares, strict=True)),
        "pruning": genome.pruning,
        "base": genome.base,
        "domain": genome.domain,
        "init": genome.init,
        "hidden": list(genome.hidden),
    }


def from_json(data: Any) -> Genome:
    """The genome in plain data that anyone may have written; one with a ``basis`` is of the kan space.

    Raises: GenomeError with one sentence for anything malformed, illegal or over the limits.
    """
    if isinstance(data, dict) and "basis" in data and "pool" not in data:
        return kan.from_json(data)
    if not isinstance(data, dict) or sorted(map(str, data)) != sorted(_KEYS):
        raise GenomeError(f"a genome of skan must be an object with {', '.join(_KEYS)}, got {_shown(data)}; correct it")
    if data["format"] != FORMAT or isinstance(data["format"], bool):
        raise GenomeError(f"format of a genome must be {FORMAT}, got {data['format']!r:.40}; use a matching version")
    pool, hidden, shares = data["pool"], data["hidden"], data["shares"]
    if not isinstance(pool, dict) or not all(isinstance(settings, dict) for settings in pool.values()):
        raise GenomeError(f"pool of a genome must be an object with settings by basis, got {pool!r:.60}; correct it")
    if not isinstance(hidden, list) or len(hidden) > MAX_DEPTH:
        raise GenomeError(f"hidden of a genome must be a list of at most {MAX_DEPTH} widths, got {hidden!r:.40}")
    if not isinstance(shares, dict) or sorted(map(str, shares)) != sorted(_STAGES):
        raise GenomeError(f"shares of a genome must be an object with {', '.join(_STAGES)}, got {_shown(shares)}")
    for name in pool:
        _known(str(name))
    genome = SKANGenome(
        _sorted(pool),
        data["gate"],
        data["cooling"],
        data["cold"],
        tuple(shares[stage] for stage in _STAGES),
        data["pruning"],
        data["base"],
        data["domain"],
        data["init"],
        tuple(hidden),
    )
    _check(genome)
    return genome


def fault_of_shares(shares: tuple[object, ...]) -> str | None:
    """Why these are no shares of the three stages: rule and value, without a remedy."""
    numbers = [s for s in shares if isinstance(s, int | float) and not isinstance(s, bool) and 0 <= s <= 1]
    if len(shares) != len(_STAGES) or len(numbers) < len(shares):
        return f"shares of {', '.join(_STAGES)} must be three numbers in [0, 1], got {list(shares)!s:.60}"
    if abs(sum(numbers) - 1) > 1e-9:
        shown = " + ".join(f"{n:g}" for n in numbers)
        return f"shares of {', '.join(_STAGES)} must add to 1, got {shown} = {sum(numbers):g}"
    if numbers[1] == 0:
        return "the share of the selective stage must be above 0, since gates learn in it, got 0"
    return None


def _known(name: str) -> None:
    if name not in BASES:
        raise GenomeError(str(unknown_name("basis", name[:40], list(BASES))))


def _sorted(pool: dict[str, dict[str, Value]]) -> Pool:
    named = ((name, tuple(sorted((str(key), value) for key, value in pool[name].items()))) for name in pool)
    return tuple(sorted(named, key=lambda row: row[0]))


def _check(genome: SKANGenome) -> None:
    if not 2 <= len(genome.pool) <= MAX_POOL:
        raise GenomeError(
            f"pool of a genome must have 2 to {MAX_POOL} bases, got {', '.join(genome.bases) or 'none'}; the space kan "
            "has networks of one"
        )
    parts: list[tuple[str, Choice, object]] = [
        ("gate", GATES, genome.gate),
        ("cooling", COOLINGS, genome.cooling),
        ("pruning", _PRUNINGS, genome.pruning),
        ("base", BASE_BRANCHES, genome.base),
        ("domain", DOMAINS, genome.domain),
        ("init", INIT_NAMES, genome.init),
    ]
    for basis, settings in genome.pool:
        wanted, given = settings_of(basis), dict(settings)
        for name in given:
            if name not in wanted:
                raise GenomeError(str(unknown_name(f"setting of basis '{basis}'", name[:40], list(wanted))))
        for name, choice in wanted.items():
            if name not in given:
                raise GenomeError(f"setting '{name}' of basis '{basis}' must be given, got none; add {choice}")
            parts.append((f"{name} of basis '{basis}'", choice, given[name]))
    for name, choice, value in parts:
        if not choice.holds(value):
            raise GenomeError(f"{name} must be {choice}, got {value!r:.40}; correct the genome")
    if isinstance(genome.cold, bool) or not isinstance(genome.cold, int | float) or not 1e-3 <= genome.cold <= 1:
        raise GenomeError(f"cold must be a temperature in [0.001, 1], got {genome.cold!r:.40}; use 0.05")
    fault = fault_of_shares(genome.shares)
    if fault is not None:
        raise GenomeError(f"{fault}; correct the genome")
    for value in genome.hidden:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_WIDTH:
            raise GenomeError(
                f"widths of a genome must be whole numbers in [1, {MAX_WIDTH}], got {value!r:.40}; correct the genome"
            )


def _shown(data: Any) -> str:
    if isinstance(data, dict | list):
        return f"{type(data).__name__} with {', '.join(map(str, list(data)[:8])) or 'nothing'}"[:120]
    return f"{data!r:.40}"
