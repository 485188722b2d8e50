"""The optfs space: which values, fields and pairs a click-through model looks at, and how that is learned."""

__all__: list[str] = []
