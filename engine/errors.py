"""Every error that is raised on purpose. Each message says what, got, expected and the fix.

```text
BitheadsError
├── BackendError            an encoder backend is not installed, or refused something
│   └── DeviceMemoryError   the GPU is full
├── BundleError             the bundle's folder
├── ClosedError             the engine was closed
├── ForkedError             the engine was loaded in another process
├── HeadError               a head's file
├── InputError              a text, a table or an option (a ValueError, too)
├── PlanError               a TensorRT plan
├── SpecMismatchError       a head, features or a store of another bundle
├── StoreError              a feature store, or answers made of one
├── UnknownTaskError        no head of that name answers (a KeyError, too)
├── KeepError               the server cannot keep a head (bitheads.engine.serve)
├── ExportError             a bundle cannot be built (bitheads.export)
├── TrainingError           training cannot start or go on (bitheads.training)
├── ConfigError             a configuration, or a value in it (bitheads.training)
└── CheckpointError         a checkpoint (bitheads.training)
    └── OtherRunError       it is damaged, or of another run
```
"""


class BitheadsError(Exception):
    """Base of all errors below: catch this one to catch them all."""


class BundleError(BitheadsError):
    """A bundle is missing, incomplete, tampered with, or of another format version."""


class HeadError(BitheadsError):
    """A head file is missing, malformed, tampered with, or its task name is taken."""


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
