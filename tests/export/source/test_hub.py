"""Encoders of the hub: one commit for all files, and no more of them than are needed.

The hub is one on this machine, spoken to by huggingface_hub itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_hub import LocalHub, local_hub
from odd_encoders import edit, share_as_in_transformers
from tiny_encoders import save_tiny_encoder

from bitheads.engine.bundle import read_manifest
from bitheads.export.source.encoder import load_encoder

TEXTS = ["The tide was out.", "A second, rather longer sentence about nothing at all."]
Load = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with local_hub() as hub:
        yield hub


@pytest.fixture
def environment(hub: LocalHub, tmp_path: Path) -> dict[str, str]:
    """What leads huggingface_hub to the hub here, and to a cache of its own."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    return {**os.environ, **own}


@pytest.fixture
def load(environment: dict[str, str]) -> Load:
    """Loads encoders by name in a process of its own: name -> what was found, or the error."""

    def run(*names: str, **variables: str) -> dict[str, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "load_by_name.py")],
            input=json.dumps(names),
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        found: dict[str, dict[str, Any]] = json.loads(done.stdout)
        return found

    return run


@pytest.fixture
def tiny(tiny_encoder: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of the tiny BERT that a test may change, by a name."""
    return lambda name: Path(shutil.copytree(tiny_encoder("bert"), tmp_path / name))


def test_a_revision_is_one_commit_and_is_kept(
    hub: LocalHub, load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    first, second = tiny("first"), save_tiny_encoder("bert", tmp_path / "second", seed=1)
    (first / "onnx").mkdir()
    (first / "onnx" / "model.onnx").write_bytes(b"x" * 1000)
    (first / "pytorch_model.bin").write_bytes(b"x" * 1000)
    (first / "modeling.py").write_text("raise SystemExit('ran')")
    shas = [load_encoder(str(folder)).weights_sha256 for folder in (first, second)]
    commits = [hub.add("org/tiny", first), hub.add("org/tiny", second, "v2")]

    names = ["org/tiny", "org/tiny@main", "org/tiny@v2", f"org/tiny@{commits[1]}"]
    # From the hub; then from the cache, as nobody is at that port.
    for found in (load(*names), load(*names, HF_ENDPOINT="http://127.0.0.1:9")):
        assert [found[name]["weights"] for name in names] == [shas[0], shas[0], shas[1], shas[1]]
        expected = [f"org/tiny@{commit}" for commit in (commits[0],) * 2 + (commits[1],) * 2]
        assert [found[name]["source"] for name in names] == expected
        assert {one["name"] for one in found.values()} == {"tiny"}
    files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert found["org/tiny"]["files"] == files


def test_what_cannot_be_had_says_why(
    hub: LocalHub, load: Load, tiny: Callable[[str], Path]
) -> None:
    hub.add("org/tiny", tiny("tiny"))
    hub.add("org/gated", tiny("gated"))
    hub.gated.add("org/gated")
    found = load("org/tiny@v9", "org/none", "org/gated", "org/tiny@")
    errors = {name: one["error"] for name, one in found.items()}
    assert "the hub has no revision 'v9' of it. Expected a branch" in errors["org/tiny@v9"]
    assert "found no model there (RepositoryNotFoundError" in errors["org/none"]
    assert "only to those whom its owners let" in errors["org/gated"]
    assert "HF_TOKEN" in errors["org/gated"]
    assert "found no model there" in errors["org/tiny@"]


def test_no_weights_are_fetched_of_what_is_refused(
    hub: LocalHub, load: Load, tiny: Callable[[str], Path]
) -> None:
    """Nor of what the disk has no room for, which huggingface_hub would begin to write."""
    changes: dict[str, dict[str, Any]] = {
        "own-code": {"auto_map": {"AutoModel": "modeling.Own"}},
        "decoder": {"is_decoder": True},
        "huge": {"vocab_size": 10**12},
        "large": {},
    }
    for name, values in changes.items():
        folder = tiny(name)
        edit(folder, **values)
        hub.add(f"org/{name}", folder)
        if name == "large":
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.stated_sizes["pytorch_model.bin"] = 10**15
    adapter = tiny("adapter")
    edit(adapter, "adapter_config.json", base_model_name_or_path="org/base", peft_type="LORA")
    commit = hub.add("org/adapter", adapter)

    found = load(*(f"org/{name}" for name in (*changes, "adapter")))
    errors = {name.partition("/")[2]: one["error"] for name, one in found.items()}
    assert "config.json, auto_map" in errors["own-code"]
    assert "is_decoder" in errors["decoder"]
    assert "weights take 256,000" in errors["huge"]
    assert "of memory in float32, but this machine has" in errors["huge"]
    assert "its files take 1,000,000.0 GB, but there are" in errors["large"]
    assert "HF_HOME" in errors["large"]
    assert f"from_pretrained('org/adapter', revision='{commit}')" in errors["adapter"]
    fetched = {path.rpartition("/")[2] for path in hub.fetched}
    assert not fetched & {"model.safetensors", "pytorch_model.bin"}


def test_the_folder_of_sentence_transformers(
    hub: LocalHub, load: Load, tiny: Callable[[str], Path]
) -> None:
    folder = tiny("sentences")
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in folder.glob("*.*"):
        path.rename(inner / path.name)
    module = {"idx": 0, "name": "0", "path": inner.name, "type": "sentence_transformers.models.X"}
    module["type"] = "sentence_transformers.models.Transformer"
    (folder / "modules.json").write_text(json.dumps([module]))
    edit(inner, "sentence_bert_config.json", max_seq_length=24, do_lower_case=False)
    hub.add("org/sentences", folder, "v1")
    found = load("org/sentences@v1")["org/sentences@v1"]
    assert found["usual_length"] == 24
    assert found["name"] == "sentences"
    assert found["weights"] == load_encoder(str(folder)).weights_sha256


@pytest.mark.long
def test_a_bundle_says_which_commit_it_is_of(
    hub: LocalHub, environment: dict[str, str], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    other = save_tiny_encoder("bert", tmp_path / "other", seed=1)
    hub.add("org/tiny", tiny("tiny"))
    commit = hub.add("org/tiny", other, "v2")
    output = tmp_path / "bundle"
    command = [sys.executable, "-m", "bitheads", "build", "--encoder", "org/tiny"]
    options = ["--revision", "v2", "--precision", "fp32", "--layers", "2", "--output", str(output)]
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert f"org/tiny@{commit}" in done.stderr
    manifest = read_manifest(output)
    assert manifest.versions["encoder"] == f"org/tiny@{commit}"
    assert manifest.spec.encoder == "tiny"
    assert share_as_in_transformers(other, output, TEXTS) >= 0.999
