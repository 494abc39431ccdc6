"""Large calls of the C++ host: tokenized while they are encoded, in Python's chunks."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from host_build import build, run
from same_answers import assert_same_answer
from test_host_agrees import assert_same_codes
from test_host_errors import refused

from benchmarks.contenders.host_library import HostEngine, HostLibrary
from bitheads import Engine
from bitheads.engine.text_chunks import LEAST_TEXTS, cut_chunks
from bitheads.engine.types import Text

BUDGET = 64
WORDS = ["the", "tide", "was", "out", "Tränen", "und", "小舟", "🚣", "b", "harbour"]


def made_texts(count: int) -> list[str]:
    draw = random.Random(count)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 30))) for _ in range(count)]


def test_later_texts_are_tokenized_while_the_first_are_encoded(
    host_build: Path, host_bundle: Path
) -> None:
    build(host_build, "tokenize_ahead")
    said = run(host_build / "tokenize_ahead", host_bundle)
    assert said.splitlines() == [
        "several chunks",
        "codes",
        "answers",
        "the error of a chunk",
        "codes",
    ]


@pytest.mark.parametrize("count", [LEAST_TEXTS - 1, LEAST_TEXTS, 2000])
@pytest.mark.parametrize("budget", [1, BUDGET, 1 << 40])
def test_both_hosts_cut_the_same_chunks(host_build: Path, count: int, budget: int) -> None:
    build(host_build, "cut_chunks")
    texts = [(text,) if i % 3 else (text, "小舟 a") for i, text in enumerate(made_texts(count))]
    found = run(host_build / "cut_chunks", str(budget), stdin="\n".join(map("\t".join, texts)))
    got = [[*map(int, line.split())] for line in found.splitlines()]
    expected = [[*range(count)]] if count < LEAST_TEXTS else cut_chunks(texts, budget)
    assert got == [[*chunk] for chunk in expected]
    assert (len(got) > 1) == (count >= LEAST_TEXTS and budget <= BUDGET)


@pytest.mark.parametrize("words", [False, True])
def test_codes_and_answers_are_those_of_python(
    library: HostLibrary, host_bundle: Path, words: bool
) -> None:
    singles: list[Text] = [*made_texts(900)]
    pairs: list[Text] = [(text, "a boat came in") for text in made_texts(700)]
    longest = "boat " * 2000
    singles[17] = singles[801] = longest
    with (
        Engine.load(host_bundle, "openvino", precision="fp32") as engine,
        HostEngine(library, host_bundle, "fp32", max_batch_tokens=BUDGET) as host,
    ):
        mixed = [*singles[:400], *pairs[:400]]
        expected = engine.encode(mixed, max_batch_tokens=BUDGET)
        assert_same_codes(host.encode(mixed, words), expected)
        for texts in (singles, pairs):
            answers = engine.predict(texts, max_batch_tokens=BUDGET)
            for task, answer in host.predict(texts).items():
                assert_same_answer(answer, answers[task])
        truncated = engine.encode(singles, max_batch_tokens=BUDGET).stats.num_truncated
        assert host.encode(singles).num_truncated == truncated >= 2


def test_an_error_names_the_text(library: HostLibrary, host_bundle: Path) -> None:
    texts: list[str | bytes] = [*made_texts(900)]
    texts[700] = b"no \xff text"
    with HostEngine(library, host_bundle, "fp32", max_batch_tokens=BUDGET) as host:
        for call in (host.encode, host.predict):
            with refused("invalid_input", "text 700: byte 3 begins no code point"):
                call(texts)
        found = host.encode([*made_texts(900)])
    assert len(found.offsets) == 901
    assert np.all(np.diff(found.offsets) > 0)
