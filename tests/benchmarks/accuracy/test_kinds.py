"""Heads of other kinds beside linear models, and what shipped heads refuse, on a tiny encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_heads import random_head

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.accuracy import kinds, linear, rejection, table, variants
from benchmarks.accuracy.tasks import TASKS
from bitheads import Engine
from bitheads.engine.bundle import read_manifest
from bitheads.engine.features.words import find_words
from bitheads.engine.heads.head_file import read_head, write_head
from bitheads.engine.kinds import Decision
from bitheads.export.make_bundle import make_bundle
from bitheads.training.data.background import read_background
from bitheads.training.data.labelled_texts import labelled_from
from bitheads.training.heads.background import default_background
from bitheads.training.heads.config import FitConfig
from bitheads.training.heads.decision_options import DEFAULT_OPTIONS
from bitheads.training.heads.objectives import objective_of

ROWS = 40


@pytest.fixture
def texts() -> list[str]:
    """Real ones, a few hundred."""
    return [str(text) for text in read_background(default_background()).texts[:400]]


@pytest.fixture
def folders(texts: list[str], tmp_path: Path) -> tuple[Path, Path]:
    """`--data` and `--kinds`, with few rows of every file that is asked for."""
    data, other = tmp_path / "data", tmp_path / "kinds"
    label_of = {
        "label": lambda i: "ab"[i % 2],
        "labels": lambda i: ("", "joy", "fear|joy")[i % 3],
        "score": lambda i: f"{i % 6}.5",
        "stars": lambda i: str(1 + i % 5),
    }

    def write(path: Path, column: str, pair: bool, first: int, rows: int = ROWS) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            "\t".join(
                [column.replace("stars", "label"), *(["text_a", "text_b"] if pair else ["text"])]
            )
        ]
        for i in range(first, first + rows):
            shown = texts[i % 400].replace("\t", " ")
            lines.append(
                "\t".join([label_of[column](i), shown, *([texts[-1 - i % 400]] if pair else [])])
            )
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    for place, part in enumerate(("train", "dev", "test")):
        for task, folder in TASKS.items():
            write(data / folder / f"{part}.tsv", "label", task == "duplicate", place * ROWS)
        write(other / "go_emotions" / f"{part}.tsv", "labels", False, 120 + place * ROWS)
        write(data / "amazon5" / f"{part}.tsv", "stars", False, 240 + place * ROWS)
        if part != "test":
            write(other / "sts_b" / f"{part}.tsv", "score", True, 200 + place * ROWS)
    for source in rejection.SOURCES.values():
        path = (other if source.option == "kinds" else data) / source.file
        if path.suffix == ".tsv" and not path.exists():
            write(path, "label", path.parent.name in ("mrpc", "qnli", "mnli", "rte"), 300)
    for folder, name in (("background", "wikipedia.txt"), ("out_of_scope", "clinc150.tsv")):
        (other / folder).mkdir()
        (other / folder / name).write_text("\n".join(["text", *texts[:ROWS]]), encoding="utf-8")
    (other / "pii").mkdir()
    for part in ("train", "dev", "test"):
        rows = []
        for text in texts[:ROWS]:
            first, last = find_words(text)[[0, -1]].tolist()
            places = [first] if first == last else [first, last]
            spans = [
                {"start": start, "end": end, "label": label}
                for (start, end), label in zip(places, "ab", strict=False)
            ]
            rows.append(json.dumps({"text": text, "spans": spans}))
        (other / "pii" / f"{part}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return data, other


@pytest.fixture
def quick(
    few_texts: Path, traced_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Few calibration texts and epochs; where results are stored."""
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    monkeypatch.setattr(record, "RESULTS", results)
    monkeypatch.setattr(variants, "LEARNING_RATES", (1e-3,))
    monkeypatch.setattr(kinds, "LEARNING_RATES", (1e-3,))
    monkeypatch.setattr(variants, "FitConfig", lambda **options: FitConfig(epochs=1, **options))
    monkeypatch.setattr(
        variants,
        "make_bundle",
        lambda config, say: make_bundle(replace(config, calibration=few_texts), say),
    )
    monkeypatch.setattr(variants.precisions, "find_spec", lambda name: None)
    return results


