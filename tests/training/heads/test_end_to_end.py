"""The packed path end to end against transformers, NumPy and torch's own attention."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy.measure import end_to_end
from bitheads import Engine
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.heads.config import FitConfig, HeadConfig
from bitheads.training.heads.train_head import train_head

TOPICS = Path(__file__).parents[2] / "data" / "topics.tsv"


@pytest.mark.usefixtures("few_background")
def test_same_top_label_as_an_independent_computation(minilm_bundle: Path, tmp_path: Path) -> None:
    engine = Engine.load(minilm_bundle)
    config = HeadConfig("tested", TOPICS, TOPICS, tmp_path / "tested.safetensors")
    trained = train_head(engine, config, FitConfig(epochs=3))
    texts = read_labelled(TOPICS).texts[:100]
    result = end_to_end("all-MiniLM-L6-v2", [engine], config.output, trained.module, texts)
    assert result["texts"] == 100
    assert result["backends"][engine.backend]["same_top_label"] >= 0.99
