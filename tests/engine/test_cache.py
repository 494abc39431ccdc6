"""Compiled graphs in the user's cache folder: the same codes, never another graph's.

And the folder: of files that others may have written, none is believed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_encode import texts_of_all_lengths

from bitheads import Engine
from bitheads.engine.bundle import GRAPH, MANIFEST, Artifact, read_manifest
from bitheads.engine.files import cache as cache_module
from bitheads.engine.files.cache import make_cache_folder, open_own
from bitheads.engine.sessions.compiled_graphs import BLOCK_BYTES

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give a folder to another user"
)
OTHER_USER = 12345


def blobs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def is_sound(blob: Path) -> bool:
    content = blob.read_bytes()
    block, data = json.loads(content[:BLOCK_BYTES]), content[BLOCK_BYTES:]
    return bool(block["sha256"] == hashlib.sha256(data).hexdigest() and len(data) > BLOCK_BYTES)


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


def change_graph(bundle: Path, is_listed: bool = True) -> None:
    """Other weights of the same size, at the same time, with or without their hash."""
    graph = bundle / GRAPH
    stat = graph.stat()
    model = onnx.load(graph)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = np.frombuffer(largest.raw_data, np.float16)[::-1].tobytes()
    onnx.save(model, graph)
    os.utime(graph, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert graph.stat().st_size == stat.st_size
    if is_listed:
        manifest = read_manifest(bundle)
        artifacts = {**manifest.artifacts, GRAPH: Artifact.of(graph)}
        (bundle / MANIFEST).write_text(replace(manifest, artifacts=artifacts).dumps())


def test_another_graph_of_the_same_path_size_and_time_is_not_mistaken(
    own_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = codes_of(own_bundle)
    change_graph(own_bundle)
    after = codes_of(own_bundle)
    assert len(blobs(cache)) == 2
    monkeypatch.setenv("BITHEADS_CACHE", "")
    assert after == codes_of(own_bundle) != before


def test_another_graphs_file_under_this_ones_name_is_not_used(
    own_bundle: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one whose first block was made to fit, which is of another size or hash then."""
    right = codes_of(own_bundle)
    (victim,) = blobs(cache)
    kept = own_bundle.rename(tmp_path / "kept")
    shutil.copytree(kept, own_bundle)
    change_graph(own_bundle)
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path / "others"))
    assert codes_of(own_bundle) != right
    (other,) = blobs(tmp_path / "others")
    shutil.rmtree(own_bundle)
    kept.rename(own_bundle)
    monkeypatch.setenv("BITHEADS_CACHE", str(cache))
    block, planted = victim.read_bytes()[:BLOCK_BYTES], other.read_bytes()
    for content in (planted, block + planted[BLOCK_BYTES:]):
        victim.chmod(0o600)
        victim.write_bytes(content)
        assert codes_of(own_bundle) == right
        assert victim.read_bytes() != content


def test_a_graph_that_nobody_verified_is_not_kept_as_another(
    own_bundle: Path, tiny_bundle: Path, cache: Path
) -> None:
    change_graph(own_bundle, is_listed=False)
    wrong = codes_of(own_bundle, verify=False)
    assert blobs(cache) == []
    assert codes_of(tiny_bundle) != wrong


def test_weights_of_any_name_are_part_of_the_graph(own_bundle: Path) -> None:
    from bitheads.engine.bundle import graph_files, graph_sha256

    artifacts = dict(read_manifest(own_bundle).artifacts)
    before = graph_sha256(artifacts)
    assert graph_files(artifacts) == [GRAPH]
    hashes = {graph_sha256({**artifacts, "weights.bin": Artifact(1, h * 64)}) for h in "ab"}
    assert len({before, *hashes}) == 3


@pytest.mark.parametrize("kept", [0, 5, BLOCK_BYTES, -1], ids=lambda kept: f"first {kept} bytes")
def test_a_file_that_is_cut_short_is_made_again(own_bundle: Path, cache: Path, kept: int) -> None:
    first = codes_of(own_bundle)
    (blob,) = blobs(cache)
    whole = blob.read_bytes()
    blob.write_bytes(whole[:kept])
    assert codes_of(own_bundle) == first
    assert is_sound(blob)


