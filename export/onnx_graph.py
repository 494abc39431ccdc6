"""The encoder as an ONNX graph: one output per layer, dynamic batch and sequence axes."""

from __future__ import annotations

import ast
import copy
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from bitheads.export.source.architecture import USUAL_MAX_LENGTH, attention_of
from bitheads.export.source.encoder import Encoder, HiddenStates
from bitheads.export.source.windows import MASKED_SCORE
from bitheads.export.split_products import split_products
from bitheads.export.window_graph import TRANSLATIONS

OPSET = 20
MAX_SINGLE_FILE_BYTES = 1 << 30
"""Bytes of a graph with its weights. Above them, weights go to a file beside the graph: a protobuf
message ends at 2 GiB."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""The tracer's note of the modules that an operator is within."""


def export_graph(
    encoder: Encoder, layers: tuple[int, ...], precision: str, path: Path
) -> list[Path]:
    """Writes the graph and returns the files it takes.

    Inputs: input_ids, attention_mask and, for BERT, token_type_ids, int64 [rows, seq].
    Outputs: hidden_{i} for each layer, [rows, seq, dim], float16 or float32 by `precision`.
    LayerNorm and softmax accumulate in float32 in either case.
    """
    model = trace(encoder, layers, precision)
    return save_graph(model, path)


def trace(encoder: Encoder, layers: tuple[int, ...], precision: str) -> onnx.ModelProto:
    """The graph of `export_graph`, with the tracer's notes, which say what module a node is of."""
    module = HiddenStates(encoder, layers).eval()
    if precision == "fp16":
        module = copy.deepcopy(module).half()
    # Distinct tensors: the tracer takes one tensor passed twice for one input.
    examples = tuple(torch.ones((2, 8), dtype=torch.int64) for _ in module.input_names)
    axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("seq")}
    torch_logger = logging.getLogger("torch.onnx")
    level = torch_logger.level
    with warnings.catch_warnings(), attention_of(module.model, encoder.forward.attention):
        warnings.simplefilter("ignore")  # about the exporter's own internals
        torch_logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=module.input_names,
                output_names=[f"hidden_{layer}" for layer in layers],
                dynamic_shapes=tuple(axes for _ in examples),
                verbose=False,
                custom_translation_table=TRANSLATIONS,
            )
        finally:
            torch_logger.setLevel(level)
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    if encoder.max_length > USUAL_MAX_LENGTH:
        split_products(model.graph)
    if precision == "fp16":
        _softmax_in_fp32(model.graph)
        _soften_masks(model.graph)
    return model


def save_graph(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Writes a traced graph without the tracer's notes, and returns the files it takes."""
    _forget_sources(model)
    onnx.checker.check_model(model)
    if model.ByteSize() <= MAX_SINGLE_FILE_BYTES:
        onnx.save(model, path)
        return [path]
    weights = path.with_name(path.name + ".data")
    onnx.save(model, path, save_as_external_data=True, location=weights.name)
    return [path, weights]


def modules_of(model: onnx.ModelProto) -> dict[str, str]:
    """Tensor of a traced graph -> name of the encoder's module that makes it, or reads it first."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        scopes = ast.literal_eval(notes.get(SCOPES, "[]"))  # from the outermost to the operator
        name = scopes[-2] if len(scopes) > 1 else ""
        name = name.removeprefix("model").removeprefix(".") or "the model itself"
        for tensor in (*node.input, *node.output):
            found.setdefault(tensor, name)
    return found


def _forget_sources(model: onnx.ModelProto) -> None:
    """Drops the tracer's notes, which name files and lines of the machine the graph was made on."""
    graph = model.graph
    notes = (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output)
    for holder in (*notes, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""


def _softmax_in_fp32(graph: onnx.GraphProto) -> None:
    """Puts casts around every Softmax; LayerNormalization has float32 built in (stash_type)."""
    nodes = []
    for node in graph.node:
        if node.op_type != "Softmax":
            nodes.append(node)
            continue
        source, result = node.input[0], node.output[0]
        node.input[0], node.output[0] = f"{source}_fp32", f"{result}_fp32"
        nodes += [
            helper.make_node("Cast", [source], [node.input[0]], to=TensorProto.FLOAT),
            node,
            helper.make_node("Cast", [node.output[0]], [result], to=TensorProto.FLOAT16),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _soften_masks(graph: onnx.GraphProto) -> None:
    """Replaces the lowest float16, with which transformers masks, by what masks as well.

    Added to a negative score it is -inf, of which a row has no softmax if all of it is masked.
    """
    lowest = np.finfo(np.float16).min
    tensors = [*graph.initializer]
    tensors += [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute]
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT16 and not tensor.external_data:
            values = numpy_helper.to_array(tensor)
            if (values == lowest).any():
                softer = np.where(values == lowest, np.float16(MASKED_SCORE), values)
                tensor.CopyFrom(numpy_helper.from_array(softer, tensor.name))
