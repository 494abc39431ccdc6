"""Large calls: later texts are tokenized while the first are encoded, to the same answers."""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_heads import random_head, random_two_texts_head

from bitheads import BackendError, Engine, InputError, PackedFeatures
from bitheads.engine import text_chunks
from bitheads.engine.batching import cut_batches
from bitheads.engine.cpu_encoder import CPU_BATCH_TOKENS, CPU_CALL_TOKENS
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.text_chunks import CHARS_PER_BATCH_TOKEN, LEAST_TEXTS, cut_chunks

BUDGET = 64
"""Tokens of a batch."""
WORDS = ["the", "tide", "was", "out", "when", "a", "small", "boat", "came", "in", "north", "of"]
SMALL = LEAST_TEXTS - 1
"""Texts of a call that has one chunk, whatever they are."""
GATE_S = 30.0
"""Seconds after which a thread that was waited for is taken not to run."""


def made_texts(count: int, with_pairs: bool = False) -> list[Any]:
    """No two of them equal."""
    draw = random.Random(count)
    different: dict[str, None] = {}
    while len(different) < count:
        different[" ".join(draw.choices(WORDS, k=draw.randint(0, 30)))] = None
    texts: list[Any] = [*different]
    if with_pairs:
        texts[::3] = [(text, "a boat came in") for text in texts[::3]]
    return texts


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Iterator[Engine]:
    """In fp32, which gives the same bits in any batch; two heads for texts, two for pairs."""
    with Engine.load(tiny_bundle, "onnxruntime", precision="fp32") as loaded:
        for head in (
            random_head(loaded.spec, "attends"),
            random_head(loaded.spec, "averages", PositionPooling.MEAN, seed=1),
            random_head(loaded.spec, "pairs", seed=2, form="pair"),
            random_two_texts_head(loaded.spec, "compares"),
        ):
            loaded.add_head(head)
        yield loaded


class Watched:
    """An engine's tokenizer and session, which tell what they were called with and can be held up.

    Attributes:
        tokenized: texts of each call of the tokenizer.
        ran: batches that were run.
        before: called with the number of the call before it is made, by "tokenize" and "run".
    """

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.tokenized: list[int] = []
        self.ran = 0
        self.before: dict[str, Any] = {}
        tokenizer, session = engine._tokenizer, engine._encoder._session  # type: ignore[attr-defined]
        tokenize, run = type(tokenizer).__call__, session.run

        def watched_tokenize(this: Any, texts: Sequence[Any], *args: Any, **options: Any) -> Any:
            self.before.get("tokenize", lambda _: None)(len(self.tokenized))
            found = tokenize(this, texts, *args, **options)
            self.tokenized.append(len(texts))
            return found

        def watched_run(batch: Any) -> Any:
            self.before.get("run", lambda _: None)(self.ran)
            self.ran += 1
            return run(batch)

        patch.setattr(type(tokenizer), "__call__", watched_tokenize)
        patch.setattr(session, "run", watched_run)


@pytest.fixture
def watched(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(engine, monkeypatch)


def helpers() -> list[str]:
    """Threads that tokenize ahead."""
    return [t.name for t in threading.enumerate() if t.name.startswith("bitheads-read-ahead")]


def in_small_calls(engine: Engine, texts: Sequence[Any], words: bool = False) -> PackedFeatures:
    parts = [texts[i : i + SMALL] for i in range(0, len(texts), SMALL)]
    return PackedFeatures.concat([engine.encode(part, BUDGET, words=words) for part in parts])


@pytest.mark.parametrize("call", ["encode", "predict"])
def test_later_texts_are_tokenized_while_the_first_are_encoded(
    engine: Engine, watched: Watched, call: str
) -> None:
    """The first batch waits for the second chunk, and the last chunk for the first batch: neither
    tokenizing all first, nor chunk by chunk without a thread, would ever end."""
    texts = made_texts(1500)
    num_chunks = len(cut_chunks([(text,) for text in texts], BUDGET))
    assert num_chunks > 4
    second_begun, first_running = threading.Event(), threading.Event()

    def before_run(number: int) -> None:
        if number == 0:
            first_running.set()
            assert second_begun.wait(GATE_S)

    def before_tokenize(number: int) -> None:
        if number == 1:
            second_begun.set()
        if number == num_chunks - 1:
            assert first_running.wait(GATE_S)

    watched.before = {"run": before_run, "tokenize": before_tokenize}
    answer = getattr(engine, call)(texts, max_batch_tokens=BUDGET)
    assert len(watched.tokenized) == num_chunks
    assert sum(watched.tokenized) == len(texts) == answer.stats.num_texts
    assert not helpers()


def test_no_more_than_one_chunk_is_ahead(engine: Engine, watched: Watched) -> None:
    ahead = []
    rows_of_chunks = [chunk.size for chunk in cut_chunks([(t,) for t in made_texts(1500)], BUDGET)]
    ends = np.cumsum(rows_of_chunks)
    rows_run = 0
    encode_now = type(engine._encoder)._encode_now  # type: ignore[attr-defined]

    def before_run(number: int) -> None:
        now = int(np.searchsorted(ends, rows_run, side="right"))  # the chunk that is encoded
        ahead.append(len(watched.tokenized) - 1 - now)

    def count(this: Any, session: Any, batch: Any) -> Any:
        nonlocal rows_run
        found = encode_now(this, session, batch)
        rows_run += batch.texts.size
        return found

    watched.before["run"] = before_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine._encoder), "_encode_now", count)
        engine.encode(made_texts(1500), max_batch_tokens=BUDGET)
    assert max(ahead) == 1


