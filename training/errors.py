"""What can go wrong while something is trained."""

from engine.errors import BitheadsError


class TrainingError(BitheadsError):
    """Training cannot start or go on."""


class ConfigError(BitheadsError):
    """A configuration file, or a value in it, cannot be used."""


class CheckpointError(BitheadsError):
    """A checkpoint is missing, damaged, of another configuration, or cannot be written."""