@pytest.mark.parametrize(
    "block", [b"no compiled graph", b"[" * BLOCK_BYTES, b"{}", b"\xff"], ids=lambda b: repr(b[:9])
)
def test_a_spoiled_file_is_made_again(own_bundle: Path, cache: Path, block: bytes) -> None:
    first = codes_of(own_bundle)
    (blob,) = blobs(cache)
    whole = blob.read_bytes()
    blob.write_bytes(block.ljust(BLOCK_BYTES) + whole[BLOCK_BYTES:])
    assert codes_of(own_bundle) == first
    assert is_sound(blob)


def test_a_file_with_the_right_hash_that_openvino_refuses_is_made_again(
    own_bundle: Path, cache: Path
) -> None:
    first = codes_of(own_bundle)
    (blob,) = blobs(cache)
    whole = blob.read_bytes()
    content, data = json.loads(whole[:BLOCK_BYTES]), b"not a graph" * 100
    content |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    blob.write_bytes(json.dumps(content).ljust(BLOCK_BYTES).encode() + data)
    assert codes_of(own_bundle) == first
    assert is_sound(blob)


def test_options_and_versions_have_files_of_their_own(own_bundle: Path, cache: Path) -> None:
    codes_of(own_bundle, threads=1)
    codes_of(own_bundle, threads=2)
    contents = [json.loads(blob.read_bytes()[:BLOCK_BYTES]) for blob in blobs(cache)]
    assert {content["made"]["options"]["INFERENCE_NUM_THREADS"] for content in contents} == {1, 2}
    assert all(content["made"]["by"].startswith("openvino 20") for content in contents)


