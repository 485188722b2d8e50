"""Targets given by a formula: functions of this project and of others' suites, and the Feynman equations."""

from layersearch.spaces.tasks.functions.feynman import EQUATIONS
from layersearch.spaces.tasks.functions.function import FUNCTIONS, Function
from layersearch.spaces.tasks.functions.sampling import Sampling, sampled

__all__ = ["EQUATIONS", "FUNCTIONS", "Function", "Sampling", "sampled"]
