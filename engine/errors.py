"""Every error the engine raises on purpose. Each message says what, got, expected and the fix.

BitheadsError
├── BundleError
├── HeadError
├── KeepError
├── StoreError
├── SpecMismatchError
├── UnknownTaskError      also a KeyError
├── InputError            also a ValueError
├── BackendError
│   └── DeviceMemoryError
├── ClosedError
├── ForkedError
└── PlanError
"""


class BitheadsError(Exception):
    """Base of all errors below: catch this one to catch them all."""


class BundleError(BitheadsError):
    """A bundle is missing, incomplete, tampered with, or of another format version."""


class HeadError(BitheadsError):
    """A head file is missing, malformed, tampered with, or its task name is taken."""


class KeepError(BitheadsError):
    """A server cannot write or remove a head where it keeps heads: no fault of the client."""


class StoreError(BitheadsError):
    """A feature store, or answers made of one, are missing, damaged, or cannot be written."""


class SpecMismatchError(BitheadsError):
    """Features, a head or a store belong to another feature spec than the one at hand."""


class UnknownTaskError(BitheadsError, KeyError):
    """A task was asked for that no loaded head answers."""

    def __str__(self) -> str:  # KeyError would show the repr, quotes and all
        return str(self.args[0]) if self.args else ""


class InputError(BitheadsError, ValueError):
    """A text, a table of texts or an option cannot be used as it is."""


class BackendError(BitheadsError):
    """An encoder backend is not installed, not known, or refused the graph."""


class DeviceMemoryError(BackendError):
    """The GPU has too little memory free."""


class ClosedError(BitheadsError):
    """Something was called after it was closed."""


class ForkedError(BitheadsError):
    """Something was called in another process than the one that loaded it."""


class PlanError(BitheadsError):
    """A TensorRT plan is missing, damaged, of another graph, version or GPU, or too small."""
