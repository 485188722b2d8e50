"""What proposes candidates: one file per driver, found by ``layersearch.search.drivers.base.DRIVERS``."""

__all__: list[str] = []
