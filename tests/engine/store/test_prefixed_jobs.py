"""Jobs and training over a bundle with a prefix: files hold texts without it, codes are with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from store_cases import contents
from tiny_encoders import corpus

from bitheads import Engine, SpecMismatchError
from bitheads.engine.commands import backfill, encode
from bitheads.engine.heads.head_file import read_head
from bitheads.engine.store import FeatureStore
from bitheads.training.heads.__main__ import main as train_head

PREFIX = "Instruct: Sort\nQuery:"
TEXTS = corpus()[:60]


@pytest.fixture
def bundle(build_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(build_bundle("bert", prefix=PREFIX), tmp_path / "bundle"))


def strings(*options: object) -> list[str]:
    return [str(option) for option in options]


def test_encode_train_and_backfill(bundle: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    store, texts = tmp_path / "store", tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    of_bundle = ("--bundle", bundle, "--backend", "onnxruntime")
    assert encode.main(strings(*of_bundle, "--store", store, "--input", texts)) == 0
    with Engine.load(tiny_bundle, backend="onnxruntime") as bare:
        expected = [one.codes.tobytes() for one in bare.encode([PREFIX + t for t in TEXTS])]
    stored = FeatureStore(store)
    assert stored.spec.prefix == PREFIX
    assert contents(stored) == dict(zip(map(str, range(len(TEXTS))), expected, strict=True))

    table = tmp_path / "table.tsv"
    rows = [f"{'long' if len(text) > 60 else 'short'}\t{text}" for text in TEXTS]
    table.write_text("\n".join(["label\ttext", *rows]), encoding="utf-8")
    path = bundle / "heads" / "size.safetensors"
    options = ("--task", "size", "--train", table, "--dev", table, "--output", path)
    few = ("--epochs", 2, "--position-pooling", "last")
    assert train_head(strings(*of_bundle, *options, *few)) == 0
    trained = read_head(path)
    assert trained.spec.id == stored.spec.id
    with (
        Engine.load(tiny_bundle, backend="onnxruntime") as bare,
        pytest.raises(SpecMismatchError, match=r"Instruct: Sort\\nQuery:"),
    ):
        bare.add_head(path)

    output = tmp_path / "answers"
    assert backfill.main(strings("--bundle", bundle, "--store", store, "--output", output)) == 0
    answers = ds.dataset(output / "task=size").to_table().to_pylist()
    with Engine.load(bundle, backend="onnxruntime") as engine:
        top = engine.predict(TEXTS, ["size"])["size"].top
    assert {row["id"]: row["label"] for row in answers} == {str(i): t for i, t in enumerate(top)}
