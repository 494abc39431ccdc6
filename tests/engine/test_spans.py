"""Heads of the kind `token_label`: from words to spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from random_heads import SPAN_LABELS, random_head, random_span_head

from bitheads import Engine, PackedFeatures
from bitheads.engine.errors import HeadError, InputError
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.heads.cpu import predict_heads
from bitheads.engine.heads.head_file import read_head, write_head
from bitheads.engine.kinds import Decision, token_label
from bitheads.engine.kinds.tag_sequences import best_tags, label_probabilities
from bitheads.engine.kinds.token_label import TokenLabel, count_inside
from bitheads.engine.predictions import Span

TAGS = ["O", "B-PERSON", "I-PERSON", "B-PLACE", "I-PLACE"]
TEXTS = [
    "Otto Hahn went to Göttingen, and to Bonn.",
    "",
    "😀 Lise Meitner (1878-1968)",
    ("a pair", "of texts"),
    "Ein Text ohne Namen ... 東京",
]


def spans_by_hand(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """First and last word, and label."""
    found: list[tuple[int, int, str]] = []
    for word, tag in enumerate(tags):
        mark, _, label = tag.partition("-")
        if mark == "B":
            found.append((word, word, label))
        elif mark == "I":
            first, _, before = found.pop()
            assert before == label
            found.append((first, word, label))
    return found


def sequences(words: int) -> Iterator[tuple[str, ...]]:
    """All that there may be: I after B or I of its label."""
    for tags in product(TAGS, repeat=words):
        if all(now[0] != "I" or before[1:] == now[1:] for before, now in pairwise(("O", *tags))):
            yield tags


def by_enumeration(logits: NDArray[np.float32]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The likeliest tags of a text, and of each word the probabilities of SPAN_LABELS."""
    found = [*sequences(len(logits))]
    sums = np.array(
        [
            sum(row[TAGS.index(t)] for row, t in zip(logits.tolist(), tags, strict=True))
            for tags in found
        ]
    )
    odds = np.exp(sums - sums.max())
    of_labels = np.zeros((len(logits), len(SPAN_LABELS)))
    for tags, odd in zip(found, odds / odds.sum(), strict=True):
        for word, tag in enumerate(tags):
            if tag != "O":
                of_labels[word, SPAN_LABELS.index(tag[2:])] += odd
    return found[int(sums.argmax())], of_labels


@pytest.mark.parametrize("spread", [1, 30])
def test_spans_are_those_of_the_likeliest_sequence(spread: int) -> None:
    rng = np.random.default_rng(0)
    num_repaired = 0
    for _ in range(10):
        counts = rng.integers(0, 6, 5)
        offsets = np.cumsum([0, *counts])
        logits = rng.normal(0, spread, (offsets[-1], len(TAGS))).astype(np.float32)
        expected, least = [], []
        for start, end in pairwise(offsets.tolist()):
            tags, of_labels = by_enumeration(logits[start:end])
            num_repaired += tags != tuple(TAGS[i] for i in logits[start:end].argmax(axis=1))
            for i, j, label in spans_by_hand(tags):
                expected.append((start + i, start + j, label))
                least.append(of_labels[i : j + 1, SPAN_LABELS.index(label)].min())
            own = np.array([0, end - start])
            np.testing.assert_allclose(
                label_probabilities(logits[start:end], own), of_labels, atol=1e-6
            )
        found = TokenLabel().spans(logits, offsets, SPAN_LABELS)
        got = zip(found.first, found.last, [SPAN_LABELS[i] for i in found.label], strict=True)
        assert [(int(i), int(j), label) for i, j, label in got] == expected
        np.testing.assert_allclose(found.probability, least, atol=1e-6)
        assert len(expected) <= count_inside(logits)
    assert num_repaired > 10


def test_texts_without_spans_cost_no_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of the others are the bits that they are beside all words."""
    asked: list[int] = []

    def count(logits: Any, offsets: Any) -> Any:
        asked.append(len(offsets) - 1)
        return label_probabilities(logits, offsets)

    monkeypatch.setattr(token_label, "label_probabilities", count)
    random = np.random.default_rng(0)
    for favour_none in (0, 4, 30):
        offsets = offsets_of(random.integers(0, 12, size=20))
        logits = random.normal(size=(int(offsets[-1]), 11)).astype(np.float32) * 3
        logits[:, 0] += favour_none
        found = TokenLabel().spans(logits, offsets, ("a", "b", "c", "d", "e"))
        whole = label_probabilities(logits, offsets)
        expected = token_label.least(whole, found.first, found.last, found.label)
        np.testing.assert_array_equal(found.probability, expected)
        texts = np.unique(np.searchsorted(offsets, found.first, side="right") - 1)
        assert asked.pop() == len(texts)
    assert len(texts) == 0


def test_logits_without_measure() -> None:
    """Where exponentials of sums would be 0 or infinite: whatever is said is a number."""
    logits = np.array([[-3e38, -3e38, 3e38, 0, 3e38], [0, 0, 0, 0, 3e38]] * 40, np.float32)
    found = label_probabilities(logits, np.array([0, 3, 80]))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_every_part_of_a_text_that_is_found(tiny_engine: Engine) -> None:
    """Against the head asked of each word's codes by itself."""
    head = random_span_head(tiny_engine.spec)
    tiny_engine.use_head(tiny_engine.encoder.load_head(head))
    prediction = tiny_engine.predict(TEXTS)["names"]
    assert prediction.answered.tolist() == [True, True, True, False, True]
    assert prediction.num_texts == len(TEXTS)
    features = tiny_engine.encode(TEXTS, words=True)
    words = features.words
    assert words is not None
    found = 0
    for i, text in enumerate(TEXTS):
        if isinstance(text, tuple):
            assert prediction.spans[i] == ()
            continue
        rows, places = [], []
        for token, count, start, end in words[np.array([i])].table.tolist():
            first = int(features.offsets[i]) + token
            codes = features.codes[first : first + count]
            alone = PackedFeatures(codes, np.array([0, count]), features.spec)
            as_one_label = replace(head, kind="single_label", labels=tuple(TAGS))
            rows.append(predict_heads(alone, [as_one_label])["names"].logits)
            places.append((start, end))
        logits = np.concatenate([np.empty((0, len(TAGS)), np.float32), *rows])
        assert np.array_equal(prediction[np.array([i])].logits, logits)
        tags = [TAGS[k] for k in best_tags(logits, np.array([0, len(logits)]))]
        expected = [(places[i][0], places[j][1], label) for i, j, label in spans_by_hand(tags)]
        assert [(s.start, s.end, s.label) for s in prediction.spans[i]] == expected
        assert all(0 <= a.start < a.end <= b.start for a, b in pairwise(prediction.spans[i]))
        found += len(expected)
    assert found > 5
    assert prediction.spans[1] == ()


