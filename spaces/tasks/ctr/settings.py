"""How a selection is learned: every number of a training, checked."""

from dataclasses import dataclass, field

from layersearch.errors import BadInputError
from layersearch.primitives.gates.base import GATES, RELAXATIONS
from layersearch.spaces.tasks.ctr.models.base import MODELS, ModelSettings

__all__ = ["LearnSettings"]


@dataclass(frozen=True)
class LearnSettings:
    """Search, cut, rewind, retrain. The defaults are those that find the values of the planted task.

    Args:
        model: a name of ``MODELS``; ``sizes`` its sizes.
        gates: names of ``GATES``; none trains the full model.
        relaxation: a name of ``RELAXATIONS``; ``first`` and ``last`` are temperatures other than its own.
        price: of an open gate, in nats of the log loss summed over all training rows; OptFS' λ is price / rows.
        growth: how the price of a value grows with its count, see ``Gates.price``; 0 for OptFS' penalty.
        ratio: kept ratio of gates per value to be reached, instead of what the price alone keeps; None for that.
        search_epochs: with gates; in the first ``warm_epochs`` they stay open.
        reviews: so many epochs at the end of the search train the weights alone, their rates falling to 0, each after a
            review of all values (``review.evidence``); one more review ends the search. For gates per value, or 0.
        review_factor: a review keeps values that gain ``review_factor · price`` nats; with ``ratio``, ``best_values``.
        rewind_epoch: weights go back to what they were after so many epochs of the search; 0 is the start.
        epochs, patience: of retraining, which ends when validation AUC did not rise for ``patience`` epochs.
        slowing: the rates of retraining are multiplied by it after each epoch in which validation AUC did not rise.
        batch, lr, gate_lr: batch size and Adam's rates for weights and gates.
        decay: decoupled weight decay of the rows of the table; 0 for none.
        penalty: instead of that, ``penalty / 2 · ‖table‖²`` is added to the loss of each step (BARS' embedding
            regulariser); steps then cost what a dense table costs (``DenseAdam``). 0 for none.
    Raises: BadInputError, UnknownNameError.
    """

    model: str = "fm"
    sizes: ModelSettings = field(default_factory=lambda: ModelSettings(dim=4, std=0.3))
    gates: tuple[str, ...] = ("value",)
    relaxation: str = "continuation"
    first: float | None = None
    last: float | None = 500.0
    price: float = 3.2
    growth: float = 0.3
    ratio: float | None = None
    search_epochs: int = 7
    warm_epochs: int = 3
    reviews: int = 0
    review_factor: float = 1.85
    rewind_epoch: int = 1
    epochs: int = 10
    patience: int = 2
    slowing: float = 1.0
    batch: int = 1024
    lr: float = 0.02
    gate_lr: float = 0.01
    decay: float = 0.5
    penalty: float = 0.0

    def __post_init__(self) -> None:
        model = MODELS[self.model]
        for name in self.gates:
            if GATES[name].target == "pairs" and not model.has_pairs:
                raise BadInputError(
                    f"gates '{name}' need interactions of pairs, '{self.model}' has none; use fm, deepfm, dcn, "
                    "dcnv2 or ipnn"
                )
        RELAXATIONS[self.relaxation]
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise BadInputError(f"ratio must be in (0, 1], got {self.ratio}; use for example 0.2")
        if self.gates and not 0 <= self.warm_epochs < self.search_epochs:
            raise BadInputError(
                f"warm_epochs must be in [0, search_epochs), got {self.warm_epochs} of {self.search_epochs}; "
                "search longer"
            )
        if self.gates and not 0 <= self.reviews < self.search_epochs - self.warm_epochs:
            raise BadInputError(
                f"reviews must be in [0, search_epochs - warm_epochs), got {self.reviews} of {self.search_epochs} - "
                f"{self.warm_epochs}; search longer"
            )
        if self.gates and not 0 <= self.rewind_epoch < self.search_epochs:
            raise BadInputError(
                f"rewind_epoch must be in [0, search_epochs), got {self.rewind_epoch} of {self.search_epochs}; "
                "rewind to an earlier epoch"
            )
        if self.reviews and "value" in self.gates and self.ratio is None and not self.review_factor * self.price > 0:
            raise BadInputError(
                f"a review needs a price above 0 or a ratio, got {self.price}; set reviews to 0 or give a price"
            )
        for name, low in (("epochs", 1), ("patience", 1), ("batch", 2), ("search_epochs", 0)):
            if getattr(self, name) < low:
                raise BadInputError(f"{name} must be at least {low}, got {getattr(self, name)}; raise it")
        if self.penalty and self.decay:
            raise BadInputError(
                f"only one of decay and penalty can be above 0, got {self.decay} and {self.penalty}; set one to 0"
            )
        if not 0 < self.slowing <= 1:
            raise BadInputError(f"slowing must be in (0, 1], got {self.slowing}; use 0.1, or 1 for rates that stay")
        if not 0 <= self.growth <= 1:
            raise BadInputError(f"growth must be in [0, 1], got {self.growth}; use 0.5")
        for name in ("lr", "gate_lr", "decay", "penalty", "price", "review_factor"):
            if not 0 <= getattr(self, name) < 1e6:
                raise BadInputError(f"{name} must be in [0, 1e6), got {getattr(self, name)}; change it")