@pytest.mark.long
def test_every_kind_is_measured_and_stored(
    quick: Path,
    folders: tuple[Path, Path],
    tiny_encoder: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    data, other = folders
    words = ["accuracy", "--encoder", str(tiny_encoder("bert")), "--data", str(data)]
    words += ["--kinds", str(other), "--write-heads", str(tmp_path / "heads")]
    assert command_line.main(words) == 0
    stored = record.read("accuracy_of_kinds")
    found = stored["result"]
    assert {task: row["kind"] for task, row in found.items()} == {
        "emotions": "multi_label",
        "similarity": "regression",
        "stars": "ordinal",
        "personal_data": "token_label",
    }
    # Of scores there is no test file: a tenth of the training rows is held back, dev is the test.
    assert found["similarity"]["texts"] == {"train": 36, "dev": 4, "test": ROWS}
    for row in found.values():
        features = ("signs", "uint8", "float16", "linear")
        for feature in features[: 3 if row["kind"] == "token_label" else 4]:
            for figure in table.FIGURES[row["kind"]]:
                assert np.isfinite(row[feature][f"test_{figure}"])
    lines = table.of_kinds(stored).splitlines()
    assert lines[2].startswith("| emotions | go_emotions | `multi_label` | micro F1 | ")
    names = {path.name for path in (tmp_path / "heads").iterdir()}
    assert names == {"emotions.safetensors", "personal_data.safetensors"}
    head = read_head(tmp_path / "heads" / "emotions.safetensors")
    assert head.labels == ("fear", "joy")
    assert head.decision.reject_above is not None

    assert command_line.main([*words, "--tasks", "stars", "--features", "linear", "--update"]) == 0
    assert record.read("accuracy_of_kinds")["result"] == found


def test_what_is_refused_is_stored(
    folders: tuple[Path, Path],
    tiny_bundle: Path,
    tiny_encoder: Callable[[str], Path],
    few_texts: Path,
    traced_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, other = folders
    spec = read_manifest(tiny_bundle).spec
    decision = Decision(reject_above=0.0)
    for place, (task, form) in enumerate([("intent", "single"), ("duplicate", "pair")]):
        head = random_head(
            spec, task, classes=3, seed=place, labels=("a", "b"), form=form, decision=decision
        )
        write_head(head, tmp_path / "h" / f"{task}.safetensors")
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(
        rejection,
        "make_bundle",
        lambda config, say: make_bundle(
            replace(config, calibration=few_texts, heads=tmp_path / "h"), say
        ),
    )
    words = ["accuracy", "--encoder", str(tiny_encoder("bert")), "--data", str(data), "--shipped"]
    words += ["--kinds", str(other)]
    assert command_line.main([*words, "--tasks", "intent", "duplicate"]) == 0
    stored = record.read("rejection")
    found = stored["result"]
    assert {*found["intent"]["sources"]} == {*rejection.SOURCES}
    assert {*found["duplicate"]["sources"]} == {"qnli", "mnli", "rte"}
    assert found["duplicate"]["sources"]["qnli"]["texts"] == ROWS
    assert found["intent"]["sources"]["qnli"]["texts"] == 2 * ROWS
    # The same texts again are told from themselves as well as by a coin.
    assert found["intent"]["out_of_scope"]["auroc"] == found["intent"]["sources"]["pii"]["auroc"]
    shown = table.rejection(stored)
    assert "| **mean** | " in shown
    assert f"{ROWS} questions that are written like those of `intent`" in shown

    assert command_line.main([*words, "--tasks", "intent", "spam"]) == 1


def made_up(objective: str, rows: list[dict[str, Any]]) -> Any:
    return labelled_from(rows, kind=objective)


def test_linear_models_learn_what_is_there(minilm_bundle: Path) -> None:
    """On the usual embedding, which a bundle of the last layer has; here of the mean of four."""
    engine = Engine.load(minilm_bundle)
    good = [f"a {word} film" for word in ("lovely", "great", "warm", "brilliant", "moving")]
    bad = [f"a {word} film" for word in ("dull", "terrible", "stupid", "boring", "clumsy")]
    texts = [*good, *bad]
    several = made_up(
        "multi_label", [{"text": t, "labels": [["bad"], ["good"]][t in good]} for t in texts]
    )
    parts = dict.fromkeys(("train", "dev", "test"), several)
    found = linear.logistic_regressions(engine, parts, objective_of(several, DEFAULT_OPTIONS))
    assert found["micro_f1"] == 1
    ordered = made_up("ordinal", [{"text": t, "label": str(1 + (t in good))} for t in texts])
    parts = dict.fromkeys(("train", "dev", "test"), ordered)
    found = linear.ridge(engine, parts, objective_of(ordered, DEFAULT_OPTIONS))
    assert found["mean_absolute_error"] == 0
    pairs = [(good[0], good[0], 5.0), (good[0], good[1], 4.0), (good[0], "tax law of 1922", 0.5)]
    scores = made_up(
        "regression", [{"text_a": a, "text_b": b, "score": score} for a, b, score in pairs]
    )
    found = linear.cosine(engine, {"test": scores}, objective_of(scores, DEFAULT_OPTIONS))
    assert found["spearman"] == pytest.approx(1)
    lengths = np.linalg.norm(linear.embeddings(engine, texts), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["--tasks", "star"],
            "--tasks: got star, expected some of emotions, similarity, stars, personal_data.",
        ),
        (["--features", "no_reject"], "--features: got no_reject, expected some of signs, uint8"),
        ([], "no go_emotions/dev.tsv in it"),
        (["--shipped"], "Expected texts that are no task's there"),
    ],
)
def test_what_is_not_there_is_said_first(
    words: list[str],
    error: str,
    folders: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, other = folders
    (other / "go_emotions" / "dev.tsv").unlink()
    (other / "background" / "wikipedia.txt").unlink()
    assert command_line.main(["accuracy", "--data", str(data), "--kinds", str(other), *words]) == 1
    assert error in capsys.readouterr().err
