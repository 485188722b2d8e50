"""The click-through task: data, readers, models with gates, and the training that learns a selection."""

__all__: list[str] = []
