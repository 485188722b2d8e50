"""Runs as jobs of a Ray cluster: submitted, watched, stopped and brought back over its job API."""

__all__: list[str] = []
