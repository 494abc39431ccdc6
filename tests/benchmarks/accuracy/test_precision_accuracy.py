"""The shipped heads on codes of every precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from random_heads import random_head

from benchmarks.accuracy import precisions, table
from bitheads.engine.bundle import read_manifest
from bitheads.engine.errors import InputError
from bitheads.engine.heads.head_file import write_head
from bitheads.export.comparison.parity import available_sessions
from bitheads.export.make_bundle import make_bundle
from bitheads.training.data.labelled_texts import read_labelled

SESSIONS = [f"{b} {p}" for b, p in available_sessions(["int8"]) if b == "openvino"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    demo = (
        (files("bitheads.engine") / "data" / "demo.tsv")
        .read_text(encoding="utf-8")
        .splitlines()[1:]
    )
    texts = [line.split("\t")[0] for line in demo]
    rows = [f"label-{i % 2}\t{text}" for i, text in enumerate(texts)]
    file = tmp_path / "data" / "tones" / "test.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(["label\ttext", *rows]) + "\n", encoding="utf-8")
    return tmp_path / "data"


@pytest.fixture
def as_shipped(
    tiny_bundle: Path, few_texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny encoder comes with a head for one task."""
    head = random_head(read_manifest(tiny_bundle).spec, "tone")
    write_head(head, tmp_path / "h" / "tone.safetensors")
    monkeypatch.setattr(
        precisions,
        "make_bundle",
        lambda config, say: make_bundle(
            replace(config, calibration=few_texts, heads=tmp_path / "h"), say
        ),
    )


@pytest.mark.long
def test_every_precision_is_measured(
    as_shipped: None,
    traced_once: None,
    tiny_encoder: Callable[[str], Path],
    data: Path,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    encoder = str(tiny_encoder("bert"))
    found = precisions.shipped(encoder, data, {"tone": "tones"}, tmp_path, said.append)
    assert [*found["tone"]] == ["texts", *SESSIONS]
    assert found["tone"]["texts"] == len(read_labelled(data / "tones" / "test.tsv"))
    assert all(0 <= found["tone"][session] <= 1 for session in SESSIONS)
    assert said[-1].startswith("tone: ")
    with pytest.raises(InputError, match="no head for other is shipped with it"):
        precisions.shipped(encoder, data, {"other": "tones"}, tmp_path / "again", said.append)


def test_without_nncf_there_is_no_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precisions.build_precision() == "int8"
    monkeypatch.setattr(precisions, "find_spec", lambda name: None)
    assert precisions.build_precision() == "fp16"


def test_the_table_has_the_mean() -> None:
    stored = {
        "result": {
            "a": {"texts": 1000, "openvino fp32": 0.5, "openvino int8": 0.4},
            "b": {"texts": 10, "openvino fp32": 0.75, "openvino int8": 0.7},
        },
        "command": "x",
        "date": "today",
        "cores": 1,
        "cpu": "y",
        "name": "z",
    }
    lines = table.by_precision(stored).splitlines()
    assert lines[2] == "| a | 1,000 | 50.0 | 40.0 |"
    assert lines[4] == "| **mean** | | **62.50** | **55.00** |"
    assert "1 core of y" in lines[-1]
