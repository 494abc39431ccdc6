"""A client that keeps to every limit and asks for all there is, beside honest ones.

LEGAL_REQUESTS and LEGAL_SEED make longer runs. The largest requests of the default limits take a
second or more each; LEGAL_SHARE=100 divides the limits, and so what they admit.
"""

from __future__ import annotations

import base64
import json
import os
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ServerProcess

from bitheads import Engine
from bitheads.engine.serve.settings import Settings

REQUESTS = int(os.environ.get("LEGAL_REQUESTS", "16"))
SEED = int(os.environ.get("LEGAL_SEED", "0"))
SHARE = int(os.environ.get("LEGAL_SHARE", "1"))
DEFAULTS = Settings()
LIMITS = Settings(
    max_body_bytes=DEFAULTS.max_body_bytes // SHARE,
    max_texts=DEFAULTS.max_texts // SHARE,
    max_chars=DEFAULTS.max_chars // SHARE,
)
GREEDY, CLIENTS = "127.0.0.2", 4
TEXT = "An honest text of a few words."
HEALTH_S = 0.1
MEMORY_GROWTH = 1.3
"""Of the second half of a long run over the first; a short one is over before caches are full."""


class Legal:
    """Requests as large as may be, one way or another."""

    def __init__(self, rng: random.Random, codes: bytes, spec_id: str, tokens: int) -> None:
        self._rng = rng
        self._codes = {"codes": base64.b64encode(codes).decode(), "num_tokens": tokens}
        self._spec_id = spec_id

    def request(self) -> tuple[str, bytes, dict[str, str]]:
        """Path, body and headers."""
        kinds = [self.texts, self.texts, self.features, self.codes, self.kserve, self.kserve_binary]
        made = self._rng.choice([*kinds, self.embeddings, self.tokens])()
        assert len(made[1]) <= LIMITS.max_body_bytes
        return made

    def _texts(self) -> list[Any]:
        rng, most = self._rng, LIMITS.max_body_bytes - 100_000 // SHARE
        long = min(most // (2 * LIMITS.max_chars), LIMITS.max_texts)
        kind = rng.randrange(6)
        if kind == 0:  # the longest
            return ["a " * (LIMITS.max_chars // 2)] * rng.choice([1, long])
        if kind == 1:  # of one word, as long
            return ["x" * LIMITS.max_chars] * rng.choice([1, long])
        if kind == 2:  # the most
            return [rng.choice(["", "a", TEXT])] * LIMITS.max_texts
        if kind == 3:  # the most pairs
            return [["a " * 50, "b " * 50]] * LIMITS.max_texts
        if kind == 4:  # letters that are six bytes each in JSON
            return ["\u20ac\U0001f600" * (500 // SHARE)] * rng.choice(
                [1, 4 * LIMITS.max_texts // 10]
            )
        count = rng.randrange(1, max(2, 3 * LIMITS.max_texts // 10))
        return [" ".join(["word"] * rng.randrange(200)) for _ in range(count)]

    def texts(self) -> tuple[str, bytes, dict[str, str]]:
        asked = {"inputs": self._texts(), "return_probabilities": self._rng.random() < 0.5}
        return "/v1/predict", json.dumps(asked).encode(), {}

    def features(self) -> tuple[str, bytes, dict[str, str]]:
        return "/v1/features", json.dumps({"inputs": self._texts()}).encode(), {}

    def embeddings(self) -> tuple[str, bytes, dict[str, str]]:
        texts = [t if isinstance(t, str) else t[0] for t in self._texts()]
        asked = {"input": texts, "encoding_format": self._rng.choice(["float", "base64"])}
        return "/v1/embeddings", json.dumps(asked).encode(), {}

    def tokens(self) -> tuple[str, bytes, dict[str, str]]:
        texts = [t if isinstance(t, str) else t[0] for t in self._texts()]
        return "/tokenize", json.dumps({"inputs": texts}).encode(), {}

    def codes(self) -> tuple[str, bytes, dict[str, str]]:
        count = self._rng.choice([1, LIMITS.max_texts])
        asked = {"features": [self._codes] * count, "spec_id": self._spec_id}
        return "/v1/predict_features", json.dumps(asked).encode(), {}

    def kserve(self) -> tuple[str, bytes, dict[str, str]]:
        texts = [t if isinstance(t, str) else t[0] for t in self._texts()]
        tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
        return "/v2/models/tiny/infer", json.dumps({"inputs": [tensor]}).encode(), {}

    def kserve_binary(self) -> tuple[str, bytes, dict[str, str]]:
        parts = [(t if isinstance(t, str) else t[0]).encode() for t in self._texts()]
        raw = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        tensor = {
            "name": "text",
            "datatype": "BYTES",
            "shape": [len(parts)],
            "parameters": {"binary_data_size": len(raw)},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        length = {"inference-header-content-length": str(len(head))}
        return "/v2/models/tiny/infer", head + raw, length


@pytest.fixture
def server(head_bundle: Path) -> Iterator[ServerProcess]:
    limits = [
        argument
        for name in ("max_body_bytes", "max_texts", "max_chars")
        for argument in ("--" + name.replace("_", "-"), str(getattr(LIMITS, name)))
    ]
    options = ["--bundle", str(head_bundle), "--threads", "2", "--log", "none", *limits]
    with ServerProcess(*options) as process:
        yield process


def resident_bytes(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_the_largest_legal_load_beside_honest_clients(
    server: ServerProcess, offline: Engine
) -> None:
    features = offline.encode([TEXT])
    expected = offline.predict([TEXT])
    labels = {task: answer.top[0] for task, answer in expected.items()}
    statuses: Counter[int] = Counter()
    left = iter(range(REQUESTS))
    honest: Counter[int] = Counter()
    wrong: list[Any] = []
    health_s: list[float] = []
    memory: list[int] = []
    ending = threading.Event()

    def ask_for_all(seed: int) -> None:
        legal = Legal(
            random.Random(SEED * 1000 + seed),
            features.codes.tobytes(),
            features.spec.id,
            int(features.num_tokens[0]),
        )
        transport = httpx.HTTPTransport(local_address=GREEDY)
        with httpx.Client(base_url=server.url, timeout=120, transport=transport) as client:
            for _ in left:
                path, body, headers = legal.request()
                answer = client.post(path, content=body, headers=headers)
                statuses[answer.status_code] += 1
                memory.append(resident_bytes(server.pid))

    def ask_honestly() -> None:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            while not ending.is_set():
                answer = client.post("/v1/predict", json={"inputs": TEXT})
                honest[answer.status_code] += 1
                if answer.status_code == 200:
                    (row,) = answer.json()["predictions"]
                    if {task: found["label"] for task, found in row.items()} != labels:
                        wrong.append(row)

    def look_at_health() -> None:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            while not ending.is_set():
                started_s = time.perf_counter()
                assert client.get("/health/live").status_code == 200
                health_s.append(time.perf_counter() - started_s)
                time.sleep(0.02)

    others = [threading.Thread(target=ask) for ask in (ask_honestly, ask_honestly, look_at_health)]
    greedy = [threading.Thread(target=ask_for_all, args=(i,)) for i in range(CLIENTS)]
    for thread in (*others, *greedy):
        thread.start()
    for thread in greedy:
        thread.join()
    ending.set()
    for thread in others:
        thread.join()

    assert not wrong
    assert {*honest} <= {200, 429}, honest
    assert honest[200] > 10
    assert {*statuses} <= {200, 429, 503}, statuses
    assert statuses[200] > REQUESTS // 4
    late = sum(s > HEALTH_S for s in health_s)
    size = -(-len(memory) // 4)
    quarters = [max(memory[i : i + size]) >> 20 for i in range(0, len(memory), size)]
    print(
        f"greedy {dict(statuses)}, honest {dict(honest)}, health {len(health_s)} of which {late} "
        f"took more than {HEALTH_S} s, {max(health_s):.3f} s at most; memory by quarters "
        f"{quarters} MB"
    )
    assert max(health_s) < 3  # of a machine that has other tests to run at the same time
    if REQUESTS >= 1000:
        assert max(health_s) < 1
        assert late <= len(health_s) // 20
        half = len(memory) // 2
        assert max(memory[half:]) < MEMORY_GROWTH * max(memory[:half])
