"""Heads that know which texts are none of their business: background, threshold, probability."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bitheads import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.heads.head_file import read_head
from bitheads.training.data.background import read_background
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.heads.background import (
    background_texts,
    default_background,
    split_background,
)
from bitheads.training.heads.config import FitConfig, HeadConfig
from bitheads.training.heads.train_head import train_head

DATA = Path(__file__).parents[2] / "data"
TOPICS, PAIRS = DATA / "topics.tsv", DATA / "paraphrase.tsv"

STRANGE = [
    "The court finds that the contract was void from the beginning.",
    "My grandmother sang in the choir until she was ninety.",
    "Call me Ishmael.",
    "Interest rates will stay where they are, said the central bank.",
    "lol ok see u at 8 then",
    "asdf jkl qwerty zxcv",
    "Dies ist kein englischer Satz.",
    "Section 4, paragraph 2 shall apply accordingly.",
]


@pytest.fixture(scope="module")
def trained(minilm_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head of real texts' topics, with the background that comes with the project."""
    output = tmp_path_factory.mktemp("rejection") / "tested.safetensors"
    config = HeadConfig("tested", TOPICS, TOPICS, output)
    train_head(Engine.load(minilm_bundle), config, FitConfig(epochs=5))
    return output


@pytest.mark.long
def test_it_accepts_its_own_and_rejects_others(trained: Path, minilm_bundle: Path) -> None:
    engine = Engine.load(minilm_bundle)
    engine.add_head(trained)
    own = engine.predict(read_labelled(TOPICS).texts, ["tested"])["tested"]
    assert 0.98 <= own.accepted.mean() <= 1  # what --keep asks for, of dev
    others = engine.predict(STRANGE, ["tested"])["tested"]
    assert others.accepted.sum() <= 1
    assert own.out_of_domain is not None
    assert others.out_of_domain is not None
    assert np.median(own.out_of_domain) < 0.1
    assert np.median(others.out_of_domain) > 0.9
    # The probabilities are of the labels alone.
    np.testing.assert_allclose(others.probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.long
def test_what_the_file_says(trained: Path) -> None:
    head = read_head(trained)
    assert head.format_version == 2
    assert head.num_outputs == len(head.labels) + 1
    assert [item["file"] for item in head.training["background"]] == ["background.txt"]
    assert head.metrics["dev_accepted"] >= 0.99
    assert head.metrics["dev_reject_auroc"] > 0.94


def test_without_background_it_is_a_head_of_version_1(tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "tested.safetensors"
    config = HeadConfig("tested", TOPICS, TOPICS, output, reject=False)
    train_head(Engine.load(tiny_bundle), config, FitConfig(epochs=1))
    head = read_head(output)
    assert head.format_version == 1
    assert head.num_outputs == len(head.labels)


def test_a_heads_own_texts_are_no_background(tmp_path: Path) -> None:
    own = read_labelled(TOPICS)
    path = tmp_path / "others.txt"
    others = default_background().read_text(encoding="utf-8").splitlines()[:100]
    path.write_text("\n".join([*others, str(own.texts[0]).upper(), f" {own.texts[1]} "]) + "\n")
    assert background_texts([read_background(path)], [own]) == others


def test_near_duplicates_are_no_background(minilm_bundle: Path) -> None:
    engine = Engine.load(minilm_bundle)
    own = read_labelled(TOPICS).texts[:200]
    others = default_background().read_text(encoding="utf-8").splitlines()[:200]
    nearly = [f"{text}." for text in own[:50]]
    found = split_background(engine.encode([*nearly, *others]), engine.encode(own))
    kept = len(found.train) + len(found.held_out)
    assert 190 <= kept <= 205
    assert len(found.held_out) == kept // 5


def test_background_of_pairs_is_pairs(tmp_path: Path) -> None:
    own = read_labelled(PAIRS)
    found = background_texts([read_background(default_background())], [own])
    assert all(isinstance(text, tuple) and text[0] != text[1] for text in found[:100])
    table = tmp_path / "other.tsv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows.writerow(["text_a", "text_b"])
        rows.writerows((f"left {i}", f"right {i}") for i in range(60))
    pairs = background_texts([read_background(table)], [own])
    assert pairs == [(f"left {i}", f"right {i}") for i in range(60)]
    singles = background_texts([read_background(table)], [read_labelled(TOPICS)])
    assert {*singles} == {f"{side} {i}" for side in ("left", "right") for i in range(60)}


def test_the_training_file_is_no_background() -> None:
    with pytest.raises(InputError, match=r"is the file .*topics\.tsv of the task itself"):
        background_texts([read_background(TOPICS)], [read_labelled(TOPICS)])


def test_hardly_any_background(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("one\ntwo\n")
    with pytest.raises(InputError, match="got 2 texts that are not the task's own, expected at"):
        background_texts([read_background(path)], [read_labelled(TOPICS)])