@pytest.mark.parametrize("words", [False, True])
def test_codes_are_those_of_small_calls(engine: Engine, words: bool) -> None:
    texts = made_texts(1100, with_pairs=True)
    expected = in_small_calls(engine, texts, words)
    found = engine.encode(texts, max_batch_tokens=BUDGET, words=words)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    np.testing.assert_array_equal(found.codes, expected.codes)
    assert found.pairs is not None
    assert expected.pairs is not None
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    for name in ("num_texts", "num_tokens", "num_windows", "num_truncated"):
        assert getattr(found.stats, name) == getattr(expected.stats, name)
    if words:
        assert found.words is not None
        assert expected.words is not None
        for name in ("table", "offsets", "truncated_at", "is_single"):
            np.testing.assert_array_equal(getattr(found.words, name), getattr(expected.words, name))


def test_answers_are_those_of_small_calls(engine: Engine) -> None:
    texts = made_texts(1100, with_pairs=True)
    found = engine.predict(texts, max_batch_tokens=BUDGET)
    assert {*found} == {"attends", "averages", "pairs", "compares"}
    for start in range(0, len(texts), SMALL):
        part = texts[start : start + SMALL]
        expected = engine.predict(part, max_batch_tokens=BUDGET)
        for task, answer in expected.items():
            np.testing.assert_array_equal(
                found[task].logits[start : start + len(part)], answer.logits
            )


