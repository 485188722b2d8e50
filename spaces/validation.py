"""pydantic's errors as one sentence: rule, value, remedy."""

import re

from pydantic import ValidationError

from layersearch.primitives.registry import unknown_name

__all__ = ["sentence"]


def sentence(error: ValidationError, known: list[str], kind: str = "setting") -> str:
    """The first fault of ``error``.

    Args:
        error: what pydantic raised.
        known: names that are allowed at the top level, for an unknown one.
        kind: what a name is called.
    """
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"{first['ctx']['error']}; correct the {kind}"
    if first["type"] == "extra_forbidden":
        return str(unknown_name(kind, name, sorted(known)))
    if first["type"] == "missing":
        return f"{kind} '{name}' must be given, got nothing; add it"
    rule = re.sub(r" or instance of \w+", "", first["msg"].replace("Input should be", "must be"))
    return f"{kind} '{name}' {rule}, got {first['input']!r:.60}; correct it"
