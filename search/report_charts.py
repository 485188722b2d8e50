"""Charts of a report: plain SVG whose colours are the page's, every mark named where the pointer rests on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Chart", "Level", "Mark", "chart", "decades", "ticks"]

_WIDTH, _HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 44
_NAMES = 128  # wide, for those of levels
_LABEL_GAP = 13
_FAR, _MOST_DECADES = 20, 2.5
_OUTLIERS = 0.02
"""Part of the marks and levels, at the worse end, that may be at the edge so that the others can be told apart."""


@dataclass(frozen=True)
class Mark:
    """A dot; ``kind`` is its class: of the origins, ``front`` or ``baseline``."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Level:
    """A height with a name, drawn across the chart."""

    y: float
    name: str


class Axis:
    """Values on a line of places from ``first`` to ``last``; those beyond the shown ones lie at its ends.

    They are placed by their logarithms if all are positive and the largest is more than ``_FAR`` times the smallest.

    Args:
        values: that are shown.
        zero: the axis begins at 0.
    """

    def __init__(self, values: Sequence[float], first: float, last: float, zero: bool = False) -> None:
        self.first, self.last = first, last
        self.is_log = not zero and min(values) > 0 and max(values) > _FAR * min(values)
        low, high = self._scaled(0.0 if zero else min(values)), self._scaled(max(values))
        room = (high - low) * 0.04 or abs(high) * 0.05 or 1.0
        self.low, self.high = low if zero else low - room, high + room

    def at(self, value: float) -> float:
        if self.is_log and value <= 0:
            return self.first
        part = (self._scaled(value) - self.low) / (self.high - self.low)
        return self.first + (self.last - self.first) * min(1.0, max(0.0, part))

    def ticks(self) -> list[float]:
        return decades(self.low, self.high) if self.is_log else ticks(self.low, self.high)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


@dataclass(frozen=True)
class Chart:
    """What is drawn: dots, levels, and a line of steps; axes with a name."""

    x_name: str
    y_name: str
    marks: tuple[Mark, ...]
    levels: tuple[Level, ...] = ()
    steps: tuple[tuple[float, float], ...] = ()
    higher_is_better: bool = True
    from_zero: bool = False


def chart(what: Chart) -> str:
    """The SVG element. There must be a mark."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - (_NAMES if what.levels else _RIGHT)
    across = Axis([mark.x for mark in what.marks], _LEFT, right, what.from_zero)
    up = Axis(_shown(what), bottom, _TOP)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(what.y_name)}">']
    for value, text in _told(up.ticks()):
        y = up.at(value)
        parts.append(f'<path class="grid" d="M{_LEFT},{y:.1f} H{right}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in _told(across.ticks()):
        x = across.at(value)
        parts.append(f'<path class="grid" d="M{x:.1f},{bottom} v4"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT},{_TOP} V{bottom} H{right}"/>')
    parts.append(
        f'<text class="name" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(what.x_name)}</text>"
    )
    parts.append(
        f'<text class="name" transform="translate(14 {(_TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(what.y_name)}</text>"
    )
    for mark in what.marks:
        parts.append(
            f'<circle class="{mark.kind}" cx="{across.at(mark.x):.1f}" cy="{up.at(mark.y):.1f}" r="3">'
            f"<title>{escape(mark.title)}</title></circle>"
        )
    parts += _levels(what.levels, up, right)
    if what.steps:
        parts.append(f'<path class="steps" d="{_path(what.steps, across, up)}"/>')
    return "\n".join([*parts, "</svg>"])


def _levels(levels: Sequence[Level], up: Axis, right: float) -> list[str]:
    """Dashed lines; their names beside them, moved apart where they would overlap."""
    parts, last = [], -math.inf
    placed = sorted(levels, key=lambda level: up.at(level.y))
    gap = min(_LABEL_GAP, (_HEIGHT - _BOTTOM - _TOP) / max(1, len(placed)))
    for i, level in enumerate(placed):
        y = up.at(level.y)
        lowest = _HEIGHT - _BOTTOM - (len(placed) - i - 1) * gap  # what is below it has room, too
        last = max(last + gap, min(y + 4, lowest))
        parts.append(f'<path class="level" d="M{_LEFT},{y:.1f} H{right}"/>')
        parts.append(f'<text class="tick" x="{right + 6}" y="{last:.1f}">{escape(level.name[:20])}</text>')
    return parts


def _path(steps: Sequence[tuple[float, float]], across: Axis, up: Axis) -> str:
    x, y = steps[0]
    found = [f"M{across.at(x):.1f},{up.at(y):.1f}"]
    for x, y in steps[1:]:
        found.append(f"H{across.at(x):.1f} V{up.at(y):.1f}")
    return " ".join([*found, f"H{across.last}"])


def _shown(what: Chart) -> list[float]:
    """The heights that are shown: of all marks and levels but a few at the worse end, and of the last step."""
    there = [*(mark.y for mark in what.marks), *(level.y for level in what.levels)]
    values = sorted(there, reverse=what.higher_is_better)
    kept = values[: max(1, math.ceil(len(values) * (1 - _OUTLIERS)))]
    return [*kept, *(y for _, y in what.steps[-1:])]


def decades(low: float, high: float) -> list[float]:
    """The 1, 2 and 5 of every power of ten, or the powers alone where these would be many, between two logarithms.

    >>> decades(-1.1, 0.5)
    [0.1, 0.2, 0.5, 1.0, 2.0]
    """
    powers = range(math.floor(low), math.ceil(high) + 1)
    digits = (1, 2, 5) if high - low < _MOST_DECADES else (1,)
    return [m * 10.0**power for power in powers for m in digits if low <= math.log10(m) + power <= high]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers in a range, about as many as asked for.

    >>> ticks(0.0, 1.05)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    size = 10 ** math.floor(math.log10((high - low) / about))
    step = next(m * size for m in (1, 2, 5, 10) if (high - low) / (m * size) <= about + 1)
    first, last = math.ceil(low / step), math.floor(high / step)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def _told(values: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks, each with its text: as short as tells it from the others."""
    digits = next((d for d in range(3, 17) if len({f"{v:.{d}g}" for v in values}) == len(values)), 17)
    return [(v, f"{v:,.0f}" if abs(v) >= 1000 and digits < 7 else f"{v:.{digits}g}") for v in values]
