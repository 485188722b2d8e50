"""Settings: every value is checked, presets fit their data, and what changes a training changes the fingerprint."""

import json
import math
from typing import Any

import pytest

from layersearch.errors import RecipeError, UnknownNameError
from layersearch.spaces.tasks.images.data import IMAGE_SETS
from layersearch.spaces.tasks.images.presets import PRESETS, preset
from layersearch.spaces.tasks.images.settings import ImageSettings

BASE = preset("smoke", "digits")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("data", IMAGE_SETS)
def test_presets_fit_their_data(name: str, data: str) -> None:
    settings = preset(name, data)
    assert settings.networks == ("resnet", "mobilenetv2", "efficientnet")
    assert settings.quality_steps == 100
    assert settings.flip == (name != "smoke" and data in ("cifar10", "fashion_mnist"))
    assert ImageSettings.parse(json.loads(settings.model_dump_json())) == settings
    assert preset(name, data, "s").schedule == "cosine"
    assert preset(name, data, "b").schedule == ("constant" if name == "paper" else "cosine")


def test_the_paper_preset_is_the_published_recipe() -> None:
    settings = preset("paper", "cifar10")
    assert (settings.crop, settings.eval_size, settings.batch, settings.eval_batch) == (24, 32, 128, 512)
    assert (settings.learning_rate, settings.momentum, settings.weight_decay) == (0.1, 0.9, 1e-4)
    assert (settings.schedule, settings.fitness_steps, settings.groups) == ("constant", 2000, 32)
    assert [(a.width, a.depth) for a in settings.anchors] == [(0.25, 1.0), (0.5, 1.0), (0.5, 1.0)]
    assert preset("paper", "cifar10", "s").fitness_steps == 5000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": math.nan}, "'learning_rate' must be a finite number, got nan"),
        ({"learning_rate": math.inf}, "'learning_rate' must be a finite number, got inf"),
        ({"learning_rate": 0.0}, "'learning_rate' must be greater than 0, got 0"),
        ({"learning_rate": "0.1"}, "'learning_rate' must be a valid number, got '0.1'"),
        ({"momentum": 1.0}, "'momentum' must be less than 1"),
        ({"weight_decay": -1e-4}, "'weight_decay' must be greater than or equal to 0"),
        ({"batch": True}, "'batch' must be a valid integer, got True"),
        ({"batch": 1.5}, "'batch' must be a valid integer"),
        ({"schedule": "linear"}, "'schedule' must be 'constant' or 'cosine'"),
        ({"dtype": "float16"}, "'dtype' must be 'float32'"),
        ({"quality_steps": 999}, r"quality_steps must be at most fitness_steps, got 999 > \d+"),
        ({"crop": 19, "padding": 1}, r"crop must be at most image_size \+ 2 \* padding, got 19"),
        ({"crop": 3}, "'crop' must be greater than or equal to 4"),
        ({"eval_size": 17}, "eval_size must be at most image_size, got 17"),
        ({"image_size": 8}, "image_size must be 16, the side of digits shrunk, got 8"),
        ({"shrink": 3}, "shrink must divide the side 16 of digits, got 3"),
        ({"validation_fraction": 0.5, "holdout_fraction": 0.5}, "must be less than 1, got 1"),
        ({"anchors": []}, "'anchors'"),
        ({"anchors": [{"network": "resnet", "width": math.nan, "depth": 1.0}]}, r"'anchors.0.width' must be a finite"),
        ({"anchors": [{"network": "resnet", "width": 1.0, "depth": 0.1}]}, r"'anchors.0.depth'"),
        ({"anchors": [{"network": "resnet", "width": 1.0, "depth": 1.0}] * 2}, "must be different networks"),
        ({"lr": 0.1}, r"unknown setting 'lr' \(known: anchors, batch"),
        ({"bacth": 64}, "unknown setting 'bacth'; did you mean 'batch'"),
    ],
)
def test_illegal_values_are_refused_with_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        BASE.replace(**changes)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown preset 'smok'; did you mean 'smoke'"):
        preset("smok", "digits")
    with pytest.raises(UnknownNameError, match="unknown data set 'cifar'; did you mean 'cifar10'"):
        preset("smoke", "cifar")
    with pytest.raises(UnknownNameError, match="did you mean 'resnet'"):
        BASE.replace(anchors=[{"network": "resnet50", "width": 1.0, "depth": 1.0}])
    with pytest.raises(RecipeError, match="setting 'data' must be given"):
        ImageSettings.parse({key: value for key, value in BASE.model_dump().items() if key != "data"})


def test_the_learning_rate_depends_on_step_and_horizon_alone() -> None:
    cosine = BASE.replace(schedule="cosine", learning_rate=0.2)
    assert [cosine.learning_rate_at(step, 100) for step in (0, 50, 100)] == pytest.approx([0.2, 0.1, 0.0])
    assert [preset("paper", "digits").learning_rate_at(step, 100) for step in (0, 99)] == [0.1, 0.1]


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 0.5}, {"batch": 16}, {"padding": 2}, {"schedule": "constant"}, {"split_seed": 1}, {"groups": 8}],
)
def test_what_changes_a_training_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert BASE.replace(**change).fingerprint() != BASE.fingerprint()
    assert BASE.replace(validation_cap=77, rerank_width=9.0).fingerprint() == BASE.fingerprint()


@pytest.mark.parametrize(
    ("name", "data", "series", "known"),
    [
        ("smoke", "digits", "b", "033fd509d731be62"),
        ("small", "cifar10", "b", "435cb0aeecd864c3"),
        ("paper", "cifar10", "s", "ae61294449ca3b9f"),
    ],
)
def test_checkpoints_of_earlier_versions_can_be_continued(name: str, data: str, series: Any, known: str) -> None:
    """Pinned when the recipe was split off; to be recorded again only when trainings do change."""
    assert preset(name, data, series).fingerprint() == known
