"""From a program, which is plain data, to source: one emitter per language."""

__all__: list[str] = []
