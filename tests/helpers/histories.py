"""Click-through data with a history, for the models that need one."""

import numpy as np

from layersearch.spaces.tasks.ctr.data import CTRData, Part

__all__ = ["with_history"]


def with_history(data: CTRData) -> CTRData:
    """Its rows, each with a past of two: the value of its first field, and that again where there was a click."""

    def lengthen(part: Part) -> Part:
        past = np.stack([part.ids[:, 0], np.where(part.labels, part.ids[:, 0], -1)], 1).astype(np.int32)
        return Part(part.ids, part.labels, past)

    parts = [lengthen(part) for part in (data.train, data.validation, data.test)]
    return CTRData("past", data.fields, data.sizes, *parts)
