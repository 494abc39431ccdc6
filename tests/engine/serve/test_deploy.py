"""The container file and the example for Kubernetes: linters, and a server run as they say.

No image is built and no cluster asked: machines that run tests have neither.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from conftest import ServerProcess

import bitheads
from bitheads.engine.serve import settings

ROOT = Path(__file__).parent.parent.parent.parent
CONTAINER_FILE = ROOT / "deploy" / "Containerfile"
MANIFEST = ROOT / "deploy" / "kubernetes.yaml"
OLDEST, NEWEST = "1.32.0", kubernetes_validate.latest_version()
"""Of Kubernetes; the oldest that knows the action `sleep` without being asked to."""


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Of the last stage: a word and the rest, as (ENV, "A=1 B=2")."""
    lines = [line for line in CONTAINER_FILE.read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    found = [tuple(line.split(" ", 1)) for line in whole.splitlines() if line]
    last = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    return [(word, rest) for word, rest in found[last:]]


@pytest.fixture(scope="module")
def image(instructions: list[tuple[str, str]]) -> dict[str, str]:
    """The image's environment."""
    words = [word for name, rest in instructions if name == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.fixture(scope="module")
def pod(objects: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def server(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return dict(container)


@pytest.fixture(scope="module")
def environment(image: dict[str, str], server: dict[str, Any]) -> dict[str, str]:
    """The server's in the pod."""
    key = "a-key-of-sixteen-characters"
    return image | {each["name"]: each.get("value", key) for each in server["env"]}


def test_the_linter_finds_nothing() -> None:
    command = [Path(sys.executable).with_name("hadolint"), "--no-fail", "-f", "json"]
    done = subprocess.run([*command, CONTAINER_FILE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(objects: dict[str, Any], version: str) -> None:
    assert {*objects} == {"Deployment", "Service", "PodDisruptionBudget"}
    for each in objects.values():
        kubernetes_validate.validate(each, version, strict=True)
    misspelt = json.loads(json.dumps(objects["Deployment"]).replace("periodSeconds", "period"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, version, strict=True)


def test_all_options_are_options(environment: dict[str, str], pod: dict[str, Any]) -> None:
    found = settings.read([], environment)
    assert str(found.bundle) == "/bundles/all-MiniLM-L6-v2"
    assert found.api_keys
    waits_s = next(iter(pod["containers"]))["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert waits_s + found.drain_s < pod["terminationGracePeriodSeconds"]
    assert found.request_timeout_s <= found.drain_s


def test_the_two_agree(
    instructions: list[tuple[str, str]],
    image: dict[str, str],
    objects: dict[str, Any],
    server: dict[str, Any],
) -> None:
    port = image["BITHEADS_SERVE_PORT"]
    assert ("EXPOSE", port) in instructions
    assert server["ports"] == [{"name": "http", "containerPort": int(port)}]
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert server["image"].endswith(f":{bitheads.__version__}")
    (health,) = [rest for word, rest in instructions if word == "HEALTHCHECK"]
    assert f"http://127.0.0.1:{port}/health/live" in health
    (user,) = [rest for word, rest in instructions if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "runAsNonRoot wants a number"
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in server["volumeMounts"]}
    # The root is read only.
    assert mounts == {"/bundles": True, image["BITHEADS_CACHE"]: False, "/tmp": False}
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
    ):
        assert selector == labels


def test_a_server_answers_every_probe(
    instructions: list[tuple[str, str]],
    environment: dict[str, str],
    server: dict[str, Any],
    head_bundle: Path,
    tmp_path: Path,
) -> None:
    """As the image starts it, but for where its files are; without a key, as probes have none."""
    (entry,) = [json.loads(rest) for word, rest in instructions if word == "ENTRYPOINT"]
    assert entry == ["bitheads", "serve"]
    here = {"BITHEADS_SERVE_BUNDLE": str(head_bundle), "BITHEADS_CACHE": str(tmp_path)}
    given = {k: v for k, v in environment.items() if k.startswith("BITHEADS")} | here
    with ServerProcess("--host", "127.0.0.1", **given) as process:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = server[name]["httpGet"]
            assert probe["port"] == "http"
            assert httpx.get(process.url + probe["path"]).status_code == 200
        assert httpx.post(f"{process.url}/v1/predict", json={"inputs": "a"}).status_code == 401
        key = {"authorization": f"Bearer {given['BITHEADS_SERVE_API_KEYS']}"}
        asked = httpx.post(f"{process.url}/v1/predict", json={"inputs": "a"}, headers=key)
        assert asked.status_code == 200
        assert process.end(signal.SIGTERM) == 0
