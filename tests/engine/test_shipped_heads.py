"""The heads that come with the default encoder, on the texts of the demo."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from bitheads import Engine, Predictions
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


def test_six_kinds_and_more_under_ten_megabytes(engine: Engine) -> None:
    tasks = engine.tasks
    assert {"sentiment", "topic", "spam", "offensive", "intent", "duplicate"} <= set(tasks)
    assert len(tasks["intent"].labels) == 150
    assert tasks["duplicate"].form == "pair"
    shipped = files("bitheads.export") / "heads" / "all-MiniLM-L6-v2"
    assert sum(Path(str(path)).stat().st_size for path in shipped.iterdir()) < TEN_MEGABYTES


def test_better_than_the_majority(engine: Engine) -> None:
    for name, task in engine.tasks.items():
        assert task.metrics["test_accuracy"] > task.metrics["test_majority"] + 0.05, name


def answer(predictions: Predictions, task: str, texts: list[Text], start: str) -> str:
    """The task's answer for the text that begins so."""
    (row,) = (
        i
        for i, text in enumerate(texts)
        if (text[0] if isinstance(text, tuple) else text).startswith(start)
    )
    return predictions[task].top[row]


def test_plain_cases_are_answered_right(engine: Engine, demo: list[Text]) -> None:
    predictions = engine.predict(demo)
    for task, start, label in [
        ("sentiment", "A warm, sharply written comedy", "pos"),
        ("sentiment", "Dull, badly lit and forty minutes too long", "neg"),
        ("topic", "Midfielder Jon Haldane scored", "Sports"),
        ("topic", "Shares of chemical maker", "Business"),
        ("spam", "Congratulations! Your e-mail address", "spam"),
        ("spam", "Hi Karin, the plumber", "ham"),
        ("intent", "Transfer 50 dollars", "transfer"),
        ("intent", "Set a timer for ten minutes", "timer"),
        ("duplicate", "How can I learn to play the guitar", "duplicate"),
        ("duplicate", "How do I get red wine out", "not"),
    ]:
        assert answer(predictions, task, demo, start) == label, (task, start)
