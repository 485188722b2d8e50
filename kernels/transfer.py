"""Host tensors on a device, without waiting for what it has yet to do."""

import torch
from torch import Tensor

__all__ = ["sent"]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor``, which lies on the host, on ``device``; itself if that is the CPU.

    To CUDA it goes by page-locked memory, in the order of the current stream: the host goes on at once.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
