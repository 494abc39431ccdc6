"""The heads that come with the default encoder, on the texts of the demo."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from bitheads import Engine
from bitheads.engine.types import Text

TEN_MEGABYTES = 10_000_000


@pytest.fixture(scope="module")
def engine(minilm_bundle: Path) -> Engine:
    """The default bundle, which takes the shipped heads along."""
    return Engine.load(minilm_bundle)


@pytest.fixture(scope="module")
def demo() -> list[Text]:
    """The demo's texts and pairs."""
    content = (files("bitheads.engine") / "data" / "demo.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in content.splitlines()[1:]]
    return [(first, second) if second else first for first, second in rows]


def test_six_tasks_and_more_under_ten_megabytes(engine: Engine) -> None:
    tasks = engine.tasks
    assert {"sentiment", "topic", "spam", "offensive", "intent", "duplicate"} <= set(tasks)
    assert len(tasks["intent"].labels) == 150
    assert tasks["duplicate"].form == "two_texts"
    shipped = files("bitheads.export") / "heads" / "all-MiniLM-L6-v2"
    assert sum(Path(str(path)).stat().st_size for path in shipped.iterdir()) < TEN_MEGABYTES


def test_better_than_the_majority(engine: Engine) -> None:
    for name, task in engine.tasks.items():
        if task.kind == "single_label":
            assert task.metrics["test_accuracy"] > task.metrics["test_majority"] + 0.05, name
    assert engine.tasks["emotions"].kind == "multi_label"
    assert engine.tasks["emotions"].metrics["test_micro_f1"] > 0.5
    assert engine.tasks["personal_data"].kind == "token_label"
    assert engine.tasks["personal_data"].metrics["test_span_f1"] > 0.6


def test_they_know_how_sure_they_are_and_keep_their_own(engine: Engine) -> None:
    for name, task in engine.tasks.items():
        if name == "personal_data":  # spans have no reject output
            assert task.metrics["test_ece"] < 0.1
            continue
        assert task.metrics["test_accepted"] > 0.97, name
        assert task.metrics["test_reject_auroc"] > 0.9, name
        assert task.metrics.get("test_ece", 0) < 0.04, name


def test_most_heads_refuse_what_is_none_of_their_business(engine: Engine, demo: list[Text]) -> None:
    predictions = engine.predict(demo)
    for start, heads in [
        ("Set a timer for ten minutes", {"intent"}),
        ("Midfielder Jon Haldane scored", {"topic"}),
        ("A warm, sharply written comedy", {"sentiment"}),
    ]:
        row = row_of(demo, start)
        accepting = {
            task
            for task, found in predictions.items()
            if found.decision.can_refuse and found.accepted[row]
        }
        assert heads <= accepting, start
        assert "spam" not in accepting, start
        assert len(accepting) <= 3, start


def row_of(texts: list[Text], start: str) -> int:
    """Of the text that begins so."""
    (row,) = (
        i
        for i, text in enumerate(texts)
        if (text[0] if isinstance(text, tuple) else text).startswith(start)
    )
    return row


def test_plain_cases_are_answered_right_and_accepted(engine: Engine, demo: list[Text]) -> None:
    predictions = engine.predict(demo)
    for task, start, label in [
        ("sentiment", "A warm, sharply written comedy", "pos"),
        ("sentiment", "Dull, badly lit and forty minutes too long", "neg"),
        ("topic", "Midfielder Jon Haldane scored", "Sports"),
        ("topic", "Shares of chemical maker", "Business"),
        ("spam", "Lose 12 kilos in 10 days", "spam"),
        ("intent", "Transfer 50 dollars", "transfer"),
        ("intent", "Set a timer for ten minutes", "timer"),
        ("duplicate", "How can I learn to play the guitar", "duplicate"),
        ("duplicate", "How do I get red wine out", "not"),
    ]:
        row = row_of(demo, start)
        assert predictions[task].top[row] == label, (task, start)
        assert predictions[task].accepted[row], (task, start)
