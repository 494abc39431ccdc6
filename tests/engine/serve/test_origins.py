"""A server of one machine answers no web page of another site, whatever a browser sends for it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from conftest import running

from bitheads.engine.serve.origins import foreign_name, is_loopback

BODY = b'{"inputs": "a"}'


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", None),
        ("127.0.0.1:8000", None),
        ("[::1]:8000", None),
        ("10.1.2.3", None),
        ("bitheads:8000", None),
        ("api.localhost", None),
        ("", None),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("localhost:8000", "http://127.0.0.1:3000"),
        ("localhost:8000", "https://app.localhost"),
        ("10.1.2.3:8000", "http://10.1.2.3:8000"),
        ("models.example.org", "https://models.example.org"),
        ("localhost", "https://models.example.org"),
    ],
)
def test_who_is_answered(host: str, origin: str | None) -> None:
    headers = {b"host": host.encode()}
    if origin is not None:
        headers[b"origin"] = origin.encode()
    assert foreign_name(headers, ["models.example.org"]) is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:8000", None),
        ("evil.example.", None),
        ("127.0.0.1.nip.io", None),
        ("localhost.evil.example", None),
        ("evil.example:port", None),
        ("[::1", None),
        ("localhost:8000", "http://evil.example"),
        ("localhost:8000", "http://evil.example:8000"),
        ("localhost:8000", "null"),
        ("10.1.2.3:8000", "http://10.1.2.4:8000"),
        ("localhost:8000", "http://[::1"),
    ],
)
def test_who_is_not(host: str, origin: str | None) -> None:
    headers = {b"host": host.encode()}
    if origin is not None:
        headers[b"origin"] = origin.encode()
    named = foreign_name(headers, ["models.example.org"])
    assert named is not None
    assert named == (f"Host: {host}" if origin is None else f"Origin: {origin}")


def test_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1", "a.localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.org"]))


def test_a_page_of_another_site(head_bundle: Path) -> None:
    """As a form of it sends: no preflight, a body of plain text."""
    with running(head_bundle) as (client, _):
        plain = {"content-type": "text/plain"}
        for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
            for method, path in (("POST", "/v1/predict"), ("GET", "/v1/tasks"), ("GET", "/")):
                answer = client.request(method, path, content=BODY, headers={**plain, **headers})
                assert answer.status_code == 403, path
                assert "--allowed-hosts" in answer.json()["error"]["message"]
        own = {"origin": str(client.base_url).rstrip("/")}
        assert client.post("/v1/predict", content=BODY, headers=own).status_code == 200
    with running(head_bundle, allowed_hosts=("Models.Example",)) as (client, _):
        headers = {"host": "models.example", "origin": "https://models.example"}
        assert client.post("/v1/predict", content=BODY, headers=headers).status_code == 200


def test_a_server_for_others_is_asked_by_any_name(head_bundle: Path) -> None:
    with running(head_bundle, host="0.0.0.0") as (client, _):
        local = httpx.URL(client.base_url).copy_with(host="127.0.0.1")
        headers = {"host": "models.example", "origin": "https://app.example"}
        answer = httpx.post(local.join("/v1/predict"), content=BODY, headers=headers)
        assert answer.status_code == 200, answer.text
