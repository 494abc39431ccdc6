"""Embeddings by the routes of others' servers, asked with others' own clients."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from conftest import running
from huggingface_hub import InferenceClient
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.heads.head_file import FoldedHead

TEXTS = ["What a lovely film.", "", "Shares fell 8 percent.", "What a lovely film."]
KEY = "a-key-of-the-tests-0123"


@pytest.fixture(scope="module")
def bundle(build_bundle: Callable[..., Path]) -> Path:
    return build_bundle("bert", embedding="mean", precision="fp32")


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Iterator[Engine]:
    """What the server's answers are compared with."""
    with Engine.load(bundle, backend="onnxruntime") as engine:
        engine.add_head(topic(engine))
        yield engine


def topic(engine: Engine) -> FoldedHead:
    return random_head(engine.spec, "topic")


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[httpx.Client]:
    with running(bundle) as (client, server):
        server.engine.add_head(topic(server.engine))
        yield client


@pytest.fixture
def of_openai(client: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="unused", max_retries=0)


def vectors_of(found: Any) -> list[list[float]]:
    assert [item.index for item in found.data] == list(range(len(found.data)))
    return [item.embedding for item in found.data]


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_the_client_of_openai(of_openai: openai.OpenAI, engine: Engine, encoding: Any) -> None:
    how = {} if encoding is None else {"encoding_format": encoding}
    found = of_openai.embeddings.create(input=TEXTS, model="any", **how)
    expected = engine.embed(TEXTS, normalize=True)
    vectors = vectors_of(found)
    if encoding == "base64":  # asked for by name, the client leaves it
        vectors = [np.frombuffer(base64.b64decode(vector), "<f4").tolist() for vector in vectors]
    np.testing.assert_array_equal(np.array(vectors, np.float32), expected)
    assert found.usage.prompt_tokens == engine.encode(TEXTS).offsets[-1]
    assert found.model == of_openai.models.list().data[0].id


def test_one_text_and_dimensions(of_openai: openai.OpenAI, engine: Engine) -> None:
    found = of_openai.embeddings.create(input=TEXTS[0], model="any", dimensions=16, user="me")
    expected = engine.embed(TEXTS[:1], dim=16, normalize=True)
    np.testing.assert_array_equal(np.array(vectors_of(found), np.float32), expected)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"input": [[1, 2]]}, "got token ids, expected a text"),
        ({"input": [1, 2]}, "got token ids, expected a text"),
        ({"input": "a", "dimensions": 65}, "expected 1 to 64"),
        ({"input": "a", "dimensions": 0}, "expected 1 to 64"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": ["a"] * 1001}, "expected at most 1000"),
        ({"model": "any"}, "input"),
    ],
)
def test_what_openai_s_client_is_told(
    of_openai: openai.OpenAI, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=message):
        of_openai.post("/embeddings", body=asked, cast_to=object)


@pytest.mark.parametrize("path", ["", "/embed"])
def test_the_client_of_huggingface_hub(
    client: httpx.Client, engine: Engine, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is what LangChain's and Haystack's clients of text-embeddings-inference are."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asking = InferenceClient(model=f"{client.base_url}{path}")
    found = asking.feature_extraction(TEXTS[0], normalize=False, truncate=True)
    np.testing.assert_array_equal(found.astype(np.float32), engine.embed(TEXTS[:1]))


def test_embed(client: httpx.Client, engine: Engine) -> None:
    for normalize in (True, False):
        asked = {"inputs": TEXTS, "normalize": normalize, "dimensions": 8, "unknown": 1}
        found = client.post("/embed", json=asked).json()
        expected = engine.embed(TEXTS, 8, normalize)
        np.testing.assert_array_equal(np.array(found, np.float32), expected)
    assert client.post("/embed", json={"inputs": []}).json() == []


def test_texts_that_are_too_long(client: httpx.Client) -> None:
    asked = {"inputs": ["word " * 500, "a"]}
    assert client.post("/embed", json=asked).status_code == 200
    refused = client.post("/embed", json={**asked, "truncate": False})
    assert refused.status_code == 413
    assert "1 longer texts" in refused.json()["error"]
    assert refused.json()["error_type"] == "validation"
    left = client.post("/embed", json={**asked, "truncation_direction": "left"})
    assert (left.status_code, left.json()["error_type"]) == (422, "validation")


def test_similarity(client: httpx.Client, engine: Engine) -> None:
    asked = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}}
    found = client.post("/similarity", json=asked).json()
    vectors = engine.embed(TEXTS, normalize=True)
    np.testing.assert_allclose(found, vectors[1:] @ vectors[0], atol=1e-6)
    assert found[-1] == pytest.approx(1)


