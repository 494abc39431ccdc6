"""Offline: a trained encoder becomes a bundle.

build.py, make_bundle.py   `bitheads build`, from the encoder to the folder
source/                    the trained encoder, and what in its files is refused
onnx_graph.py, int8.py     its graph
calibrate.py, texts.py     constants of codes, and the sentences that they come from
fold.py                    a trained head, made to read codes; heads/ has those that are shipped
comparison/                the graph beside transformers' own model, text by text
plans/                     `bitheads plan`: TensorRT plans of the graph
host_tokenizer.py          `bitheads host-tokenizer`: the tokenizer of the C++ host
device_code.py             `bitheads device-code`: the CUDA kernels
"""

from contextlib import suppress

from bitheads.engine.process.quiet_import import import_quietly

with suppress(ImportError):  # what transformers asks the hub with; here, it is before transformers
    import_quietly("huggingface_hub.constants")
