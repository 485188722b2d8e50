"""What all exports of a file have in common: its digest, that it runs on its own, and what is said of it."""

import hashlib
from pathlib import Path
from typing import Any

from layersearch.search.export.base import ExportError
from layersearch.spaces.contracts import JsonObject

__all__ = ["READ_BACK", "compared", "digest", "names_of", "report"]

READ_BACK = "read back and compared after writing"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names_of(text: str, file: str, wanted: str) -> dict[str, Any]:
    """The names that a file defines, run in a namespace of its own.

    Raises: ExportError if it does not run, or ``wanted`` is not among them.
    """
    names: dict[str, Any] = {"__name__": "exported"}
    try:
        exec(compile(text, file, "exec"), names)
        if wanted not in names:
            raise NameError(f"name '{wanted}' is not defined")
    except (SyntaxError, NameError) as error:
        raise ExportError(
            f"the exported file must run on its own, got {error!r}; report this with the genome"
        ) from error
    return names


def compared(max_error: float, unchecked: str | None = None) -> str:
    """``check`` of a file that was compared with its genome; ``unchecked``: what was left out."""
    left_out = "" if unchecked is None else f"; not checked: {unchecked}"
    return f"checked against its genome after writing: largest difference {max_error:.1e}{left_out}"


def report(out: Path, format: str, sha256: str, *, what: str, check: str, **about: Any) -> JsonObject:
    """What ``command.run`` returns, ``about`` being what only some formats have."""
    return {"path": str(out), "format": format, **about, "sha256": sha256, "what": what, "check": check}
