"""A reading as one picture: nodes in columns, between them a small plot of every edge that is left. Plain SVG.

How much an edge matters is how dark it is drawn; what it was read as stands under its curve, behind the basis of its
node where nodes have different ones; everything else appears when the pointer rests on it.
"""

import math
from collections.abc import Sequence
from html import escape

from layersearch.primitives.symbolic.reading import Edge, Reading

__all__ = ["diagram"]

_BOX_W, _LABEL, _GAP = 132, 15, 11
_TALL, _LOW, _MANY = 46, 30, 14  # heights of a plot, the lower one where a layer has many
_LANE, _MARGIN, _NODE = 86, 44, 15
_FOOT, _LINE = 34, 18
_FAINTEST = 0.22
_SYMBOLIC, _NUMERIC, _INK, _PALE = "#1f5fae", "#b3541e", "#1d2530", "#6b7684"
_MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
_SANS = "system-ui, 'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif"
_CHAR, _SMALL, _BIG = 7.3, 6.9, 10.2  # mean widths of a character: monospace, 12, 16 bold
_MOST_LINES = 14


def diagram(reading: Reading, title: str = "") -> str:
    """The text of an SVG file, without references to anything outside it."""
    columns = [[e for e in reading.live if e.layer == i] for i in range(len(reading.widths) - 1)]
    box = _TALL if max(map(len, columns)) <= _MANY else _LOW
    tallest = max([len(c) * (box + _LABEL + _GAP) for c in columns] + [w * 46 for w in reading.widths])
    step = _BOX_W + 2 * _LANE
    width = max(2 * _MARGIN + step * len(columns) + 70, 640)
    left = (width - step * len(columns)) / 2
    inside = width - 2 * _MARGIN
    formula = _wrapped(reading.formula or f"no formula: {reading.reason}", int(inside / _CHAR))
    head = [line for part in _summary(reading) for line in _wrapped(part, int(inside / _SMALL))]
    titles = _wrapped(title, int(inside / _BIG)) if title else []
    top = 26 + 20 * len(titles) + _LINE * len(head)
    nodes = [_spread(count, top, tallest) for count in reading.widths]
    height = top + tallest + _FOOT + 26 + _LINE * len(formula) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{_SANS}" font-size="12">',
        f"<title>{escape(title or 'A KAN, read')}</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        *(
            f'<text x="{_MARGIN}" y="{28 + 20 * n}" font-size="16" font-weight="600" fill="{_INK}">{escape(t)}</text>'
            for n, t in enumerate(titles)
        ),
        *(
            f'<text x="{_MARGIN}" y="{28 + 20 * len(titles) + _LINE * n}" fill="{_PALE}">{escape(line)}</text>'
            for n, line in enumerate(head)
        ),
    ]
    strongest = [max((e.share for e in column), default=1.0) or 1.0 for column in columns]
    for i, column in enumerate(columns):
        x0 = left + step * i
        placed = sorted(column, key=lambda e: (nodes[i][e.input] + nodes[i + 1][e.output], e.output, e.source))
        tops = _spread(len(placed), top, tallest)
        for edge, middle in zip(placed, tops, strict=True):
            strength = _FAINTEST + (1 - _FAINTEST) * math.sqrt(min(1.0, edge.share / strongest[i]))
            ends = nodes[i][edge.input], nodes[i + 1][edge.output]
            parts.append(_edge(reading, edge, x0, middle, ends, strength, box))
    for i, places in enumerate(nodes):
        for k, y in enumerate(places):
            parts.append(_node(reading.node(i, k), left + step * i, y, _is_read(reading, i, k)))
    y = top + tallest + _FOOT
    parts.append(f'<line x1="{_MARGIN}" y1="{y - 14}" x2="{width - _MARGIN:.0f}" y2="{y - 14}" stroke="#d8dde4"/>')
    parts.append(_legend(_MARGIN, y + 6, any(edge.normalised for edge in reading.live)))
    for n, line in enumerate(formula):
        at = y + 32 + _LINE * n
        parts.append(
            f'<text x="{_MARGIN}" y="{at:.0f}" font-family="{_MONO}" fill="{_INK}" xml:space="preserve">'
            f"{escape(line)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _summary(reading: Reading) -> tuple[str, ...]:
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in reading.errors.items())
    symbolic = sum(edge.symbolic for edge in reading.live)
    return (
        f"{len(reading.live)} of {len(reading.edges)} edges left, {symbolic} of them read as functions",
        f"error in deviations of the target: {numbers}",
        *reading.by_basis(),
    )


