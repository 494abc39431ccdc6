"""Texts to codes: order, batching, every kind of text, what is no text, threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow
import pytest
from numpy.typing import NDArray

from bitheads import BackendError, Engine, InputError, PackedFeatures
from bitheads.engine.bundle import GRAPH, TOKENIZER
from bitheads.engine.cpu_encoder import CpuEncoder
from bitheads.engine.sessions import BACKENDS, open_session
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.engine.types import Text, TokenBatch

WORDS = [
    "the",
    "tide",
    "was",
    "out",
    "and",
    "every",
    "boat",
    "lay",
    "on",
    "its",
    "side",
    "in",
    "the",
    "mud,",
    "waiting",
    "for",
    "night",
]

STRANGE_TEXTS = {
    "empty": "",
    "blank": " \t\n ",
    "no-break space": "\N{NO-BREAK SPACE}",
    "nul": "a\0b",
    "nul alone": "\0",
    "control": "\x07\x1b[0m",
    "emoji": "so good \N{FACE WITH TEARS OF JOY}\N{FACE WITH TEARS OF JOY}",
    "family": "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}",
    "combining": "e" + "\N{COMBINING ACUTE ACCENT}" * 50,
    "right to left": "\u05e9\u05dc\u05d5\u05dd",
    "cjk": "\u6f6e\u6c34\u9000\u4e86\u3002",
    "replacement": "\N{REPLACEMENT CHARACTER}",
    "noncharacter": "\uffff",
    "last code point": "\U0010ffff",
    "byte order mark": "\ufefftext",
    "special tokens": "[CLS] [SEP] [PAD] </s> <pad>",
    "line separator": "one\N{LINE SEPARATOR}two\r\nthree",
}


def texts_of_all_lengths() -> list[str]:
    """80 texts of 1 to 40 words, shuffled."""
    rng = np.random.default_rng(3)
    lengths = rng.permutation(np.repeat(np.arange(1, 41), 2))
    return [" ".join(rng.choice(WORDS, size)) for size in lengths]


def bits_that_differ(a: PackedFeatures, b: PackedFeatures) -> int:
    assert a.offsets.tolist() == b.offsets.tolist()
    return int(np.bitwise_count(a.codes ^ b.codes).sum())


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def engine(request: pytest.FixtureRequest, tiny_bundle: Path) -> Engine:
    return Engine.load(tiny_bundle, backend=request.param, precision="fp32")


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list[PackedFeatures]:
    """Each of `texts_of_all_lengths` encoded by itself."""
    return [engine.encode([text]) for text in texts_of_all_lengths()]


def test_results_come_in_the_order_of_the_texts(
    engine: Engine, alone: list[PackedFeatures]
) -> None:
    texts = texts_of_all_lengths()
    together = engine.encode(texts)
    assert len(together) == len(texts)
    assert together.num_tokens.tolist() == [int(part.num_tokens[0]) for part in alone]
    for text, part in zip(together, alone, strict=True):
        assert bits_that_differ(text, part) <= 1


@pytest.mark.parametrize("max_batch_tokens", [1, 100, 1024, 100_000])
def test_a_text_has_the_same_codes_alone_and_in_any_batch(
    engine: Engine, alone: list[PackedFeatures], max_batch_tokens: int
) -> None:
    together = engine.encode(texts_of_all_lengths(), max_batch_tokens)
    one_by_one = PackedFeatures.concat(alone)
    # A feature that is zero but for rounding may flip with the batch's shape.
    assert bits_that_differ(together, one_by_one) <= 1e-4 * 8 * together.codes.size
    if max_batch_tokens == 1:
        assert bits_that_differ(together, one_by_one) == 0


@pytest.mark.parametrize("max_batch_tokens", [64, 1024])
def test_codes_of_a_real_encoder_in_fp32_do_not_depend_on_the_batch(
    minilm_bundle: Path, max_batch_tokens: int
) -> None:
    engine = Engine.load(minilm_bundle, backend="openvino", precision="fp32")
    texts = texts_of_all_lengths()[:40]
    one_by_one = PackedFeatures.concat([engine.encode([text]) for text in texts])
    assert bits_that_differ(engine.encode(texts, max_batch_tokens), one_by_one) == 0


def test_bits_that_flip_between_batches_are_of_features_near_zero(tiny_bundle: Path) -> None:
    engine = Engine.load(tiny_bundle, backend="openvino", precision="fp32")
    session = open_session(tiny_bundle / GRAPH, engine.manifest.output_names, "openvino", "fp32")
    tokenizer = TextTokenizer(tiny_bundle / TOKENIZER, engine.manifest.encoder.max_length)
    together = engine.encode(texts_of_all_lengths())
    for text, tokens in zip(together, tokenizer(texts_of_all_lengths()), strict=True):
        ids = tokens.ids[None].astype(np.int64)
        batch = TokenBatch(ids, np.ones_like(ids), np.zeros_like(ids), np.array([ids.size]))
        mean = np.mean([hidden[0].astype(np.float64) for hidden in session.run(batch)], axis=0)
        clear = np.abs(mean) > 1e-4
        assert clear.mean() > 0.99
        assert np.array_equal((text.unpack() > 0)[clear], (mean > 0)[clear])


def test_backends_agree(tiny_bundle: Path) -> None:
    openvino, onnxruntime = (
        Engine.load(tiny_bundle, backend=name, precision="fp32").encode(texts_of_all_lengths())
        for name in ("openvino", "onnxruntime")
    )
    # Weights are fp16 and both compute in fp32, in other orders.
    assert bits_that_differ(openvino, onnxruntime) <= 1e-3 * 8 * openvino.codes.size


def test_backends_agree_on_a_real_encoder(minilm_bundle: Path) -> None:
    openvino, onnxruntime = (
        Engine.load(minilm_bundle, backend=name, precision="fp32").encode(
            texts_of_all_lengths()[:24]
        )
        for name in ("openvino", "onnxruntime")
    )
    assert bits_that_differ(openvino, onnxruntime) <= 1e-3 * 8 * openvino.codes.size


def test_the_default_precision_of_a_real_encoder_is_close_to_fp32(minilm_bundle: Path) -> None:
    default, fp32 = (
        Engine.load(minilm_bundle, precision=precision).encode(texts_of_all_lengths()[:24])
        for precision in ("auto", "fp32")
    )
    assert bits_that_differ(default, fp32) <= 5e-3 * 8 * fp32.codes.size


def test_no_texts_give_no_codes(engine: Engine) -> None:
    features = engine.encode([])
    assert len(features) == 0
    assert features.codes.shape == (0, engine.spec.code_bytes)
    assert features.offsets.tolist() == [0]
    assert features.stats.num_batches == 0


@pytest.mark.parametrize("text", STRANGE_TEXTS.values(), ids=STRANGE_TEXTS.keys())
def test_a_strange_text_has_codes_and_disturbs_no_other(engine: Engine, text: str) -> None:
    plain = "The tide was out."
    features = engine.encode([plain, text, plain])
    assert features.num_tokens[1] >= 2  # the tokenizer's own tokens, at least
    assert bits_that_differ(features[0], features[2]) == 0
    assert bits_that_differ(features[0], engine.encode([plain])) <= 1


def test_pairs_and_single_texts_mix(engine: Engine) -> None:
    texts: list[Text] = ["one text", ("the first", "the second"), "another", ("", "")]
    features = engine.encode(texts)
    for text, part in zip(texts, features, strict=True):
        assert bits_that_differ(part, engine.encode([text])) <= 1


def test_a_pair_is_not_its_texts_joined(engine: Engine) -> None:
    pair, joined = engine.encode([("the tide", "was out"), "the tide was out"])
    assert pair.num_tokens[0] == joined.num_tokens[0] + 1
    swapped = engine.encode([("was out", "the tide")])
    assert not np.array_equal(pair.codes, swapped.codes)


def test_the_second_text_of_a_pair_has_its_own_token_type(engine: Engine) -> None:
    """The same token ids with another type give other codes: the types reach the graph."""
    seen: list[TokenBatch] = []
    session = engine._encoder._session

    class Spy:
        backend, precision = session.backend, session.precision

        def run(self, batch: TokenBatch) -> list[NDArray[Any]]:
            seen.append(batch)
            return session.run(batch)

    tokenizer = engine._tokenizer
    spied = Engine(engine.manifest, tokenizer, CpuEncoder(Spy(), engine.spec, None))
    pair = spied.encode([("the tide", "was out")])
    types = seen[0].token_type_ids
    first = int((types == 0).sum())
    assert types.tolist() == [[0] * first + [1] * (types.size - first)]
    assert 0 < first < types.size
    hidden = session.run(
        TokenBatch(seen[0].input_ids, seen[0].attention_mask, 0 * types, seen[0].lengths)
    )
    untyped = np.packbits(np.mean([h[0].astype(np.float32) for h in hidden], axis=0) > 0, axis=1)
    assert not np.array_equal(untyped, pair.codes)


@pytest.mark.parametrize("item", [None, 3, 2.5, b"bytes", ["a", None], ("a", "b", "c"), (), {"a"}])
def test_what_is_no_text_is_named_with_its_index(engine: Engine, item: Any) -> None:
    with pytest.raises(InputError, match=r"text 2: got .*expected a str or a pair of str"):
        engine.encode(["fine", "fine", item])


def test_one_bare_string_is_an_error(engine: Engine) -> None:
    with pytest.raises(InputError, match=r"got one string \('hello'\).*Pass \[text\]"):
        engine.encode("hello")


@pytest.mark.parametrize(
    "texts",
    [
        b"hello",
        None,
        3,
        {"a", "b"},
        {"a": "b"},
        {"a": "b"}.values(),
        (text for text in "ab"),
        map(str, "ab"),
        np.array([["a", "b"]]),
        np.array("a"),
        polars.DataFrame({"text": ["a", "b"]}),
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_what_is_no_sequence_is_an_error(engine: Engine, texts: Any) -> None:
    for call in (engine.encode, engine.predict):
        with pytest.raises(
            InputError, match=r"texts: got .*, expected a sequence of texts\. Pass "
        ):
            call(texts)


@pytest.mark.parametrize("kind", ["tuple", "numpy", "object", "polars", "pandas"])
def test_sequences_of_any_kind(engine: Engine, kind: str) -> None:
    """They are read in their order, whatever labels they have beside it."""
    texts = ["the tide", "was out and", "in"]
    given: dict[str, Callable[[], Any]] = {
        "tuple": lambda: tuple(texts),
        "numpy": lambda: np.array(texts),
        "object": lambda: np.array(texts, object),
        "polars": lambda: polars.Series(texts),
        "pandas": lambda: pytest.importorskip("pandas").Series(texts, index=[2, 0, 1]),
    }
    assert engine.encode(given[kind]()).codes.tobytes() == engine.encode(texts).codes.tobytes()


def test_an_arrow_array_is_told_how_to_be_a_list(engine: Engine) -> None:
    with pytest.raises(InputError, match=r"text 0: got StringScalar 'a', expected a str"):
        engine.encode(pyarrow.array(["a"]))


@pytest.mark.parametrize("item", ["caf\udce9", ("fine", "x\ud800")])
def test_a_lone_surrogate_is_named_with_its_index(engine: Engine, item: Any) -> None:
    with pytest.raises(InputError, match=r"text 1: got a lone surrogate .* at character [13]"):
        engine.encode(["fine", item])


def test_an_input_error_is_a_value_error(engine: Engine) -> None:
    with pytest.raises(ValueError, match="text 0"):
        engine.encode([None])  # type: ignore[list-item]


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_below_one_is_an_error(engine: Engine, budget: int) -> None:
    with pytest.raises(InputError, match=rf"max_batch_tokens: got {budget}"):
        engine.encode(["text"], max_batch_tokens=budget)


def test_batches_keep_to_the_budget(engine: Engine) -> None:
    shapes: list[tuple[int, ...]] = []
    session = engine._encoder._session

    class Spy:
        backend, precision = session.backend, session.precision

        def run(self, batch: TokenBatch) -> list[NDArray[Any]]:
            shapes.append(batch.input_ids.shape)
            return session.run(batch)

    spied = Engine(engine.manifest, engine._tokenizer, CpuEncoder(Spy(), engine.spec, None))
    texts = texts_of_all_lengths()
    for budget in (16, 128, 1024):
        shapes.clear()
        stats = spied.encode(texts, max_batch_tokens=budget).stats
        assert all(rows * seq <= budget or rows == 1 for rows, seq in shapes)
        assert sum(rows for rows, _ in shapes) == len(texts)
        assert len(shapes) == stats.num_batches
        assert sum(rows * seq for rows, seq in shapes) == stats.num_tokens + stats.num_padding
    assert len(shapes) < len(texts) / 3


def test_stats_add_up(engine: Engine) -> None:
    texts = texts_of_all_lengths()
    features = engine.encode(texts)
    stats = features.stats
    assert stats.num_texts == len(texts)
    assert stats.num_tokens == features.codes.shape[0] == features.num_tokens.sum()
    assert stats.num_truncated == 0
    assert stats.num_windows == len(texts)
    assert min(stats.tokenize_s, stats.encode_s, stats.pack_s) > 0
    assert stats.heads_s == 0
    twice = stats + stats
    assert (twice.num_texts, twice.encode_s) == (2 * stats.num_texts, 2 * stats.encode_s)


def test_cut_texts_are_counted_and_logged(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    max_length = engine.manifest.encoder.max_length
    texts = ["short", "tide " * 500, "also short", ("tide " * 500, "short")]
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        features = engine.encode(texts)
    assert features.stats.num_truncated == 2
    assert features.num_tokens[1] == features.num_tokens[3] == max_length
    assert f"2 of 4 texts were longer than {max_length} tokens" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        engine.encode(["short"])
    assert caplog.text == ""


def test_progress_goes_to_standard_error(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.encode(["a", "b"], progress=True)
    shown = capsys.readouterr()
    assert "encode" in shown.err
    assert shown.out == ""
    engine.encode(["a", "b"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_failing_encoder_is_a_backend_error(tiny_bundle: Path, backend: str) -> None:
    engine = Engine.load(tiny_bundle, backend=backend)
    broken = open_session(tiny_bundle / GRAPH, ["hidden_9"], backend)
    spoiled = Engine(engine.manifest, engine._tokenizer, CpuEncoder(broken, engine.spec, None))
    with pytest.raises(BackendError, match=rf"(?s){backend} \w+ failed on a batch of \[1, \d+\]"):
        spoiled.encode(["text"])


def test_threads_may_encode_at_once(engine: Engine, alone: list[PackedFeatures]) -> None:
    texts = texts_of_all_lengths()
    parts: list[Sequence[int]] = [range(i, len(texts), 8) for i in range(8)]
    barrier = threading.Barrier(len(parts))

    def encode(indices: Sequence[int]) -> PackedFeatures:
        barrier.wait()
        return engine.encode([texts[i] for i in indices], max_batch_tokens=64)

    with ThreadPoolExecutor(len(parts)) as pool:
        for indices, features in zip(parts, pool.map(encode, parts), strict=True):
            for index, text in zip(indices, features, strict=True):
                assert bits_that_differ(text, alone[index]) <= 1


@pytest.mark.parametrize("family", ["roberta", "distilbert", "xlm-roberta"])
def test_other_families_encode(build_bundle: Any, family: str) -> None:
    engine = Engine.load(build_bundle(family), backend="onnxruntime")
    texts: list[Text] = [*texts_of_all_lengths()[:20], ("the tide", "was out"), "x " * 300]
    together = engine.encode(texts)
    one_by_one = PackedFeatures.concat([engine.encode([text]) for text in texts])
    assert bits_that_differ(together, one_by_one) <= 2
    assert together.num_tokens[-1] == engine.manifest.encoder.max_length
