"""Charts of a report: plain SVG whose colours are the page's, every mark named where the pointer rests on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

__all__ = ["Chart", "Level", "Mark", "chart", "ticks"]

_WIDTH, _HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 44
_NAMES = 128  # wide, for those of levels
_LABEL_GAP = 13
_Scale: TypeAlias = Callable[[float], float]
_OUTLIERS = 0.02
"""Part of the marks, at the worse end, that may be drawn at the edge so that the others can be told apart."""


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
    x_low, x_high = _range([mark.x for mark in what.marks], 0.0 if what.from_zero else None)
    y_low, y_high = _shown(what)

    def x_at(value: float) -> float:
        return _LEFT + (right - _LEFT) * _part(value, x_low, x_high)

    def y_at(value: float) -> float:
        return bottom - (bottom - _TOP) * _part(value, y_low, y_high)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(what.y_name)}">']
    for value in ticks(y_low, y_high):
        y = y_at(value)
        parts.append(f'<path class="grid" d="M{_LEFT},{y:.1f} H{right}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in ticks(x_low, x_high):
        x = x_at(value)
        parts.append(f'<path class="grid" d="M{x:.1f},{bottom} v4"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{_short(value)}</text>')
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
            f'<circle class="{mark.kind}" cx="{x_at(mark.x):.1f}" cy="{y_at(mark.y):.1f}" r="3">'
            f"<title>{escape(mark.title)}</title></circle>"
        )
    parts += _levels(what.levels, y_at, right)
    if what.steps:
        parts.append(f'<path class="steps" d="{_path(what.steps, x_at, y_at, right)}"/>')
    return "\n".join([*parts, "</svg>"])


def _levels(levels: Sequence[Level], y_at: _Scale, right: float) -> list[str]:
    """Dashed lines; their names beside them, moved apart where they would overlap."""
    parts, last = [], -math.inf
    placed = sorted(levels, key=lambda level: y_at(level.y))
    spare = len(placed) * _LABEL_GAP
    for i, level in enumerate(placed):
        y = y_at(level.y)
        lowest = _HEIGHT - _BOTTOM - spare + (i + 1) * _LABEL_GAP  # what is below it has room, too
        last = max(last + _LABEL_GAP, min(y + 4, lowest))
        parts.append(f'<path class="level" d="M{_LEFT},{y:.1f} H{right}"/>')
        parts.append(f'<text class="tick" x="{right + 6}" y="{last:.1f}">{escape(level.name[:20])}</text>')
    return parts


def _path(steps: Sequence[tuple[float, float]], x_at: _Scale, y_at: _Scale, right: float) -> str:
    x, y = steps[0]
    found = [f"M{x_at(x):.1f},{y_at(y):.1f}"]
    for x, y in steps[1:]:
        found.append(f"H{x_at(x):.1f} V{y_at(y):.1f}")
    return " ".join([*found, f"H{right}"])


def _shown(what: Chart) -> tuple[float, float]:
    """The heights that are shown: of all but a few outliers at the worse end, and of all levels and steps."""
    values = sorted((mark.y for mark in what.marks), reverse=what.higher_is_better)
    kept = values[: max(1, math.ceil(len(values) * (1 - _OUTLIERS)))]
    return _range([*kept, *(level.y for level in what.levels), *(y for _, y in what.steps)], None)


def _range(values: Sequence[float], low: float | None) -> tuple[float, float]:
    """Ends with some room, not of zero length."""
    first, last = min(values) if low is None else low, max(values)
    room = (last - first) * 0.04 or abs(last) * 0.05 or 1.0
    return (first if low is not None else first - room), last + room


def _part(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


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


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
