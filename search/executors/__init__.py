"""Where jobs run: one file per backend, found by ``layersearch.search.executors.base.EXECUTORS``."""

__all__: list[str] = []
