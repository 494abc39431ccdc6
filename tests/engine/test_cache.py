"""Compiled graphs in the user's cache folder: the same codes, never another graph's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_encode import texts_of_all_lengths

from engine import Engine
from engine.bundle import GRAPH, MANIFEST, Artifact, read_manifest
from engine.cache import make_cache_folder


def blobs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.blob"))


def codes_of(bundle: Path, **options: Any) -> bytes:
    with Engine.load(bundle, backend="openvino", precision="fp32", **options) as engine:
        return engine.encode(texts_of_all_lengths()[:10]).codes.tobytes()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_second_load_reads_what_the_first_wrote(
    own_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = codes_of(own_bundle)
    (blob,) = blobs(cache)
    written = blob.stat().st_mtime_ns
    assert codes_of(own_bundle) == first
    assert [(path, path.stat().st_mtime_ns) for path in blobs(cache)] == [(blob, written)]
    monkeypatch.setenv("BITHEADS_CACHE", "")
    assert codes_of(own_bundle) == first


def test_another_graph_of_the_same_path_size_and_time_is_not_mistaken(
    own_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO by itself takes the one for the other."""
    before = codes_of(own_bundle)
    graph = own_bundle / GRAPH
    stat = graph.stat()
    model = onnx.load(graph)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = np.frombuffer(largest.raw_data, np.float16)[::-1].tobytes()
    onnx.save(model, graph)
    os.utime(graph, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert graph.stat().st_size == stat.st_size
    manifest = read_manifest(own_bundle)
    artifacts = {**manifest.artifacts, GRAPH: Artifact.of(graph)}
    (own_bundle / MANIFEST).write_text(replace(manifest, artifacts=artifacts).dumps())
    after = codes_of(own_bundle)
    assert len(blobs(cache)) == 2
    monkeypatch.setenv("BITHEADS_CACHE", "")
    assert after == codes_of(own_bundle) != before


@pytest.mark.parametrize("spoil", [b"", b"no compiled graph"])
def test_a_spoiled_file_is_made_again(own_bundle: Path, cache: Path, spoil: bytes) -> None:
    first = codes_of(own_bundle)
    (blob,) = blobs(cache)
    blob.chmod(0o600)
    blob.write_bytes(spoil)
    assert codes_of(own_bundle) == first


def test_a_folder_that_cannot_be_is_done_without(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path / "file" / "cache"))
    assert make_cache_folder("openvino") is None
    assert codes_of(own_bundle)


def test_a_failing_cache_is_done_without(
    own_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    compile_model = openvino.Core.compile_model

    def fail(self: Any, graph: Any, device: str, options: dict[str, Any]) -> Any:
        if "CACHE_DIR" in options:
            raise RuntimeError("no space left on device")
        return compile_model(self, graph, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", fail)
    assert codes_of(own_bundle)
    assert blobs(cache) == []


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITHEADS_CACHE", "")
    assert make_cache_folder("a") is None
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path / "own"))
    assert make_cache_folder("a") == tmp_path / "own" / "a"
    monkeypatch.delenv("BITHEADS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert make_cache_folder("a") == tmp_path / "xdg" / "bitheads" / "a"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert make_cache_folder("a") == tmp_path / "home" / ".cache" / "bitheads" / "a"
