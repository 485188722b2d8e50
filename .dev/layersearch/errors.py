"""What can go wrong for a user; each message is one sentence: rule, value, remedy."""

__all__ = [
    "BadInputError",
    "DataError",
    "GenomeError",
    "KernelError",
    "LayerSearchError",
    "RecipeError",
    "RunError",
    "StoreError",
    "UnknownNameError",
]


class LayerSearchError(Exception):
    """Root of all errors of this project. ``exit_code`` is what the command line returns for it."""

    exit_code = 1


class BadInputError(LayerSearchError):
    """Something the user gave is wrong; nothing was written."""

    exit_code = 2


class UnknownNameError(BadInputError):
    """A name that no registry knows."""


class GenomeError(BadInputError):
    """A genome that is malformed, illegal in its space, or over the limits."""


class RecipeError(BadInputError):
    """A recipe or option with a missing, unknown or illegal value."""


class DataError(BadInputError):
    """A data set that is missing, truncated or of another format."""


class StoreError(BadInputError):
    """A store that cannot be opened: newer schema, not a store, held by another run."""


class RunError(LayerSearchError):
    """A run that had to stop (disk full, no worker left); it can be resumed."""


class KernelError(LayerSearchError):
    """A kernel that could not be built or loaded; the layer can still be run by the ``torch`` lowering."""
