"""The C++ host and Python's engine on the same bundle: the same bits, the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from host_build import MIN_AGREEMENT
from same_answers import assert_same_answer
from test_encode import STRANGE_TEXTS, texts_of_all_lengths
from test_tokenizer import all_texts, wordy
from tiny_encoders import FAMILIES, MAX_LENGTH

from benchmarks.contenders.host_library import HostEngine, HostFeatures, HostLibrary
from bitheads import Engine, PackedFeatures
from bitheads.engine.batching import cut_batches
from bitheads.engine.types import Text

SAME_TEXTS = {"roberta": 1.0, "distilbert": 1.0, "xlm-roberta": MIN_AGREEMENT}
"""Least share of texts with the very same codes."""

VANISHING = {
    "nothing": ["", "", ""],
    "invisible": ["\N{ZERO WIDTH SPACE}", "\N{SOFT HYPHEN}", "\N{COMBINING ACUTE ACCENT}"],
    "control": ["\0", "\0\0", "\x7f", "\N{REPLACEMENT CHARACTER}"],
    "blanks": [" ", "\t\n", "\r\n\r\n", "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}"],
    "some of each": ["", " ", "\N{ZERO WIDTH SPACE}", "\0"],
    "with others": ["", "plain", "\N{ZERO WIDTH SPACE}", "a\0", " \0", "\0a"],
    "very many": [""] * 5000,
}
"""Texts of which little or nothing is left, each alone and together."""


@pytest.fixture(scope="module")
def python_engine(host_bundle: Path) -> Engine:
    return Engine.load(host_bundle, backend="openvino", precision="fp32")


@pytest.fixture(scope="module")
def engines(
    build_bundle: Callable[..., Path],
    add_host_parts: Callable[[Path], Path],
    library: HostLibrary,
) -> Callable[[str], tuple[Engine, HostEngine]]:
    """Family -> Python's engine and the host's, on one bundle."""

    @cache
    def load(family: str) -> tuple[Engine, HostEngine]:
        bundle = add_host_parts(build_bundle(family))
        engine = Engine.load(bundle, backend="openvino", precision="fp32")
        return engine, HostEngine(library, bundle, precision="fp32")

    return load


def assert_same_codes(got: HostFeatures, expected: PackedFeatures) -> None:
    np.testing.assert_array_equal(got.offsets, expected.offsets)
    np.testing.assert_array_equal(got.codes, expected.codes)
    assert got.num_truncated == expected.stats.num_truncated


def codes_of(features: HostFeatures) -> list[np.ndarray]:
    """Each text's codes."""
    return np.split(features.codes, features.offsets[1:-1])


def of_form(form: str, texts: Iterable[Text]) -> list[Text]:
    return [text for text in texts if isinstance(text, tuple) == (form == "pair")]


def assert_same_answers(engine: Engine, host: HostEngine, texts: list[Text]) -> None:
    """Of the texts of each form, from the heads of that form."""
    for form in ("single", "pair"):
        asked = of_form(form, texts)
        if asked:
            assert_heads_agree(engine, host, asked, [t for t, f in host.tasks.items() if f == form])


def assert_heads_agree(
    engine: Engine, host: HostEngine, texts: list[Text], tasks: list[str]
) -> None:
    expected, got = engine.predict(texts, tasks), host.predict(texts)
    assert set(got) == set(expected) == set(tasks)
    for task, answer in got.items():
        assert_same_answer(answer, expected[task])


def test_every_text_has_the_same_codes(python_engine: Engine, host_engine: HostEngine) -> None:
    texts = all_texts()
    assert_same_codes(host_engine.encode(texts), python_engine.encode(texts))


def test_every_text_has_the_same_codes_in_int8_dynamic(
    build_bundle: Callable[..., Path], add_host_parts: Callable[[Path], Path], library: HostLibrary
) -> None:
    bundle, precision = add_host_parts(build_bundle(precision="int8_dynamic")), "int8_dynamic"
    host, texts = HostEngine(library, bundle, precision=precision), all_texts()
    assert host.backend == "openvino int8_dynamic"
    with Engine.load(bundle, precision=precision) as engine:
        expected = engine.encode(texts)
    assert_same_codes(host.encode(texts), expected)
    with Engine.load(bundle, "openvino", precision="fp32") as engine:
        assert (engine.encode(texts).codes != expected.codes).any()


def test_every_answer_is_the_same(python_engine: Engine, host_engine: HostEngine) -> None:
    assert_same_answers(python_engine, host_engine, all_texts())


@pytest.mark.parametrize("text", STRANGE_TEXTS.values(), ids=STRANGE_TEXTS.keys())
def test_strange_texts(python_engine: Engine, host_engine: HostEngine, text: str) -> None:
    texts: list[Text] = [text, (text, "plain"), ("plain", text), (text, text), f"it {text} it"]
    assert_same_codes(host_engine.encode(texts), python_engine.encode(texts))


