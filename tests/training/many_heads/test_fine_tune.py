"""An encoder that is fine-tuned for a task learns it, whatever its labels are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import all_but_long

from bitheads.export.source.encoder import load_encoder
from bitheads.training.many_heads import fine_tune
from bitheads.training.many_heads.config import TaskConfig
from bitheads.training.many_heads.scores import score, truth_of
from bitheads.training.many_heads.work import TaskWork, judged_sets

LABELS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "single_label": ("label", lambda count: "few" if count < 5 else "many"),
    "multi_label": ("labels", lambda count: ["many"] * (count > 4) + ["most"] * (count > 7)),
    "ordinal": ("label", lambda count: count // 3),
    "regression": ("score", float),
}
"""Kind -> its column, and what is there of a text with so many x."""


@pytest.mark.parametrize("kind", all_but_long(LABELS, "single_label", "multi_label"))
def test_it_learns(
    kind: str,
    tiny_encoder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How many of ten letters are x: weights that nobody trained know nothing of it."""
    monkeypatch.setattr(fine_tune, "LEARNING_RATE", 1e-3)
    monkeypatch.setattr(fine_tune, "HEAD_LEARNING_RATE", 3e-3)
    random = np.random.default_rng(0)
    column, label = LABELS[kind]
    rows = []
    for count in random.integers(0, 10, 300).tolist():
        letters = random.permutation(["x"] * count + ["q"] * (10 - count))
        rows.append({"text": " ".join(letters), column: label(count)})
    for name, part in (("train", rows[:220]), ("test", rows[220:])):
        lines = "\n".join(json.dumps(row) for row in part)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    encoder = tiny_encoder("bert")
    weights = load_encoder(str(encoder)).weights_sha256
    work = TaskWork("letters", tmp_path, TaskConfig(kind=kind))
    result = fine_tune.fine_tune_job(str(encoder), weights, work, 15, "cpu", 1)
    _, judged = judged_sets(work.read())
    labels = {"single_label": ("few", "many"), "multi_label": ("many", "most")}
    truth = truth_of(judged, labels.get(kind, ("0", "1", "2", "3")))
    assert score(kind, result.arrays["answers"], truth) > 0.8
