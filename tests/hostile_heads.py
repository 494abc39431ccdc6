"""Head files that are wrong inside, though their hash is right, and odd ones that are sound."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from random_heads import random_head

from bitheads.engine.features.spec import FeatureSpec

Meta = dict[str, Any]
Tensors = dict[str, np.ndarray]

AROUND = "around"
DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "float64": "F64",
    "int32": "I32",
    "int64": "I64",
    "uint8": "F8_E4M3",  # there is no such type in NumPy
    "uint16": "BF16",
    "bool": "BOOL",
}


def write_hostile_head(name: str, spec: FeatureSpec, path: Path) -> None:
    """One of HOSTILE_HEADS or SOUND_HEADS."""
    head = random_head(spec, "hostile")
    meta: Meta = {
        "format_version": 1,
        "task": head.task,
        "labels": list(head.labels),
        "form": head.form,
        "position_pooling": head.position_pooling.value,
        "spec": spec.to_json(),
        "metrics": {},
        "training": {
            "rate": 1e-05,
            "steps": [3, 1e16, 0.1, 123456789.125, 5e-324],
            "note": "ü\x7f",
        },
    }
    tensors = dict(head.tensors)
    {**HOSTILE_HEADS, **SOUND_HEADS}[name](meta, tensors)
    path.write_bytes(head_bytes(meta, tensors))


def head_bytes(meta: Meta, tensors: Tensors) -> bytes:
    """The file of a head, with the hash it ought to have.

    What `written` set of the metadata is taken out of it.
    """
    around_json, around_header = meta.pop(AROUND, ("{}", b"{}"))
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode() + b"\n")
    entries: dict[str, Any] = {}
    data = b""
    for tensor, array in sorted(tensors.items()):
        digest.update(f"{tensor} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
        end = len(data) + array.nbytes
        entries[tensor] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    content = around_json.format(json.dumps({**meta, "sha256": digest.hexdigest()}))
    header = json.dumps({"__metadata__": {"bitheads_head": content}, **entries}).encode()
    header = around_header.replace(b"{}", header)
    return struct.pack("<Q", len(header)) + header + data


def setting(**values: Any) -> Callable[[Meta, Tensors], None]:
    return lambda meta, tensors: meta.update(values)


def written(json: str = "{}", header: bytes = b"{}") -> Callable[[Meta, Tensors], None]:
    """What stands around the metadata's JSON, or around that of the file; {} is the JSON."""
    return lambda meta, tensors: meta.update({AROUND: (json, header)})


def setting_spec(**values: Any) -> Callable[[Meta, Tensors], None]:
    return lambda meta, tensors: meta["spec"].update(values)


def without(name: str) -> Callable[[Meta, Tensors], None]:
    def remove(meta: Meta, tensors: Tensors) -> None:
        (meta if name in meta else tensors).pop(name)

    return remove


def weights(
    name: str, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Meta, Tensors], None]:
    def apply(meta: Meta, tensors: Tensors) -> None:
        tensors[name] = np.ascontiguousarray(change(tensors.get(name, np.ones(3, np.float32))))

    return apply


