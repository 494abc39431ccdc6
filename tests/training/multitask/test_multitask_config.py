"""Configurations from files, and the weights of tasks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitheads.engine.features.spec import LayerPooling, PositionPooling
from bitheads.training.config_file import read_config
from bitheads.training.errors import ConfigError
from bitheads.training.multitask.config import MultitaskConfig, Precision

SHIPPED = Path(__file__).parents[3] / "training" / "configs"


def read(folder: Path, content: str) -> MultitaskConfig:
    path = folder / "config.toml"
    path.write_text(content, encoding="utf-8")
    return read_config(path, MultitaskConfig)


def test_every_kind_of_value(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        tasks = ["a", "b"]
        max_train_rows = 10
        temperature = 1
        layer_pooling = "mean"
        layers = "4"
        position_pooling = "attention"
        precision = "bf16"
        [sizes]
        a = 300
        """,
    )
    assert config == MultitaskConfig(
        tasks=("a", "b"),
        max_train_rows=10,
        temperature=1.0,
        layer_pooling=LayerPooling.MEAN,
        layers="4",
        position_pooling=PositionPooling.ATTENTION,
        precision=Precision.BF16,
        sizes={"a": 300},
    )
    assert isinstance(config.temperature, float)
    assert config.to_json()["layer_pooling"] == "mean"


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffsteps = 7\n").steps == 7


def test_empty_file_has_the_papers_temperature(tmp_path: Path) -> None:
    assert read(tmp_path, "") == MultitaskConfig()
    assert MultitaskConfig().temperature == 0.1


def test_shipped_configurations_are_sound() -> None:
    paths = list(SHIPPED.glob("multitask*.toml"))
    assert paths
    for path in paths:
        read_config(path, MultitaskConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rat = 1", "got the unknown keys learning_rat, expected some of encoder, tasks"),
        ("steps = ", "is not TOML"),
        ("steps = 1.5", "steps: got 1.5, expected a value of type int"),
        ("steps = true", "steps: got True, expected a value of type int"),
        ('max_length = "64"', "max_length: got '64', expected a value of type int"),
        ('tasks = "a"', "tasks: got 'a', expected an array"),
        ("tasks = [1]", "tasks: got 1, expected a value of type str"),
        ("sizes = 3", "sizes: got 3, expected a table"),
        ("sizes = {a = 0}", "sizes.a: got 0, expected at least 1"),
        ("sizes = {a = 1.5}", "sizes.a: got 1.5, expected a value of type int"),
        ('quotes = {a = "double"}', r"quotes.a: got 'double', expected one of \['csv', 'none'\]"),
        ('precision = "fp16"', r"precision: got 'fp16', expected one of \['fp32', 'bf16'\]"),
        ('layer_pooling = "learned"', "layer_pooling: got 'learned', expected 'last' or 'mean'"),
        ("steps = 0", "steps: got 0, expected at least 1"),
        ("temperature = 1.1", "temperature: got 1.1, expected 0 to 1"),
        ("warmup = 1", "warmup: got 1.0, expected 0 to below 1"),
        ("learning_rate = nan", "learning_rate: got nan, expected a number above 0"),
        ("seed = -1", "seed: got -1, expected 0 or more"),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(str(tmp_path))}/config.toml: {message}"):
        read(tmp_path, content)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "absent.toml", MultitaskConfig)


def test_weights() -> None:
    """Section 3.3.2: proportional at T = 1, uniform as T goes to 0."""
    sizes = {"small": 100, "large": 300}
    assert MultitaskConfig(temperature=1.0).task_weights(sizes) == {"small": 0.25, "large": 0.75}
    assert MultitaskConfig(temperature=0.0).task_weights(sizes) == {"small": 0.5, "large": 0.5}
    weights = MultitaskConfig(temperature=0.1).task_weights(sizes)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["large"] / weights["small"] == pytest.approx(3**0.1)
    given = MultitaskConfig(temperature=1.0, sizes={"small": 900}).task_weights(sizes)
    assert given == {"small": 0.75, "large": 0.25}
