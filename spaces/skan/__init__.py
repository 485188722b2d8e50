"""The skan space: Kolmogorov-Arnold networks whose nodes learn which basis to have."""

__all__: list[str] = []