@pytest.mark.parametrize("texts", VANISHING.values(), ids=VANISHING.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_which_nothing_is_left(
    family: str, texts: list[str], engines: Callable[[str], tuple[Engine, HostEngine]]
) -> None:
    engine, host = engines(family)
    few: list[Text] = [*texts[:10]]
    pairs: list[Text] = [(a, b) for a in texts[:3] for b in texts[:3]]
    calls: list[list[Text]] = [[*texts], pairs, [*few, *pairs], *([text] for text in few)]
    for asked in [*calls, *([pair] for pair in pairs)]:
        assert_same_codes(host.encode(asked), engine.encode(asked))


def test_long_texts_and_pairs_are_cut_at_the_same_token(
    python_engine: Engine, host_engine: HostEngine
) -> None:
    rng = np.random.default_rng(5)
    sizes = [*range(MAX_LENGTH - 8, MAX_LENGTH + 8), 200, 3000]
    singles: list[Text] = [wordy(rng, size) for size in sizes]
    firsts, seconds = (rng.choice([0, 1, 10, 30, 61, 62, 500], 40) for _ in range(2))
    pairs = [(wordy(rng, a), wordy(rng, b)) for a, b in zip(firsts, seconds, strict=True)]
    endless: list[Text] = ["x" * 5000, " " * 40_000 + "end", "\N{MAN}" * 3000, ("y" * 5000, "z")]
    texts = [*singles, *pairs, *endless]
    got = host_engine.encode(texts)
    assert got.num_truncated > 10
    assert_same_codes(got, python_engine.encode(texts))


def test_a_text_alone_has_the_bits_it_has_in_a_batch(host_engine: HostEngine) -> None:
    texts = [*texts_of_all_lengths(), *[(a, a[:20]) for a in texts_of_all_lengths()[:10]]]
    features = host_engine.encode(texts)
    for i, text in enumerate(texts):
        alone = host_engine.encode([text])
        start, stop = features.offsets[i], features.offsets[i + 1]
        np.testing.assert_array_equal(alone.codes, features.codes[start:stop])
    for form in ("single", "pair"):
        asked = of_form(form, texts)
        answers = host_engine.predict(asked)
        for i, text in enumerate(asked):
            for task, answer in host_engine.predict([text]).items():
                np.testing.assert_array_equal(answer.logits[0], answers[task].logits[i])


def test_token_ids_in_place_of_texts(python_engine: Engine, host_engine: HostEngine) -> None:
    texts: list[Text] = ["The tide was out.", ("one", "the other"), ""]
    tokens = python_engine._tokenizer(texts)
    got = host_engine.encode_tokens([t.ids.tolist() for t in tokens], [t.num_first for t in tokens])
    assert_same_codes(got, python_engine.encode(texts))
    single = host_engine.encode_tokens([tokens[0].ids.tolist()])
    np.testing.assert_array_equal(single.codes, got.codes[: single.offsets[1]])


def test_codes_alone_have_the_same_answers(python_engine: Engine, host_engine: HostEngine) -> None:
    texts: list[Text] = list(texts_of_all_lengths())
    features = python_engine.encode(texts)
    assert host_engine.spec_id == features.spec.id
    got = host_engine.predict_features(features.codes, features.offsets, ["averages"])
    expected = python_engine.predict_features(features, ["averages"])
    assert list(got) == ["averages"]
    np.testing.assert_array_equal(got["averages"].logits, expected["averages"].logits)


def test_many_batches_run_in_lanes(
    python_engine: Engine, library: HostLibrary, host_bundle: Path
) -> None:
    """Batches so small that a call has many of them, on two threads, as on one."""
    texts: list[Text] = texts_of_all_lengths() * 2
    expected = python_engine.encode(texts)
    lengths = expected.num_tokens
    assert len(cut_batches(lengths, 64, 32)) > 40
    for threads in (1, 2):
        with HostEngine(library, host_bundle, "fp32", threads, max_batch_tokens=64) as host:
            assert_same_codes(host.encode(texts), expected)
            assert_same_answers(python_engine, host, texts)


def test_no_texts(host_engine: HostEngine) -> None:
    assert host_engine.encode([]).offsets.tolist() == [0]
    assert host_engine.predict([])["attends"].logits.shape == (0, 2)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "bert"])
def test_every_family(family: str, engines: Callable[[str], tuple[Engine, HostEngine]]) -> None:
    engine, host = engines(family)
    texts = all_texts()
    got, expected = host.encode(texts), engine.encode(texts)
    same = [np.array_equal(a, b.codes) for a, b in zip(codes_of(got), expected, strict=True)]
    assert np.mean(same) >= SAME_TEXTS[family]
    assert_same_answers(
        engine, host, [t for t, is_same in zip(texts, same, strict=True) if is_same]
    )


@pytest.mark.parametrize(
    "options",
    [
        {"quantization": "uint8"},
        {"quantization": "float16"},
        {"order": "sign_then_vote"},
        {"thresholds": "mean"},
        {"layer_pooling": "learned", "layer_weights": (0.1, 1e-05, 3.0), "layers": "3"},
    ],
    ids=str,
)
def test_every_feature_spec(
    options: dict[str, object],
    build_bundle: Callable[..., Path],
    add_host_parts: Callable[[Path], Path],
    library: HostLibrary,
) -> None:
    from bitheads.engine.features.spec import LayerPooling, Order, Quantization

    words = {"quantization": Quantization, "order": Order, "layer_pooling": LayerPooling}
    chosen = {name: words.get(name, lambda v: v)(value) for name, value in options.items()}
    bundle = add_host_parts(build_bundle("bert", **chosen))
    engine = Engine.load(bundle, backend="openvino", precision="fp32")
    texts: list[Text] = list(texts_of_all_lengths())
    with HostEngine(library, bundle, precision="fp32") as host:
        assert host.spec_id == engine.spec.id
        assert_same_codes(host.encode(texts), engine.encode(texts))
        assert_same_answers(engine, host, texts)
