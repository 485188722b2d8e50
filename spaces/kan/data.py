"""Every data set of the kan space by its name: regression targets and images."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.tasks.images.data import IMAGE_SETS, ImageData, ImageSet, load_images
from layersearch.spaces.tasks.regression.data import RegressionData
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS, RegressionSet, load_regression, unknown_set

__all__ = ["DATA_SETS", "DataSet", "DataSets", "has_images", "is_image_set", "load"]

DataSet: TypeAlias = RegressionSet | ImageSet


class DataSets(Mapping[str, DataSet]):
    """Regression targets, then image sets.

    Raises: UnknownNameError on an unknown name, with the nearest ones; the names are too many to list.
    """

    def __getitem__(self, name: str) -> DataSet:
        if name in IMAGE_SETS:
            return IMAGE_SETS[name]
        if name in REGRESSION_SETS:
            return REGRESSION_SETS[name]
        raise unknown_set(name, list(self), self.summary().values())

    def __contains__(self, name: object) -> bool:
        return name in IMAGE_SETS or name in REGRESSION_SETS

    def __iter__(self) -> Iterator[str]:
        yield from REGRESSION_SETS
        yield from IMAGE_SETS

    def __len__(self) -> int:
        return len(REGRESSION_SETS) + len(IMAGE_SETS)

    def summary(self) -> dict[str, str]:
        """One short text per group, in place of the list of its names."""
        return {**REGRESSION_SETS.summary(), "images": ", ".join(IMAGE_SETS)}


DATA_SETS = DataSets()


def is_image_set(name: str) -> bool:
    """Whether models of images are searched on the set of this name. Raises: UnknownNameError."""
    return isinstance(DATA_SETS[name], ImageSet)


def has_images(settings: JsonObject) -> bool:
    """Whether plain settings of a run, which may be malformed, are those of a search on images."""
    task = settings.get("task")
    return isinstance(task, dict) and isinstance(name := task.get("data"), str) and name in IMAGE_SETS


def load(name: str, data_dir: Path | None = None) -> RegressionData | ImageData:
    """Reads a set from ``data_dir``, the only place searched, or draws points of a function.

    Raises: UnknownNameError; DataError if files are missing or broken.
    """
    return load_images(name, data_dir) if is_image_set(name) else load_regression(name, data_dir)
