"""The Open Inference Protocol, by Triton's own client and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from bitheads import Engine

MODEL = "tiny"
TEXTS = ["The plot is thin, but what a cast!", "Why?", "Übermäßig 😀"]


@pytest.fixture
def client_of_triton(client: httpx.Client) -> Iterator[Any]:
    address = f"{client.base_url.host}:{client.base_url.port}"
    with triton.InferenceServerClient(address) as made:
        yield made


def tensor(name: str, texts: list[str], binary: bool = True) -> Any:
    made = triton.InferInput(name, [len(texts)], "BYTES")
    made.set_data_from_numpy(np.array([t.encode() for t in texts], object), binary_data=binary)
    return made


def test_health_and_metadata(client_of_triton: Any) -> None:
    assert client_of_triton.is_server_live()
    assert client_of_triton.is_server_ready()
    assert client_of_triton.is_model_ready(MODEL)
    assert client_of_triton.get_server_metadata()["name"] == "bitheads"
    found = client_of_triton.get_model_metadata(MODEL)
    assert [item["name"] for item in found["inputs"]] == ["text", "text_pair"]
    outputs = {item["name"]: item for item in found["outputs"]}
    assert outputs["topic"]["datatype"] == "BYTES"
    assert outputs["topic_probabilities"]["shape"] == [-1, 3]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_infer(client_of_triton: Any, offline: Engine, binary_in: bool, binary_out: bool) -> None:
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("topic", "topic_probabilities", "num_tokens")
    ]
    found = client_of_triton.infer(
        MODEL, [tensor("text", TEXTS, binary_in)], outputs=outputs, request_id="7"
    )
    expected = offline.predict(TEXTS, ["topic"])["topic"]
    labels = [
        label if isinstance(label, str) else label.decode() for label in found.as_numpy("topic")
    ]
    assert labels == list(expected.top)
    probabilities = found.as_numpy("topic_probabilities")
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-6)
    assert found.as_numpy("num_tokens").tolist() == offline.encode(TEXTS).num_tokens.tolist()
    assert found.get_response()["id"] == "7"
    assert found.get_response()["model_name"] == MODEL


def test_pairs_and_all_outputs(client_of_triton: Any, offline: Engine) -> None:
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    inputs = [tensor("text", [a for a, _ in pairs]), tensor("text_pair", [b for _, b in pairs])]
    found = client_of_triton.infer(MODEL, inputs)
    assert {item["name"] for item in found.get_response()["outputs"]} == {
        "same",
        "same_probabilities",
    }
    expected = offline.predict(pairs, ["same"])["same"]
    np.testing.assert_allclose(
        found.as_numpy("same_probabilities"), expected.probabilities, atol=1e-6
    )


def test_codes(client_of_triton: Any, offline: Engine) -> None:
    outputs = [triton.InferRequestedOutput("codes")]
    found = client_of_triton.infer(MODEL, [tensor("text", TEXTS)], outputs=outputs)
    assert b"".join(found.as_numpy("codes")) == offline.encode(TEXTS).codes.tobytes()


def test_errors_are_told(client_of_triton: Any) -> None:
    with pytest.raises(InferenceServerException, match="model 'none' version '1'"):
        client_of_triton.infer("none", [tensor("text", TEXTS)])
    outputs = [triton.InferRequestedOutput("none")]
    with pytest.raises(InferenceServerException, match="no such head"):
        client_of_triton.infer(MODEL, [tensor("text", TEXTS)], outputs=outputs)
    with pytest.raises(InferenceServerException, match="got 1 texts for 3"):
        client_of_triton.infer(MODEL, [tensor("text", TEXTS), tensor("text_pair", ["a"])])


def test_configuration_and_index(client_of_triton: Any) -> None:
    found = client_of_triton.get_model_config(MODEL)
    assert found["name"] == MODEL
    assert found["input"][0] == {"name": "text", "data_type": "TYPE_STRING", "dims": [-1]}
    outputs = {item["name"]: item for item in found["output"]}
    assert outputs["topic_probabilities"]["data_type"] == "TYPE_FP32"
    expected = [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]
    assert client_of_triton.get_model_repository_index() == expected


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ready": true}'])
def test_the_index_of_what_is_ready(client: httpx.Client, content: bytes) -> None:
    assert len(client.post("/v2/repository/index", content=content).json()) == 1


def test_statistics_are_of_all_protocols(client: httpx.Client, client_of_triton: Any) -> None:
    def statistics() -> Any:
        (found,) = client_of_triton.get_inference_statistics(MODEL)["model_stats"]
        return found

    before = statistics()
    client_of_triton.infer(MODEL, [tensor("text", ["Statistics of a text."])])
    assert client.post("/v1/predict", json={"inputs": ["And", "of two."]}).status_code == 200
    after = statistics()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 2
    old, new = before["inference_stats"], after["inference_stats"]
    for stage in ("success", "queue", "compute_input", "compute_infer"):
        assert new[stage]["count"] - old[stage]["count"] == 2
        assert new[stage]["ns"] > old[stage]["ns"]
    assert client_of_triton.get_inference_statistics()["model_stats"][0]["name"] == MODEL


@pytest.mark.parametrize("binary", [False, True])
def test_the_likeliest_labels(client_of_triton: Any, offline: Engine, binary: bool) -> None:
    name = "topic_probabilities"
    outputs = [triton.InferRequestedOutput(name, binary_data=binary, class_count=2)]
    found = client_of_triton.infer(MODEL, [tensor("text", TEXTS)], outputs=outputs)
    rows = [[str(cell, "utf-8") if binary else cell for cell in r] for r in found.as_numpy(name)]
    expected = offline.predict(TEXTS, ["topic"])["topic"]
    for row, probabilities, top in zip(rows, expected.probabilities, expected.top, strict=True):
        best = sorted(range(3), key=lambda i: -probabilities[i])[:2]
        assert row[0].endswith(f":{top}")
        for cell, i in zip(row, best, strict=True):
            value, index, label = cell.split(":", 2)
            assert (int(index), label) == (i, expected.labels[i])
            assert float(value) == pytest.approx(probabilities[i], abs=2e-6)


def test_what_cannot_be_asked_of_outputs(client_of_triton: Any) -> None:
    text = [tensor("text", TEXTS)]
    outputs = [triton.InferRequestedOutput("topic", class_count=2)]
    with pytest.raises(InferenceServerException, match="got class_count 2, which is for"):
        client_of_triton.infer(MODEL, text, outputs=outputs)
    shared = triton.InferInput("text", [1], "BYTES")
    shared.set_shared_memory("region", 8)
    with pytest.raises(InferenceServerException, match="shares no memory"):
        client_of_triton.infer(MODEL, [shared])
    output = triton.InferRequestedOutput("topic")
    output.set_shared_memory("region", 8)
    with pytest.raises(InferenceServerException, match="shares no memory"):
        client_of_triton.infer(MODEL, text, outputs=[output])


def body(**changes: Any) -> bytes:
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]} | changes
    return json.dumps({"inputs": [text]}).encode()


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b"", {}, "not valid JSON"),
        (b"[" * 20_000, {}, "not valid JSON"),
        (b"[]", {}, "inputs: expected a list"),
        (b'{"inputs": [1]}', {}, "expected tensors named"),
        (b'{"inputs": []}', {}, "expected a tensor 'text'"),
        (body(name="other"), {}, "expected tensors named"),
        (body(datatype="FP32"), {}, "got datatype 'FP32'"),
        (body(shape=[2]), {}, "got 1 strings"),
        (body(shape=[1, 2]), {}, "got shape"),
        (body(shape=[-1]), {}, "got shape"),
        (body(shape="1"), {}, "got shape"),
        (body(data=[1]), {}, "a list of strings"),
        (body(data=None), {}, "a list of strings"),
        (body(parameters={"binary_data_size": 5}), {}, "got 0 bytes, expected"),
        (body(parameters={"binary_data_size": -5}), {}, "got binary_data_size"),
        (body() + b"x", {"inference-header-content-length": "9" * 30}, "expected at most"),
        (body(), {"inference-header-content-length": "x"}, "expected at most"),
        (
            body() + b"x",
            {"inference-header-content-length": str(len(body()))},
            "got bytes after the last tensor",
        ),
    ],
)
def test_bodies_that_cannot_be(
    client: httpx.Client, content: bytes, headers: dict[str, str], message: str
) -> None:
    response = client.post(f"/v2/models/{MODEL}/infer", content=content, headers=headers)
    assert response.status_code == 422, response.text
    assert message in response.json()["error"]


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\x01\0\0\0", b"\x01\0\0\0\xff", b"\0"])
def test_binary_strings_that_cannot_be(client: httpx.Client, raw: bytes) -> None:
    header = body(parameters={"binary_data_size": len(raw)})
    response = client.post(
        f"/v2/models/{MODEL}/infer",
        content=header + raw,
        headers={"inference-header-content-length": str(len(header))},
    )
    assert response.status_code == 422


def test_shapes_of_one_column(client: httpx.Client) -> None:
    response = client.post(f"/v2/models/{MODEL}/infer", content=body(shape=[1, 1], data=[["a"]]))
    assert response.status_code == 200
    assert response.json()["outputs"][0]["shape"] == [1]