def test_texts_come_in_order_from_parts_that_are_sorted_apart(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = made_texts(900)
    expected = in_small_calls(engine, texts)
    monkeypatch.setattr(text_chunks, "PART_CHARS", 20_000)
    chunks = cut_chunks([(text,) for text in texts], BUDGET)
    assert chunks[0].max() < chunks[-1].min()
    found = engine.encode(texts, max_batch_tokens=BUDGET)
    np.testing.assert_array_equal(found.codes, expected.codes)


def chunks_one_by_one(chars: Sequence[int], chunk_chars: int, part_chars: int) -> list[list[int]]:
    """What `cut_chunks` does, text by text."""
    if sum(chars) <= chunk_chars:
        return [[*range(len(chars))]]
    parts: dict[int, list[int]] = {}
    for i in range(len(chars)):
        parts.setdefault(sum(chars[:i]) // part_chars, []).append(i)
    found = []
    for part in parts.values():
        order = sorted(part, key=lambda i: -chars[i])
        chunks: dict[int, list[int]] = {}
        for place, i in enumerate(order):
            before = sum(chars[j] for j in order[:place])
            chunks.setdefault(before // chunk_chars, []).append(i)
        found += chunks.values()
    return found


@pytest.mark.parametrize("seed", range(20))
def test_chunks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    part_chars = draw.choice([1 << 24, 3000])
    monkeypatch.setattr(text_chunks, "PART_CHARS", part_chars)
    chars = [draw.choice([0, 1, draw.randint(0, 300), 900]) for _ in range(draw.randint(1, 300))]
    texts = [("x" * n,) if n % 2 else ("x" * (n // 3), "y" * (n - n // 3)) for n in chars]
    found = cut_chunks(texts, budget := draw.choice([1, 3, 8, 1000]))
    expected = chunks_one_by_one(chars, min(CHARS_PER_BATCH_TOKEN * budget, part_chars), part_chars)
    assert [chunk.tolist() for chunk in found] == expected


def test_padding_is_under_a_hundredth_more(tiny_engine: Engine) -> None:
    """Counted on the shipped sentences, joined to texts of all lengths."""
    from benchmarks.inputs.texts import mixed

    texts = mixed(None, 4000)
    lengths = np.array([text.ids.size for text in tiny_engine.tokenizer(texts)], np.int64)
    chunks = cut_chunks([(text,) for text in texts], CPU_BATCH_TOKENS)
    assert len(chunks) > 8

    def computed(chosen: Any) -> int:
        own = lengths[chosen]
        batches = cut_batches(own, CPU_BATCH_TOKENS, CPU_CALL_TOKENS)
        return sum(rows.size * int(own[rows].max()) for rows in batches)

    whole = computed(np.arange(len(texts)))
    assert whole <= sum(map(computed, chunks)) < 1.01 * whole


@pytest.mark.parametrize("bad", [None, 7, ("a", "b", "c"), "\ud800"])
@pytest.mark.parametrize("call", ["encode", "predict"])
def test_a_text_that_is_none_is_named_before_anything_is_encoded(
    engine: Engine, watched: Watched, bad: Any, call: str
) -> None:
    texts = made_texts(1000)
    texts[917] = bad
    with pytest.raises(InputError, match=r"^text 917: "):
        getattr(engine, call)(texts, max_batch_tokens=BUDGET)
    assert watched.ran == 0
    assert not helpers()


def test_an_iterator_is_still_no_sequence(engine: Engine) -> None:
    with pytest.raises(InputError, match="a generator, expected a sequence of texts"):
        engine.encode(text for text in made_texts(1000))  # type: ignore[arg-type]


def test_a_tokenizer_that_fails_in_a_later_chunk(engine: Engine, watched: Watched) -> None:
    def before_tokenize(number: int) -> None:
        if number == 3:
            raise InputError("texts: the tokenizer failed on one of 9.")

    texts = made_texts(1500)
    watched.before["tokenize"] = before_tokenize
    with pytest.raises(InputError, match="the tokenizer failed"):
        engine.predict(texts, max_batch_tokens=BUDGET)
    assert watched.ran > 0
    assert not helpers()
    watched.before.clear()
    assert len(engine.encode(texts, max_batch_tokens=BUDGET)) == len(texts)


def test_an_encoder_that_fails(engine: Engine, watched: Watched) -> None:
    def before_run(number: int) -> None:
        if number == 40:
            raise RuntimeError("no memory")

    watched.before["run"] = before_run
    with pytest.raises(BackendError, match="no memory"):
        engine.encode(made_texts(1500), max_batch_tokens=BUDGET)
    assert len(watched.tokenized) < len(cut_chunks([(t,) for t in made_texts(1500)], BUDGET))
    assert not helpers()


def test_ctrl_c_while_the_encoder_waits_for_the_tokenizer(engine: Engine, watched: Watched) -> None:
    """As the terminal sends it: a signal, which the main thread is told of."""

    def before_tokenize(number: int) -> None:
        if number == 3:
            signal.raise_signal(signal.SIGINT)

    texts = made_texts(1500)
    watched.before["tokenize"] = before_tokenize
    with pytest.raises(KeyboardInterrupt):
        engine.encode(texts, max_batch_tokens=BUDGET)
    assert not helpers()
    watched.before.clear()
    found = engine.encode(texts, max_batch_tokens=BUDGET)
    np.testing.assert_array_equal(found.codes, in_small_calls(engine, texts).codes)


def test_close_waits_for_a_call_that_tokenizes_ahead(tiny_bundle: Path) -> None:
    texts = made_texts(1500)
    with pytest.MonkeyPatch.context() as patch:
        engine = Engine.load(tiny_bundle, "onnxruntime", precision="fp32")
        watched = Watched(engine, patch)
        started = threading.Event()
        watched.before["tokenize"] = lambda number: started.set() if number == 2 else None
        found: list[PackedFeatures] = []
        caller = threading.Thread(
            target=lambda: found.append(engine.encode(texts, max_batch_tokens=BUDGET))
        )
        caller.start()
        assert started.wait(GATE_S)
        engine.close()
        assert not helpers()
        caller.join()
    assert len(found[0]) == len(texts)


def test_texts_that_were_cut_are_logged_once(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    texts = made_texts(1000)
    texts[5] = texts[800] = "boat " * 3 * engine.manifest.encoder.max_length
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        features = engine.encode(texts, max_batch_tokens=BUDGET)
    assert features.stats.num_truncated == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"2 of 1000 texts were longer than {engine.manifest.encoder.max_length} tokens and were cut"
    ]
