"""What the models share: layers in a row, with the names of the parameters that weight decay leaves alone."""

from torch import nn

from layersearch.primitives.layers.functions import BasisFunctions
from layersearch.primitives.layers.rational import GroupRational
from layersearch.spaces.tasks.decay import undecayed

__all__ = ["ImageClassifier"]


class ImageClassifier(nn.Sequential):
    """``[N, C, S, S] -> [N, classes]``."""

    def no_weight_decay(self) -> set[str]:
        """Names of the tensors of bases, and of those that a part of the model names itself, in the same way."""
        exempt = {f"{name}.{own}" for name, part in self.named_children() for own in undecayed(part)}
        for name, module in self.named_modules():
            if isinstance(module, BasisFunctions | GroupRational):
                exempt |= {f"{name}.{own}" for own, _ in module.named_parameters()}
        return exempt
