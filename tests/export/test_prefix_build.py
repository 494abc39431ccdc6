"""A causal encoder with a prefix and heads on its last token, held to transformers' own model.

Model and tokenizer are called on one string, the prefix and the text, as anybody calls them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from causal_encoder import END, save_causal_encoder
from numpy.typing import NDArray
from random_heads import random_head
from tiny_encoders import MAX_LENGTH, corpus
from transformers import AutoModel, AutoTokenizer

from bitheads import Engine, PositionPooling
from bitheads.engine.bundle import read_manifest
from bitheads.engine.features.codes import unpack
from bitheads.engine.heads.head_file import FoldedHead, write_head
from bitheads.engine.types import Text
from bitheads.export.build import main

PREFIX = "Instruct: Find what the tide leaves.\nQuery:"
LAYERS = (2, 3)
TEXTS = [*corpus()[:60], "", "tide", "mud " * 100]
PAIRS: list[Text] = [("the tide", "was out"), ("mud " * 50, "tide " * 50)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_causal_encoder(tmp_path_factory.mktemp("source") / "causal")


@pytest.fixture(scope="module")
def bundle(source: Path, few_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundle") / "causal"
    options = ["--encoder", source, "--calibration", few_texts, "--output", output]
    options += ["--prefix", PREFIX, "--precision", "fp32", "--layers", "2-3"]
    assert main([*map(str, options), "--min-sign-agreement", "0.99"]) == 0
    return output


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Engine:
    return Engine.load(bundle, backend="onnxruntime")


def by_transformers(source: Path, prefix: str, texts: list[Text]) -> list[NDArray[np.float32]]:
    """Each text's mean of the layers, float32 [tokens, dim]."""
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
    found = []
    for text in texts:
        first, *second = (text,) if isinstance(text, str) else text
        inputs = tokenizer(
            prefix + first, *second, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        with torch.inference_mode():
            states = model.eval()(**inputs, output_hidden_states=True).hidden_states
        found.append(np.mean([states[layer][0].numpy() for layer in LAYERS], axis=0))
    return found


def signs(packed: NDArray[np.uint8], dim: int) -> NDArray[np.bool_]:
    return np.unpackbits(packed, axis=1, count=dim).astype(bool)


def test_codes_are_of_the_prefix_and_the_text(source: Path, engine: Engine) -> None:
    texts: list[Text] = [*TEXTS, *PAIRS]
    features, dim = engine.encode(texts), engine.spec.dim
    expected = by_transformers(source, PREFIX, texts)
    assert features.num_tokens.tolist() == [len(states) for states in expected]
    same = signs(features.codes, dim) == (np.concatenate(expected) > 0)
    assert same.mean() >= 0.999
    ends = features.offsets[1:] - 1
    last = signs(features.codes[ends], dim)
    assert (last == (np.stack([states[-1] for states in expected]) > 0)).mean() >= 0.999
    # It matters: without the prefix a text's last token has another code.
    bare = np.stack([states[-1] for states in by_transformers(source, "", texts)]) > 0
    assert (last == bare).mean() < 0.95


def test_the_last_token_is_what_the_tokenizer_puts_there(source: Path, engine: Engine) -> None:
    (end,) = AutoTokenizer.from_pretrained(source)([END])["input_ids"][0][:1]
    assert {tokens.ids[-1] for tokens in engine.tokenizer([*TEXTS, *PAIRS])} == {end}


def test_a_last_head_reads_the_last_token(source: Path, engine: Engine, tmp_path: Path) -> None:
    """Its logits by the formula of heads, of the signs that transformers' last token has."""
    head = random_head(engine.spec, "ending", PositionPooling.LAST, classes=4)
    write_head(head, tmp_path / "ending.safetensors")
    engine.add_head(tmp_path / "ending.safetensors")
    got = engine.predict(TEXTS, ["ending"])["ending"].logits
    expected = by_transformers(source, PREFIX, TEXTS)
    last = np.stack([states[-1] for states in expected]) > 0
    agree = np.isclose(got, evaluate(head, last), atol=1e-3).all(axis=1)
    assert agree.mean() >= 0.95  # but where a sign is another
    first = np.stack([states[0] for states in expected]) > 0
    assert not np.isclose(got, evaluate(head, first), atol=1e-3).all(axis=1).any()
    assert got.std(axis=0).min() > 0.01


def evaluate(head: FoldedHead, codes: NDArray[np.bool_]) -> NDArray[np.float64]:
    hidden = np.tanh(codes.astype(np.float64) @ head.dense.T + head.dense_bias)
    logits: NDArray[np.float64] = hidden @ head.output.T + head.output_bias
    return logits


def test_of_a_split_text_it_is_the_last_window_s(engine: Engine, tmp_path: Path) -> None:
    head = random_head(engine.spec, "split", PositionPooling.LAST, classes=4)
    write_head(head, tmp_path / "split.safetensors")
    engine.add_head(tmp_path / "split.safetensors")
    text = " ".join(corpus()[:20])
    features = engine.encode([text], long_texts="split")
    assert features.stats.num_windows > 3
    got = engine.predict([text], ["split"], long_texts="split")["split"].logits
    spec = engine.spec
    one, zero = np.ones(spec.dim, np.float32), np.zeros(spec.dim, np.float32)
    codes = unpack(features.codes[-1:], spec.dim, spec.quantization.value, one, zero)
    np.testing.assert_allclose(got, evaluate(head, codes > 0), atol=1e-3)


def test_the_build_says_what_it_was(bundle: Path, engine: Engine) -> None:
    manifest = read_manifest(bundle)
    assert manifest.spec.prefix == PREFIX
    assert manifest.parity["odd_texts"] > 15
    assert engine.spec.id == manifest.spec.id


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("tide " * 40, "so that texts have room"),
        ("\udcff", "--prefix: got '\\udcff', expected text"),
    ],
)
def test_prefixes_that_cannot_be(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prefix: str, message: str
) -> None:
    options = ["--encoder", source, "--output", tmp_path / "bundle", "--prefix", prefix]
    assert main([*map(str, options)]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
