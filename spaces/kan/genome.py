"""What a genome of the kan space is: a basis with its settings, a base branch, a domain map, a start, and widths."""

from dataclasses import dataclass, replace
from typing import Any

from layersearch.errors import GenomeError
from layersearch.primitives.basis import BASES
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan.choices import (
    BASE_BRANCHES,
    INIT_NAMES,
    MLP,
    NONE,
    Choice,
    OneOf,
    Value,
    domains_of,
    settings_of,
)

__all__ = ["FORMAT", "MAX_DEPTH", "MAX_WIDTH", "KANGenome", "check_format", "from_json", "make", "to_json"]

FORMAT = 1
MAX_DEPTH = 8
MAX_WIDTH = 4096
_KEYS = ("format", "basis", "settings", "base", "domain", "init", "hidden")
_ACTIVATIONS = OneOf(("gelu", "identity", "relu", "silu", "tanh"))
"""Between the layers of an ``mlp``."""


@dataclass(frozen=True)
class KANGenome:
    """A network whose layers all have the same basis. Made by ``make`` or ``from_json``, which check it.

    Args:
        basis: a name of ``BASES``, or ``mlp``.
        settings: those of ``choices.settings_of``, all of them, sorted by name; the others are at their defaults.
        base: activation of the base branch, or ``none``; of an ``mlp`` the activation between its layers.
        domain: map of the inputs of the hidden layers. The first layer has the same one, but for ``layernorm``, which
            would mix the inputs: it takes them as the task normalised them.
        init: how weights start.
        hidden: widths of the hidden layers; none for one layer from inputs to outputs.
    """

    basis: str
    settings: tuple[tuple[str, Value], ...]
    base: str
    domain: str
    init: str
    hidden: tuple[int, ...]

    def setting(self, name: str) -> Value:
        """Value of a setting of the basis."""
        return dict(self.settings)[name]

    def with_widths(self, hidden: tuple[int, ...]) -> "KANGenome":
        """The same design with other hidden layers."""
        return replace(self, hidden=hidden)


def make(
    basis: str,
    settings: dict[str, Value] | None = None,
    *,
    base: str = "silu",
    domain: str | None = None,
    init: str = "variance",
    hidden: tuple[int, ...] = (8, 8),
) -> KANGenome:
    """A genome with what is not given at the defaults of the basis. Raises: GenomeError with one sentence."""
    if basis != MLP and basis not in BASES:
        raise GenomeError(str(unknown_name("basis", basis, [*BASES, MLP])))
    defaults = {} if basis == MLP else {name: getattr(BASES[basis], name) for name in settings_of(basis)}
    own = NONE if basis == MLP else BASES[basis].domain
    values = {**defaults, **(settings or {})}
    genome = KANGenome(basis, tuple(sorted(values.items())), base, domain or own, init, hidden)
    _check(genome)
    return genome


def to_json(genome: KANGenome) -> JsonObject:
    """Plain data; inverse of ``from_json``."""
    return {
        "format": FORMAT,
        "basis": genome.basis,
        "settings": dict(genome.settings),
        "base": genome.base,
        "domain": genome.domain,
        "init": genome.init,
        "hidden": list(genome.hidden),
    }


def from_json(data: Any) -> KANGenome:
    """The genome in plain data that anyone may have written.

    Raises: GenomeError with one sentence for anything malformed, illegal or over the limits.
    """
    if not isinstance(data, dict) or sorted(map(str, data)) != sorted(_KEYS):
        raise GenomeError(f"a genome of kan must be an object with {', '.join(_KEYS)}, got {_shown(data)}; correct it")
    check_format(data["format"])
    for key in ("basis", "base", "domain", "init"):
        if not isinstance(data[key], str):
            raise GenomeError(f"{key} of a genome must be a text, got {data[key]!r:.40}; correct it")
    settings, hidden = data["settings"], data["hidden"]
    if not isinstance(settings, dict):
        raise GenomeError(f"settings of a genome must be an object, got {settings!r:.40}; correct it")
    if not isinstance(hidden, list) or len(hidden) > MAX_DEPTH:
        raise GenomeError(f"hidden of a genome must be a list of at most {MAX_DEPTH} widths, got {_shown(hidden)}")
    if data["basis"] != MLP and data["basis"] not in BASES:
        raise GenomeError(str(unknown_name("basis", data["basis"][:40], [*BASES, MLP])))
    pairs = tuple(sorted((str(name), value) for name, value in settings.items()))
    genome = KANGenome(data["basis"], pairs, data["base"], data["domain"], data["init"], tuple(hidden))
    _check(genome)
    return genome


def check_format(given: object) -> None:
    """Raises: GenomeError for a format that is not ours."""
    if given != FORMAT or isinstance(given, bool):
        raise GenomeError(f"format of a genome must be {FORMAT}, got {given!r:.40}; use a matching version")


def _check(genome: KANGenome) -> None:
    owner = genome.basis
    wanted = settings_of(owner)
    given = dict(genome.settings)
    for name in given:
        if name not in wanted:
            raise GenomeError(str(unknown_name(f"setting of basis '{owner}'", name[:40], list(wanted))))
    for name in wanted:
        if name not in given:
            raise GenomeError(f"setting '{name}' of basis '{owner}' must be given, got none; add {wanted[name]}")
    width = f"must be whole numbers in [1, {MAX_WIDTH}]"
    parts: list[tuple[str, Choice, object]] = [(f"{n} of basis '{owner}'", wanted[n], given[n]) for n in wanted]
    parts += [
        ("base", _ACTIVATIONS if owner == MLP else BASE_BRANCHES, genome.base),
        ("domain", domains_of(owner), genome.domain),
        ("init", INIT_NAMES, genome.init),
    ]
    for name, choice, value in parts:
        if not choice.holds(value):
            raise GenomeError(f"{name} must be {choice}, got {value!r:.40}; correct the genome")
    for value in genome.hidden:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_WIDTH:
            raise GenomeError(f"widths of a genome {width}, got {value!r:.40}; correct the genome")


def _shown(data: Any) -> str:
    return (
        f"{type(data).__name__} with {', '.join(map(str, list(data)[:8])) or 'nothing'}"[:120]
        if isinstance(data, dict | list)
        else f"{data!r:.40}"
    )
