"""Head files whose hash is right and whose content is not, and a server killed amid uploads."""

from __future__ import annotations

import base64
import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ADMIN_KEY, ServerProcess
from random_heads import random_head
from safetensors.numpy import load, save

from bitheads import Engine, FeatureSpec
from bitheads.engine.errors import HeadError, InputError
from bitheads.engine.features.spec import Calibration, Quantization
from bitheads.engine.heads.cpu import load_head
from bitheads.engine.heads.head_file import METADATA_KEY, _hash, write_head
from bitheads.engine.serve.messages import PredictFeaturesRequest, parse, read_features

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}

Content = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def heads(offline: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two of a task `new` that differ."""
    contents = []
    for classes in (2, 300):
        path = tmp_path_factory.mktemp("head") / "new.safetensors"
        write_head(random_head(offline.spec, "new", classes=classes), path)
        contents.append(path.read_bytes())
    return contents


def changed(head: bytes, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> bytes:
    """With `change` applied to the fields and the tensors, and the hash of that."""
    tensors = load(head)
    size = int.from_bytes(head[:8], "little")
    meta = json.loads(json.loads(head[8 : 8 + size])["__metadata__"][METADATA_KEY])
    del meta["sha256"]
    change(meta, tensors)
    meta["sha256"] = _hash(meta, tensors)
    return bytes(save(tensors, metadata={METADATA_KEY: json.dumps(meta)}))


def test_what_is_not_changed_is_taken(client: httpx.Client, heads: list[bytes]) -> None:
    content = changed(heads[0], lambda meta, tensors: None)
    assert client.put("/v1/tasks/new", content=content, headers=ADMIN).status_code == 204
    assert client.delete("/v1/tasks/new", headers=ADMIN).status_code == 204


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ["query", "value", "dense", "dense_bias", "output"])
def test_weights_that_cannot_be(
    client: httpx.Client, heads: list[bytes], name: str, value: float
) -> None:
    def change(meta: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors[name] = np.full_like(tensors[name], value)
        if value == 3e38 and tensors[name].ndim == 1:  # one such alone is a number like any other
            tensors[name][:] = np.inf

    response = client.put("/v1/tasks/new", content=changed(heads[0], change), headers=ADMIN)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["code"] == "bad_head"


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": ["a", 1]},
        {"labels": [1, 2]},
        {"labels": [None, True]},
        {"labels": ["a", "\ud800"]},
        {"labels": [[], {}]},
        {"labels": 5},
        {"metrics": 1},
        {"metrics": []},
        {"metrics": None},
        {"metrics": {"a": "b"}},
        {"metrics": {"a": True}},
        {"metrics": {"a": float("nan")}},
        {"metrics": {"a": float("inf")}},
        {"metrics": {"\ud800": 1.0}},
        {"form": ["single"]},
        {"task": 1},
        {"task": "../new"},
        {"position_pooling": []},
        {"spec": None},
        {"spec": []},
        {"format_version": 10**30},
    ],
)
def test_fields_that_cannot_be(
    client: httpx.Client, heads: list[bytes], fields: dict[str, Any]
) -> None:
    content = changed(heads[0], lambda meta, tensors: meta.update(fields))
    response = client.put("/v1/tasks/new", content=content, headers=ADMIN)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["code"] == "bad_head"
    assert "new" not in client.get("/v1/tasks").text


@pytest.mark.parametrize(
    "fields",
    [
        {"calibration_sha256": 5},
        {"calibration_sha256": {"a": 1}},
        {"dim": float("inf")},
        {"dim": 10**30},
        {"layers": [float("inf")]},
        {"layers": [10**30]},
        {"layer_weights": [float("nan")]},
        {"encoder": "\ud800"},
    ],
)
def test_specs_that_cannot_be(
    client: httpx.Client, heads: list[bytes], fields: dict[str, Any]
) -> None:
    content = changed(heads[0], lambda meta, tensors: meta["spec"].update(fields))
    response = client.put("/v1/tasks/new", content=content, headers=ADMIN)
    assert response.status_code in (409, 422), response.text


def test_killed_amid_uploads_it_keeps_whole_heads(
    head_bundle: Path, heads: list[bytes], tmp_path: Path
) -> None:
    """The folder has the one or the other, and the next server starts with it."""
    options = ["--bundle", str(head_bundle), "--backend", "onnxruntime", "--heads", str(tmp_path)]
    key = {"BITHEADS_SERVE_ADMIN_KEYS": ADMIN_KEY}
    kept = tmp_path / "new.safetensors"
    for delay_s in (0.05, 0.21):
        with ServerProcess(*options, **key) as server:
            started = threading.Event()

            def upload(url: str = server.url, started: threading.Event = started) -> None:
                with httpx.Client(base_url=url, headers=ADMIN) as client:
                    try:
                        for i in range(100_000):
                            sent = client.put("/v1/tasks/new", content=heads[i % 2])
                            assert sent.status_code == 204
                            started.set()
                    except httpx.TransportError:
                        return

            thread = threading.Thread(target=upload)
            thread.start()
            assert started.wait(30)
            time.sleep(delay_s)
            server.end(signal.SIGKILL)
            thread.join()
        assert kept.read_bytes() in heads
    with ServerProcess(*options, **key) as server:
        found = httpx.get(f"{server.url}/v1/tasks").json()
        labels = {task["name"]: task["labels"] for task in found["tasks"]}
        assert len(labels["new"]) in (2, 300)
        assert server.end(signal.SIGTERM) == 0


class TestFloat16:
    """Codes that are numbers of any size: sums over them must stay finite."""

    @pytest.fixture
    def spec(self, offline: Engine) -> FeatureSpec:
        return replace(offline.spec, quantization=Quantization.FLOAT16)

    @pytest.mark.parametrize("name", ["query", "dense", "output_bias"])
    def test_weights_that_are_too_large(self, spec: FeatureSpec, name: str) -> None:
        head = random_head(spec, "new")
        assert load_head(head) is head
        huge = replace(head, **{name: np.full_like(getattr(head, name), 1e20)})
        with pytest.raises(HeadError, match=f"a row of {name} is more than 1e"):
            load_head(huge)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_codes_that_are_not_finite(self, spec: FeatureSpec, value: float) -> None:
        code = np.zeros(spec.dim, np.float16)
        code[-1] = value
        codes = base64.b64encode(code.tobytes()).decode()
        body = {"spec_id": spec.id, "features": [{"codes": codes, "num_tokens": 1}]}
        asked = parse(PredictFeaturesRequest, json.dumps(body).encode())
        engine: Any = SimpleNamespace(spec=spec, calibration=Calibration())
        with pytest.raises(InputError, match="codes that are not finite"):
            read_features(asked, engine)
