"""What stands between clients and a server: paths of proxies, browsers, TLS; and HEAD."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import httpx
import pytest
import trustme
from conftest import ADMIN_KEY, running

from bitheads.engine.errors import InputError
from bitheads.engine.serve.server import check_certificate
from bitheads.engine.serve.settings import Settings

APP = "https://app.example.org"
BODY = {"inputs": "a text"}
PREFLIGHT = {
    "origin": APP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


def test_head_is_get_without_its_body(client: httpx.Client) -> None:
    for path in ("/", "/health/live", "/health/ready", "/metrics", "/v1/tasks", "/openapi.json"):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
        assert head.headers.get("content-type") == get.headers.get("content-type")
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(get.content))
    assert client.head("/v1/predict").status_code == 405
    assert client.head("/nothing").status_code == 404
    assert client.post("/v1/predict", json=BODY).status_code == 200  # on the same connection


def test_head_wants_a_key_where_get_does(head_bundle: Path) -> None:
    key = "a-key-of-sixteen-characters"
    with running(head_bundle, api_keys=(key,)) as (client, _):
        assert client.head("/v1/tasks").status_code == 401
        assert client.head("/v1/tasks", headers={"authorization": f"Bearer {key}"}).is_success


@pytest.mark.parametrize("leaves_it_in", [False, True])
def test_behind_a_proxy_with_a_path_of_its_own(head_bundle: Path, leaves_it_in: bool) -> None:
    with running(head_bundle, root_path="/some/where") as (client, _):
        root = "/some/where" if leaves_it_in else ""
        answer = client.post(f"{root}/v1/predict", json=BODY)
        assert answer.json() == client.post("/v1/predict", json=BODY).json()
        assert client.get(f"{root}/v2/health/ready").is_success
        assert client.get(f"{root}/v1/tasks").is_success
        assert client.delete(f"{root}/v1/tasks/none").status_code == 401
        admin = {"authorization": f"Bearer {ADMIN_KEY}"}
        assert client.delete(f"{root}/v1/tasks/none", headers=admin).status_code == 404
        description = client.get(f"{root}/openapi.json").json()
        assert description["servers"] == [{"url": "/some/where"}]
        page = client.get(f"{root}/docs").text
        assert "/some/where/openapi.json" in page
        asked = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(asked) >= 3
        for path in asked:
            assert path.startswith("/some/where/docs/static/")
            assert client.get(root + path.removeprefix("/some/where")).is_success
        metrics = client.get("/metrics").text
        assert 'route="/v1/predict"' in metrics
        assert "some/where" not in metrics


def test_pages_of_allowed_origins(head_bundle: Path) -> None:
    """Also of a server with keys: what a browser asks before has none."""
    key = "a-key-of-sixteen-characters"
    with running(head_bundle, cors_origins=(APP,), api_keys=(key,)) as (client, _):
        before = client.options("/v1/predict", headers=PREFLIGHT)
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == APP
        assert "authorization" in before.headers["access-control-allow-headers"]
        headers = {"origin": APP, "authorization": f"Bearer {key}"}
        answer = client.post("/v1/predict", json=BODY, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == APP
        assert "server-timing" in answer.headers["access-control-expose-headers"].lower()
        refused = client.post("/v1/predict", json=BODY, headers={"origin": APP})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == APP  # or no page could read why
        for other in ("https://evil.example", "http://app.example.org", f"{APP}:8443", "null"):
            answer = client.post("/v1/predict", json=BODY, headers={**headers, "origin": other})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
            before = client.options("/v1/predict", headers={**PREFLIGHT, "origin": other})
            assert "access-control-allow-origin" not in before.headers


def test_pages_of_every_origin(head_bundle: Path) -> None:
    with running(head_bundle, cors_origins=("*",)) as (client, _):
        answer = client.post("/v1/predict", json=BODY, headers={"origin": "https://any.example"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        # A name that leads here is something else: its pages would be the server's own.
        answer = client.post("/v1/predict", json=BODY, headers={"host": "evil.example"})
        assert answer.status_code == 403


def test_no_origin_is_allowed_unasked(client: httpx.Client) -> None:
    before = client.options("/v1/predict", headers=PREFLIGHT)
    assert before.status_code == 403
    assert "access-control-allow-origin" not in before.headers


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    return folder


@pytest.mark.parametrize(("cert", "key"), [("cert.pem", "key.pem"), ("both.pem", None)])
def test_tls(
    head_bundle: Path, authority: trustme.CA, certificate: Path, cert: str, key: str | None
) -> None:
    options = {"tls_cert": certificate / cert, "tls_key": key and certificate / key}
    check_certificate(Settings(**options))  # type: ignore[arg-type]
    trusts = ssl.create_default_context()
    authority.configure_trust(trusts)
    with running(head_bundle, **options) as (client, _):
        assert client.base_url.scheme == "https"
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            client.get("/health/live")
        with httpx.Client(base_url=client.base_url, verify=trusts) as trusting:
            for _ in range(3):
                answer = trusting.post("/v1/predict", json={"inputs": ["a text"] * 300})
                assert len(answer.json()["predictions"]) == 300
        with pytest.raises(httpx.RemoteProtocolError), httpx.Client() as plain:
            plain.get(str(client.base_url).replace("https", "http"))


def test_certificates_that_cannot_be_used(certificate: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    other = trustme.CA().issue_cert("localhost").private_key_pem
    other.write_to_path(tmp_path / "other.pem")
    for cert, key in (
        (tmp_path / "none.pem", None),
        (certificate / "cert.pem", None),
        (certificate / "key.pem", certificate / "key.pem"),
        (certificate / "cert.pem", tmp_path / "other.pem"),
        (certificate / "cert.pem", locked),
    ):
        with pytest.raises(InputError, match=r"--tls-cert .*in PEM, the key without a password"):
            check_certificate(Settings(tls_cert=cert, tls_key=key))
