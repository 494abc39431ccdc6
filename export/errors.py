"""What can go wrong while a bundle is made."""

from engine.errors import BitheadsError


class ExportError(BitheadsError):
    """The encoder, an option or the machine does not allow the bundle that was asked for."""
