"""Data sets, proxy models and training loops that search spaces share; one folder per kind of task."""

__all__ = ["images"]
