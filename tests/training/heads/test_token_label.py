"""Heads of spans: what they learn and what is decided, where the truth is known, and from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from test_fit import SPEC

from bitheads import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.features.words import Words, find_words
from bitheads.engine.heads.head_file import read_head
from bitheads.engine.predictions import Prediction
from bitheads.training.data.labelled_texts import LabelledTexts, labelled_from, read_labelled
from bitheads.training.heads.__main__ import main
from bitheads.training.heads.config import FIT_OF_WORDS, HeadConfig
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.objectives import objective_of
from bitheads.training.heads.objectives.token_label import (
    SequenceLoss,
    SpanTargets,
    TokenLabelObjective,
)
from bitheads.training.heads.train_head import measure, train_head
from bitheads.training.metrics import span_metrics

NAMES = Path(__file__).parents[2] / "data" / "names.jsonl"
LABELS = ("PERSON", "PLACE")


def words_of(texts: list[str], without: tuple[str, ...] = ()) -> Words:
    """As of an encoder with a token for each word, but for some words."""
    tables = [
        [
            (i, 1, s, e)
            for i, (s, e) in enumerate(find_words(text).tolist())
            if text[s:e] not in without
        ]
        for text in texts
    ]
    table = np.array([row for rows in tables for row in rows], np.int32).reshape(-1, 4)
    offsets = np.cumsum([0, *map(len, tables)])
    read = np.full(len(texts), -1)
    return Words(table, offsets, read, np.ones(len(texts), np.bool_))


def placed(data: LabelledTexts, words: Words) -> SpanTargets:
    """What `encoded` gives, of codes of no matter."""
    offsets = np.cumsum([0, *(find_words(text).shape[0] + 1 for text in map(str, data.texts))])
    codes = np.zeros((offsets[-1], 2), np.uint8)
    features = PackedFeatures(codes, offsets, SPEC, words=words)
    objective = TokenLabelObjective(LABELS)
    targets, rows = objective.encoded(objective.targets(data), features)
    assert isinstance(targets, SpanTargets)
    assert len(rows) == len(words.table)
    return targets


def test_targets_are_tags_of_words() -> None:
    rows = [
        ("Lise Meitner, Wien", [(0, 12, "PERSON"), (14, 18, "PLACE")]),
        ("nobody", []),
        ("Ann Bob \u200b Rome", [(0, 3, "PERSON"), (4, 7, "PERSON"), (8, 14, "PLACE")]),
    ]
    spans = [[dict(zip(("start", "end", "label"), s, strict=True)) for s in own] for _, own in rows]
    data = labelled_from([(text, own) for (text, _), own in zip(rows, spans, strict=True)])
    words = words_of([text for text, _ in rows])
    targets = placed(data, words)
    assert targets.tags is not None
    assert targets.tags.tolist() == [1, 2, 0, 3, 0, 1, 1, 3, 4]
    assert targets.num_lost == 0
    assert TokenLabelObjective(LABELS).remark(targets) == ""
    # A word of no token begins nothing: the next one does.
    targets = placed(data, words_of([text for text, _ in rows], without=("\u200b", "nobody")))
    assert targets.tags is not None
    assert targets.tags.tolist() == [1, 2, 0, 3, 1, 1, 3]
    assert targets.num_lost == 1
    assert TokenLabelObjective(LABELS).remark(targets).startswith("1 of 5 spans begin or end with")


def test_metrics_against_spans_counted_by_hand() -> None:
    truth = np.array([[0, 0, 4, 0], [0, 5, 9, 1], [1, 0, 4, 0], [2, 0, 4, 0]])
    found = np.array([[0, 0, 4, 0], [0, 5, 9, 0], [1, 0, 3, 0], [2, 0, 4, 0], [2, 6, 8, 2]])
    result = span_metrics(truth, found, ("A", "B", "C"))
    assert result["span_precision"] == pytest.approx(2 / 5)
    assert result["span_recall"] == pytest.approx(2 / 4)
    assert result["span_f1"] == pytest.approx(4 / 9)
    assert result["span_f1/A"] == pytest.approx(2 * 2 / (3 + 4))
    assert result["span_f1/B"] == 0
    assert "span_f1/C" not in result, "it is not there to be found"
    assert result["span_macro_f1"] == pytest.approx(2 / 7)
    assert result["span_f1_any_label"] == pytest.approx(2 * 3 / 9)
    nothing = span_metrics(truth[:0], found[:0], ("A",))
    assert nothing["span_f1"] == nothing["span_macro_f1"] == 1.0
    assert span_metrics(truth, found[:0], ("A", "B"))["span_f1"] == 0.0


def noisy(texts: int, seed: int) -> tuple[SpanTargets, NDArray[np.float32]]:
    """Texts of names of three words, and the log odds that a tagger of single words gives them."""
    random = np.random.default_rng(seed)
    rows: list[tuple[str, list[dict[str, Any]]]] = []
    for _ in range(texts):
        text, spans = "", []
        for _ in range(random.integers(1, 4)):
            text += "w " * random.integers(0, 6)
            if random.random() < 0.7:
                label = LABELS[random.integers(2)]
                spans.append({"start": len(text), "end": len(text) + 5, "label": label})
                text += "a b c "
        rows.append((text + "w", spans))
    targets = placed(labelled_from(rows, "token_label"), words_of([text for text, _ in rows]))
    tags = targets.tags
    assert tags is not None
    # What is seen of a word is its tag in noise: the log odds are then known.
    seen = np.eye(5)[tags] * 2 + random.normal(0, 1, (len(tags), 5))
    log_odds = 2 * seen + np.log(np.bincount(tags, minlength=5) / len(tags))
    return targets, log_odds.astype(np.float32)


def test_decision_knows_what_follows_what() -> None:
    train, _ = noisy(2000, 0)
    dev, dev_logits = noisy(1000, 1)
    test, test_logits = noisy(1000, 2)
    objective = TokenLabelObjective(LABELS)
    loss = objective.new_loss(train)
    assert isinstance(loss, SequenceLoss)
    decided = objective.decide(dev_logits, dev, loss)

    def measured(logits: NDArray[np.float32]) -> dict[str, float]:
        return objective.metrics(Prediction(LABELS, logits, "token_label", words=test.words), test)

    shifted = test_logits * np.float32(decided.scale) + decided.shift.astype(np.float32)
    after, before = measured(shifted), measured(test_logits)
    assert after["span_f1"] > before["span_f1"] + 0.05
    assert after["ece"] < 0.08
    assert after["word_accuracy"] > before["word_accuracy"]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("names")
    rows = NAMES.read_text(encoding="utf-8").splitlines()
    parts = {"train": rows[:54], "dev": rows[54:72], "test": rows[72:]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(part), encoding="utf-8")
    return {name: folder / f"{name}.jsonl" for name in parts}


def arguments(bundle: Path, files: dict[str, Path], output: Path, *more: str) -> list[str]:
    named = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    required = ["--bundle", str(bundle), "--task", "names", "--output", str(output)]
    return [*required, *named, *more]


def test_learns_and_is_served(
    minilm_bundle: Path,
    names: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "names.safetensors"
    assert main(arguments(minilm_bundle, names, output, "--dtype", "float16", "--json")) == 0
    printed = capsys.readouterr()
    metrics = json.loads(printed.out)["metrics"]
    assert "token_label, 2 labels: PERSON, PLACE" in printed.err
    assert "background" not in printed.err
    assert "span f1/PERSON" in printed.err
    assert metrics["test_span_f1"] >= 0.8

    with safe_open(output, "np") as file:
        header = json.loads(file.metadata()["bitheads_head"])
    assert (header["format_version"], header["kind"]) == (2, "token_label")
    assert header["position_pooling"] == "mean"
    assert header["training"]["settings"]["epochs"] == FIT_OF_WORDS.epochs

    engine = Engine.load(minilm_bundle)
    engine.add_head(output)
    test = read_labelled(names["test"])
    served = engine.predict(test.texts, ["names"])["names"]
    got = [tuple((s.start, s.end, s.label) for s in spans) for spans in served.spans]
    pairs = [*zip(got, test.labels, strict=True)]
    hits = sum(len({*found} & {*truth}) for found, truth in pairs)
    both = sum(len(found) + len(truth) for found, truth in pairs)
    assert metrics["test_span_f1"] == pytest.approx(2 * hits / both)


def test_folded_head_is_the_trained_one(
    tiny_bundle: Path, names: dict[str, Path], tmp_path: Path
) -> None:
    """On words, of any pooling; and what is measured is what `measure` says of a read head."""
    engine = Engine.load(tiny_bundle, backend="onnxruntime")
    for pooling in (PositionPooling.MEAN, PositionPooling.ATTENTION, PositionPooling.CLS):
        output = tmp_path / f"{pooling}.safetensors"
        files = HeadConfig("names", names["train"], names["dev"], output)
        head = train_head(engine, files, {"epochs": 2, "position_pooling": pooling}).head
        assert head.metrics["dev_fold_max_abs_error"] <= 1e-4
        dev = read_labelled(names["dev"])
        objective = objective_of(read_labelled(names["train"]), DecisionOptions())
        features = engine.encode(dev.texts, words=True)
        again = measure(read_head(output), objective, features, objective.targets(dev))
        assert {
            f"dev_{name}": value for name, value in again.items()
        }.items() <= head.metrics.items()


def test_spans_behind_the_cut_are_learnt(tiny_bundle: Path, tmp_path: Path) -> None:
    engine = Engine.load(tiny_bundle, backend="onnxruntime")
    long = "word " * engine.manifest.encoder.max_length
    rows = [
        {
            "text": f"{long}Rome",
            "spans": [{"start": len(long), "end": len(long) + 4, "label": "PLACE"}],
        }
    ] * 3
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said: list[str] = []
    files = HeadConfig("names", path, path, tmp_path / "names.safetensors")
    settings = {"epochs": 40, "patience": 40, "learning_rate": 3e-3}
    head = train_head(engine, files, settings, said.append).head
    assert head.metrics["dev_span_f1"] == 1.0
    assert any(line.startswith("train: 3 single texts") and " 0 cut" in line for line in said)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--background", str(NAMES)),
            "got background texts for a token_label head, expected none",
        ),
        (("--abstain-below", "0.5"), "got abstain_below 0.5 for a token_label head, expected it"),
        (("--kind", "multi_label"), "got the columns ['text', 'spans'], expected labels, which a"),
    ],
)
def test_what_spans_have_not(
    tiny_bundle: Path,
    names: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    output = tmp_path / "names.safetensors"
    assert main(arguments(tiny_bundle, names, output, *more)) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_texts_without_a_word(tiny_bundle: Path, names: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text('{"text": " ", "spans": []}\n', encoding="utf-8")
    files = HeadConfig("names", names["train"], path, tmp_path / "names.safetensors")
    with pytest.raises(InputError, match=r"dev\.jsonl: has texts without a word, expected some"):
        train_head(Engine.load(tiny_bundle), files)