def _spread(count: int, start: float, length: float) -> list[float]:
    """Middles of ``count`` equal parts."""
    return [start + length * (k + 0.5) / count for k in range(count)]


def _edge(
    reading: Reading, edge: Edge, x0: float, middle: float, ends: tuple[float, float], strength: float, box: int
) -> str:
    """The plot of an edge, and the lines from its node and to the next."""
    assert edge.match is not None
    colour = _SYMBOLIC if edge.symbolic else _NUMERIC
    label = _short(edge)
    if reading.is_mixed and edge.basis:
        label = f"{edge.basis}: {label if edge.symbolic else 'numeric'}"
    x, y = x0 + _LANE, middle - (box + _LABEL) / 2
    wire = f'fill="none" stroke="{colour}" stroke-width="{0.8 + 2.2 * strength:.2f}"' + (
        ' stroke-dasharray="5 3"' if edge.normalised else ""
    )
    box_y = y + box / 2
    return "\n".join(
        [
            f'<g opacity="{strength:.2f}"><title>{escape(_about(reading, edge))}</title>',
            f'<path d="{_wire(x0 + _NODE, ends[0], x, box_y)}" {wire}/>',
            f'<path d="{_wire(x + _BOX_W, box_y, x0 + 2 * _LANE + _BOX_W - _NODE, ends[1])}" {wire}/>',
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{_BOX_W}" height="{box}" rx="5" fill="#ffffff" stroke="{colour}"/>',
            _axes(edge, x, y, box),
            f'<polyline points="{_curve(edge, x, y, box)}" fill="none" stroke="{colour}" stroke-width="2" '
            'stroke-linejoin="round"/></g>',
            f'<text x="{x + _BOX_W / 2:.1f}" y="{y + box + 12:.1f}" text-anchor="middle" font-size="11" '
            f'fill="{_INK}" opacity="{max(0.55, strength):.2f}">{escape(label)}</text>',
        ]
    )


