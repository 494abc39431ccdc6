"""Head files that are wrong inside, though their hash is right."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from random_heads import random_head

from engine.types import FeatureSpec

Meta = dict[str, Any]
Tensors = dict[str, np.ndarray]

DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int32": "I32"}


def write_hostile_head(name: str, spec: FeatureSpec, path: Path) -> None:
    """One of HOSTILE_HEADS."""
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
    HOSTILE_HEADS[name](meta, tensors)
    path.write_bytes(head_bytes(meta, tensors))


def head_bytes(meta: Meta, tensors: Tensors) -> bytes:
    """The file of a head, with the hash it ought to have."""
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
    content = json.dumps({**meta, "sha256": digest.hexdigest()})
    header = json.dumps({"__metadata__": {"bitheads_head": content}, **entries}).encode()
    return struct.pack("<Q", len(header)) + header + data


def setting(**values: Any) -> Callable[[Meta, Tensors], None]:
    return lambda meta, tensors: meta.update(values)


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


HOSTILE_HEADS: dict[str, Callable[[Meta, Tensors], None]] = {
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
