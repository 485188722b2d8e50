"""The smallest training of a click-through model that goes through every part of it."""

from layersearch.spaces.tasks.ctr.models.base import ModelSettings
from layersearch.spaces.tasks.ctr.settings import LearnSettings

__all__ = ["QUICK"]

QUICK = LearnSettings(
    sizes=ModelSettings(dim=2, hidden=(4,), std=0.1),
    search_epochs=3,
    warm_epochs=1,
    epochs=1,
    price=3,
    batch=100,
    lr=0.005,
    gate_lr=0.05,
    last=None,
)
