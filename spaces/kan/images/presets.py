"""Three sizes of image runs: smoke (minutes on a laptop), small (hours), paper (for a GPU)."""

from typing import Any

from layersearch.spaces.tasks.images.data import IMAGE_SETS

__all__ = ["NETWORKS", "recipe", "reference_patch"]

NETWORKS: dict[str, dict[str, Any]] = {
    "smoke": {
        "max_channels": 24,
        "max_blocks": 3,
        "max_width": 32,
        "max_depth": 2,
        "most_parameters": 50_000,
        "most_operations": 5_000_000,
        "reference_conv": (8, 8, 16),
        "reference_vit": {"width": 24, "depth": 2, "heads": 2, "hidden": 48},
    },
    "small": {
        "max_channels": 32,
        "max_blocks": 4,
        "max_width": 48,
        "max_depth": 4,
        "most_parameters": 150_000,
        "most_operations": 10_000_000,
        "reference_conv": (12, 16, 24),
        "reference_vit": {"width": 32, "depth": 3, "heads": 4, "hidden": 64},
    },
    "paper": {
        "max_channels": 128,
        "max_blocks": 4,
        "max_width": 192,
        "max_depth": 8,
        "most_parameters": 3_000_000,
        "most_operations": 500_000_000,
        "reference_conv": (32, 64, 128),
        "reference_vit": {"width": 128, "depth": 6, "heads": 4, "hidden": 256},
    },
}
"""Limits and reference sizes (``settings.ImageNetworkSettings``) by preset."""

_STEPS: dict[str, dict[str, Any]] = {
    "smoke": {"batch": 32, "quality_steps": 60, "fitness_steps": 300, "rerank_steps": 600, "validation_cap": 1000},
    "small": {"batch": 64, "quality_steps": 150, "fitness_steps": 800, "rerank_steps": 2000, "validation_cap": 5000},
    "paper": {"batch": 128, "quality_steps": 1000, "fitness_steps": 10_000, "rerank_steps": 30_000},
}


def recipe(preset: str, data: str) -> dict[str, Any]:
    """Values of ``settings.ImageTaskSettings``. Raises: UnknownNameError for the data set."""
    known = IMAGE_SETS[data]
    shrink = 2 if preset == "smoke" and known.side > 16 else 1
    side = known.side // shrink
    values = {
        "data": data,
        "shrink": shrink,
        "image_size": side,
        "crop": side,
        "eval_size": side,
        "padding": 0 if preset == "smoke" else 2,
        "flip": known.flip and preset != "smoke",
        "eval_batch": 250,
        "learning_rate": 3e-3 if preset != "paper" else 1e-3,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "validation_cap": 5000,
        **_STEPS[preset],
    }
    if data == "digits":  # 1,797 images in all: larger parts, or validation would be too coarse to rank by
        values |= {"validation_fraction": 0.2, "holdout_fraction": 0.15}
    return values


def reference_patch(side: int) -> int:
    """Side of the patches of the published transformers: the first that gives at most 64 tokens, 16 on 16 pixels."""
    return next(p for p in range(1, side + 1) if side % p == 0 and (side // p) ** 2 <= (16 if side == 16 else 64))
