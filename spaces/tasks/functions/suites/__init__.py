"""Suites of target functions, one file each."""

__all__: list[str] = []
