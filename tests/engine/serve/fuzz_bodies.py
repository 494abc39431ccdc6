"""JSON bodies, and the Open Inference Protocol's binary ones, made wrong from right ones."""

from __future__ import annotations

import base64
import json
import random
import struct
from copy import deepcopy
from typing import Any

RAW = "raw-json-"
"""A string that starts so stands for the JSON text of that number, whatever is no value."""

TEXTS = (
    "NaN",
    "-Infinity",
    "1e999",
    "1" * 400,
    "1" * 5000,
    "-0.0",
    "1e-400",
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\ufeff"',
    '"' + "x" * 5000 + '"',
    '"\\x"',
    "'a'",
    "[" * 3000,
    "[" * 300 + "]" * 300,
    '{"a":' * 3000,
    '{"a":' * 100 + "1" + "}" * 100,
    '{"a":1,"a":2}',
    "undefined",
    "",
    "01",
    "/**/1",
    "[" + "1," * 2000 + "1]",
    "[" + '"a",' * 1200 + '"a"]',
    "{" + ",".join(f'"k{i}":1' for i in range(500)) + "}",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1 << 31,
    1 << 63,
    -(1 << 63) - 1,
    10**30,
    "",
    "a",
    "text",
    "text_pair",
    "topic",
    "topic_probabilities",
    "codes",
    "num_tokens",
    "\x00\x01\x1f\x7f",
    "\u202e\u0301\ufffe",
    "😀" * 50,
    "%",
    "====",
    "AAAA",
    [],
    {},
    [[]],
    [None],
    [1],
    ["a", "b"],
    ["a", "b", "c"],
    [["a", "b"], "c"],
    {"name": "text"},
    {"binary_data_size": 3},
    {"binary_data": True},
    {"binary_data_output": True},
    *(f"{RAW}{i}." for i in range(len(TEXTS))),
)


def valid_bodies(spec_id: str, code: bytes) -> dict[str, Any]:
    """Path -> what it answers with 200."""
    codes = {"codes": base64.b64encode(code).decode(), "num_tokens": 1}
    text = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["A text.", "Why?"]}
    pair = text | {"name": "text_pair", "parameters": {}}
    infer = {
        "id": "7",
        "inputs": [text, pair],
        "outputs": [{"name": "topic"}, {"name": "codes", "parameters": {"binary_data": True}}],
        "parameters": {"binary_data_output": False},
    }
    texts = ["A text.", ["One.", "Another one."], "Übermäßig 😀"]
    return {
        "/v1/predict": {"inputs": texts, "tasks": ["topic"], "return_probabilities": True},
        "/v1/features": {"inputs": texts},
        "/v1/embeddings": {"input": texts[::2], "dimensions": 7, "encoding_format": "base64"},
        "/embed": {"inputs": texts[::2], "normalize": False, "truncate": True, "dimensions": 3},
        "/": {"inputs": texts[0]},
        "/similarity": {"inputs": {"source_sentence": texts[0], "sentences": texts[::2]}},
        "/predict?task=topic": {"inputs": [[texts[0]], [texts[2]]], "raw_scores": True},
        "/predict": {"inputs": texts[1], "truncate": True, "truncation_direction": "right"},
        "/tokenize": {"inputs": texts[::2], "add_special_tokens": True, "prompt_name": None},
        "/decode": {"ids": [[2, 5, 9, 3], [7]], "skip_special_tokens": False},
        "/embed_all": {"inputs": texts[0]},
        "/v1/predict_features": {"features": [codes, codes], "spec_id": spec_id, "tasks": ["mood"]},
        "/v2/models/tiny/infer": infer,
        "/v2/models/tiny/versions/1/infer": infer,
        "/v2/repository/index": {"ready": True},
    }


def mutated(rng: random.Random, valid: Any) -> bytes:
    """A few changes of its values, and at times of its bytes."""
    content = deepcopy(valid)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        content = _change(rng, content)
    data = encode(content)
    if rng.random() < 0.15 and data:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.choice(
                [*b'{}[]",:\\u0\x00\xff\xed\xa0', 255]
            )
        data = bytes(changed)
    if rng.random() < 0.03:
        data = data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"]))
    return data


MAX_CHARS = 1 << 22
"""Of the body that is sent: one text may stand in a thousand places."""


def encode(content: Any) -> bytes:
    """JSON, with what stands for TEXTS put in."""
    shown = json.dumps(content)
    for i, text in enumerate(TEXTS):
        place = f'"{RAW}{i}."'
        if shown.count(place) * len(text) > MAX_CHARS:
            text = '""'
        shown = shown.replace(place, text)
    return shown.encode("utf-8", "surrogatepass")


def mutated_binary(rng: random.Random) -> tuple[bytes, bytes]:
    """A body of the binary extension, and its header with the length of the JSON."""
    texts = [
        rng.choice(["", "A text.", "x" * 300, "😀"]).encode() for _ in range(rng.randint(0, 4))
    ]
    raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    size: Any = len(raw)
    kind = rng.randrange(8)
    if kind == 0 and raw:
        at = rng.randrange(len(raw))
        raw = raw[:at] + rng.randbytes(4) + raw[at + 4 :]
    elif kind == 1:
        raw = raw[: rng.randint(0, len(raw))]
    elif kind == 2:
        raw += rng.randbytes(rng.randint(1, 9))
    elif kind == 3:
        size = rng.choice([0, -1, size + 1, 1 << 40, 10**30, 1.5, "5", None, True, []])
    tensor = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [rng.choice([len(texts)] * 6 + [0, 1 << 31])],
        "parameters": {"binary_data_size": size},
    }
    binary = {"name": "topic", "parameters": {"binary_data": True}}
    header: dict[str, Any] = {"inputs": [tensor], "outputs": [binary]}
    if rng.random() < 0.3:
        header = _change(rng, header)
    text = encode(header)
    length = len(text) if rng.random() < 0.8 else rng.choice([0, 1, len(text) - 1, len(text) + 2])
    return text + raw, b"Inference-Header-Content-Length: %d" % length


def _change(rng: random.Random, content: Any) -> Any:
    """One value anywhere in it: another, gone, twice, or beside one that should not be there."""
    places = list(_places(content))
    if not places or rng.random() < 0.05:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    kind = rng.randrange(10)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, deepcopy(holder[key]))
    elif kind == 1:
        holder[rng.choice(["x", "", "inputs", "tasks", "data", "\x00", "parameters", "id"])] = 1
    elif kind == 2:
        many = 1100 if len(places) < 500 else 2  # not thousands of thousands
        holder[key] = [holder[key]] * rng.choice([1, 2, many])
    else:
        holder[key] = deepcopy(rng.choice(VALUES))
    return content


def _places(content: Any) -> Any:
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for key, value in items:
        yield content, key
        yield from _places(value)
