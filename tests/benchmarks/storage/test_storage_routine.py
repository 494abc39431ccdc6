"""What features take on a disk: the files are what the formula says, and the run stores a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.inputs.shapes import SHAPES, TEXT_TOKENS, Shape
from benchmarks.storage import measure, table
from benchmarks.storage.files import Features, seeded, write
from benchmarks.storage.measure import TINY, formula
from bitheads.engine import bundle
from bitheads.engine.texts.tokenize import TextTokenizer


def test_the_paper_s_numbers() -> None:
    """Table 2: 50 tokens of 24 layers of 1024 half-precision numbers, and one bit of each."""
    assert formula(24, 50, 1024, "fp16") == 2_457_600
    assert formula(1, 50, 1024, "sign") == 50 * 128
    assert formula(1, 1, 1024, "uint8") == 1024
    assert formula(1, 2, 60, "sign") == 16


@pytest.mark.parametrize("dim", [64, 60])
def test_files_are_as_large_as_the_formula_says(dim: int) -> None:
    shape = Shape(3, dim, 128, 4, pooled_layers=2)
    cells = measure.measure(seeded(shape, 2))["cells"]
    assert len(cells) == 3 * 2 * 3
    assert all(cell["bytes_a_text"] == cell["formula"] for cell in cells)


def test_codes_are_those_of_the_pooling(tmp_path: Path) -> None:
    features = seeded(TINY, 2)
    file = tmp_path / "codes"

    def written(pooling: str, positions: str = "every token", pooled: int = 2) -> bytes:
        changed = Features("", features.layers, pooled)
        write(file, changed, pooling, positions, "sign")
        return file.read_bytes()

    assert written("last") == written("mean", pooled=1) != written("mean")
    assert written("every layer").endswith(written("last"))
    vector = features.layers[-1].astype("float32").mean(axis=1)
    first = "".join("1" if value > 0 else "0" for value in vector.ravel())
    assert written("last", "one vector") == int(first, 2).to_bytes(len(first) // 8, "big")


def test_texts_of_50_tokens(tiny_bundle: Path) -> None:
    tokenizer = TextTokenizer(tiny_bundle / bundle.TOKENIZER, TEXT_TOKENS)
    found = measure.of_50_tokens(tokenizer, 30)
    assert [tokens.ids.size for tokens in found] == [50] * 30
    with pytest.raises(Exception, match="--texts: got 10000, expected at most"):
        measure.of_50_tokens(tokenizer, 10_000)


def test_a_quick_run_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert command_line.main(["storage", "--quick"]) == 0
    assert not list(tmp_path.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    shown = table.measured(stored)
    assert "| every layer (3) | every token | 19.2 KB | 9.6 KB | 1.2 KB |" in shown
    assert "| mean of the last 2 | one vector | 128 B | 64 B | 8 B |" in shown
    assert "each is what the formula says" in shown
    stored["result"]["encoders"]["tiny"]["cells"][0]["bytes_a_text"] += 1
    assert "NOT each" in table.measured(stored)


def test_a_run_on_a_bundle_is_stored(
    tiny_bundle: Path, tiny_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    monkeypatch.setattr(record, "RESULTS", results)
    monkeypatch.setitem(SHAPES, "RoBERTa-large", TINY)
    options = ["--bundle", str(tiny_bundle), "--encoder", str(tiny_encoder("bert")), "--texts", "5"]
    assert command_line.main(["storage", *options]) == 0
    found = record.read("storage")["result"]["encoders"]["all-MiniLM-L6-v2"]
    assert (found["texts"], found["layers"], found["source"]) == (5, 3, "real texts")
    assert all(cell["bytes_a_text"] == cell["formula"] for cell in found["cells"])
