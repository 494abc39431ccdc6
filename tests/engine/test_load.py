"""Loading a bundle: what is wrong with it, or with the options, is said before anything runs."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_bundles import HOSTILE_BUNDLES, spoil, with_external_weights

from bitheads import BackendError, BundleError, Engine, InputError
from bitheads.engine import bundle as bundle_format
from bitheads.engine.process.install import how_to_install
from bitheads.engine.sessions import BACKENDS, DEVICE_BACKENDS, supports_bf16
from bitheads.engine.sessions.embedding_rows import embedding_rows


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / bundle_format.MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def manifest_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (folder / bundle_format.MANIFEST).read_text(encoding="utf-8")
    )
    return content


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle\.json there.*bitheads build"):
        Engine.load(tmp_path / "nothing")


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read"):
        Engine.load(path)


@pytest.mark.parametrize("name", [bundle_format.GRAPH, bundle_format.TOKENIZER])
def test_a_missing_file_is_named(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        Engine.load(own_bundle)


@pytest.mark.parametrize("name", [bundle_format.GRAPH, bundle_format.TOKENIZER])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_one_flipped_bit_is_found(own_bundle: Path, name: str, where: float) -> None:
    path = own_bundle / name
    data = bytearray(path.read_bytes())
    data[round(where * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} was changed: got \d+ bytes, sha256"):
        Engine.load(own_bundle)


def test_a_truncated_file_is_found(own_bundle: Path) -> None:
    path = own_bundle / bundle_format.GRAPH
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"encoder\.onnx was changed"):
        Engine.load(own_bundle)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_broken_graph_that_is_not_verified_is_the_backends_error(
    own_bundle: Path, backend: str
) -> None:
    (own_bundle / bundle_format.GRAPH).write_bytes(b"no graph")
    with pytest.raises(BackendError, match=rf"(?s){backend} cannot load .*Export the bundle again"):
        Engine.load(own_bundle, backend=backend, verify=False)


def test_a_broken_tokenizer_that_is_not_verified_is_an_error(own_bundle: Path) -> None:
    (own_bundle / bundle_format.TOKENIZER).write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer .*cannot be read"):
        Engine.load(own_bundle, verify=False)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", "{}", '"text"', "[" * 100_000, "\N{SNOWMAN}"],
    ids=lambda text: text[:10] or "empty",
)
def test_malformed_json_is_an_error(own_bundle: Path, text: str) -> None:
    (own_bundle / bundle_format.MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read"):
        Engine.load(own_bundle)


def test_json_that_is_no_utf8_is_an_error(own_bundle: Path) -> None:
    (own_bundle / bundle_format.MANIFEST).write_bytes(b'{"format_version": "\xff"}')
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read"):
        Engine.load(own_bundle)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_an_error_that_names_both(
    own_bundle: Path, version: object
) -> None:
    edit_manifest(own_bundle, format_version=version)
    with pytest.raises(BundleError, match=rf"got format version {version}, expected 1"):
        Engine.load(own_bundle)


@pytest.mark.parametrize("key", ["spec", "encoder", "artifacts", "versions", "parity", "sha256"])
def test_a_missing_entry_is_an_error(own_bundle: Path, key: str) -> None:
    content = manifest_of(own_bundle)
    del content[key]
    (own_bundle / bundle_format.MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=rf"malformed .*{key}.*Export the bundle again"):
        Engine.load(own_bundle)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spec", None),
        ("spec", []),
        ("spec", {}),
        ("encoder", None),
        ("encoder", {"unknown": 1}),
        ("artifacts", []),
        ("artifacts", {"encoder.onnx": None}),
    ],
)
def test_an_entry_of_another_shape_is_an_error(own_bundle: Path, key: str, value: object) -> None:
    edit_manifest(own_bundle, **{key: value})
    with pytest.raises(BundleError, match="Export the bundle again"):
        Engine.load(own_bundle)


@pytest.mark.parametrize(
    ("field", "value"),
    [("layers", [1, 2]), ("quantization", "float16"), ("dim", 72), ("weights_sha256", "0" * 64)],
)
def test_an_edited_spec_is_found(own_bundle: Path, field: str, value: object) -> None:
    content = manifest_of(own_bundle)
    edit_manifest(own_bundle, spec={**content["spec"], field: value})
    with pytest.raises(BundleError, match=rf"was edited: .*expected {content['sha256'][:12]}"):
        Engine.load(own_bundle)


@pytest.mark.parametrize(("field", "value"), [("max_length", 20), ("pad_id", 7)])
def test_an_edited_encoder_is_found(own_bundle: Path, field: str, value: object) -> None:
    content = manifest_of(own_bundle)
    edit_manifest(own_bundle, encoder={**content["encoder"], field: value})
    with pytest.raises(BundleError, match="was edited"):
        Engine.load(own_bundle)


def say_of_encoder(folder: Path, **values: Any) -> None:
    """Changes what the manifest says of the encoder, hash and all, as another program may."""
    manifest = bundle_format.read_manifest(folder)
    changed = replace(manifest, encoder=replace(manifest.encoder, **values))
    (folder / bundle_format.MANIFEST).write_text(changed.dumps(), encoding="utf-8")


def forget_rows(folder: Path) -> None:
    """Makes the manifest one of those that did not say how many rows the tables have."""
    content = manifest_of(folder)
    del content["encoder"]["vocabulary"], content["encoder"]["token_types"], content["sha256"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    edit_manifest(folder, encoder=content["encoder"], sha256=digest)


def add_token(folder: Path, token: str, number: int) -> None:
    """A token in tokenizer.json that the encoder has never seen, with the file's new hash."""
    path = folder / bundle_format.TOKENIZER
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"].append({**content["added_tokens"][0], "id": number, "content": token})
    path.write_text(json.dumps(content), encoding="utf-8")
    manifest = bundle_format.read_manifest(folder)
    new = {**manifest.artifacts, path.name: bundle_format.Artifact.of(path)}
    changed = replace(manifest, artifacts=new).dumps()
    (folder / bundle_format.MANIFEST).write_text(changed, encoding="utf-8")


