"""One seed per run; every consumer of randomness gets a stream of its own, named by what it is for."""

import hashlib
import random

__all__ = ["Seeds"]


class Seeds:
    """Named streams derived from one run seed.

    The same names give the same stream in every process and on every platform; different names are independent.

    >>> Seeds(7).derive("training", 3, "resnet") == Seeds(7).derive("training", 3, "resnet")
    True
    >>> Seeds(7).derive("training", 3) == Seeds(7).derive("training", 4)
    False
    """

    def __init__(self, run_seed: int) -> None:
        self.run_seed = run_seed

    def derive(self, *names: str | int) -> int:
        """A seed in [0, 2⁶³) for the consumer ``names`` (SHA-256 of the run seed and the names)."""
        text = "\x1f".join([str(self.run_seed), *map(str, names)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def stream(self, *names: str | int) -> random.Random:
        """A generator of its own for the consumer ``names``."""
        return random.Random(self.derive(*names))