def test_info(client: httpx.Client, engine: Engine) -> None:
    found = client.get("/info").json()
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert found["max_input_length"] == engine.manifest.encoder.max_length
    assert found["model_dtype"] == "fp32"


def test_heads_codes_and_embeddings_of_one_request(client: httpx.Client, engine: Engine) -> None:
    asked = {"inputs": TEXTS, "return_features": True, "return_embeddings": True}
    found = client.post("/v1/predict", json=asked).json()
    features = engine.encode(TEXTS, embeddings=True)
    np.testing.assert_array_equal(np.array(found["embeddings"], np.float32), features.embeddings)
    codes = b"".join(base64.b64decode(item["codes"]) for item in found["features"])
    assert codes == features.codes.tobytes()
    answers = engine.predict(TEXTS)["topic"].top
    assert [row["topic"]["label"] for row in found["predictions"]] == list(answers)
    plain = client.post("/v1/predict", json={"inputs": TEXTS}).json()
    assert "features" not in plain
    assert "embeddings" not in plain


def test_what_was_asked_before_is_answered_from_the_cache(bundle: Path, engine: Engine) -> None:
    """By codes, embeddings and heads alike, whichever asked first."""
    expected = engine.embed(TEXTS)
    with running(bundle, cache_bytes=1 << 20) as (client, server):
        server.engine.add_head(topic(server.engine))
        first = client.post("/v1/predict", json={"inputs": TEXTS}).json()
        encoded = counted(client, "bitheads_texts_total")
        found = client.post("/embed", json={"inputs": TEXTS, "normalize": False}).json()
        again = client.post("/v1/predict", json={"inputs": TEXTS}).json()
        assert counted(client, "bitheads_texts_total") == encoded == 3
        assert counted(client, "bitheads_cached_texts_total") == 8
    np.testing.assert_array_equal(np.array(found, np.float32), expected)
    assert again["predictions"] == first["predictions"]


def counted(client: httpx.Client, name: str) -> int:
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return int(float(line.split()[1]))


def test_a_bundle_without_embeddings(tiny_bundle: Path) -> None:
    with running(tiny_bundle) as (client, _):
        for path, asked in {
            "/v1/embeddings": {"input": "a"},
            "/embed": {"inputs": "a"},
            "/": {"inputs": "a"},
            "/v1/predict": {"inputs": "a", "return_embeddings": True},
        }.items():
            answer = client.post(path, json=asked)
            assert answer.status_code == 404, path
            error = answer.json()
            if path.startswith("/v1"):
                assert error["error"]["code"] == "no_embeddings"
            else:
                assert error["error"].startswith("embeddings: this bundle gives none")
                assert error["error_type"] == "validation"
        assert client.get("/info").json()["model_type"] == {"embedding": {"pooling": "none"}}


def test_keys_are_needed_for_each_of_them(bundle: Path) -> None:
    """A page is shown at / to all, and embeddings are given there to those with a key."""
    with running(bundle, api_keys=(KEY,)) as (client, _):
        for path in ("/v1/embeddings", "/embed", "/similarity", "/"):
            assert client.post(path, json={"inputs": "a", "input": "a"}).status_code == 401, path
        for path in ("/info", "/v1/models"):
            assert client.get(path).status_code == 401, path
        assert client.get("/").status_code == 200
        headers = {"authorization": f"Bearer {KEY}"}
        assert client.post("/", json={"inputs": "a"}, headers=headers).status_code == 200
