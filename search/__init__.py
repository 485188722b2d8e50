"""The engine: command line, runner, drivers, executors, store, export."""

__all__: list[str] = []
