"""The head file format: what is written comes back, what was damaged does not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_heads import HOSTILE_HEADS, SOUND_HEADS, write_hostile_head
from random_heads import random_head, random_two_texts_head
from safetensors import safe_open
from safetensors.numpy import save_file

from bitheads import (
    Engine,
    FeatureSpec,
    HeadError,
    LayerPooling,
    Order,
    PositionPooling,
    Quantization,
    SpecMismatchError,
    UnknownTaskError,
)
from bitheads.engine import engine as engine_module
from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.cpu import lay_out, load_head
from bitheads.engine.heads.head_file import METADATA_KEY, FoldedHead, read_head, write_head
from bitheads.engine.kinds import Decision

SPEC = FeatureSpec(
    encoder="tiny",
    weights_sha256="0" * 64,
    layers=(2, 3),
    layer_pooling=LayerPooling.MEAN,
    quantization=Quantization.SIGN,
    order=Order.POOL_THEN_SIGN,
    dim=16,
)


@pytest.fixture
def head() -> FoldedHead:
    return random_head(
        SPEC,
        task="sentiment",
        classes=2,
        form="pair",
        metrics={"dev_accuracy": 0.75},
        training={"seed": 3, "data": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"},
    )


@pytest.fixture
def written(head: FoldedHead, tmp_path: Path) -> Path:
    path = tmp_path / "sentiment.safetensors"
    write_head(head, path)
    return path


def save_as_head(path: Path, metadata: str, **tensors: np.ndarray) -> None:
    save_file(tensors or {"dense": np.zeros((2, 2), np.float32)}, path, {METADATA_KEY: metadata})


@pytest.mark.parametrize("pooling", list(PositionPooling))
def test_what_is_written_comes_back(tmp_path: Path, pooling: PositionPooling) -> None:
    head = random_head(SPEC, pooling=pooling, metrics={"f1": 0.5}, training={"steps": 7})
    write_head(head, tmp_path / "new" / "task.safetensors")
    back = read_head(tmp_path / "new" / "task.safetensors")
    for name in ("task", "labels", "form", "position_pooling", "spec", "metrics", "training"):
        assert getattr(back, name) == getattr(head, name)
    assert back.tensors.keys() == head.tensors.keys()
    for name, array in head.tensors.items():
        assert back.tensors[name].dtype == np.float32
        assert np.array_equal(back.tensors[name], array)
    assert back.spec.id == head.spec.id
    assert back.nbytes == head.nbytes


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pooling", list(PositionPooling))
def test_a_head_of_two_texts_comes_back(
    tmp_path: Path, pooling: PositionPooling, dtype: str
) -> None:
    head = random_two_texts_head(SPEC, pooling=pooling, vector_size=9, metrics={"f1": 0.5})
    assert head.format_version == 3
    write_head(head, tmp_path / "task.safetensors", dtype=dtype)
    with safe_open(tmp_path / "task.safetensors", framework="numpy") as file:
        meta = json.loads(file.metadata()[METADATA_KEY])
        assert {name for name in file.keys() if name.startswith("pair_")} == {  # noqa: SIM118
            "pair_dense",
            "pair_dense_bias",
            "pair_output",
            "pair_output_bias",
        }
    assert (meta["format_version"], meta["form"]) == (3, "two_texts")
    assert (meta["kind"], meta["decision"]) == ("single_label", {})
    back = read_head(tmp_path / "task.safetensors")
    assert back.pair is not None
    assert (back.num_outputs, back.num_text_outputs) == (3, 9)
    assert back.tensors.keys() == head.tensors.keys()
    for name, array in head.tensors.items():
        assert np.array_equal(back.tensors[name], array.astype(dtype))
    assert back.nbytes == head.nbytes


def test_what_older_readers_read_is_as_it_was(head: FoldedHead) -> None:
    assert head.format_version == 1
    assert replace(head, kind="multi_label", decision=Decision((0, 0))).format_version == 2


def test_only_a_head_of_two_texts_has_a_half_for_pairs(head: FoldedHead) -> None:
    of_two_texts = random_two_texts_head(SPEC, vector_size=9)
    with pytest.raises(HeadError, match=r"pair_dense has the shape None, expected \(1, 38\)"):
        replace(of_two_texts, pair=None)
    with pytest.raises(HeadError, match=r"pair_dense has the shape \(40, 38\), expected None"):
        replace(head, pair=of_two_texts.pair)


def test_a_float16_file_is_half_the_size_and_rounded_once(
    head: FoldedHead, written: Path, tmp_path: Path
) -> None:
    path = tmp_path / "half.safetensors"
    write_head(head, path, dtype="float16")
    assert path.stat().st_size < 0.75 * written.stat().st_size
    back = read_head(path)
    for name, array in head.tensors.items():
        assert back.tensors[name].dtype == np.float32
        assert np.array_equal(back.tensors[name], array.astype(np.float16).astype(np.float32))


def test_a_weight_beyond_float16_is_an_error(head: FoldedHead, tmp_path: Path) -> None:
    large = replace(head, output_bias=np.array([1e6, 0], np.float32))
    path = tmp_path / "large.safetensors"
    with pytest.raises(HeadError, match=r"output_bias overflows float16\. Write it as float32"):
        write_head(large, path, dtype="float16")
    assert not path.exists()


def test_an_existing_file_is_kept_unless_forced(head: FoldedHead, written: Path) -> None:
    before = written.read_bytes()
    other = replace(head, labels=("no", "yes"))
    with pytest.raises(HeadError, match=r"exists\. Pass force=True"):
        write_head(other, written)
    assert written.read_bytes() == before
    write_head(other, written, force=True)
    assert read_head(written).labels == ("no", "yes")


def test_an_unwritable_path_is_an_error(head: FoldedHead, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HeadError, match=r"cannot be written .*Choose a folder you may write to"):
        write_head(head, tmp_path / "file" / "head.safetensors")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(HeadError, match="cannot be written"):
        write_head(head, folder, force=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    head: FoldedHead, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bitheads.engine.files.whole_file.os.fsync", full)
    with pytest.raises(HeadError, match="No space left"):
        write_head(head, written, force=True)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_one_flipped_bit_is_found_anywhere(written: Path) -> None:
    """In the length, the header, the tensors: at every byte, and no other error than HeadError."""
    data = written.read_bytes()
    header_end = 8 + int.from_bytes(data[:8], "little")
    assert METADATA_KEY.encode() in data[:header_end]
    positions = [*range(header_end), *range(header_end, len(data), 97), len(data) - 1]
    for position in positions:
        spoiled = bytearray(data)
        spoiled[position] ^= 1
        written.write_bytes(spoiled)
        with pytest.raises(HeadError, match=written.name):
            read_head(written)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, -1000, -1])
def test_a_truncated_file_is_an_error(written: Path, size: int) -> None:
    written.write_bytes(written.read_bytes()[:size])
    with pytest.raises(HeadError, match=r"cannot be read .*Copy or train it again"):
        read_head(written)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_an_error(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "random.safetensors"
    path.write_bytes(np.random.default_rng(seed).bytes(10 + 500 * seed))
    with pytest.raises(HeadError, match="cannot be read"):
        read_head(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"no such file\. Train one with `bitheads train-head"):
        read_head(tmp_path / "none.safetensors")


def test_a_folder_is_no_head(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="cannot be read"):
        read_head(tmp_path)


def test_another_safetensors_file_is_no_head(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(HeadError, match=r"without 'bitheads_head' in its header, so not a head"):
        read_head(path)


@pytest.mark.parametrize(
    "metadata",
    ["", "x", "[]", "null", "3", "{}", '{"format_version": 1}', "[" * 100_000],
    ids=lambda text: text[:20] or "empty",
)
def test_a_malformed_header_is_an_error(tmp_path: Path, metadata: str) -> None:
    path = tmp_path / "head.safetensors"
    save_as_head(path, metadata)
    with pytest.raises(HeadError, match=r"header is malformed .*Train it again"):
        read_head(path)


def test_another_format_version_is_an_error_that_names_both(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_as_head(path, json.dumps({"format_version": 4}))
    with pytest.raises(HeadError, match=r"got format version 4, expected one of \[1, 2, 3\]"):
        read_head(path)


def test_a_type_numpy_lacks_is_an_error(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch_file

    path = tmp_path / "head.safetensors"
    save_torch_file({"dense": torch.zeros(2, dtype=torch.bfloat16)}, path, {METADATA_KEY: "{}"})
    # Unless something else taught NumPy the type: then it is the empty header that is wrong.
    with pytest.raises(HeadError, match=r"cannot be read|header is malformed"):
        read_head(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("query", (4, 15)),
        ("query", (16,)),
        ("query", (3, 16)),
        ("query", (0, 16)),
        ("query", (17, 16)),
        ("value", (16, 15)),
        ("dense", (16, 15)),
        ("dense", (15, 16)),
        ("dense_bias", (16, 1)),
        ("output", (2, 15)),
        ("output", (3, 16)),
        ("output_bias", (3,)),
        ("output_bias", ()),
    ],
)
def test_a_wrong_shape_is_an_error(head: FoldedHead, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(HeadError, match="head 'sentiment'"):
        replace(head, **{name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize("name", ["query", "value"])
def test_attention_needs_its_weights_and_the_others_have_none(head: FoldedHead, name: str) -> None:
    with pytest.raises(HeadError, match=rf"{name} has the shape None"):
        replace(head, **{name: None})
    with pytest.raises(HeadError, match=r"expected None for mean pooling"):
        replace(head, position_pooling=PositionPooling.MEAN)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["query", "value", "dense", "dense_bias", "output", "output_bias"])
def test_a_weight_that_is_not_finite_is_an_error(head: FoldedHead, name: str, bad: float) -> None:
    array = head.tensors[name].copy()
    array.flat[-1] = bad
    with pytest.raises(HeadError, match=rf"{name} holds values that are not finite"):
        replace(head, **{name: array})


@pytest.mark.parametrize(
    "task", ["", ".", "..", "../x", "a/b", "a b", "-a", "a" * 101, "a\n", "caf\xe9", "a\0"]
)
def test_a_task_name_is_a_plain_file_name(head: FoldedHead, task: str) -> None:
    with pytest.raises(HeadError, match="task name"):
        replace(head, task=task)


@pytest.mark.parametrize(
    ("field", "value"), [("form", "triple"), ("labels", ("a",)), ("labels", ("a", "a"))]
)
def test_form_and_labels_are_checked(head: FoldedHead, field: str, value: Any) -> None:
    with pytest.raises(HeadError, match="expected"):
        replace(head, **{field: value})


class TestInAnEngine:
    """Heads come and go without the encoder noticing."""

    @pytest.fixture
    def path(self, tiny_engine: Engine, tmp_path: Path) -> Path:
        path = tmp_path / "topic.safetensors"
        write_head(random_head(tiny_engine.spec, "topic", metrics={"f1": 0.5}), path)
        return path

    def test_add_and_remove(self, tiny_engine: Engine, path: Path) -> None:
        before = tiny_engine.tasks
        assert tiny_engine.add_head(path) == "topic"
        assert dict(before) == {}
        info = tiny_engine.tasks["topic"]
        assert info.labels == ("label-0", "label-1", "label-2")
        assert info.form == "single"
        assert info.metrics == {"f1": 0.5}
        assert info.nbytes == lay_out(read_head(path)).nbytes
        tiny_engine.remove_head("topic")
        assert dict(tiny_engine.tasks) == {}
        assert path.exists()
        with pytest.raises(UnknownTaskError, match=r"'topic': no such head.*none \(no head is l"):
            tiny_engine.remove_head("topic")

    def test_a_name_is_taken_until_replaced(self, tiny_engine: Engine, path: Path) -> None:
        tiny_engine.add_head(str(path))
        with pytest.raises(HeadError, match=r"task 'topic' is loaded already.*replace=True"):
            tiny_engine.add_head(path)
        write_head(random_head(tiny_engine.spec, "topic", classes=5), path, force=True)
        tiny_engine.add_head(path, replace=True)
        assert len(tiny_engine.tasks["topic"].labels) == 5

    def test_a_head_of_another_spec_names_both_ids(
        self, tiny_engine: Engine, tmp_path: Path
    ) -> None:
        other = replace(tiny_engine.spec, weights_sha256="f" * 64)
        path = tmp_path / "other.safetensors"
        write_head(random_head(other), path)
        with pytest.raises(SpecMismatchError, match=rf"{other.id}.*{tiny_engine.spec.id}"):
            tiny_engine.add_head(path)
        assert dict(tiny_engine.tasks) == {}

    def test_a_damaged_head_leaves_the_others(self, tiny_engine: Engine, path: Path) -> None:
        tiny_engine.add_head(path)
        path.write_bytes(b"damaged")
        with pytest.raises(HeadError, match=r"topic\.safetensors"):
            tiny_engine.add_head(path, replace=True)
        assert list(tiny_engine.tasks) == ["topic"]

    def test_heads_of_the_bundle_are_loaded(self, own_bundle: Path, path: Path) -> None:
        write_head(read_head(path), own_bundle / "heads" / "topic.safetensors")
        assert list(Engine.load(own_bundle, backend="onnxruntime").tasks) == ["topic"]
        (own_bundle / "heads" / "bad.safetensors").write_bytes(b"x")
        with pytest.raises(HeadError, match=r"bad\.safetensors"):
            Engine.load(own_bundle, backend="onnxruntime")

    def test_many_heads_of_a_bundle_are_as_if_added_one_by_one(
        self, own_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = read_manifest(own_bundle).spec
        folder = own_bundle / "heads"
        names = [f"task-{i:02}" for i in range(30)]
        for name in names:
            write_head(random_head(spec, name), folder / f"{name}.safetensors", dtype="float16")
        with Engine.load(own_bundle, backend="onnxruntime", threads=1) as engine:
            assert list(engine.tasks) == names
            expected = engine.predict(["text"])
        read = engine_module.read_head

        def read_late(path: Path) -> FoldedHead:  # the first heads are done last
            time.sleep(0.02 if path.stem < "task-04" else 0)
            return read(path)

        monkeypatch.setattr(engine_module, "read_head", read_late)
        with Engine.load(own_bundle, backend="onnxruntime", threads=4) as engine:
            assert list(engine.tasks) == names
            for name, prediction in engine.predict(["text"]).items():
                assert np.array_equal(prediction.logits, expected[name].logits)

    @pytest.mark.parametrize("threads", [1, 4])
    def test_the_first_of_many_errors_in_a_bundle_is_the_one_raised(
        self, own_bundle: Path, monkeypatch: pytest.MonkeyPatch, threads: int
    ) -> None:
        spec = read_manifest(own_bundle).spec
        folder = own_bundle / "heads"
        for i in range(40):
            write_head(random_head(spec, f"task-{i:02}"), folder / f"{i:02}.safetensors")
        (folder / "03.safetensors").write_bytes(b"x")
        other = replace(spec, weights_sha256="f" * 64)
        write_head(random_head(other, "task-02"), folder / "02.safetensors", force=True)
        write_head(random_head(spec, "task-00"), folder / "01.safetensors", force=True)
        read = engine_module.read_head

        def read_late(path: Path) -> FoldedHead:
            time.sleep(0.05 if path.stem < "02" else 0)
            return read(path)

        monkeypatch.setattr(engine_module, "read_head", read_late)
        for name, error, message in (
            ("01", HeadError, r"01\.safetensors: task 'task-00' is loaded already"),
            ("02", SpecMismatchError, r"02\.safetensors: got feature spec"),
            ("03", HeadError, r"03\.safetensors: cannot be read"),
        ):
            with pytest.raises(error, match=message):
                Engine.load(own_bundle, backend="onnxruntime", threads=threads)
            (folder / f"{name}.safetensors").unlink()
        assert len(Engine.load(own_bundle, backend="onnxruntime").tasks) == 37


@pytest.mark.parametrize("name", HOSTILE_HEADS)
def test_a_hostile_head_is_a_head_error(tmp_path: Path, name: str) -> None:
    """Whatever is wrong with it, before the kernels see it or by them."""
    path = tmp_path / "hostile.safetensors"
    write_hostile_head(name, replace(SPEC, dim=64), path)
    with pytest.raises(HeadError, match=r"hostile"):
        load_head(read_head(path))


@pytest.mark.parametrize("name", SOUND_HEADS)
def test_an_odd_head_is_a_head(tmp_path: Path, name: str) -> None:
    path = tmp_path / "odd.safetensors"
    write_hostile_head(name, replace(SPEC, dim=64), path)
    assert load_head(read_head(path)).task == "hostile"


def test_notes_that_no_json_has_are_not_written(tmp_path: Path) -> None:
    head = random_head(SPEC, training={"loss": float("nan")})
    with pytest.raises(HeadError, match=r"its metadata cannot be written \(NaN is not JSON\)"):
        write_head(head, tmp_path / "task.safetensors")
    assert not [*tmp_path.iterdir()]
