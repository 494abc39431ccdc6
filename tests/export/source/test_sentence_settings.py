"""sentence-transformers' settings do what they do in sentence-transformers itself, where it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from odd_encoders import edit, share_as_in_transformers
from tiny_encoders import MAX_LENGTH

from bitheads import Engine
from bitheads.engine.bundle import TOKENIZER, read_manifest
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.export.config import BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.make_bundle import make_bundle
from bitheads.export.source.encoder import load_encoder

SETTINGS = "sentence_bert_config.json"
TEXTS = [
    "The Tide was OUT, and the ΟΔΟΣ too: İstanbul, [SEP] <mask>.",
    "A SECOND, rather longer sentence about Nothing at all. " * 9,
    "plain",
]


@pytest.fixture
def own(tiny_encoder: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Makes sentence-transformers' folder of a tiny encoder, its model in a folder of its own."""

    def make(family: str, below: str, **settings: Any) -> Path:
        root = tmp_path / f"sentences-{family}"
        shutil.copytree(tiny_encoder(family), root / below)
        (root / "1_Pooling").mkdir()
        kinds = {"Transformer": below, "Pooling": "1_Pooling"}
        modules = [
            {"idx": i, "name": f"{i}", "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds.items())
        ]
        (root / "modules.json").write_text(json.dumps(modules))
        pooling = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
        (root / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        edit(root / below, SETTINGS, **settings)
        return root

    return make


def of_sentence_transformers(folder: Path, texts: list[str]) -> tuple[int, list[list[int]]]:
    """Its limit, and its token ids."""
    library = pytest.importorskip("sentence_transformers", reason="make bench installs it")
    model = library.SentenceTransformer(str(folder), device="cpu")
    ids = [model.preprocess([text])["input_ids"][0].tolist() for text in texts]
    return model.max_seq_length, ids


CASES = [
    ("bert", "", {"max_seq_length": 24, "do_lower_case": False}),
    ("bert", "0_Transformer", {"max_seq_length": 24, "do_lower_case": True}),
    ("roberta", "0_Transformer", {"max_seq_length": 24, "do_lower_case": True}),
    ("roberta", "", {"max_seq_length": None, "do_lower_case": True}),
    ("xlm-roberta", "", {"do_lower_case": True}),
    ("bert", "", {"max_seq_length": 24, "tokenizer_args": {"model_max_length": 17}}),
]


@pytest.mark.parametrize(("family", "below", "settings"), CASES)
def test_tokens_are_those_of_sentence_transformers(
    own: Callable[..., Path], tmp_path: Path, family: str, below: str, settings: dict[str, Any]
) -> None:
    folder = own(family, below, **settings)
    encoder = load_encoder(str(folder))
    length = encoder.usual_length or encoder.max_length
    path = tmp_path / TOKENIZER
    encoder.tokenizer.backend_tokenizer.save(str(path))
    found = [tokens.ids.tolist() for tokens in TextTokenizer(path, length)(TEXTS)]
    assert (length, found) == of_sentence_transformers(folder, TEXTS)


def test_more_than_the_model_reads(own: Callable[..., Path]) -> None:
    """sentence-transformers takes the number as it is, and fails on a text of more tokens."""
    encoder = load_encoder(str(own("bert", "", max_seq_length=10_000)))
    assert encoder.usual_length == encoder.max_length == MAX_LENGTH


def test_more_than_the_tokenizer_says(own: Callable[..., Path]) -> None:
    folder = own("bert", "", max_seq_length=40)
    edit(folder, "tokenizer_config.json", model_max_length=16)
    encoder = load_encoder(str(folder))
    assert (encoder.usual_length, encoder.max_length) == (40, 40)
    edit(folder, SETTINGS, max_seq_length=None)
    encoder = load_encoder(str(folder))
    assert (encoder.usual_length, encoder.max_length) == (None, 16)


def test_a_bundle_of_it(own: Callable[..., Path], tmp_path: Path) -> None:
    folder = own("roberta", "0_Transformer", max_seq_length=24, do_lower_case=True)
    options: dict[str, Any] = {"encoder": str(folder), "precision": "fp32", "layers": "2"}
    make_bundle(BuildConfig(**options, output=tmp_path / "bundle"))
    assert read_manifest(tmp_path / "bundle").encoder.max_length == 24
    with Engine.load(tmp_path / "bundle") as engine:
        upper, lower = engine.encode(["The Tide was OUT", "the tide was out"])
        assert upper.codes.tolist() == lower.codes.tolist()
    # transformers knows nothing of it, so the texts are those that it should make no other.
    texts = [text.lower() for text in ("The tide was out.", "A second, rather longer sentence.")]
    assert share_as_in_transformers(folder / "0_Transformer", tmp_path / "bundle", texts) >= 0.999
    longer = BuildConfig(**options, max_length=50, output=tmp_path / "longer")
    assert make_bundle(longer).encoder.max_length == 50


def test_the_wheels_model_reads_what_it_did() -> None:
    """Its settings say 256, its heads are used with 512."""
    encoder = load_encoder("all-MiniLM-L6-v2")
    assert (encoder.usual_length, encoder.max_length) == (None, 512)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_seq_length": "long"}, "max_seq_length: got 'long', expected a number of tokens"),
        ({"max_seq_length": 0}, "max_seq_length: got 0, expected a number of tokens above 0"),
        ({"config_args": {"num_hidden_layers": 1}}, "config_args: got num_hidden_layers, expected"),
        ({"model_kwargs": {"variant": "fp16"}}, "model_kwargs: got variant, expected none"),
        ({"tokenizer_args": 3}, "cannot be read"),
        ({"modality_config": {"message": {}}}, "modality_config: got none for text"),
    ],
)
def test_what_is_not_honoured(
    own: Callable[..., Path], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=rf"sentence_bert_config\.json.* {message}"):
        load_encoder(str(own("bert", "", **settings)))


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_damaged_file(own: Callable[..., Path], content: str) -> None:
    folder = own("bert", "")
    (folder / SETTINGS).write_text(content)
    with pytest.raises(ExportError, match=r"sentence_bert_config\.json cannot be read"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"type": "sentence_transformers.models.CLIPModel", "path": ""}, "is a CLIPModel, expecte"),
        (
            {"type": "x.Transformer", "path": "../bert"},
            r"got the path '\.\./bert', expected one wi",
        ),
        ({"type": "x.Transformer", "path": "/tmp"}, "got the path '/tmp', expected one within"),
        ({"path": ""}, r"modules\.json cannot be read"),
    ],
)
def test_modules(own: Callable[..., Path], module: dict[str, str], message: str) -> None:
    folder = own("bert", "")
    (folder / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(ExportError, match=message):
        load_encoder(str(folder))
