"""What is no encoder of texts is refused in one line, before its weights are looked at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoModel,
    BartConfig,
    ByT5Tokenizer,
    CLIPConfig,
    SiglipConfig,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

from bitheads.export.build import main
from bitheads.export.errors import ExportError
from bitheads.export.source.encoder import load_encoder

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
DECODER = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "vocab_size": 3000,
}
BOTH = {
    "text_config": {**SHAPE, "vocab_size": 3000},
    "vision_config": {**SHAPE, "image_size": 32, "patch_size": 16},
}
SPEECH = {"conv_dim": (16,), "conv_kernel": (3,), "conv_stride": (2,), "num_feat_extract_layers": 1}

CASES = [
    (ViTConfig(**SHAPE, image_size=32), "'vit': it reads pixel_values, expected input_ids"),
    (
        Wav2Vec2Config(**SHAPE, **SPEECH, num_conv_pos_embedding_groups=2),
        "'wav2vec2': it reads input_values, expected input_ids",
    ),
    (WhisperConfig(**DECODER, pad_token_id=0), "'whisper': it reads input_features, expected"),
    (CLIPConfig(**BOTH), "'clip' has no table of tokens"),
    (SiglipConfig(**BOTH), "'siglip': cannot be run on token ids alone"),
    (BartConfig(**DECODER), "'bart': it is an encoder with a decoder, of which transformers has"),
]


@pytest.mark.parametrize(("config", "message"), CASES)
def test_models_of_other_things(
    tiny_encoder: Callable[[str], Path], tmp_path: Path, config: Any, message: str
) -> None:
    AutoModel.from_config(config).save_pretrained(tmp_path)
    for path in tiny_encoder("bert").glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(ExportError, match=message) as error:
        load_encoder(str(tmp_path))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [case for case in CASES if "siglip" not in case[1]],  # only running it shows it
)
def test_without_weights_and_tokenizer(tmp_path: Path, config: Any, message: str) -> None:
    """As on the hub: of images there is no tokenizer, and weights are not fetched yet."""
    config.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match=message):
        load_encoder(str(tmp_path))


def test_a_build_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "vit"
    ViTConfig(**SHAPE).save_pretrained(source)
    assert main(["--encoder", str(source), "--output", str(tmp_path / "bundle")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "error: encoder" in lines[-1]
    assert "pixel_values" in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["vit"]


class TestTokenizers:
    CONFIG = T5Config(d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=32, vocab_size=400)

    def test_without_a_fast_form(self, tmp_path: Path) -> None:
        T5EncoderModel(self.CONFIG).save_pretrained(tmp_path)
        ByT5Tokenizer().save_pretrained(tmp_path)
        with pytest.raises(ExportError, match=r"ByT5Tokenizer has no tokenizer\.json form"):
            load_encoder(str(tmp_path))

    def test_made_up_by_transformers(self, tmp_path: Path) -> None:
        """Of T5 it makes a tokenizer of special tokens where there is none."""
        T5EncoderModel(self.CONFIG).save_pretrained(tmp_path)
        with pytest.raises(ExportError, match="no tokenizer with a vocabulary there"):
            load_encoder(str(tmp_path))
