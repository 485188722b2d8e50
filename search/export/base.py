"""What an export format is, and what it is given. A new format is one file in this folder that adds its row."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layersearch.errors import LayerSearchError
from layersearch.primitives.registry import Registry

if TYPE_CHECKING:
    from layersearch.primitives.graph import Graph

__all__ = ["FORMATS", "RUN_FORMATS", "ExportError", "Format", "RunFormat", "Subject"]


class ExportError(LayerSearchError):
    """A file that was written does not compute what its genome says, or could not be written in full; it is removed."""


@dataclass(frozen=True)
class Subject:
    """A layer to be exported.

    Args:
        graph: in canonical form.
        class_name: a speaking name, an identifier, e.g. ``EvoNormB0``.
        facts: label and text of whatever should stand in the file: origin, numbers, commands. Untrusted text.
        num_features: channels of formats that fix them; the python format takes them in its constructor.
    """

    graph: "Graph"
    class_name: str
    facts: tuple[tuple[str, str], ...] = ()
    num_features: int = 64


@dataclass(frozen=True)
class Format:
    """``write(subject, path)`` writes the new file ``path``, reads it back and compares it with the genome.

    It returns the largest difference that it saw, relative to 1 + size of the value. ``suffix`` is the usual ending.
    Raises: ExportError when the file is wrong, BadInputError when something needed is not installed.
    """

    name: str
    suffix: str
    write: Callable[[Subject, Path], float]
    unchecked: Callable[[], str | None] = lambda: None
    """What ``write`` cannot check on this machine, and why; None if it checks all."""


@dataclass(frozen=True)
class RunFormat:
    """``write(run_dir, path)`` writes a whole run as the new file ``path``, reads it back and says what it wrote.

    Raises: as that of ``Format``; StoreError if the run cannot be read.
    """

    name: str
    suffix: str
    write: Callable[[Path, Path], str]


FORMATS: Registry[Format] = Registry("format", package="layersearch.search.export")

RUN_FORMATS: Registry[RunFormat] = Registry("format", package="layersearch.search.export")
