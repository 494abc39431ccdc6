"""What can go wrong while something is trained."""

from typing import Any

from bitheads.engine.errors import BitheadsError


class TrainingError(BitheadsError):
    """Training cannot start or go on."""


class ConfigError(BitheadsError):
    """A configuration file, or a value in it, cannot be used."""


class CheckpointError(BitheadsError):
    """A checkpoint is missing, damaged, of another configuration, or cannot be written."""


class OtherRunError(CheckpointError):
    """What is there is damaged or of another run: nothing can go on from it, only start over."""


def require(name: str, value: Any, holds: bool, expected: str) -> None:
    """Raises ConfigError, naming the setting and its value, unless that holds."""
    if not holds:
        raise ConfigError(f"{name}: got {value!r}, expected {expected}.")
