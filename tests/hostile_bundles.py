"""Bundles whose hash is right and whose content is not: both hosts refuse each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from bitheads.engine.bundle import EMBEDDING, GRAPH, MANIFEST, Artifact, _hash
from bitheads.engine.features.embedding import RANGES

Change = Callable[[Path, dict[str, Any]], object]


def spoil(folder: Path, name: str) -> None:
    """One of HOSTILE_BUNDLES, made of a sound one."""
    path = folder / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    HOSTILE_BUNDLES[name](folder, content)
    content["sha256"] = _hash(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def encoder(**values: Any) -> Change:
    return lambda folder, content: content["encoder"].update(values)


def without(part: str, name: str) -> Change:
    return lambda folder, content: content[part].pop(name)


def setting(**values: Any) -> Change:
    return lambda folder, content: content.update(values)


def artifact(name: str, **values: Any) -> Change:
    return lambda folder, content: content["artifacts"][name].update(values)


def listed(name: str) -> Change:
    """A file from elsewhere, which is there."""

    def change(folder: Path, content: dict[str, Any]) -> None:
        path = folder / name
        if "\0" not in name and not path.is_dir():
            path.write_bytes(b"x")
        content["artifacts"][name] = {"bytes": 1, "sha256": "0" * 64}

    return change


def with_external_weights(folder: Path, content: dict[str, Any]) -> None:
    """As onnx itself writes them, beside the graph; the graph is listed as it is then."""
    import onnx

    model = onnx.load(folder / GRAPH)
    onnx.save(
        model, folder / GRAPH, save_as_external_data=True, location="weights.bin", size_threshold=64
    )
    assert (folder / "weights.bin").stat().st_size > 1000
    made = Artifact.of(folder / GRAPH)
    content["artifacts"][GRAPH] = {"bytes": made.bytes, "sha256": made.sha256}


def with_weights_in(entry: Callable[[bytes], bytes]) -> Change:
    """The same, with the file's name in an entry that protobuf reads and onnx does not write.

    Args:
        entry: (the name as a field: its tag, its size, itself) -> the entry of as many bytes.
    """

    def change(folder: Path, content: dict[str, Any]) -> None:
        with_external_weights(folder, content)
        name = b"\x12\x0bweights.bin"
        graph = (folder / GRAPH).read_bytes()
        written = b"\x0a\x08location" + name
        made = entry(name)
        assert len(made) == len(written)
        assert written in graph
        (folder / GRAPH).write_bytes(graph.replace(written, made))
        artifact = Artifact.of(folder / GRAPH)
        content["artifacts"][GRAPH] = {"bytes": artifact.bytes, "sha256": artifact.sha256}

    return change


def embedding(**values: Any) -> Change:
    """An embedding that is sound, its file included, but for these values."""

    def change(folder: Path, content: dict[str, Any]) -> None:
        sound = {"pooling": ["mean"], "steps": [], "prompts": {}, "default_prompt": None}
        dim = content["spec"]["dim"]
        content["embedding"] = {**sound, "dim": dim, **values}
        tensors = {RANGES: np.zeros((2, dim), np.float32)}
        (folder / EMBEDDING).write_bytes(save(tensors))
        made = Artifact.of(folder / EMBEDDING)
        content["artifacts"][EMBEDDING] = {"bytes": made.bytes, "sha256": made.sha256}

    return change


def with_an_embedding_of_no_file(folder: Path, content: dict[str, Any]) -> None:
    embedding()(folder, content)
    del content["artifacts"][EMBEDDING]


def with_an_embedding_of_no_layer(folder: Path, content: dict[str, Any]) -> None:
    embedding()(folder, content)
    content["encoder"]["num_layers"] += 1


HOSTILE_BUNDLES: dict[str, Change] = {
    "no artifacts": setting(artifacts={}),
    "artifacts that are a list": setting(artifacts=[]),
    "no graph among them": without("artifacts", "encoder.onnx"),
    "no tokenizer among them": without("artifacts", "tokenizer.json"),
    "weights that are not listed": with_external_weights,
    "weights by a name before its key": with_weights_in(lambda name: name + b"\x0a\x08location"),
    "a file of the folder above": listed("../secret"),
    "a file of a folder": listed("heads/x"),
    "a folder": listed(".."),
    "no name": listed(""),
    "a name with a NUL": listed("a\0b"),
    "another size": artifact("encoder.onnx", bytes=1),
    "a size that is a word": artifact("encoder.onnx", bytes="1"),
    "a size below nothing": artifact("encoder.onnx", bytes=-1),
    "a size with a point": artifact("encoder.onnx", bytes=1.0),
    "a hash that is a number": artifact("encoder.onnx", sha256=5),
    "more of an artifact": artifact("encoder.onnx", more=1),
    "a length of nothing": encoder(max_length=0),
    "a length below nothing": encoder(max_length=-5),
    "a length that is a word": encoder(max_length="64"),
    "a length with a point": encoder(max_length=64.0),
    "a length that is true": encoder(max_length=True),
    "an endless length": encoder(max_length=10**12),
    "padding that is a word": encoder(pad_id="x"),
    "padding below nothing": encoder(pad_id=-1),
    "huge padding": encoder(pad_id=2**40),
    "no layers": encoder(num_layers=0),
    "layers that are words": encoder(num_layers="3"),
    "attention heads of nothing": encoder(attention_heads=0),
    "an unknown precision": encoder(precision="fp8"),
    "a precision that is a number": encoder(precision=16),
    "a model type that is a number": encoder(model_type=5),
    "an encoder of more": encoder(color="red"),
    "no length": without("encoder", "max_length"),
    "no precision": without("encoder", "precision"),
    "an encoder that is a list": setting(encoder=[]),
    "versions that are a list": setting(versions=[]),
    "parity that is a word": setting(parity="100%"),
    "a version that is true": setting(format_version=True),
    "a spec of no dim": without("spec", "dim"),
    "a spec that is none": setting(spec=None),
    "an embedding of no file": with_an_embedding_of_no_file,
    "an embedding of no layer": with_an_embedding_of_no_layer,
    "an embedding that is a list": setting(embedding=[]),
    "no pooling": embedding(pooling=[]),
    "a pooling that is a word": embedding(pooling="mean"),
    "an unknown pooling": embedding(pooling=["median"]),
    "a pooling in a list": embedding(pooling=[["mean"]]),
    "an unknown step": embedding(steps=[{"kind": "lstm"}]),
    "a step of more": embedding(steps=[{"kind": "normalize", "color": "red"}]),
    "a step that is a word": embedding(steps=["normalize"]),
    "an unknown activation": embedding(steps=[{"kind": "normalize", "activation": "sin"}]),
    "a residual that is a number": embedding(steps=[{"kind": "normalize", "residual": 1}]),
    "steps that are one": embedding(steps={"kind": "normalize"}),
    "endless steps": embedding(steps=[{"kind": "normalize"}] * 17),
    "a step without weights": embedding(steps=[{"kind": "dense"}]),
    "an embedding of another dim": embedding(dim=8),
    "an embedding of nothing": embedding(dim=0),
    "a dim that is true": embedding(dim=True),
    "prompts that are a list": embedding(prompts=[["query", "a"]]),
    "a prompt that is a number": embedding(prompts={"query": 5}),
    "a default prompt that is not there": embedding(default_prompt="query"),
    "a default prompt in a list": embedding(default_prompt=["query"]),
    "numbers of 2^64": setting(parity={"texts": 2**64}),
    "NaN": setting(parity={"agreement": float("nan")}),
}
