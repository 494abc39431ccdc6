"""Equal texts of a call go through the encoder once, and nobody can tell by the answers."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_heads import random_head, random_span_head, random_two_texts_head

from bitheads import Engine, InputError
from bitheads.engine.text_chunks import LEAST_TEXTS

FEW = ["the tide was out", "a boat came in", "", "the tide was out ", "boat " * 100]
PAIRS = [("the tide was out", "a boat came in"), ("a boat came in", "the tide was out")]


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Iterator[Engine]:
    """In fp32, which gives the same bits in any batch; heads of every form."""
    with Engine.load(tiny_bundle, "onnxruntime", precision="fp32") as loaded:
        for head in (
            random_head(loaded.spec, "attends"),
            random_head(loaded.spec, "pairs", seed=2, form="pair"),
            random_two_texts_head(loaded.spec, "compares"),
            random_span_head(loaded.spec, "names"),
        ):
            loaded.add_head(head)
        yield loaded


def repeated(texts: list[Any], count: int) -> list[Any]:
    draw = random.Random(count)
    return [*texts, *draw.choices(texts, k=count)]


def rows_run(engine: Engine, patch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each encoder call from now on."""
    session = engine._encoder._session  # type: ignore[attr-defined]
    run, rows = session.run, []

    def watched(batch: Any) -> Any:
        rows.append(len(batch.lengths))
        return run(batch)

    patch.setattr(session, "run", watched)
    return rows


@pytest.mark.parametrize("count", [3, 2 * LEAST_TEXTS], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("texts", [FEW, PAIRS, FEW + PAIRS], ids=["single", "pairs", "both"])
def test_codes_are_those_of_each_text(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    texts: list[Any],
    count: int,
) -> None:
    # In calls of one: no text meets its like.
    expected = {text: engine.encode([text], words=True) for text in texts}
    call = repeated(texts, count)
    rows = rows_run(engine, monkeypatch)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "bitheads"):
        found = engine.encode(call, max_batch_tokens=8, words=True)
    assert sum(rows) == len(texts) == found.stats.num_windows
    assert found.stats.num_tokens == sum(each.num_tokens.sum() for each in expected.values())
    assert len(found) == len(call) == found.stats.num_texts
    long_texts = sum(text == FEW[-1] for text in call)
    assert found.stats.num_truncated == long_texts
    said = [record.getMessage() for record in caplog.records]
    wanted = (
        f"{long_texts} of {len(call)} texts were longer than {engine.manifest.encoder.max_length}"
    )
    assert [line.startswith(wanted) for line in said] == [True] * (long_texts > 0)
    for i, text in enumerate(call):
        one, each = found[i], expected[text]
        np.testing.assert_array_equal(one.codes, each.codes)
        np.testing.assert_array_equal(one.pairs, each.pairs)
        assert one.words is not None
        assert each.words is not None
        np.testing.assert_array_equal(one.words.table, each.words.table)
        np.testing.assert_array_equal(one.words.truncated_at, each.words.truncated_at)


@pytest.mark.parametrize("count", [3, 2 * LEAST_TEXTS], ids=["one chunk", "chunks"])
@pytest.mark.parametrize(
    "tasks", [["attends"], ["pairs"], ["compares"], ["names"], ["attends", "compares"], None]
)
def test_answers_are_those_of_each_text(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tasks: list[str] | None, count: int
) -> None:
    texts = FEW + PAIRS
    expected = [
        engine.predict([text], [task for task in tasks or engine.tasks if fits(task, text)])
        if any(fits(task, text) for task in tasks or engine.tasks)
        else {}
        for text in texts
    ]
    call = repeated(texts, count)
    rows = rows_run(engine, monkeypatch)
    found = engine.predict(call, tasks, max_batch_tokens=8)
    assert sum(rows) <= len(texts)
    assert found.stats.num_texts == len(call)
    assert {*found} == {*(tasks or engine.tasks)}
    for task, answer in found.items():
        assert answer.num_texts == len(call)
        for i, text in enumerate(call):
            assert bool(answer.answered[i]) == fits(task, text)
            if fits(task, text):
                each = expected[texts.index(text)][task]
                np.testing.assert_array_equal(answer[np.array([i])].logits, each.logits)
        if task == "names":
            of_texts = {text: expected[i][task].spans[0] for i, text in enumerate(FEW)}
            assert answer.spans == tuple(of_texts.get(text, ()) for text in call)


def fits(task: str, text: Any) -> bool:
    return (task in ("pairs", "compares")) == isinstance(text, tuple)


def test_windows_of_long_texts_are_read_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {text: engine.encode([text], long_texts="split") for text in FEW}
    call = repeated(FEW, 9)
    rows = rows_run(engine, monkeypatch)
    found = engine.encode(call, long_texts="split")
    assert sum(rows) == sum(each.stats.num_windows for each in expected.values()) > len(FEW)
    for one, text in zip(found, call, strict=True):
        np.testing.assert_array_equal(one.codes, expected[text].codes)


def test_a_stream_reads_them_once_in_a_chunk(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {text: engine.encode([text]).codes for text in FEW}
    rows = rows_run(engine, monkeypatch)
    chunks = [*engine.encode_stream(iter(FEW * 20), chunk_texts=50)]
    assert sum(rows) == 2 * len(FEW)
    assert sum(chunk.stats.num_texts for chunk in chunks) == 100
    codes = [one.codes for chunk in chunks for one in chunk]
    for found, text in zip(codes, FEW * 20, strict=True):
        np.testing.assert_array_equal(found, expected[text])


def test_a_text_is_equal_whatever_holds_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    rows = rows_run(engine, monkeypatch)
    engine.encode(["a", ("a",), ["a"], np.str_("a"), ("a", "b"), ["a", "b"]])  # type: ignore[list-item]
    assert sum(rows) == 2
    series = pd.Series(["a", "b", "a"], index=[7, 7, 0])
    assert len(engine.encode(series)) == 3  # type: ignore[arg-type]
    assert sum(rows) == 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "text 3: got None"),
        (1, "text 3: got int"),
        (["a", "b", "c"], "text 3: got "),
        ("\ud800", "text 3: got a lone surrogate"),
        (("long " * 99, "b"), "text 3: "),
    ],
)
def test_texts_are_called_by_their_place_in_the_call(
    engine: Engine, bad: Any, message: str
) -> None:
    for texts in (["a", "a", "b", bad], ["a", "a", "b", bad, bad]):
        with pytest.raises(InputError, match=message):
            engine.encode(texts, long_texts="split")


def test_what_is_no_text_is_equal_to_none(engine: Engine) -> None:
    """To Python 1 and True are."""
    with pytest.raises(InputError, match="text 1: got int '1'"):
        engine.encode(["a", 1, True, "a"])  # type: ignore[list-item]
