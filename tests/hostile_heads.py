"""Head files that are wrong inside, though their hash is right, and odd ones that are sound."""

from __future__ import annotations

import hashlib
import json
import math
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


def of_kind(
    kind: Any, decision: Any, labels: Any = "abc", outputs: int | None = None
) -> Callable[[Meta, Tensors], None]:
    """A head of version 2: of so many outputs, or of as many as labels."""

    def apply(meta: Meta, tensors: Tensors) -> None:
        meta.update(format_version=2, kind=kind, decision=decision, labels=list(labels))
        count = len(labels) if outputs is None else outputs
        tensors["output"] = np.resize(tensors["output"], (count, tensors["output"].shape[1]))
        tensors["output_bias"] = np.resize(tensors["output_bias"], count)

    return apply


REJECTS = {"reject_above": 0.25, "reject_scale": 1.5}


def single_label(decision: Any, outputs: int = 3) -> Callable[[Meta, Tensors], None]:
    return of_kind("single_label", decision, outputs=outputs)


def multi_label(thresholds: Any, **more: Any) -> Callable[[Meta, Tensors], None]:
    return of_kind("multi_label", {"thresholds": thresholds, **more})


def ordinal(cuts: Any, labels: Any = "abc", **more: Any) -> Callable[[Meta, Tensors], None]:
    return of_kind("ordinal", {"cuts": cuts, **more}, labels, 1)


def regression(value_range: Any, **more: Any) -> Callable[[Meta, Tensors], None]:
    return of_kind("regression", {"value_range": value_range, **more}, "", 1)


def without_in_version_2(name: str) -> Callable[[Meta, Tensors], None]:
    def apply(meta: Meta, tensors: Tensors) -> None:
        single_label({})(meta, tensors)
        del meta[name]

    return apply


