"""A tokenizer's graph: texts [n] -> begins, ends int32 [n], ids int32 [tokens]."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bitheads.engine.process.quiet_import import import_quietly
from bitheads.export.errors import ExportError
from bitheads.export.tokenizer.mends import mend

GRAPH, WEIGHTS = "tokenizer.xml", "tokenizer.bin"

TokenIds = NDArray[np.int32]


def write_graph(tokenizer: Path, folder: Path) -> None:
    """Writes GRAPH and WEIGHTS, which split texts and no more.

    It adds no tokens of the tokenizer's own, cuts nothing, and pads nothing.

    Args:
        tokenizer: its tokenizer.json.

    Raises ExportError if openvino-tokenizers is missing or cannot convert it.
    """
    if find_spec("openvino_tokenizers") is None:
        raise ExportError(
            "the C++ host's tokenizer needs the package 'openvino-tokenizers'. Type: "
            "pip install 'bitheads[host]'"
        )
    from bitheads.engine.sessions.openvino_core import openvino

    try:
        converted = _convert(tokenizer)
        # What comes after that op is cutting, special tokens and padding.
        (cutting,) = [op for op in converted.get_ops() if op.get_type_name() == "Truncate"]
        outputs = [cutting.input(i).get_source_output() for i in range(3)]
        for output, name in zip(outputs, ("begins", "ends", "ids"), strict=True):
            output.get_tensor().set_names({name})
        model = openvino.Model(outputs, converted.get_parameters(), "tokenizer")
        openvino.save_model(model, folder / GRAPH, compress_to_fp16=False)
    except Exception as error:  # both libraries raise bare ones
        raise ExportError(
            f"{tokenizer}: openvino-tokenizers cannot convert it ({error}). Give the C++ host "
            "token ids instead of texts."
        ) from error


def _convert(tokenizer: Path) -> Any:
    """openvino-tokenizers' own conversion, with the mends between its two halves."""
    from transformers import PreTrainedTokenizerFast

    parser_module = import_quietly("openvino_tokenizers.hf_parser")
    params = import_quietly("openvino_tokenizers.utils").TokenzierConversionParams(
        add_special_tokens=False, with_detokenizer=False
    )
    fast = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer))  # type: ignore[no-untyped-call]
    parser = parser_module.TransformersTokenizerPipelineParser(fast, params)
    pipeline = parser.parse()
    mend(pipeline, Tokenizer.from_file(str(tokenizer)), parser.tokenizer_json)
    return pipeline.get_tokenizer_ov_subgraph()


def run_graph(graph: Path, texts: Sequence[str]) -> list[TokenIds]:
    """Token ids of each text, int32, as the C++ host gets them."""
    from bitheads.engine.sessions.openvino_core import openvino, the_core

    core = the_core()
    core.add_extension(str(import_quietly("openvino_tokenizers")._ext_path))
    compiled = core.compile_model(_of_bytes(core.read_model(graph)), "CPU")
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int32)
    begins = np.concatenate([np.zeros(1, np.int32), ends[:-1]])
    letters = np.frombuffer(b"".join(encoded) or b"\0", np.uint8)
    found = compiled([openvino.Tensor(part) for part in (begins, ends, letters)])
    begins, ends, ids = (found[name] for name in ("begins", "ends", "ids"))
    return [ids[begin:end] for begin, end in zip(begins, ends, strict=True)]


def _of_bytes(model: Any) -> Any:
    """The model fed with bytes: a tensor of strings loses NULs at a text's end on Python's side."""
    opset = import_quietly("openvino.opset15")
    openvino = import_quietly("openvino")
    shape = openvino.PartialShape([-1])
    parts = [
        opset.parameter(shape, kind, name)
        for kind, name in ((np.int32, "of"), (np.int32, "to"), (np.uint8, "letters"))
    ]
    packed = opset.string_tensor_pack(*parts)
    (texts,) = model.get_parameters()
    for place in texts.output(0).get_target_inputs():
        place.replace_source_output(packed.output(0))
    return openvino.Model(model.outputs, parts, "tokenizer")
