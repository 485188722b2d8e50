"""The regression task: named targets, their four parts, and a training recipe that spaces of networks share."""

from layersearch.spaces.tasks.regression.data import RegressionData, from_arrays, to_arrays
from layersearch.spaces.tasks.regression.presets import PRESETS, preset
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS, RegressionSet, load_regression
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.tasks.regression.splits import Parts, split
from layersearch.spaces.tasks.regression.training import Evaluation, Part, RegressionTask, TrainResult

__all__ = [
    "PRESETS",
    "REGRESSION_SETS",
    "Evaluation",
    "Part",
    "Parts",
    "RegressionData",
    "RegressionSet",
    "RegressionSettings",
    "RegressionTask",
    "TrainResult",
    "from_arrays",
    "load_regression",
    "preset",
    "split",
    "to_arrays",
]
