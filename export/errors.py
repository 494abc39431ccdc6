"""What can go wrong while a bundle is made."""

from bitheads.engine.errors import BitheadsError


class ExportError(BitheadsError):
    """The encoder, an option or the machine does not allow the bundle that was asked for."""


def first_line(error: Exception) -> str:
    """What an error of another library says, and its name, as messages may be as short as 'x'."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
