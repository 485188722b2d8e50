"""The docstring of an exported file: what the layer is, where it comes from, what it measured. All of it untrusted."""

import re
from collections.abc import Sequence

from layersearch.primitives.printing import formula
from layersearch.search.export.base import Subject

__all__ = ["class_doc", "module_doc", "paragraphs", "plain"]

_LONGEST = 2000


def plain(text: str, lines: bool = False) -> str:
    """``text`` safe inside a docstring of three double quotes; line breaks are kept only with ``lines``.

    Backslashes are doubled; quotes that touch each other or the end are escaped; what cannot be printed becomes ``?``.
    """
    parts = text[:_LONGEST].split("\n") if lines else [" ".join(text[:_LONGEST].split())]
    clean = "\n".join("".join(c if c.isprintable() else "?" for c in part).rstrip() for part in parts)
    return re.sub(r'"(?="|$|\n)|(?<=")"', r"\"", clean.replace("\\", "\\\\"))


def class_doc(formula: str) -> str:
    """Short formulas on one line; long ones stand at the head of the file only."""
    f = plain(formula)
    where = f"f(x) = {f}" if len(f) <= 43 else "f as at the head of this file"
    return f"y = γ·f(x) + β for ``[N, C, H, W]``, C = ``num_features``; {where}."


def module_doc(subject: Subject, needs: str = "Plain PyTorch, needs nothing else.", content: str = "") -> str:
    """Text of the docstring, lines of at most 120 columns where words allow it.

    Args:
        needs: what the file needs, one sentence.
        content: a paragraph on what is in the file.
    """
    graph = subject.graph
    numerics = graph.numerics
    notes = [f"Moments are biased; eps = {numerics.eps:g} inside every root."]
    ops = {graph.nodes[i].op for i in graph.active}
    if "div" in ops:
        guard = f"move away from zero by {numerics.div_eps:g}" if numerics.div_eps else "are not guarded"
        notes.append(f"Denominators {guard}.")
    if "log" in ops:
        notes.append(f"log is sign(t)·ln(|t| + {numerics.log_eps:g}).")
    if graph.uses_group_moments():
        notes.append(f"Groups: the largest divisor of C that does not exceed ``groups`` ({numerics.groups}).")
    if graph.uses_batch_moments():
        notes.append("In eval mode running moments stand for those of the batch; per process, not synchronised.")
    params = [f"{node.name} (initially {node.value:g})" for node in graph.params()]
    if params:
        notes.append(f"Trained per channel, beside γ = weight and β = bias: {', '.join(params)}.")
    return paragraphs(
        [
            f"{subject.class_name}: a normalization-activation layer. {needs}",
            f"    f(x) = {plain(formula(graph))}\n    y = γ·f(x) + β",
            _wrap(" ".join(notes)),
            *([content] if content else []),
        ],
        subject.facts,
    )


def paragraphs(trusted: Sequence[str], facts: Sequence[tuple[str, str]]) -> str:
    """Paragraphs that are safe in a docstring already, and then the facts, which are made so here."""
    paragraphs = list(trusted)
    for label, text in facts:
        body = plain(text, lines=True)
        if "\n" in body:
            body = "\n" + "\n".join(f"    {line}" for line in body.split("\n"))
            paragraphs.append(f"{plain(label)}:{body}")
        else:
            paragraphs.append(f"{plain(label)}: {body}")
    return "\n\n".join(paragraphs) + "\n"


def _wrap(text: str, width: int = 110) -> str:
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return "\n".join(lines)
