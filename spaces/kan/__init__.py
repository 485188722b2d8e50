"""The kan space: small Kolmogorov-Arnold networks of any basis, judged on regression targets."""

__all__: list[str] = []