def with_number(number: float) -> Callable[[np.ndarray], np.ndarray]:
    def put(array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        changed.flat[0] = number
        return changed

    return put


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


def of_inner_size(size: int) -> Callable[[Meta, Tensors], None]:
    def apply(meta: Meta, tensors: Tensors) -> None:
        dim, classes = tensors["dense"].shape[1], len(meta["labels"])
        tensors["dense"] = np.ones((size, dim), np.float32)
        tensors["dense_bias"] = np.ones(size, np.float32)
        tensors["output"] = np.ones((classes, size), np.float32)

    return apply


def of_labels(count: int) -> Callable[[Meta, Tensors], None]:
    def apply(meta: Meta, tensors: Tensors) -> None:
        meta["labels"] = [f"label {i}" for i in range(count)]
        tensors["output"] = np.ones((count, tensors["output"].shape[1]), np.float32)
        tensors["output_bias"] = np.ones(count, np.float32)

    return apply


def as_type(name: str, dtype: Any) -> Callable[[Meta, Tensors], None]:
    return weights(name, lambda a: np.ones(a.shape, dtype))


SOUND_HEADS: dict[str, Callable[[Meta, Tensors], None]] = {
    "as it is": lambda meta, tensors: None,
    "float16": weights("dense", lambda a: a.astype(np.float16)),
    "one of inner size": of_inner_size(1),
    "a field of the future": setting(color={"red": [1, None, True]}),
    "metrics that are whole": setting(metrics={"texts": 7, "least": -(2**63), "most": 2**64 - 1}),
    "names beyond ASCII": setting(labels=["ü", "☃", "𝄞"], metrics={"é": 0.1}),
    "an empty label": setting(labels=["", " ", "\u0001"]),
    "JSON of 64 levels": setting(training={"deep": nested(62)}),
    "blanks around its JSON": written(json=" \t{}\r\n", header=b"{}  "),
    "numbers of all sizes": setting(training={"a": [1e-320, 1e308, -0.0, 1e22, 1e21, 123456.75]}),
}
"""Odd, but all that is asked of a head."""

HOSTILE_HEADS: dict[str, Callable[[Meta, Tensors], None]] = {
    "no inner size": of_inner_size(0),
    "a large inner size": of_inner_size(65_537),
    "65,537 labels": of_labels(65_537),
    "float8": as_type("dense_bias", np.uint8),
    "bfloat16": as_type("dense_bias", np.uint16),
    "whole numbers of 64 bits": as_type("output_bias", np.int64),
    "truth values": as_type("output_bias", np.bool_),
    "float64 biases": as_type("dense_bias", np.float64),
    "NaN in training": setting(training={"loss": float("nan")}),
    "infinity in training": setting(training={"loss": float("-inf")}),
    "metrics of 2^64": setting(metrics={"texts": 2**64}),
    "training of -2^64": setting(training={"texts": -(2**64)}),
    "metrics that are words": setting(metrics={"accuracy": "good"}),
    "metrics that are true": setting(metrics={"accuracy": True}),
    "metrics that are none": setting(metrics={"accuracy": None}),
    "metrics that are a list": setting(metrics=[1.0]),
    "no metrics": without("metrics"),
    "no training": without("training"),
    "training that is a list": setting(training=[]),
    "labels as an object": setting(labels={"a": 1, "b": 2, "c": 3}),
    "a label with a NUL": setting(labels=["a", "b\0c", "d"]),
    "half a character": setting(labels=["a", "b", "\ud800"]),
    "half a character in training": setting(training={"note": "\ud800"}),
    "a version that is true": setting(format_version=True),
    "a version with a point": setting(format_version=1.0),
    "a version of the future": setting(format_version=2),
    "a huge version": setting(format_version=2**40),
    "a byte order mark": written(json="\ufeff{}"),
    "a byte order mark before its header": written(header=b"\xef\xbb\xbf{}"),
    "a NUL behind": written(json="{}\0"),
    "a NUL and more behind": written(json="{}\0 more"),
    "a NUL behind its header": written(header=b"{}\0"),
    "bytes that are no text": written(header=b'{} "\xff\xc3"'),
    "JSON of 65 levels": setting(training={"deep": nested(63)}),
    "JSON of 70 levels": setting(training={"deep": nested(68)}),
    "a dim that is true": setting_spec(dim=True),
    "layers that are words": setting_spec(layers=["2"]),
    "layers with a point": setting_spec(layers=[2.0]),
    "layers as a word": setting_spec(layers="23"),
    "weights of layers that are true": setting_spec(layer_weights=[True, True]),
    "too many weights of layers": setting_spec(layer_weights=[0.1] * 9),
    "weights of layers as an object": setting_spec(layer_weights={"a": 0.5, "b": 0.5}),
    "an encoder that is a number": setting_spec(encoder=5),
    "a calibration that is a number": setting_spec(calibration_sha256=5),
    "no task": without("task"),
    "a path as task": setting(task="../../etc/passwd"),
    "a long task": setting(task="x" * 101),
    "a number as task": setting(task=3),
    "one label": setting(labels=["one"]),
    "equal labels": setting(labels=["a", "b", "a"]),
    "labels of another number": setting(labels=["a", "b", "c", "d"]),
    "labels that are numbers": setting(labels=[1, 2, 3]),
    "labels as a word": setting(labels="abc"),
    "an unknown form": setting(form="triple"),
    "an unknown pooling": setting(position_pooling="largest"),
    "another pooling": setting(position_pooling="mean"),
    "no spec": without("spec"),
    "a spec that is a list": setting(spec=[1, 2]),
    "a spec with more": setting_spec(color="red"),
    "a negative dim": setting_spec(dim=-64),
    "a huge dim": setting_spec(dim=2**62),
    "a dim that is no number": setting_spec(dim="64"),
    "a broken dim": setting_spec(dim=64.5),
    "no layers": setting_spec(layers=[]),
    "a negative layer": setting_spec(layers=[-1]),
    "unknown quantization": setting_spec(quantization="int4"),
    "deep JSON": setting(training=json.loads("[" * 200 + "]" * 200)),
    "no query": without("query"),
    "no bias": without("output_bias"),
    "another weight": weights("extra", lambda a: a),
    "a query of another width": weights("query", lambda a: a[:, :-1]),
    "queries that do not divide": weights("query", lambda a: np.repeat(a, 3, 0)[:5]),
    "no queries": weights("query", lambda a: a[:0]),
    "a flat query": weights("query", lambda a: a.reshape(-1)),
    "a query of one number": weights("query", lambda a: a.reshape(-1)[0].reshape(())),
    "no inner": weights("dense_bias", lambda a: a[:0]),
    "a longer bias": weights("output_bias", lambda a: np.repeat(a, 2)),
    "infinite": weights("dense", with_number(np.inf)),
    "not a number": weights("output_bias", with_number(np.nan)),
    "a huge row": weights("value", lambda a: np.full_like(a, 3e37)),
    "float64": weights("dense", lambda a: a.astype(np.float64)),
    "whole numbers": weights("dense", lambda a: a.astype(np.int32)),
}
