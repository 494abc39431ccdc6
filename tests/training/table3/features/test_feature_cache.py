"""Stored layers are the encoder's own, are computed once, and stay in bounds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from bitheads.engine.types import Text
from bitheads.export.source.encoder import HiddenStates, load_encoder
from bitheads.training.errors import TrainingError
from bitheads.training.multitask.config import Precision
from bitheads.training.table3.features.feature_cache import Encode, FeatureCache, LayerEncoder
from bitheads.training.table3.features.make_features import StoredLayers

MakeRoom = Callable[[int], None]

TEXTS = ["One.", "A longer text, of several words.", ("A pair,", "of two texts.")]


def any_size(num_bytes: int) -> None:
    """Makes no room, as there is some."""


def layer_encoder(folder: Path, precision: Precision = Precision.FP32) -> LayerEncoder:
    return LayerEncoder(load_encoder(str(folder)), (1, 3), None, precision, torch.device("cpu"))


@pytest.mark.parametrize("system", ["linux", "macos"])
def test_layers_are_the_encoders(
    tiny_encoder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
) -> None:
    if system == "macos":
        monkeypatch.delattr(os, "posix_fallocate")
    sizes: list[int] = []
    stored = layer_encoder(tiny_encoder("bert"))(TEXTS, tmp_path / "layers.npy", sizes.append)
    assert sizes == [stored.values.nbytes]
    encoder = load_encoder(str(tiny_encoder("bert")))
    module = HiddenStates(encoder, (1, 3))
    for i, text in enumerate(TEXTS):
        pair = (text,) if isinstance(text, str) else text
        inputs = encoder.tokenizer(*pair, return_tensors="pt", return_token_type_ids=True)
        with torch.inference_mode():
            hidden = module(inputs.input_ids, inputs.attention_mask, inputs.token_type_ids)
        expected = torch.stack(hidden, dim=2)[0].numpy()
        got = stored.values[stored.offsets[i] : stored.offsets[i + 1]]
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(np.load(tmp_path / "layers.npy"), stored.values)
    assert (stored.layers, stored.encoder_layers) == ((1, 3), 3)


def test_bf16(tiny_encoder: Callable[[str], Path], tmp_path: Path) -> None:
    exact = layer_encoder(tiny_encoder("bert"))(TEXTS, tmp_path / "exact.npy", any_size)
    encode = layer_encoder(tiny_encoder("bert"), Precision.BF16)
    near = encode(TEXTS, tmp_path / "near.npy", any_size)
    difference = np.abs(exact.values.astype(np.float32) - near.values)
    assert 0 < difference.max() < 0.3


def test_weights_that_are_not_finite(tiny_encoder: Callable[[str], Path], tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_encoder("bert")))
    with torch.no_grad():
        encoder.model.encoder.layer[1].output.dense.weight[0, 0] = torch.nan
    encode = LayerEncoder(encoder, (3,), None, Precision.FP32, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"hidden states leave float16"):
        encode(TEXTS, tmp_path / "layers.npy", any_size)


def fake(calls: list[Sequence[Text]]) -> Encode:
    """Ten float16 of its number of calls, 148 bytes on disk, for each text."""

    def encode(texts: Sequence[Text], path: Path, make_room: MakeRoom) -> StoredLayers:
        calls.append(texts)
        values = np.full((len(texts), 1, 10), len(calls), np.float16)
        make_room(values.nbytes + 300)  # headers, and the small files beside it
        np.save(path, values)
        return StoredLayers(values, np.arange(len(texts) + 1), (3,), 3)

    return encode


def test_computed_once(tmp_path: Path) -> None:
    calls: list[Sequence[Text]] = []
    for _ in range(2):
        cache = FeatureCache(tmp_path, 1e6)
        parts = cache.get({"task": "a"}, {"train": ["x", "y"], "dev": ["z"]}, fake(calls))
        assert parts["train"].values.shape == (2, 1, 10)
        assert parts["dev"].values[0, 0, 0] == 2
        np.testing.assert_array_equal(parts["train"].offsets, [0, 1, 2])
    assert calls == [["x", "y"], ["z"]]
    cache.get({"task": "b"}, {"train": ["x"]}, fake(calls))
    assert len(calls) == 3


def test_least_recently_used_make_room(tmp_path: Path) -> None:
    calls: list[Sequence[Text]] = []
    cache = FeatureCache(tmp_path, 1200)  # one task takes some 300 bytes
    for place, task in enumerate("abc"):
        before = set(tmp_path.iterdir())
        cache.get({"task": task}, {"train": ["x"]}, fake(calls))
        (folder,) = set(tmp_path.iterdir()) - before
        os.utime(folder, (place, place))
    assert len(list(tmp_path.iterdir())) == 3
    cache = FeatureCache(tmp_path, 700)
    cache.get({"task": "d"}, {"train": ["x"]}, fake(calls))
    assert len(list(tmp_path.iterdir())) == 2
    cache.get({"task": "c"}, {"train": ["x"]}, fake(calls))
    assert len(calls) == 4
    cache.get({"task": "a"}, {"train": ["x"]}, fake(calls))
    assert len(calls) == 5


def test_what_is_larger_than_the_bound_is_kept_while_needed(tmp_path: Path) -> None:
    calls: list[Sequence[Text]] = []
    stored = FeatureCache(tmp_path, 1).get({}, {"train": ["x"]}, fake(calls))
    assert stored["train"].values[0, 0, 0] == 1


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    def stopped(texts: Sequence[Text], path: Path, make_room: MakeRoom) -> StoredLayers:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path, 1e6).get({}, {"train": ["x"]}, stopped)
    assert not list(tmp_path.iterdir())


def test_full_disk(
    tiny_encoder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found when the file is made: later, writing to mapped memory would be a bus error."""

    def full(file: int, start: int, size: int) -> None:
        assert size > 4 * 64 * 2
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    encoder = load_encoder(str(tiny_encoder("bert")))
    encode = LayerEncoder(encoder, (3,), None, Precision.FP32, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"No space left on device\). Make room there"):
        FeatureCache(tmp_path, 1e6).get({}, {"train": TEXTS}, encode)
    assert not list(tmp_path.iterdir())


def test_a_task_and_the_calibration_are_both_at_hand(tmp_path: Path) -> None:
    calls: list[Sequence[Text]] = []
    cache = FeatureCache(tmp_path, 1)
    for _ in range(3):
        cache.get({"task": "a"}, {"train": ["x"]}, fake(calls))
        cache.get({"calibration": "c"}, {"texts": ["y"]}, fake(calls))
    assert len(calls) == 2


def test_room_is_made_first(tmp_path: Path) -> None:
    calls: list[Sequence[Text]] = []
    cache = FeatureCache(tmp_path, 1000)
    for task in "ab":
        cache.get({"task": task}, {"train": ["x"]}, fake(calls))

    def encode(texts: Sequence[Text], path: Path, make_room: MakeRoom) -> StoredLayers:
        make_room(700)
        assert len([p for p in tmp_path.iterdir() if not p.name.startswith(".")]) == 1
        return fake(calls)(texts, path, make_room)

    cache.get({"task": "c"}, {"train": ["x"]}, encode)
