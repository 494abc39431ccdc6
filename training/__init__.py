"""The paper's training: heads on packed features, and encoders on many tasks.

Each folder uses those above it, and all of them the modules beside them.

    data/        labelled texts, folders of tasks, batches
    heads/       `bitheads train-head`: a head on the features of a bundle's encoder
    multitask/   `bitheads train-encoder`: one encoder on many tasks at once, a head for each
    table3/      `bitheads table3`: what sharing an encoder costs and gains
    configs/     examples for `--config`
"""

from contextlib import suppress

from bitheads.engine.process.quiet_import import import_quietly

with suppress(ImportError):  # what transformers asks the hub with; here, it is before transformers
    import_quietly("huggingface_hub.constants")
