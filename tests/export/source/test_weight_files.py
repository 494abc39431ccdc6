"""Weights that transformers would not read, or not all of: refused by name, with what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from odd_encoders import edit
from transformers import (
    AutoModel,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    RobertaModel,
)

from bitheads.export.build import main
from bitheads.export.errors import ExportError
from bitheads.export.source.encoder import load_encoder

WEIGHTS = "model.safetensors"


@pytest.fixture
def own(tiny_encoder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny BERT that a test may spoil."""
    return Path(shutil.copytree(tiny_encoder("bert"), tmp_path / "own"))


def refused(folder: Path, message: str) -> str:
    with pytest.raises(ExportError, match=message) as error:
        load_encoder(str(folder))
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def run_command_of(message: str, folder: Path) -> None:
    """Types the command that a message ends with."""
    command = message[message.index("python -c ") :]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, check=True, timeout=300
    )


@pytest.mark.parametrize(
    "kind", [BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification]
)
def test_heads_are_left_out(own: Path, kind: type[BertModel]) -> None:
    AutoModel.from_pretrained(own, add_pooling_layer=False).save_pretrained(own)
    before = load_encoder(str(own)).weights_sha256
    kind.from_pretrained(own).save_pretrained(own)
    assert load_encoder(str(own)).weights_sha256 == before


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
@pytest.mark.parametrize("size", ["1GB", "100KB"])
def test_a_variant(own: Path, tmp_path: Path, variant: str, size: str) -> None:
    model = AutoModel.from_pretrained(own)
    before = load_encoder(str(own)).weights_sha256
    (own / WEIGHTS).unlink()
    model.save_pretrained(own, variant=variant, max_shard_size=size)
    message = refused(own, rf"asked for the variant '{variant}'.*python -c ")
    if (variant, size) == ("fp16", "100KB"):
        run_command_of(message, tmp_path)
        assert load_encoder(str(tmp_path / "whole")).weights_sha256 == before


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("model.onnx", "ONNX"),
        ("onnx/model_quantized.onnx", "ONNX"),
        ("openvino_model.xml", "OpenVINO"),
        ("openvino/openvino_model_qint8.xml", "OpenVINO"),
        ("bge-small-q8_0.gguf", "GGUF"),
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
    ],
)
def test_another_form_alone(own: Path, file: str, form: str) -> None:
    (own / WEIGHTS).rename(own / "kept")
    (own / file).parent.mkdir(exist_ok=True)
    (own / file).write_bytes(b"weights")
    refused(own, rf"for {form} alone \({re.escape(file)}\), expected model\.safetensors")
    (own / "config.json").rename(own / "config")  # as in folders of GGUF
    refused(own, f"for {form} alone")
    (own / "config").rename(own / "config.json")
    (own / "kept").rename(own / WEIGHTS)
    load_encoder(str(own))  # beside weights it does no harm


def test_none(own: Path) -> None:
    (own / WEIGHTS).unlink()
    refused(own, r"no weights beside config\.json. Expected model\.safetensors")


def test_a_pointer_of_git(own: Path) -> None:
    (own / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    refused(own, r"model\.safetensors is a pointer of Git LFS.*git lfs pull")


class TestShards:
    @pytest.fixture
    def shards(self, own: Path) -> Path:
        model = AutoModel.from_pretrained(own)
        (own / WEIGHTS).unlink()
        model.save_pretrained(own, max_shard_size="200KB")
        assert len([*own.glob("model-*")]) > 2
        return own

    def test_whole(self, shards: Path, tiny_encoder: Callable[[str], Path]) -> None:
        whole = load_encoder(str(tiny_encoder("bert"))).weights_sha256
        assert load_encoder(str(shards)).weights_sha256 == whole

    def test_half(self, shards: Path) -> None:
        files = sorted(shards.glob("model-*"))
        for path in files[len(files) // 2 :]:
            path.unlink()
        missing = len(files) - len(files) // 2
        refused(shards, rf"{missing} of the {len(files)} files of its weights are missing, such as")

    @pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}'])
    def test_a_damaged_index(self, shards: Path, content: str) -> None:
        (shards / f"{WEIGHTS}.index.json").write_text(content)
        refused(shards, r"model\.safetensors\.index\.json cannot be read")


def test_another_architecture(own: Path, tiny_encoder: Callable[[str], Path]) -> None:
    other = RobertaModel.from_pretrained(tiny_encoder("roberta"))
    torch.save({f"lm.{key}": value for key, value in other.state_dict().items()}, own / "w")
    (own / WEIGHTS).unlink()
    (own / "w").rename(own / "pytorch_model.bin")
    refused(own, "weights are not in the file, such as .*would be random")


def test_saved_by_a_newer_transformers(own: Path) -> None:
    edit(own, transformers_version="99.0.0", hidden_act="activation-of-tomorrow")
    refused(own, r"cannot be loaded .*saved by transformers 99\.0\.0; here is")


def test_no_room_for_the_bundle(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(own, vocab_size=10**12)
    assert main(["--encoder", str(own), "--output", str(tmp_path / "bundle")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"weights in fp16 take 128,000\.\d GB, but there are [\d.,]+ GB free at", said)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_no_memory_for_the_encoder(own: Path) -> None:
    edit(own, vocab_size=10**12)
    refused(own, r"take 256,\d+\.\d GB of memory in float32, but this machine has")


def test_the_index_of_shards_names_files_of_the_folder(own: Path) -> None:
    (own / WEIGHTS).rename(own.parent / "outside.safetensors")
    index = {"weight_map": {"embeddings.word_embeddings.weight": "../outside.safetensors"}}
    (own / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    refused(own, r"files of its weights are missing, such as \.\./outside")
