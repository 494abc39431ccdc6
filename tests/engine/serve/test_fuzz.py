"""Malformed requests, by the thousand: see `fuzz`. For more of them:

FUZZ_REQUESTS=100000 FUZZ_SEED=2 python -m pytest tests/engine/serve/test_fuzz.py
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import fuzz
import pytest
from conftest import ADMIN_KEY, ServerProcess
from head_kinds import TEXTS, heads_of_every_kind
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.heads.head_file import write_head

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "1500"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
GROWTH_MB = 32
"""Of a server's memory, from the first quarter of the requests to the end."""


@pytest.fixture(scope="module")
def heads(offline: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    path = tmp_path_factory.mktemp("head") / "new.safetensors"
    heads = [random_head(offline.spec, "new", classes=2, seed=9)]
    heads += (h for h in heads_of_every_kind(offline, TEXTS) if h.form == "single")
    contents = []
    for head in heads:
        write_head(head, path, force=True)
        contents.append(path.read_bytes())
    return contents


def test_no_request_does_harm(head_bundle: Path, heads: list[bytes], tmp_path: Path) -> None:
    options = ["--backend", "onnxruntime", "--threads", "2", "--read-timeout-s", "1"]
    options += ["--heads", str(tmp_path), "--max-body-bytes", "200000"]
    key = {"BITHEADS_SERVE_ADMIN_KEYS": ADMIN_KEY}
    with ServerProcess("--bundle", str(head_bundle), *options, **key) as server:
        fuzzer = fuzz.Fuzzer(server.url, ADMIN_KEY, heads, SEED)
        fuzzer.run(REQUESTS // 4)
        warm_mb = fuzz.rss_mb(server.pid)
        fuzzer.seed = f"{SEED} again"
        fuzzer.run(REQUESTS - REQUESTS // 4)
        fuzz.wait_until_idle(server.url)
        grown_mb = fuzz.rss_mb(server.pid) - warm_mb
        print(f"{dict(fuzzer.statuses)}, {grown_mb:.1f} MB more")
        assert server.end(signal.SIGTERM) == 0
        assert fuzzer.defects == []
        assert fuzz.log_defects(server.lines) == []
        assert {200, 204, 400, 401, 404, 405, 413, 422} <= {*fuzzer.statuses}
        assert grown_mb < GROWTH_MB
        assert list(tmp_path.iterdir()) == []
