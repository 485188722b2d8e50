"""What decides how far a candidate is trained: one file each, found by ``search.schedulers.base.SCHEDULERS``."""

__all__: list[str] = []
