"""The paper's training on packed features. `bitheads train-head --help`."""

from contextlib import suppress

from bitheads.engine.process.quiet_import import import_quietly

with suppress(ImportError):  # what transformers asks the hub with; here, it is before transformers
    import_quietly("huggingface_hub.constants")