def test_lanes_read_from_the_cache_and_outlive_nothing(
    own_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory that a graph was mapped to is there for as long as any session on it."""

    def answers() -> bytes:
        with Engine.load(own_bundle, backend="openvino", precision="fp32", threads=2) as engine:
            texts = texts_of_all_lengths()
            first = engine.encode(texts, max_batch_tokens=64).codes.tobytes()
            assert engine.encode(texts, max_batch_tokens=64).codes.tobytes() == first
            return first

    first = answers()
    assert len(blobs(cache)) == 2
    assert answers() == first
    monkeypatch.setenv("BITHEADS_CACHE", "")
    assert answers() == first


def test_many_writers_at_once(own_bundle: Path, cache: Path) -> None:
    code = (
        "import sys\nfrom engine import Engine\n"
        "engine = Engine.load(sys.argv[1], backend='openvino', precision='fp32')\n"
        "print(engine.encode(['several at once']).codes.tobytes().hex())"
    )
    command = [sys.executable, "-c", code, str(own_bundle)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(said) == 1
    assert said != {""}
    assert len(blobs(cache)) == 1


def test_a_full_disk_is_done_without(own_bundle: Path, cache: Path) -> None:
    """A bound on files in place of a disk: what is written past it fails in the same way."""
    first = codes_of(own_bundle)
    (blob,) = blobs(cache)
    size = blob.stat().st_size
    blob.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for bytes_free in (0, BLOCK_BYTES, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_free, before[1]))
        try:
            assert codes_of(own_bundle) == first
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert blobs(cache) == []
    assert codes_of(own_bundle) == first
    assert blobs(cache) == [blob]


def test_a_folder_that_cannot_be_is_done_without(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path / "file" / "cache"))
    assert make_cache_folder("openvino") is None
    assert codes_of(own_bundle)


@pytest.fixture
def warnings_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cache_module, "_told", set())
    caplog.set_level(logging.WARNING, "bitheads")
    return lambda: [record.getMessage() for record in caplog.records]


def test_what_is_made_is_for_this_user_alone(own_bundle: Path, cache: Path) -> None:
    before = os.umask(0)
    try:
        codes_of(own_bundle)
    finally:
        os.umask(before)
    (blob,) = blobs(cache)
    assert blob.stat().st_mode & 0o777 == 0o600
    folder = blob.parent
    while folder != cache.parent:
        assert folder.stat().st_mode & 0o777 == 0o700
        folder = folder.parent


def test_parents_that_we_make_are_for_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path / "a" / "b"))
    assert make_cache_folder("c") == tmp_path / "a" / "b" / "c"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b", "a/b/c")] == [
        0o700
    ] * 3


@pytest.mark.parametrize("place", ["cache/compiled", "cache", "."])
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702])
def test_a_folder_that_others_may_write_to_is_not_used(
    own_bundle: Path, cache: Path, place: str, mode: int, warnings_told: Any
) -> None:
    (cache / "compiled").mkdir(parents=True)
    folder = (cache.parent / place).resolve()
    gid = os.getegid()
    if mode == 0o775 and cache_module._is_private(gid):
        if os.geteuid() != 0:
            pytest.skip("this user's group is its own, and only root can choose another")
        os.chown(folder, -1, OTHER_USER)
    folder.chmod(mode)
    assert make_cache_folder("compiled") is None
    assert codes_of(own_bundle)
    assert blobs(cache) == []
    (told,) = warnings_told()
    assert f"no cache: {folder} may be written to by others" in told
    assert "Set BITHEADS_CACHE to a folder of your own" in told
    folder.chmod(0o1777)  # as of /tmp: nobody replaces what is another's there
    assert make_cache_folder("compiled") == cache / "compiled"
    folder.chmod(0o700)


@needs_root
@pytest.mark.parametrize("place", ["cache/compiled", "cache", "."])
def test_another_users_folder_is_not_used(
    own_bundle: Path, cache: Path, place: str, warnings_told: Any
) -> None:
    (cache / "compiled").mkdir(parents=True)
    folder = (cache.parent / place).resolve()
    os.chown(folder, OTHER_USER, -1)
    try:
        assert make_cache_folder("compiled") is None
        assert codes_of(own_bundle)
    finally:
        os.chown(folder, 0, -1)
    assert blobs(cache) == []
    assert [f"{folder} belongs to user {OTHER_USER}, expected 0" in w for w in warnings_told()] == [
        True
    ]


def test_links_lead_to_folders_that_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_told: Any
) -> None:
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path / "link"))
    (tmp_path / "own").mkdir()
    (tmp_path / "everybodys" / "in it").mkdir(parents=True)
    (tmp_path / "everybodys").chmod(0o777)
    (tmp_path / "link").symlink_to("own")
    assert make_cache_folder("times") == tmp_path / "link" / "times"
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "everybodys" / "in it")
    assert make_cache_folder("times") is None
    (tmp_path / "everybodys" / "back").symlink_to(tmp_path / "own")
    (tmp_path / "second").unlink()
    (tmp_path / "second").symlink_to(tmp_path / "everybodys" / "back")
    assert make_cache_folder("times") is None  # others may have the link lead elsewhere
    (told,) = warnings_told()
    assert f"{tmp_path / 'everybodys'} may be written to by others" in told


@needs_root
def test_another_users_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_told: Any
) -> None:
    monkeypatch.setenv("BITHEADS_CACHE", str(tmp_path / "link"))
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to("own")
    os.chown(tmp_path / "link", OTHER_USER, -1, follow_symlinks=False)
    assert make_cache_folder("times") is None
    assert len(warnings_told()) == 1


@needs_root
def test_another_users_file_is_not_read(own_bundle: Path, cache: Path, warnings_told: Any) -> None:
    first = codes_of(own_bundle)
    (blob,) = blobs(cache)
    os.chown(blob, OTHER_USER, -1)
    assert codes_of(own_bundle) == first
    assert blob.stat().st_uid == 0  # it was made again
    (told,) = warnings_told()
    assert f"{blob} belongs to user {OTHER_USER}" in told


@pytest.mark.parametrize("kind", ["writable", "link", "folder", "pipe"])
def test_only_a_plain_file_of_our_own_is_read(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "file", tmp_path / "target"
    target.write_bytes(b"content")
    target.chmod(0o600)
    with open_own(target) as file:
        assert file.read() == b"content"
    if kind == "writable":
        target.rename(path)
        path.chmod(0o602)
    elif kind == "link":
        path.symlink_to(target)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(OSError, match=r"expected a file that only|symbolic links"):
        open_own(path)


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
