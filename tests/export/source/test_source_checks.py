"""What is in an encoder's files and not honoured is refused by name, before anything is traced."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_encoders import add_rows, add_token, edit, edit_tokenizer, edit_weights
from transformers import BertForMaskedLM

from bitheads.export.errors import ExportError
from bitheads.export.source.encoder import load_encoder

OwnEncoder = Callable[[str], Path]


@pytest.fixture
def own(tiny_encoder: Callable[[str], Path], tmp_path: Path) -> OwnEncoder:
    """Family -> a copy of its tiny encoder that a test may spoil."""

    def make(family: str = "bert") -> Path:
        return Path(shutil.copytree(tiny_encoder(family), tmp_path / f"odd-{family}"))

    return make


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ExportError, match=message) as error:
        load_encoder(str(folder))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("position_embedding_type", "relative_key", 'got "relative_key", expected "absolute"'),
        ("position_embedding_type", "relative_key_query", "expected .absolute.: transformers comp"),
        ("is_decoder", True, "got true, expected false: a decoder's tokens see only those before"),
        ("add_cross_attention", True, "got true, expected false"),
        ("chunk_size_feed_forward", 4, "got 4, expected 0: .*Set it to 0"),
        ("pruned_heads", {"0": [1]}, 'got {"0": .1.}, expected {}'),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}, "gptq.*expected none"),
    ],
)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlm-roberta"])
def test_config_json(own: OwnEncoder, family: str, key: str, value: Any, message: str) -> None:
    folder = own(family)
    edit(folder, **{key: value})
    refused(folder, rf"config\.json, {key}: .*{message}")


@pytest.mark.parametrize(
    "values",
    [
        {"position_embedding_type": "absolute", "is_decoder": False, "pruned_heads": {}},
        {"position_embedding_type": None, "quantization_config": None, "auto_map": {}},
        {"chunk_size_feed_forward": 0, "add_cross_attention": False, "use_cache": False},
        {"auto_map": {"AutoModelForSequenceClassification": "own.Classifier"}},
        {"pad_token_id": None, "torch_dtype": "float16", "architectures": ["BertForMaskedLM"]},
    ],
)
def test_what_says_what_is_so_anyway_is_fine(own: OwnEncoder, values: dict[str, Any]) -> None:
    folder = own("bert")
    before = load_encoder(str(folder)).weights_sha256
    edit(folder, **values)
    assert load_encoder(str(folder)).weights_sha256 == before


def test_positions_of_roberta_need_a_padding_id(own: OwnEncoder) -> None:
    folder = own("roberta")
    edit(folder, pad_token_id=None)
    refused(folder, r"config\.json, pad_token_id: got null, expected the token id of the padding")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_act": "none-such"}, "cannot be loaded .KeyError: 'none-such'"),
        ({"num_hidden_layers": "two"}, "found no model there .*num_hidden_layers"),
        ({"pad_token_id": 99999}, "cannot be loaded .AssertionError: Padding_idx"),
        ({"intermediate_size": 100}, r"other shapes .*such as .*: got \[128.*expected \[100"),
    ],
)
def test_values_that_no_model_can_be_made_of(
    own: OwnEncoder, values: dict[str, Any], message: str
) -> None:
    folder = own("bert")
    edit(folder, **values)
    refused(folder, message)


class TestWeights:
    """Weights of the encoder that find no place would be left out without a word."""

    @pytest.mark.parametrize(
        ("family", "prefix"),
        [("bert", "encoder"), ("roberta", "encoder"), ("distilbert", "transformer")],
    )
    def test_more_layers_than_config_json_has(
        self, own: OwnEncoder, family: str, prefix: str
    ) -> None:
        folder = own(family)
        edit(folder, **{"n_layers" if family == "distilbert" else "num_hidden_layers": 1})
        refused(folder, rf"\d+ weights of the encoder .*no place .*such as {prefix}\.layer\.1\.")

    @pytest.mark.parametrize(
        "key",
        [
            "encoder.layer.0.attention.self.distance_embedding.weight",
            "bert.encoder.layer.0.attention.self.query.lora_A.weight",
            "embeddings.conv.weight",
        ],
    )
    def test_of_another_kind(self, own: OwnEncoder, key: str) -> None:
        folder = own("bert")
        edit_weights(folder, lambda weights: weights.update({key: torch.ones(7, 16)}))
        refused(folder, rf"1 weights of the encoder .*such as {key}, and would be left out")

    def test_heads_and_counters_are_none_of_the_encoders(self, own: OwnEncoder) -> None:
        folder = own("bert")
        before = load_encoder(str(folder)).weights_sha256
        whole = BertForMaskedLM.from_pretrained(folder)
        whole.save_pretrained(folder)

        def add(weights: dict[str, torch.Tensor]) -> None:
            weights["bert.embeddings.position_ids"] = torch.arange(64)[None]
            weights["bert.pooler.dense.weight"] = torch.ones(64, 64)
            weights["classifier.weight"] = torch.ones(2, 64)

        edit_weights(folder, add)
        assert load_encoder(str(folder)).weights_sha256 == before


class TestCodeOfItsOwn:
    """Such code is never run, and never asked for on the terminal."""

    @pytest.fixture(autouse=True)
    def nobody_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def ask(prompt: str = "") -> str:
            pytest.fail(f"asked: {prompt}")

        monkeypatch.setattr("builtins.input", ask)

    @pytest.mark.parametrize("key", ["AutoModel", "AutoConfig"])
    def test_of_the_model(self, own: OwnEncoder, key: str) -> None:
        folder = own("bert")
        edit(folder, auto_map={key: "modeling.Own"})
        refused(folder, r"config\.json, auto_map: .*never run here\. .*itself as 'bert'")

    @pytest.mark.parametrize("model_type", ["own-bert", None])
    def test_of_a_model_of_its_own(self, own: OwnEncoder, model_type: str | None) -> None:
        folder = own("bert")
        edit(folder, model_type=model_type, auto_map={"AutoConfig": "m.C", "AutoModel": "m.M"})
        refused(folder, r"config\.json, auto_map: .*never run here")

    @pytest.mark.parametrize(
        "auto_map", [["own.Tokenizer", None], {"AutoTokenizer": ["o.T", None]}]
    )
    def test_of_the_tokenizer(self, own: OwnEncoder, auto_map: Any) -> None:
        folder = own("bert")
        edit(folder, "tokenizer_config.json", auto_map=auto_map)
        refused(folder, r"tokenizer_config\.json, auto_map: .*never run here")


class TestTokenizer:
    def test_cutting_on_the_left(self, own: OwnEncoder) -> None:
        folder = own("bert")
        edit(folder, "tokenizer_config.json", truncation_side="left")
        refused(folder, "truncation_side: got 'left', expected 'right'")

    def test_cutting_on_the_left_in_tokenizer_json(self, own: OwnEncoder) -> None:
        folder = own("roberta")
        cut = {"direction": "Left", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
        edit_tokenizer(folder, lambda content: content.update(truncation=cut))
        refused(folder, "truncation_side: got 'left', expected 'right'")

    def test_special_tokens_that_are_split(self, own: OwnEncoder) -> None:
        folder = own("bert")
        edit(folder, "tokenizer_config.json", split_special_tokens=True)
        refused(folder, "split_special_tokens: got true, expected false")

    def test_dropout(self, own: OwnEncoder) -> None:
        folder = own("roberta")
        edit_tokenizer(folder, lambda content: content["model"].update(dropout=0.1))
        refused(folder, r"tokenizer\.json, dropout: got 0\.1.*, expected null")

    @pytest.mark.parametrize("content", ["{", "3", '{"version": "1.0"}'])
    def test_a_damaged_file(self, own: OwnEncoder, content: str) -> None:
        folder = own("bert")
        (folder / "tokenizer.json").write_text(content)
        refused(folder, "its tokenizer cannot be loaded")


class TestRows:
    """Tokens and token types that there is no embedding for."""

    @pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlm-roberta"])
    def test_tokens_that_were_added_to_the_tokenizer_alone(
        self, own: OwnEncoder, family: str
    ) -> None:
        folder = own(family)
        rows = load_encoder(str(folder)).vocabulary
        add_token(folder, "<url>")
        add_token(folder, "<user>")
        found = rf"'<url>' \(id {rows}\), '<user>' \(id {rows + 1}\)\."
        refused(folder, rf"table has {rows} rows, got {found}.*resize_token_embeddings")
        add_rows(folder, 2)
        assert load_encoder(str(folder)).vocabulary == rows + 2

    def test_another_encoders_tokenizer(self, own: OwnEncoder) -> None:
        folder, other = own("bert"), own("roberta")
        add_rows(other, 500)
        for number in range(500):
            add_token(other, f"<{number}>") if number in (0, 499) else None
        for path in other.glob("tokenizer*"):
            shutil.copy(path, folder)
        refused(folder, r"no embedding for: .*another encoder's tokenizer: take its own")

    def test_a_padding_token_that_was_added(self, own: OwnEncoder) -> None:
        folder = own("bert")
        edit(folder, "tokenizer_config.json", pad_token="<padding>")
        refused(folder, r"no embedding for: .*'<padding>'")

    def test_token_types(self, own: OwnEncoder) -> None:
        folder = own("bert")
        edit(folder, type_vocab_size=1)
        name = "embeddings.token_type_embeddings.weight"
        edit_weights(folder, lambda weights: weights.update({name: weights[name][:1].clone()}))
        encoder = load_encoder(str(folder))
        assert (encoder.token_types, encoder.reads_token_types) == (1, False)

        def second_type(content: dict[str, Any]) -> None:
            for piece in content["post_processor"]["single"]:
                next(iter(piece.values()))["type_id"] = 1

        edit_tokenizer(folder, second_type)
        refused(folder, "gives a text the token type 1, expected less than 1")