class TestRows:
    """OpenVINO answers anything for ids past a table's end: no tokenizer may give them."""

    def test_they_are_what_the_graph_has(self, build_bundle: Any, tmp_path: Path) -> None:
        for family, types in (("bert", 2), ("roberta", None)):
            folder = Path(shutil.copytree(build_bundle(family), tmp_path / family))
            said = embedding_rows(folder, bundle_format.read_manifest(folder))
            forget_rows(folder)
            assert embedding_rows(folder, bundle_format.read_manifest(folder)) == said
            assert said[0] > 500
            assert said[1] == types

    @pytest.mark.parametrize("is_said", [True, False])
    @pytest.mark.parametrize("backend", sorted(BACKENDS))
    def test_a_token_without_one(self, own_bundle: Path, backend: str, is_said: bool) -> None:
        rows = bundle_format.read_manifest(own_bundle).encoder.vocabulary
        assert rows is not None
        add_token(own_bundle, "<url>", rows)
        if not is_said:
            forget_rows(own_bundle)
        message = rf"table has {rows} rows, got '<url>' \(id {rows}\)\."
        with pytest.raises(BundleError, match=message):
            Engine.load(own_bundle, backend=backend)

    def test_a_second_text_without_one(self, own_bundle: Path) -> None:
        say_of_encoder(own_bundle, token_types=1)
        with Engine.load(own_bundle, backend="onnxruntime") as engine:
            assert len(engine.encode(["a text"])) == 1
            with pytest.raises(InputError, match=r"text 1: got a pair, .* reads single texts only"):
                engine.encode(["a text", ("one", "two")])

    @pytest.mark.parametrize(
        "values", [{"pad_id": -1}, {"vocabulary": 0}, {"token_types": 0}, {"pad_id": 10**6}]
    )
    def test_numbers_that_make_no_sense(self, own_bundle: Path, values: dict[str, int]) -> None:
        say_of_encoder(own_bundle, **values)
        with pytest.raises(BundleError, match=r"malformed .*Export the bundle again"):
            Engine.load(own_bundle)

    def test_an_earlier_bundle_has_the_same_codes(self, own_bundle: Path) -> None:
        texts = ["the tide", ("was", "out")]
        with Engine.load(own_bundle, backend="onnxruntime") as engine:
            expected = engine.encode(texts).codes
        forget_rows(own_bundle)
        with Engine.load(own_bundle, backend="onnxruntime") as engine:
            assert np.array_equal(engine.encode(texts).codes, expected)


def test_a_field_of_a_newer_spec_is_an_error_that_names_it(own_bundle: Path) -> None:
    content = manifest_of(own_bundle)
    edit_manifest(own_bundle, spec={**content["spec"], "rotation": 7})
    with pytest.raises(BundleError, match=r"unknown fields \['rotation'\].*newer bitheads"):
        Engine.load(own_bundle)


def test_an_unknown_backend_is_an_error_that_names_the_known(tiny_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"got 'cuda', expected 'auto' or one of \['onnx"):
        Engine.load(tiny_bundle, backend="cuda")


