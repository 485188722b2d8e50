"""Notes once per run what its files contain, so that it does not go on with others."""

from layersearch.spaces.contracts import Arrays, JsonObject
from layersearch.spaces.tasks.ctr.arrays import from_arrays

__all__ = ["planned"]


def planned(settings: JsonObject, data: Arrays, device: str) -> JsonObject:
    """The settings with the content of the files that ``data`` was read from; as they are for a set."""
    content = from_arrays(data).content
    return settings | {"task": settings["task"] | {"content": content}} if content else settings
