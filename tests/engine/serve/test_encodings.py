"""Compressed bodies, both ways, made and read by the standard library."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

import httpx
import pytest
from conftest import ADMIN_KEY, Running, running, wait_for
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.heads.head_file import write_head

TEXTS = [f"A text of number {i}." for i in range(40)]
BODY = json.dumps({"inputs": TEXTS}).encode()
LIMIT = 1 << 16


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.fixture(scope="module")
def limited(head_bundle: str) -> Iterator[tuple[httpx.Client, object]]:
    options = {"max_body_bytes": LIMIT, "max_held_bytes": 3 * LIMIT, "gzip_min_bytes": 1000}
    with running(head_bundle, **options) as served:  # type: ignore[arg-type]
        yield served


def send(client: httpx.Client, body: bytes, encoding: str, **headers: str) -> httpx.Response:
    return client.post(
        "/v1/predict", content=body, headers={"content-encoding": encoding, **headers}
    )


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
        ("identity", BODY),
        ("", BODY),
    ],
)
def test_a_compressed_request_has_the_answer_of_the_plain_one(
    client: httpx.Client, encoding: str, body: bytes
) -> None:
    plain = client.post("/v1/predict", content=BODY)
    assert plain.status_code == 200
    answer = send(client, body, encoding)
    assert (answer.status_code, answer.json()) == (200, plain.json())


def test_in_parts(client: httpx.Client) -> None:
    body = gzip.compress(BODY)
    parts = iter([body[:10], body[10:11], body[11:]])
    headers = {"content-encoding": "gzip"}
    answer = client.post("/v1/predict", content=parts, headers=headers)
    assert answer.json() == client.post("/v1/predict", content=BODY).json()


def test_an_uploaded_head(client: httpx.Client, offline: Engine, tmp_path: object) -> None:
    path = tmp_path / "packed.safetensors"  # type: ignore[operator]
    write_head(random_head(offline.spec, "packed"), path)
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-encoding": "gzip"}
    body = gzip.compress(path.read_bytes())
    assert client.put("/v1/tasks/packed", content=body, headers=headers).status_code < 300
    assert "packed" in client.post("/v1/predict", content=BODY).json()["predictions"][0]
    assert client.delete("/v1/tasks/packed", headers=headers).status_code < 300


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "a" * 5000])
def test_encodings_that_are_not_known(client: httpx.Client, encoding: str) -> None:
    answer = send(client, BODY, encoding)
    assert answer.status_code == 415
    error = answer.json()["error"]
    assert error["code"] == "unsupported_encoding"
    assert "expected one of gzip, deflate" in error["message"]
    assert len(error["message"]) < 300
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", BODY),
        ("gzip", gzip.compress(BODY)[:-1]),
        ("gzip", gzip.compress(BODY)[:40]),
        ("gzip", gzip.compress(BODY) + b"x"),
        ("gzip", gzip.compress(BODY) * 2),
        ("gzip", gzip.compress(BODY)[:-5] + b"\0\0\0\0\0"),
        ("deflate", BODY),
        ("deflate", zlib.compress(BODY)[:-2]),
        ("deflate", gzip.compress(BODY)),
    ],
)
def test_what_is_no_such_stream(client: httpx.Client, encoding: str, body: bytes) -> None:
    answer = send(client, body, encoding)
    assert answer.status_code == 400
    assert f"The body is no {encoding}" in answer.json()["error"]["message"]


def test_a_bomb_is_refused_and_its_bytes_are_let_go(limited: Running) -> None:
    client, server = limited
    bomb = gzip.compress(b" " * (100 << 20))
    assert len(bomb) > LIMIT  # refused as it is
    small = gzip.compress(b" " * (LIMIT + 1))
    for body, encoding in (
        (bomb, "gzip"),
        (small, "gzip"),
        (zlib.compress(b" " * (40 << 20)), "deflate"),
        (gzip.compress(BODY)[:-3], "gzip"),
        (b"no gzip", "gzip"),
    ):
        for _ in range(5):
            assert send(client, body, encoding).status_code in (400, 413)
    exact = gzip.compress(BODY + b" " * (LIMIT - len(BODY)))
    for _ in range(5):
        assert send(client, exact, "gzip").status_code == 200
    wait_for(
        lambda: not server._admission._held_bytes, 30
    )  # that of the last answer a moment after it
    message = send(client, small, "gzip").json()["error"]["message"]
    assert "--max-body-bytes" in message


def test_larger_answers_are_compressed_for_who_accepts_it(limited: Running) -> None:
    client, _ = limited
    plain = client.post("/v1/predict", content=BODY, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for accepts in ("gzip", "br, gzip;q=0.5", "deflate, GZIP"):
        with client.stream(
            "POST", "/v1/predict", content=BODY, headers={"accept-encoding": accepts}
        ) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["vary"] == "Accept-Encoding"
        assert int(answer.headers["content-length"]) == len(raw) < len(plain.content) / 2
        assert json.loads(gzip.decompress(raw)) == plain.json()
    for accepts in ("gzip;q=0", "br", "gzip; q=0.0", ""):
        answer = client.post("/v1/predict", content=BODY, headers={"accept-encoding": accepts})
        assert "content-encoding" not in answer.headers
        assert answer.json() == plain.json()
    small = client.post("/v1/predict", json={"inputs": []}, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in small.headers


def test_none_is_compressed_unasked(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", content=BODY, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers
