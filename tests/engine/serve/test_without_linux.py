"""What only Linux has is done without: macOS has none of these."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import ServerProcess

MISSING = """\
import os

names = ("sched_getaffinity", "sched_setaffinity", "posix_fallocate", "O_TMPFILE", "memfd_create")
for name in names:
    if hasattr(os, name):
        delattr(os, name)
"""
TEXTS = ["One text.", "Another one, of more words.", ""]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of processes in which `os` has what macOS has."""
    (tmp_path / "sitecustomize.py").write_text(MISSING, encoding="utf-8")
    found = {"PYTHONPATH": str(tmp_path)}
    shown = subprocess.run(
        [sys.executable, "-c", "import os; print(hasattr(os, 'sched_getaffinity'))"],
        env={**os.environ, **found},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "False"
    return found


def run(environment: dict[str, str], *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bitheads", *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands(environment: dict[str, str], head_bundle: Path, tmp_path: Path) -> None:
    """What is printed is what it is on Linux. A line without letters is no text of a store."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    asked = ["predict", "--bundle", head_bundle, "--precision", "fp32", "--input", texts, "--json"]
    assert run(environment, *asked) == run({}, *asked)
    store = tmp_path / "store"
    run(environment, "encode", "--bundle", head_bundle, "--input", texts, "--store", store)
    assert '"rows": 2' in run(environment, "store", "info", store, "--json")


def test_a_server_of_two_processes(environment: dict[str, str], head_bundle: Path) -> None:
    with ServerProcess(
        "--bundle", str(head_bundle), "--workers", "2", "--log", "none", **environment
    ) as server:
        for _ in range(8):
            answer = httpx.post(f"{server.url}/v1/predict", json={"inputs": TEXTS})
            assert answer.status_code == 200
            assert len(answer.json()["predictions"]) > 0