def two_texts(
    *changes: Callable[[Meta, Tensors], None], size: int = 5, inner: int = 7
) -> Callable[[Meta, Tensors], None]:
    """A head of version 3, with vectors of so many numbers, and then something is changed."""

    def apply(meta: Meta, tensors: Tensors) -> None:
        single_label({})(meta, tensors)
        meta.update(format_version=3, form="two_texts")
        outputs, dim = len(meta["labels"]), 4 * size + 2
        shapes = ((inner, dim), (inner,), (outputs, inner), (outputs,))
        names = ("dense", "dense_bias", "output", "output_bias")
        for name, shape in zip(names, shapes, strict=True):
            tensors[f"pair_{name}"] = np.linspace(-0.1, 0.1, math.prod(shape)).reshape(shape)
            tensors[f"pair_{name}"] = tensors[f"pair_{name}"].astype(np.float32)
        tensors["output"] = np.resize(tensors["output"], (size, tensors["output"].shape[1]))
        tensors["output_bias"] = np.resize(tensors["output_bias"], size)
        for change in changes:
            change(meta, tensors)

    return apply


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
    "a kind in version 1": setting(kind="regression", decision={"value_range": [0, 1]}),
    "version 2 of what version 1 has": single_label({}),
    "one label that may be refused": single_label({"abstain_below": 0.5, **REJECTS}, 4),
    "abstaining always": single_label({"abstain_below": 1}),
    "abstaining never": single_label({"abstain_below": 0.0}),
    "several labels": multi_label([0.1, -3, 1e-05]),
    "several labels or none of them": of_kind(
        "multi_label", {"thresholds": [0.5, 0, 1], **REJECTS}, outputs=4
    ),
    "one label or not": of_kind("multi_label", {"thresholds": [0.1]}, "a"),
    "large thresholds": multi_label([-3e38, 2**64 - 1, -(2**63)]),
    "an order": ordinal([-0.1, 0.1]),
    "an order of numbers": ordinal([-0.1, 0.1], ["-1.5", "0", "22"], abstain_below=0.4),
    "an order of two": ordinal([0], "ab"),
    "an order, or not": of_kind(
        "ordinal", {"cuts": [0, 1], "reject_above": -1, "reject_scale": 1}, outputs=2
    ),
    "a number": regression([0, 0.5]),
    "a number, or not": of_kind("regression", {"value_range": [-3e38, 3e38], **REJECTS}, "", 2),
    "numbers of all sizes": setting(training={"a": [1e-320, 1e308, -0.0, 1e22, 1e21, 123456.75]}),
    "two texts": two_texts(),
    "two texts of one number each": two_texts(size=1, inner=1),
    "two texts in float16": two_texts(weights("pair_dense", lambda a: a.astype(np.float16))),
    "a number of two texts, or not": two_texts(
        setting(kind="regression", decision={"value_range": [-1, 1], **REJECTS}, labels=[]),
        weights("pair_output", lambda a: a[:2]),
        weights("pair_output_bias", lambda a: a[:2]),
    ),
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
    "a version of the future": setting(format_version=4),
    "version 3 of what version 2 has": two_texts(setting(form="pair")),
    "version 3 of no version's form": two_texts(setting(form="triple")),
    "two texts in version 2": two_texts(setting(format_version=2)),
    "two texts in version 1": two_texts(setting(format_version=1)),
    "half of two texts": two_texts(setting(form="single", format_version=2)),
    "two texts without a half": setting(form="two_texts", format_version=3),
    "words of two texts": two_texts(
        setting(kind="token_label", decision={}, labels=["a"]),
        weights("pair_output", lambda a: a[:3]),
        weights("pair_output_bias", lambda a: a[:3]),
    ),
    "two texts without numbers": two_texts(size=0),
    "two texts of 16,384 numbers": two_texts(size=16_384, inner=1),
    "no inner size of pairs": two_texts(inner=0),
    "a large inner size of pairs": two_texts(size=1, inner=65_537),
    "no kind of two texts": two_texts(without("kind")),
    "no decision of two texts": two_texts(without("decision")),
    "no pair_dense": two_texts(without("pair_dense")),
    "no pair_output_bias": two_texts(without("pair_output_bias")),
    "another weight of pairs": two_texts(weights("pair_query", lambda a: a)),
    "a narrow pair_dense": two_texts(weights("pair_dense", lambda a: a[:, :-1])),
    "a flat pair_dense": two_texts(weights("pair_dense", lambda a: a.reshape(-1))),
    "pairs of another number of labels": two_texts(weights("pair_output", lambda a: a[:2])),
    "a longer bias of pairs": two_texts(weights("pair_output_bias", lambda a: np.repeat(a, 2))),
    "more numbers than their bias": two_texts(weights("output", lambda a: np.repeat(a, 2, 0))),
    "infinite of pairs": two_texts(weights("pair_dense", with_number(np.inf))),
    "not a number of pairs": two_texts(weights("pair_output_bias", with_number(np.nan))),
    "a huge row of pairs": two_texts(weights("pair_dense", lambda a: np.full_like(a, 3e38))),
    "float64 of pairs": two_texts(weights("pair_output", lambda a: a.astype(np.float64))),
    "version 0": setting(format_version=0),
    "version 1 of what version 2 has": setting(format_version=2),
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
    "no kind": without_in_version_2("kind"),
    "no decision": without_in_version_2("decision"),
    "an unknown kind": of_kind("token_label", {}),
    "a kind that is a number": of_kind(1, {}),
    "a kind that is a list": of_kind(["single_label"], {}),
    "a kind that is none": of_kind(None, {}),
    "a kind in capitals": of_kind("Single_Label", {}),
    "a decision that is a list": single_label([]),
    "a decision that is a longer list": single_label(["abstain_below"]),
    "a decision that is a word": single_label("abstain_below"),
    "a decision that is no word": single_label(""),
    "a decision that is none": single_label(None),
    "a temperature": single_label({"temperature": 2.0}),
    "no name in a decision": single_label({"": 2.0}),
    "thresholds of one label": single_label({"thresholds": [0, 0, 0]}),
    "cuts of one label": single_label({"cuts": [0, 1]}),
    "a range of one label": single_label({"value_range": [0, 1]}),
    "no thresholds of one label": single_label({"thresholds": []}),
    "no range of one label": single_label({"value_range": None}),
    "no labels at all": of_kind("single_label", {}, "", 3),
    "no thresholds": of_kind("multi_label", {}),
    "an empty list of thresholds": multi_label([]),
    "too few thresholds": multi_label([0.5, 0.5]),
    "too many thresholds": multi_label([0.5] * 4),
    "thresholds for the reject output": of_kind(
        "multi_label", {"thresholds": [0.5] * 4, **REJECTS}, outputs=4
    ),
    "thresholds as a number": multi_label(0.5),
    "thresholds by label": multi_label({"a": 0, "b": 0, "c": 0}),
    "thresholds as a word": multi_label("000"),
    "a threshold that is true": multi_label([0, True, 0]),
    "a threshold that is a word": multi_label([0, "0", 0]),
    "a threshold that is none": multi_label([0, None, 0]),
    "a threshold that is a list": multi_label([0, [0], 0]),
    "a threshold beyond float32": multi_label([0, 1e39, 0]),
    "a threshold far below": multi_label([0, -3.1e38, 0]),
    "a threshold of 2^64": multi_label([0, 2**64, 0]),
    "a threshold that is not a number": multi_label([0, float("nan"), 0]),
    "an infinite threshold": multi_label([0, float("inf"), 0]),
    "several labels that abstain": multi_label([0, 0, 0], abstain_below=0.5),
    "several equal labels": of_kind("multi_label", {"thresholds": [0, 0]}, "aa"),
    "several labels, of which there are none": of_kind("multi_label", {"thresholds": []}, "", 1),
    "no cuts": of_kind("ordinal", {}, outputs=1),
    "too few cuts": ordinal([0]),
    "too many cuts": ordinal([0, 1, 2]),
    "cuts that fall": ordinal([1, 0]),
    "equal cuts": ordinal([0.5, 0.5]),
    "cuts that are equal as float32": ordinal([1, 1 + 1e-9]),
    "whole cuts that are equal as float32": ordinal([2**53, 2**53 + 1]),
    "an order of one": ordinal([], "a"),
    "an order of equal labels": ordinal([0, 1], "aba"),
    "an order with thresholds": ordinal([0, 1], thresholds=[0, 0, 0]),
    "a logit for each of an order": of_kind("ordinal", {"cuts": [0, 1]}),
    "no range": of_kind("regression", {}, "", 1),
    "a range that is none": regression(None),
    "a range of nothing": regression([]),
    "a range of one": regression([0]),
    "a range of three": regression([0, 1, 2]),
    "a range that falls": regression([1, 0]),
    "a range of one number": regression([1, 1]),
    "a range that is one number as float32": regression([1, 1 + 1e-9]),
    "a range of words": regression(["0", "1"]),
    "a range as an object": regression({"least": 0, "largest": 1}),
    "a number with labels": of_kind("regression", {"value_range": [0, 1]}, "ab", 1),
    "a number with a label for it": of_kind("regression", {"value_range": [0, 1]}, "a"),
    "a number that abstains": regression([0, 1], abstain_below=0.5),
    "two numbers": of_kind("regression", {"value_range": [0, 1]}, "", 2),
    "abstaining below 0": single_label({"abstain_below": -0.01}),
    "abstaining below more than 1": single_label({"abstain_below": 1.01}),
    "abstaining that is true": single_label({"abstain_below": True}),
    "abstaining that is none": single_label({"abstain_below": None}),
    "abstaining that is a word": single_label({"abstain_below": "0.5"}),
    "abstaining that is a list": single_label({"abstain_below": [0.5]}),
    "abstaining that is an object": single_label({"abstain_below": {}}),
    "a reject output that is true": single_label({**REJECTS, "reject_above": True}, 4),
    "a reject output that is none": single_label({**REJECTS, "reject_above": None}, 4),
    "a reject output that is a list": single_label({**REJECTS, "reject_above": [0]}, 4),
    "a reject output beyond float32": single_label({**REJECTS, "reject_above": 1e39}, 4),
    "no reject output": single_label(REJECTS),
    "a reject output without its scale": single_label({"reject_above": 0}, 4),
    "a scale without reject output": single_label({"reject_scale": 2.0}),
    "a scale of 1 without reject output": single_label({"reject_scale": 1.0}),
    "a scale of 0": single_label({**REJECTS, "reject_scale": 0}, 4),
    "a scale below 0": single_label({**REJECTS, "reject_scale": -0.5}, 4),
    "a scale that is true": single_label({**REJECTS, "reject_scale": True}, 4),
    "a scale that is none": single_label({**REJECTS, "reject_scale": None}, 4),
    "a scale that is a list": single_label({**REJECTS, "reject_scale": [1]}, 4),
    "a scale beyond float32": single_label({**REJECTS, "reject_scale": 1e39}, 4),
    "an output too many": single_label({}, 4),
    "65,536 labels and a reject output": of_kind(
        "single_label", REJECTS, [str(i) for i in range(65_536)], 65_537
    ),
}
