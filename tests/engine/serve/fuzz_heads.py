"""Head files made wrong: by their bytes, or in their content under a hash that is right."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from bitheads.engine.heads.head_file import METADATA_KEY, _hash

DTYPES = ("float16", "float64", "int8", "uint8", "int64", "uint64", "bool")
SIZES = (0, 1, 7, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
NAMES = ("query", "value", "dense", "dense_bias", "output", "output_bias")
META: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "ab",
    "single",
    "pair",
    "mean",
    "cls",
    "attention",
    "../x",
    "codes",
    "\ud800",
    "\x00",
    [],
    ["a"],
    ["a", "a"],
    ["a", "b", "c"],
    ["a", 1],
    [1, 2],
    [True, None],
    [[], {}],
    ["\ud800", "b"],
    ["\x00", "\r\n"],
    ["x" * 10_000, "y"],
    {},
    {"a": 1},
    {"a": float("nan")},
    {"a": "b"},
    {"a": {"b": []}},
    {"": "\ud800"},
    {"\ud800": 1.0},
)
FIELDS = (
    "task",
    "labels",
    "labels",
    "form",
    "position_pooling",
    "metrics",
    "metrics",
    "training",
    "kind",
    "decision",
)
DECISIONS = ("thresholds", "cuts", "value_range", "abstain_below", "reject_above", "x")
NUMBERS: tuple[Any, ...] = (
    *META,
    [0.0, 0.0],
    [1, 2, 3],
    [-3e38, 3e38],
    [1e39],
    [3e38, -3e38],
    0.5,
    3e38,
    -3e38,
    1e-320,
    1e39,
    [float("nan"), 1.0],
    [0] * 70_000,
)
"""What a decision may say."""


def mutated(rng: random.Random, head: bytes, name: str) -> bytes:
    """
    Args:
        head: a sound file.
        name: the task that the file will say it is of.
    """
    kind = rng.randrange(10)
    if kind < 7:
        return _content(rng, head, name)
    if kind == 7:
        return _header(rng, head)
    changed = bytearray(head)
    if kind == 8:
        return bytes(changed[: rng.randint(0, len(changed))])
    for _ in range(rng.randint(1, 8)):
        # The header is small beside the weights, and what matters most.
        end = len(changed) if rng.random() < 0.3 else min(len(changed), 2000)
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _content(rng: random.Random, head: bytes, name: str) -> bytes:
    """Weights and fields that cannot be, under a hash that says that they are meant."""
    tensors = load(head)
    size = int.from_bytes(head[:8], "little")
    meta = json.loads(json.loads(head[8 : 8 + size])["__metadata__"][METADATA_KEY])
    meta["task"] = name
    del meta["sha256"]
    for _ in range(rng.choice([0, 1, 1, 2])):
        _change_weights(rng, tensors)
    for _ in range(rng.choice([0, 1, 1, 2])):
        if rng.random() < 0.25 and isinstance(meta.get("spec"), dict):
            meta["spec"][rng.choice([*meta["spec"]])] = rng.choice(META)
        elif rng.random() < 0.25 and isinstance(meta.get("decision"), dict):
            _change_decision(rng, meta["decision"])
        elif rng.random() < 0.1:
            del meta[rng.choice([*meta])]
        else:
            meta[rng.choice(FIELDS)] = rng.choice(META)
    meta["sha256"] = _hash(meta, tensors)
    made: bytes = save(tensors, metadata={METADATA_KEY: json.dumps(meta)})
    return made


def _change_decision(rng: random.Random, decision: dict[str, Any]) -> None:
    name = rng.choice([*decision, *DECISIONS])
    values = decision.get(name)
    if rng.random() < 0.2:
        decision.pop(name, None)
    elif isinstance(values, list) and values and rng.random() < 0.5:
        values[rng.randrange(len(values))] = rng.choice(NUMBERS)
    else:
        decision[name] = rng.choice(NUMBERS)


def _change_weights(rng: random.Random, tensors: dict[str, Any]) -> None:
    name = rng.choice([*tensors]) if tensors else ""
    kind = rng.randrange(8)
    if not name or kind == 0:
        tensors[rng.choice([*NAMES, "x", "task", "__metadata"])] = np.ones(
            [rng.randint(0, 3) for _ in range(rng.randint(0, 3))], np.float32
        )
    elif kind == 1:
        del tensors[name]
    elif kind == 2:
        with np.errstate(all="ignore"):
            tensors[name] = tensors[name].astype(rng.choice(DTYPES))
    elif kind == 3:
        array = tensors[name]
        shape = rng.choice([array.shape[::-1], (1, *array.shape), (array.size,), (array.size, 1)])
        tensors[name] = np.ascontiguousarray(array.reshape(shape))
    elif kind == 4 and tensors[name].ndim:
        tensors[name] = tensors[name][: rng.randint(0, 2)].copy()
    else:
        array = np.real(tensors[name]).astype(np.float32).reshape(-1)
        value = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e30, 1e-45, 1e20])
        array[: rng.choice([1, array.size])] = value
        tensors[name] = array.reshape(tensors[name].shape)


def _header(rng: random.Random, head: bytes) -> bytes:
    """What safetensors itself must refuse: sizes, offsets and types that are not there."""
    size = int.from_bytes(head[:8], "little")
    header = json.loads(head[8 : 8 + size])
    tensor = header[rng.choice([name for name in header if name != "__metadata__"])]
    kind = rng.randrange(6)
    if kind == 0:
        tensor["shape"] = [rng.choice(SIZES) for _ in range(rng.randint(0, 4))]
    elif kind == 1:
        tensor["data_offsets"] = [rng.choice(SIZES), rng.choice(SIZES)]
    elif kind == 2:
        tensor["dtype"] = rng.choice(["F64", "BF16", "F8_E4M3", "F4", "I64", "X", "", 1])
    elif kind == 3:
        header["__metadata__"] = rng.choice([{}, {METADATA_KEY: "[" * 10_000}, [], {"a": 1}])
    elif kind == 4:
        header["x" * rng.choice([1, 100_000])] = tensor
    text = json.dumps(header).encode()
    length = rng.choice(SIZES) if kind == 5 else len(text)
    return length.to_bytes(8, "little") + text + head[8 + size :]
