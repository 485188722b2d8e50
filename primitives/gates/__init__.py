"""Gates that decide what a click-through model sees: values, fields, pairs of fields; learned with its weights."""

__all__: list[str] = []
