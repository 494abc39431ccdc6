"""Few and many examples: what is drawn, what is measured, what the tables say of it."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy.variants import EMBEDDING, SIGNS
from benchmarks.few_shot import measure, options, table
from bitheads import Engine
from bitheads.engine.errors import InputError
from bitheads.training.data.labelled_texts import LabelledTexts, read_labelled

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def topics() -> LabelledTexts:
    return read_labelled(DATA / "topics.tsv")


def some(data: LabelledTexts, rows: slice) -> LabelledTexts:
    return replace(data, texts=data.texts[rows], labels=data.labels[rows], lines=data.lines[rows])


def test_examples_are_drawn_of_each_label(topics: LabelledTexts) -> None:
    few, again, other = (measure.drawn(topics, 8, seed) for seed in (0, 0, 1))
    assert set(Counter(few.labels).values()) == {8}
    assert few.texts == again.texts != other.texts
    known = dict(zip(topics.texts, topics.labels, strict=True))
    assert all(known[text] == label for text, label in zip(few.texts, few.labels, strict=True))
    assert len(measure.drawn(topics, 10_000, 0)) == len(topics)


@pytest.mark.long
def test_all_contenders_learn(minilm_bundle: Path, topics: LabelledTexts, tmp_path: Path) -> None:
    """On the same few examples, of which none is in the test."""
    engine = Engine.load(minilm_bundle)
    encode = measure._encoder_of(engine, tmp_path)
    sets = {
        "train": some(topics, slice(0, 120)),
        "dev": some(topics, slice(120, 150)),
        "test": some(topics, slice(150, None)),
    }
    by_name = {SIGNS: encode, EMBEDDING: encode}
    for size, draws in (("4", 2), (measure.FULL, 1)):
        found = measure._measure(engine, by_name, sets, size, draws, reject=False)
        assert found.pop("form") == ["single"] * draws
        assert set(found) == set(measure.CONTENDERS)
        for accuracies in found.values():
            assert len(accuracies) == draws
            assert min(accuracies) > 60


def test_tables() -> None:
    def cell(signs: float, embedding: float) -> dict[str, Any]:
        return {SIGNS: [signs, signs + 2], "pooled_signs": [50.0], EMBEDDING: [embedding]}

    tasks = {
        "one": {"form": "single", "8": cell(70, 69), "full": cell(89, 85)},
        "two": {"form": "pair", "8": cell(60, 63)},
    }
    stored = {
        **dict.fromkeys(("command", "date", "cpu", "name"), "x"),
        "cores": 2,
        "result": {"tasks": tasks},
    }
    by_size = table.means(stored)
    assert "| 8 | 2 | 66.0 | 50.0 | 66.0 | -2.0 |" in by_size
    assert "| full | 1 | 90.0 | 50.0 | 85.0 | +5.0 |" in by_size
    assert "| 32 |" not in by_size
    by_task = table.by_task(stored)
    assert "| one | single | 71.0 / 69.0 | 90.0 / 85.0 |" in by_task
    assert "| two | pair | 61.0 / 63.0 | - |" in by_task


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "1"], "--sizes: got 1, expected numbers from 2 on, or full"),
        (["--sizes", "few"], "--sizes: got few, expected numbers"),
        (["--draws", "0"], "--draws: got 0, expected at least 1"),
        (["--tasks", "absent"], "no absent/train.tsv in it"),
    ],
)
def test_what_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    parser = argparse.ArgumentParser()
    options.add_options(parser)
    with pytest.raises(InputError, match=message):
        measure.run(parser.parse_args(["--data", str(tmp_path), *arguments]))