def test_words_are_asked_for_where_a_head_wants_them(tiny_engine: Engine) -> None:
    load = tiny_engine.encoder.load_head
    tiny_engine.use_head(load(random_span_head(tiny_engine.spec)))
    tiny_engine.use_head(load(random_head(tiny_engine.spec, "tone")))
    both = tiny_engine.predict(TEXTS)
    assert both["tone"].top[3] is None
    without = tiny_engine.encode(TEXTS)
    assert without.words is None
    assert set(tiny_engine.predict_features(without)) == {"tone"}
    with pytest.raises(InputError, match="got none of words, expected them for a head of the kind"):
        tiny_engine.predict_features(without, ["names"])
    stored = tiny_engine.predict_features(tiny_engine.encode(TEXTS, words=True))
    assert stored["names"].spans == both["names"].spans
    assert np.array_equal(stored["tone"].logits, both["tone"].logits, equal_nan=True)
    assert list(both) == list(stored) == ["names", "tone"]
    assert tiny_engine.encode([("a", "pair")], words=True).words is not None
    streamed = [*tiny_engine.encode_stream(TEXTS, chunk_texts=2, words=True)]
    joined = PackedFeatures.concat(streamed)
    assert tiny_engine.predict_features(joined)["names"].spans == both["names"].spans
    some = tiny_engine.predict_features(joined[[4, 0]])["names"]
    assert some.spans == (both["names"].spans[4], both["names"].spans[0])
    assert both["names"][np.array([4, 0])].spans == some.spans


def test_long_texts(tiny_engine: Engine) -> None:
    """What is cut is said; in windows, all of it is read, and each word once."""
    length = tiny_engine.manifest.encoder.max_length
    text = " ".join(f"word{i} unaffable" for i in range(length))
    head = random_span_head(tiny_engine.spec)
    tiny_engine.use_head(tiny_engine.encoder.load_head(head))
    cut = tiny_engine.predict([text, "short"])["names"]
    at = cut.truncated_at[0]
    assert at is not None
    assert text[:at].split() == text.split()[: len(text[:at].split())], "between two words"
    assert 0 < max(span.end for span in cut.spans[0]) <= at < len(text)
    assert cut.truncated_at[1] is None
    whole = tiny_engine.predict([text, "short"], long_texts="split")["names"]
    assert whole.truncated_at == (None, None)
    assert whole.words is not None
    starts = whole.words[slice(0, 1)].table[:, 2]
    assert starts.tolist() == [0, *(i + 1 for i, c in enumerate(text) if c == " ")]
    assert np.array_equal(cut.logits[0], whole.logits[0])
    assert whole.spans[0][-1].end > at


def test_texts_of_no_words(tiny_engine: Engine) -> None:
    tiny_engine.use_head(tiny_engine.encoder.load_head(random_span_head(tiny_engine.spec)))
    prediction = tiny_engine.predict(["", " \t "])["names"]
    assert prediction.spans == ((), ())
    assert prediction.has_label.tolist() == [[False, False]] * 2
    assert prediction.accepted.all()
    assert tiny_engine.predict([]).get("names") is not None


def test_a_head_file(tiny_engine: Engine, tmp_path: Any) -> None:
    head = random_span_head(tiny_engine.spec)
    write_head(head, tmp_path / "names.safetensors")
    again = read_head(tmp_path / "names.safetensors")
    assert (again.kind, again.labels, again.format_version) == ("token_label", SPAN_LABELS, 2)
    for wrong, message in (
        ({"form": "pair"}, "form is 'pair', expected 'single' of a token_label head"),
        ({"decision": Decision(reject_above=0.0)}, "has a reject output, expected none of a tok"),
        ({"decision": Decision(abstain_below=0.5)}, "which a token_label head has not"),
        ({"labels": ()}, "expected at least 1"),
    ):
        with pytest.raises(HeadError, match=message):
            replace(head, **wrong)


def test_span_is_a_part_of_the_text() -> None:
    text = "Mit 😀 nach Köln"
    span = Span(11, 15, "PLACE", 0.9)
    assert text[span.start : span.end] == "Köln"


def test_a_word_at_the_end_is_as_long_as_elsewhere(tiny_engine: Engine) -> None:
    """Behind its last token there may be marks that the tokenizer drops."""
    words = tiny_engine.encode(["e\u0301", "e\u0301 e\u0301\u200d b"], words=True).words
    assert words is not None
    assert words.table[:, 2:].tolist() == [[0, 2], [0, 2], [3, 6], [7, 8]]