@pytest.mark.parametrize(("backend", "extra"), [("openvino", ""), ("onnxruntime", "onnxruntime")])
def test_a_missing_backend_says_what_to_type(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, backend: str, extra: str
) -> None:
    fix = re.escape(how_to_install(extra))
    monkeypatch.setattr("bitheads.engine.sessions.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=rf"needs the package {backend!r}\. Type: {fix}$"):
        Engine.load(tiny_bundle, backend=backend)


def test_auto_takes_the_backend_that_is_there(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Engine.load(tiny_bundle).backend.startswith("openvino ")
    monkeypatch.setattr("bitheads.engine.sessions.is_installed", lambda name: name == "onnxruntime")
    assert Engine.load(tiny_bundle).backend == "onnxruntime fp32"


def test_auto_with_no_backend_says_what_to_type(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitheads.engine.sessions.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"no encoder backend is installed\. Type: pip install"):
        Engine.load(tiny_bundle)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_fp16_is_for_a_gpu(tiny_bundle: Path, backend: str) -> None:
    with pytest.raises(BackendError, match=r"got 'fp16', which is for a GPU.*precision='auto'"):
        Engine.load(tiny_bundle, backend, precision="fp16")


def test_an_unknown_precision_is_an_error(tiny_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"got 'int4', expected one of \['auto', 'fp32', 'bf16"):
        Engine.load(tiny_bundle, precision="int4")


def test_onnxruntime_has_no_bf16(tiny_bundle: Path) -> None:
    with pytest.raises(BackendError, match="onnxruntime computes in fp32"):
        Engine.load(tiny_bundle, backend="onnxruntime", precision="bf16")


def test_bf16_on_a_processor_without_it_is_an_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitheads.engine.sessions.openvino.has_bf16", lambda: False)
    with pytest.raises(BackendError, match="no bfloat16 arithmetic"):
        Engine.load(tiny_bundle, backend="openvino", precision="bf16")


def test_precision_is_what_was_asked_for(tiny_bundle: Path) -> None:
    precisions = ["fp32"] + (["bf16"] if supports_bf16("openvino") else [])
    for precision in precisions:
        engine = Engine.load(tiny_bundle, backend="openvino", precision=precision)
        assert engine.backend == f"openvino {precision}"
    assert Engine.load(tiny_bundle, backend="openvino").backend == f"openvino {precisions[-1]}"


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one_are_an_error(tiny_bundle: Path, threads: int) -> None:
    with pytest.raises(BackendError, match=rf"threads: got {threads}, expected at least 1"):
        Engine.load(tiny_bundle, threads=threads)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_one_thread_gives_the_same_codes(tiny_bundle: Path, backend: str) -> None:
    texts = ["The tide was out.", "A second, rather longer sentence about nothing at all."]
    options: dict[str, Any] = {"backend": backend, "precision": "fp32"}
    one = Engine.load(tiny_bundle, threads=1, **options).encode(texts)
    all_cores = Engine.load(tiny_bundle, **options).encode(texts)
    assert (one.codes == all_cores.codes).all()


def test_a_path_may_be_a_string(tiny_bundle: Path) -> None:
    engine = Engine.load(str(tiny_bundle), backend="onnxruntime")
    assert engine.spec.dim == 64
    assert dict(engine.tasks) == {}


def test_a_calibration_file_is_verified(build_bundle: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build_bundle("bert", thresholds="mean"), tmp_path / "bundle"))
    path = folder / bundle_format.CALIBRATION
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"calibration\.safetensors was changed"):
        Engine.load(folder)
    with pytest.raises(BundleError, match=r"has the hash .*expected .*Export the bundle again"):
        Engine.load(folder, verify=False)
    path.write_bytes(b"x")
    with pytest.raises(BundleError, match="cannot be read"):
        Engine.load(folder, verify=False)


@pytest.fixture
def no_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)


@pytest.mark.parametrize("backend", DEVICE_BACKENDS)
def test_a_gpu_backend_without_pycuda(tiny_bundle: Path, no_pycuda: None, backend: str) -> None:
    with pytest.raises(BackendError, match=r"pycuda cannot be imported .*\[gpu\]'"):
        Engine.load(tiny_bundle, backend=backend)


def test_auto_without_a_gpu_says_nothing(
    tiny_bundle: Path, no_pycuda: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        assert Engine.load(tiny_bundle).backend.split()[0] in BACKENDS
    assert not caplog.records


def test_auto_says_that_the_plan_is_not_used(
    own_bundle: Path, no_pycuda: None, caplog: pytest.LogCaptureFixture
) -> None:
    (own_bundle / "plans").mkdir(exist_ok=True)
    (own_bundle / "plans" / "some.plan").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        assert Engine.load(own_bundle).backend.split()[0] in BACKENDS
    (record,) = caplog.records
    assert "pycuda is not installed: running on the CPU" in record.message


@pytest.mark.parametrize("name", HOSTILE_BUNDLES)
def test_a_hostile_bundle_is_a_bundle_error(own_bundle: Path, name: str) -> None:
    spoil(own_bundle, name)
    with pytest.raises(BundleError, match=r"[Ee]xport"):
        Engine.load(own_bundle, backend="onnxruntime")


def test_weights_beside_the_graph_are_read_where_they_are_listed(own_bundle: Path) -> None:
    expected = Engine.load(own_bundle, backend="onnxruntime").encode(["A text."]).codes
    path = own_bundle / bundle_format.MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    with_external_weights(own_bundle, content)
    made = bundle_format.Artifact.of(own_bundle / "weights.bin")
    content["artifacts"]["weights.bin"] = {"bytes": made.bytes, "sha256": made.sha256}
    content["sha256"] = bundle_format._hash(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    got = Engine.load(own_bundle, backend="onnxruntime").encode(["A text."]).codes
    assert np.array_equal(got, expected)
    (own_bundle / "weights.bin").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"weights\.bin was changed"):
        Engine.load(own_bundle, backend="onnxruntime")