def _wire(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = (x2 - x1) / 2
    return f"M{x1:.1f},{y1:.1f} C{x1 + bend:.1f},{y1:.1f} {x2 - bend:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"


def _scaled(value: float, low: float, high: float, size: float, pad: float) -> float:
    return pad + (size - 2 * pad) * ((value - low) / (high - low) if high > low else 0.5)


def _curve(edge: Edge, x: float, y: float, box: int) -> str:
    low, high = float(edge.y.min()), float(edge.y.max())
    points = zip(edge.x.tolist(), edge.y.tolist(), strict=True)
    return " ".join(
        f"{x + _scaled(a, edge.x[0], edge.x[-1], _BOX_W, 5):.1f},{y + box - _scaled(b, low, high, box, 6):.1f}"
        for a, b in points
    )


def _axes(edge: Edge, x: float, y: float, box: int) -> str:
    """Hairlines at 0, where that is in sight."""
    lines = []
    low, high = float(edge.y.min()), float(edge.y.max())
    if edge.x[0] < 0 < edge.x[-1]:
        at = x + _scaled(0.0, edge.x[0], edge.x[-1], _BOX_W, 5)
        lines.append(f"M{at:.1f},{y + 3:.1f} V{y + box - 3:.1f}")
    if low < 0 < high:
        at = y + box - _scaled(0.0, low, high, box, 6)
        lines.append(f"M{x + 3:.1f},{at:.1f} H{x + _BOX_W - 3:.1f}")
    return f'<path d="{" ".join(lines)}" stroke="#c3cad3" stroke-width="0.8"/>' if lines else ""


def _short(edge: Edge) -> str:
    assert edge.match is not None
    if not edge.symbolic:
        return f"numeric ({edge.match.form}: R² {edge.match.r2:.2f})"
    return f"{edge.match.form}  R² {_r2(edge.match.r2)}"


def _r2(value: float) -> str:
    """With as many digits as tell it from 1."""
    if value > 1 - 5e-7:
        return "1"
    return f"{value:.{min(6, max(3, 1 - math.floor(math.log10(1 - value))))}f}".rstrip("0")


def _about(reading: Reading, edge: Edge) -> str:
    assert edge.match is not None
    source = reading.node(edge.layer, edge.input)
    kind = " (layer-normalised)" if edge.normalised else ""
    basis = f", {edge.basis}" if edge.basis else ""
    ties = (
        "; as good: " + ", ".join(f"{form} (R² {_r2(r2)})" for form, r2 in edge.match.ties) if edge.match.ties else ""
    )
    verdict = "" if edge.symbolic else f"; stays numeric, since R² is under {reading.limit:g}"
    between = f"{source}{kind} → {reading.node(edge.layer + 1, edge.output)}{basis}"
    return (
        f"{between}: share {edge.share:.3f} of the output's spread, "
        f"seen on [{edge.x[0]:.3g}, {edge.x[-1]:.3g}], values in [{edge.y.min():.3g}, {edge.y.max():.3g}]\n"
        f"{edge.match.text(source)}, R² {_r2(edge.match.r2)}{ties}{verdict}"
    )


def _is_read(reading: Reading, layer: int, index: int) -> bool:
    """Whether an edge that is left begins or ends at the node."""
    return any(
        (e.layer == layer and e.input == index) or (e.layer == layer - 1 and e.output == index) for e in reading.live
    )


def _node(name: str, x: float, y: float, is_read: bool) -> str:
    base, _, index = name.partition("_")
    label = escape(base) + (f'<tspan font-size="9" dy="3">{escape(index)}</tspan>' if index else "")
    size = max(_NODE, 4.2 * len(name) + 3)
    return (
        f'<g opacity="{1 if is_read else 0.3}"><rect x="{x - size:.1f}" y="{y - _NODE + 1:.1f}" width="{2 * size:.1f}" '
        f'height="{2 * _NODE - 2}" rx="{_NODE - 1}" fill="{_INK}"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" fill="#ffffff">{label}</text></g>'
    )


def _legend(x: float, y: float, normalised: bool) -> str:
    entries = ((_SYMBOLIC, "read as a function"), (_NUMERIC, "stays numeric"))
    parts = []
    for colour, text in entries:
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 28}" y="{y}" fill="{_PALE}" font-size="11">{text}</text>')
        x += 135
    dashed = "; dashed: of the layer-normalised input" if normalised else ""
    parts.append(
        f'<text x="{x}" y="{y}" fill="{_PALE}" font-size="11">darker: matters more to the output{dashed}</text>'
    )
    return "\n".join(parts)


def _wrapped(text: str, width: int) -> Sequence[str]:
    """Lines of at most ``width`` characters, broken at spaces, further ones indented; not too many of them."""
    found: list[str] = []
    for line in text.split("\n"):
        indent = ""
        while len(line) > width:
            cut = line.rfind(" ", len(indent) + 1, width)
            cut = cut if cut > len(indent) else width
            found.append(line[:cut])
            indent = "    "
            line = indent + line[cut:].lstrip()
        found.append(line)
    return (
        found if len(found) <= _MOST_LINES else [*found[: _MOST_LINES - 1], "… (the whole formula is in formula.txt)"]
    )
