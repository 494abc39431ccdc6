"""Equal texts of several callers of the C++ host, and what it keeps for those that come again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from host_build import build, run
from marks import long
from random_heads import random_head
from same_answers import assert_same_answer
from test_encode import texts_of_all_lengths
from test_host_agrees import assert_same_codes
from test_host_errors import refused
from test_host_fuzz import sanitized
from test_tokenizer import all_texts

from benchmarks.contenders.host_library import HostEngine, HostLibrary
from bitheads import Engine
from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.head_file import write_head

JOINED = {
    "joined": [
        "joined: 3 rows, 3 encoded, 31 joined, 0 cached, right",
        "again: 2 rows, 5 encoded, 32 joined, 0 cached, right",
    ],
    "cached": [
        "first: 2 rows, 2 encoded, 0 joined, 2 cached, right",
        "mixed: 1 rows, 3 encoded, 1 joined, 4 cached, right",
        "many: 0 rows, 3 encoded, 1 joined, 3204 cached, right",
    ],
}

FILLED = {
    "bounded": ["within"] * 4,
    "scanned": ["they stay"],
    "collisions": ["0 wrong, 200 texts"],
    "embeddings": [
        "1 0, 1 texts, 356 bytes",
        "1 1, 1 texts, 452 bytes",
        "1 1, 1 texts, 452 bytes",
        "0 texts, 0 bytes",
        "0 texts",
    ],
}


def counts(engine: HostEngine) -> tuple[int, int, int]:
    """Texts that were encoded, joined and cached."""
    found = engine.statistics
    return found.encoded_texts, found.joined_texts, found.cached_texts


@pytest.fixture(scope="module")
def python_engine(host_bundle: Path) -> Engine:
    return Engine.load(host_bundle, backend="openvino", precision="fp32")


@pytest.mark.parametrize("situation", JOINED)
def test_which_texts_are_encoded(host_build: Path, host_bundle: Path, situation: str) -> None:
    """Of those that wait or run, and who cancels takes nothing from the others."""
    build(host_build, "join_texts")
    shown = run(host_build / "join_texts", situation, host_bundle)
    assert shown.splitlines() == JOINED[situation]


@pytest.mark.parametrize("situation", FILLED)
def test_the_cache_is_within_its_bytes(host_build: Path, situation: str) -> None:
    """Of 200,000 small entries, as the allocator counts them."""
    build(host_build, "fill_cache")
    assert run(host_build / "fill_cache", situation).splitlines() == FILLED[situation]


@pytest.mark.parametrize("situation", long(*FILLED))
def test_the_cache_uses_nothing_that_has_gone(situation: str) -> None:
    assert run(sanitized("fill_cache"), situation).splitlines() == FILLED[situation]


@pytest.mark.parametrize("cache_bytes", [60_000, 10_000_000], ids=["of some", "of all"])
def test_answers_are_those_without_it(
    library: HostLibrary, host_bundle: Path, python_engine: Engine, cache_bytes: int
) -> None:
    texts = all_texts()
    singles = [text for text in texts if isinstance(text, str)]
    pairs = [text for text in texts if isinstance(text, tuple)]
    expected = python_engine.encode(texts)
    options = {"share_batches": True, "max_queue_tokens": 10**9, "cache_bytes": cache_bytes}
    with HostEngine(library, host_bundle, "fp32", **options) as engine:
        for _ in range(3):
            assert_same_codes(engine.encode(texts), expected)
            assert_same_codes(engine.encode(texts[::-1]), python_engine.encode(texts[::-1]))
            for some in (singles, pairs):
                answers = python_engine.predict(some)
                for task, answer in engine.predict(some).items():
                    assert_same_answer(answer, answers[task])
        found = engine.statistics
        assert 0 < found.cache_bytes <= cache_bytes
        assert found.cached_texts > 0
        asked = 3 * 3 * len(texts)
        assert found.encoded_texts + found.joined_texts + found.cached_texts == asked
        if cache_bytes == 10_000_000:
            assert found.encoded_texts == found.cache_texts
            assert found.encoded_texts + found.joined_texts <= len(texts)


def test_a_head_that_came_later_answers_from_it(
    library: HostLibrary, host_bundle: Path, tmp_path: Path
) -> None:
    """And one that is replaced: codes are kept, not answers."""
    texts = texts_of_all_lengths()[:10]
    options = {"share_batches": True, "cache_bytes": 1 << 20}
    spec = read_manifest(host_bundle).spec
    with HostEngine(library, host_bundle, "fp32", **options) as engine:
        features = engine.encode(texts)
        encoded, joined, cached = counts(engine)
        logits = []
        for seed, kind in ((1, "single_label"), (2, "single_label"), (3, "token_label")):
            path = tmp_path / f"{seed}.safetensors"
            write_head(random_head(spec, "later", kind=kind, seed=seed), path)
            engine.add_head(path, replace=True)
            answer = engine.predict(texts, ["later"])["later"]
            logits.append(answer.logits)
            if kind == "single_label":
                from_codes = engine.predict_features(features.codes, features.offsets, ["later"])
                np.testing.assert_array_equal(answer.logits, from_codes["later"].logits)
            else:
                from_words = engine.predict_encoded(texts, ["later"])["later"]
                np.testing.assert_array_equal(answer.logits, from_words.logits)
        engine.remove_head("later")
        assert not np.array_equal(logits[0], logits[1])
        assert counts(engine) == (encoded, joined, cached + 4 * len(texts))
        with refused("unknown_task", "'later'"):
            engine.predict(texts, ["later"])


def test_nothing_is_kept_unasked(library: HostLibrary, host_bundle: Path) -> None:
    with HostEngine(library, host_bundle, "fp32", share_batches=True) as engine:
        for _ in range(2):
            engine.encode(["one", "two", "one"])
        assert counts(engine) == (4, 2, 0)
        assert (engine.statistics.cache_texts, engine.statistics.cache_bytes) == (0, 0)


def test_options_that_make_no_sense(
    library: HostLibrary, host_bundle: Path, host_engine: HostEngine
) -> None:
    with refused("invalid_input", "cache_bytes: got -1, expected 0 or more"):
        HostEngine(library, host_bundle, share_batches=True, cache_bytes=-1)
    with refused("invalid_input", "cache_bytes: got 5 without share_batches"):
        HostEngine(library, host_bundle, cache_bytes=5)
    assert counts(host_engine) == (0, 0, 0)
