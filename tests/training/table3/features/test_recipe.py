"""Recipes as they are written, and the layers they read."""

from __future__ import annotations

import pytest

from bitheads.training.errors import ConfigError
from bitheads.training.table3.features.recipe import Codes, Recipe


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("last/cls/float", (6,)),
        ("mean-2/mean/uint8", (5, 6)),
        ("mean-7/attention/two-bit", (0, 1, 2, 3, 4, 5, 6)),
        ("learned/attention/float", (0, 1, 2, 3, 4, 5, 6)),
    ],
)
def test_layers(text: str, layers: tuple[int, ...]) -> None:
    recipe = Recipe.parse(text)
    assert str(recipe) == text
    assert not recipe.is_tuned
    assert recipe.layers(6) == layers


def test_a_mean_is_tuned() -> None:
    recipe = Recipe.parse("mean/attention/vote")
    assert recipe.is_tuned
    assert str(recipe.with_layers(4)) == "mean-4/attention/vote"
    fixed = Recipe.parse("mean-2/attention/sign")
    assert fixed.with_layers(4) == fixed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mean/attention",
        "last-2/cls/float",
        "mean-0/cls/float",
        "mean/max/float",
        "mean/cls/int4",
    ],
)
def test_what_is_no_recipe(text: str) -> None:
    with pytest.raises(ConfigError, match=r"Expected LAYERS/POSITION/CODES with last, mean"):
        Recipe.parse(text)


def test_learned_weights_cannot_be_stored() -> None:
    with pytest.raises(ConfigError, match="nothing can be stored"):
        Recipe.parse("learned/attention/sign")


def test_too_many_layers() -> None:
    with pytest.raises(ConfigError, match="encoder of 3 layers, expected at least 4"):
        Recipe.parse("mean-5/attention/sign").layers(3)


def test_widths() -> None:
    wide = {"wide", "wide-raw", "wide-float", "two-bit"}
    assert {codes.value for codes in Codes if codes.width == 2} == wide
