"""Bodies as large as they may be, of whatever they may hold: others are answered meanwhile."""

from __future__ import annotations

import json
import random
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import running

from bitheads.engine.serve import json_size
from bitheads.engine.serve.json_size import count_values
from bitheads.engine.serve.settings import Settings

LIMIT = Settings().max_body_bytes
HEALTH_S = 0.1
INFER = "/v2/models/tiny/infer"


def exact(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(exact, value))
    return 1 + sum(map(exact, value.values())) if isinstance(value, dict) else 1


def test_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in strings, and wherever a block ends; an empty list counts as one more."""
    monkeypatch.setattr(json_size, "BLOCK_BYTES", 7)
    rng = random.Random(0)

    def text() -> str:
        return "".join(rng.choice('\\",[{aé€') for _ in range(rng.randrange(6)))

    def value(depth: int) -> Any:
        kind = rng.random()
        if depth == 0 or kind < 0.4:
            return text()
        if kind < 0.7:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        return {text(): value(depth - 1) for _ in range(rng.randrange(4))}

    for _ in range(2000):
        made = value(4)
        body = json.dumps(made, ensure_ascii=rng.random() < 0.5).encode()
        at_once = body.count(b",") + body.count(b"[") + body.count(b"{")
        assert exact(made) <= count_values(body, at_once) <= 2 * exact(made)
        assert exact(made) <= count_values(body, 10**9) <= at_once + 1


@pytest.mark.parametrize("body", [b"", b'"', b"\\", b'"' * 9, b"\\" * 9 + b'"', b"\xff" * 9])
def test_what_is_no_json_has_some_number(body: bytes) -> None:
    assert count_values(body, 0) >= 0


@pytest.fixture(scope="module")
def served(head_bundle: Path) -> Iterator[httpx.Client]:
    with running(head_bundle) as (client, _):
        yield client


VALUES = {"empty lists": b"[]", "empty texts": b'""', "objects": b"{}", "numbers": b"1"}
AROUND = {
    "/v1/predict": (b'{"inputs":[', b"]}"),
    "/v1/features": (b'{"inputs":"a","more":[', b"]}"),
    "/v1/predict_features": (b'{"features":[', b"]}"),
    INFER: (b'{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":[', b"]}]}"),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("path", AROUND)
def test_millions_of_values_are_refused(served: httpx.Client, path: str, name: str) -> None:
    """As many as the body may hold."""
    begin, end = AROUND[path]
    values = (VALUES[name] + b",") * ((LIMIT - 100) // (len(VALUES[name]) + 1))
    answer = served.post(path, content=begin + values[:-1] + end)
    assert answer.status_code == 413
    assert "more than 24384 values" in answer.text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be"])
def test_values_that_were_not_counted_are_not_read(served: httpx.Client, encoding: str) -> None:
    """A byte of one letter looks like a quote, and all behind it like one text."""
    inputs = "[" + "[]," * 100_000 + "[]]"
    content = f'{{"x": "\u2201", "inputs": {inputs}}}'.encode(encoding)
    answer = served.post(INFER, content=content)
    assert answer.status_code == 422
    assert "not valid JSON" in answer.json()["error"]


def test_commas_in_texts_are_no_values(served: httpx.Client) -> None:
    """Three times as many as there may be values."""
    texts = [",[{" * 1000] * 25
    assert served.post("/v1/predict", json={"inputs": texts}).status_code == 200


def test_millions_of_binary_strings_are_refused(served: httpx.Client) -> None:
    strings = struct.pack("<I", 0) * (LIMIT // 4 - 1000)
    header = {
        "inputs": [
            {
                "name": "text",
                "datatype": "BYTES",
                "shape": [1000],
                "parameters": {"binary_data_size": len(strings)},
            }
        ]
    }
    start = json.dumps(header).encode()
    length = {"inference-header-content-length": str(len(start))}
    path = INFER
    answer = served.post(path, content=start + strings, headers=length)
    assert answer.status_code == 422
    assert "got more strings, expected shape [1000]" in answer.json()["error"]
    header["inputs"][0]["shape"] = [1 << 31, 1]
    start = json.dumps(header).encode()
    length = {"inference-header-content-length": str(len(start))}
    assert served.post(path, content=start + strings, headers=length).status_code == 413


def test_health_while_the_largest_bodies_come(head_bundle: Path) -> None:
    """As a probe that gives up after a second would see it; nearly always within a tenth.

    Of many asked, so that a machine that is busy elsewhere does not decide.
    """
    with running(head_bundle) as (client, _):
        ending = threading.Event()

        def send() -> None:
            with httpx.Client(base_url=client.base_url, timeout=300) as other:
                bodies = [
                    begin + (value + b",") * ((LIMIT - 100) // (len(value) + 1)) + value + end
                    for begin, end in AROUND.values()
                    for value in VALUES.values()
                ]
                while not ending.is_set():
                    for path, body in zip(
                        [path for path in AROUND for _ in VALUES], bodies, strict=True
                    ):
                        other.post(path, content=body)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            seconds = []
            for _ in range(150):
                started_s = time.perf_counter()
                assert client.get("/health/live").status_code == 200
                seconds.append(time.perf_counter() - started_s)
        finally:
            ending.set()
            sending.join()
        late = sum(s > HEALTH_S for s in seconds)
        assert max(seconds) < 1.9, max(seconds)
        assert late <= len(seconds) // 4, sorted(seconds)[-40:]
