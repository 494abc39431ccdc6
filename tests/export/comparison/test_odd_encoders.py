"""Encoders that are odd in one thing: built, their signs are those that transformers computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_encoders import (
    add_rows,
    add_token,
    edit,
    edit_tokenizer,
    edit_weights,
    share_as_in_transformers,
)
from tiny_encoders import corpus

from bitheads import Engine, InputError
from bitheads.engine.bundle import TOKENIZER, read_manifest
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.engine.types import Text
from bitheads.export.comparison.compared_texts import run_reference
from bitheads.export.comparison.reference_model import ReferenceModel
from bitheads.export.config import BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.make_bundle import make_bundle
from bitheads.export.source.encoder import HiddenStates

TEXTS: list[Text] = [
    "The tide <pad> was [SEP] out,<mask> and </s>  Every boat [PAD] LAY on its sid\u00e9.",
    "",
    " ".join(corpus()[:9]),
    *corpus()[:3],
]
PAIRS: list[Text] = [(corpus()[0], "Nobody <pad> told [MASK] her."), (corpus()[1], "x " * 90)]
TYPES = ["input_ids", "token_type_ids", "attention_mask"]
TYPE_TABLE = "embeddings.token_type_embeddings.weight"

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(corpus()[::40]), encoding="utf-8")
    return path


@pytest.fixture
def build(
    tiny_encoder: Callable[[str], Path], calibration: Path, traced_once: None, tmp_path: Path
) -> Callable[..., tuple[Path, Path]]:
    """(family, change of its files) -> the odd encoder's folder, and its bundle's."""

    def make(family: str, change: Change) -> tuple[Path, Path]:
        source = Path(shutil.copytree(tiny_encoder(family), tmp_path / f"odd-{family}"))
        change(source)
        output = tmp_path / "bundle"
        # So few sentences that bf16 may be just below its bound. fp32 is held to 99.9% below.
        options: dict[str, Any] = {"precision": "fp32", "layers": "2", "min_sign_agreement": 0.99}
        make_bundle(BuildConfig(str(source), calibration=calibration, output=output, **options))
        return source, output

    return make


def settings(file: str = "tokenizer_config.json", **values: Any) -> Change:
    return lambda folder: edit(folder, file, **values)


def several(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def own_class(**values: Any) -> Change:
    """The tokenizer class of the family, which makes some parts anew, by settings."""

    def change(folder: Path) -> None:
        name = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta"}
        family = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        edit(folder, "tokenizer_config.json", tokenizer_class=f"{name[family]}Tokenizer", **values)

    return change


def cut_and_padded(folder: Path) -> None:
    cut = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    pad = {
        "strategy": {"Fixed": 30},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    edit_tokenizer(folder, lambda content: content.update(truncation=cut, padding=pad))


def with_tokens(folder: Path) -> None:
    add_token(folder, "<url>", lstrip=True, rstrip=True)
    add_token(folder, "tide", single_word=True)
    add_token(folder, "<User>", normalized=True)
    add_rows(folder, 3)


def without_template(folder: Path) -> None:
    edit_tokenizer(folder, lambda content: content.update(post_processor=None))


def without_padding_token(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["pad_token"]
    path.write_text(json.dumps(content), encoding="utf-8")
    edit(folder, pad_token_id=None)


def token_types(rows: int) -> Change:
    """The tokenizer gives types, and their table has so many rows."""

    def change(folder: Path) -> None:
        edit(folder, type_vocab_size=rows)
        edit(folder, "tokenizer_config.json", model_input_names=TYPES)
        shape = torch.Generator().manual_seed(3)
        table = torch.randn(rows, 64, generator=shape)
        edit_weights(folder, lambda weights: weights.update({TYPE_TABLE: table}))

    return change


def second_text_has_type_1(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        pieces = content["post_processor"]["pair"]
        second = next(
            i for i, piece in enumerate(pieces) if piece.get("Sequence", {}).get("id") == "B"
        )
        for piece in pieces[second:]:
            next(iter(piece.values()))["type_id"] = 1

    edit_tokenizer(folder, change)


def computed_otherwise(folder: Path) -> None:
    """Changes all that config.json says of the computation itself, and of what comes back."""
    edit(folder, hidden_act="gelu_new", layer_norm_eps=0.3, num_attention_heads=2)
    edit(folder, return_dict=False, torchscript=True, output_attentions=True)
    edit(
        folder, dtype="float16", use_cache=False, hidden_dropout_prob=0.9, tie_word_embeddings=False
    )

    def halve(weights: dict[str, torch.Tensor]) -> None:
        weights.update({name: weight.half() for name, weight in weights.items()})

    edit_weights(folder, halve)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        pytest.param(
            "roberta",
            settings(pad_token="<mask>"),
            id="another padding token",
            marks=pytest.mark.long,
        ),
        pytest.param("xlm-roberta", settings(pad_token="</s>"), id="xlm: another padding token"),
        pytest.param("roberta", settings("config.json", pad_token_id=0), id="positions from <s>"),
        pytest.param("bert", without_padding_token, id="no padding token", marks=pytest.mark.long),
        pytest.param("bert", settings(padding_side="left"), id="padding on the left"),
        pytest.param("bert", cut_and_padded, id="cut and padded by tokenizer.json"),
        pytest.param(
            "bert", settings(model_max_length=20), id="a lower limit", marks=pytest.mark.long
        ),
        pytest.param("bert", own_class(do_lower_case=False), id="upper case"),
        pytest.param("bert", own_class(strip_accents=False), id="accents"),
        pytest.param("roberta", own_class(add_prefix_space=True), id="a blank before"),
        pytest.param("xlm-roberta", own_class(add_prefix_space=False), id="no blank before"),
        pytest.param(
            "roberta", settings(add_bos_token=True, add_eos_token=False), id="bos, no eos"
        ),
        pytest.param("bert", settings(clean_up_tokenization_spaces=True), id="cleaned up"),
        pytest.param("bert", without_template, id="no tokens of its own"),
        pytest.param("bert", with_tokens, id="tokens added, with rows"),
        pytest.param(
            "bert",
            settings(model_input_names=["input_ids"]),
            id="no types, no mask",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "distilbert",
            settings(model_input_names=TYPES),
            id="distilbert with types",
            marks=pytest.mark.long,
        ),
        pytest.param("bert", computed_otherwise, id="computed otherwise"),
        pytest.param(
            "xlm-roberta", several(token_types(2), second_text_has_type_1), id="xlm with types"
        ),
    ],
)
def test_it_is_as_in_transformers(build: Any, family: str, change: Change) -> None:
    source, bundle = build(family, change)
    assert share_as_in_transformers(source, bundle, [*TEXTS, *PAIRS]) >= 0.999


def test_one_token_type_is_enough_for_single_texts(build: Any) -> None:
    """transformers itself fails on pairs, with an IndexError."""
    source, bundle = build("bert", token_types(1))
    assert share_as_in_transformers(source, bundle, TEXTS) >= 0.999
    encoder = read_manifest(bundle).encoder
    assert encoder.token_types == 1
    for backend in ("openvino", "onnxruntime"):
        engine = Engine.load(bundle, backend=backend)
        with pytest.raises(InputError, match=r"text 1: got a pair, .* single texts only"):
            engine.encode(["a text", ("a", "pair")])


def test_sentence_transformers_put_it_into_another_folder(build: Any) -> None:
    def move(folder: Path) -> None:
        inner = folder / "0_Transformer"
        inner.mkdir()
        for path in folder.glob("*.*"):
            path.rename(inner / path.name)
        module = {"idx": 0, "name": "0", "path": inner.name}
        module["type"] = "sentence_transformers.models.Transformer"
        (folder / "modules.json").write_text(json.dumps([module]))

    source, bundle = build("bert", move)
    assert read_manifest(bundle).spec.encoder == "odd-bert"
    assert share_as_in_transformers(source / "0_Transformer", bundle, [*TEXTS, *PAIRS]) >= 0.999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: edit_weights(folder, lambda w: w[TYPE_TABLE].fill_(float("nan"))),
            "transformers itself computes NaN or infinity for .*damaged",
        ),
        (settings("config.json", attn_implementation="none-such"), "transformers cannot load it"),
    ],
)
def test_what_transformers_cannot_run_is_refused(build: Any, change: Change, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        build("bert", change)


def test_token_types_in_another_order_are_refused(build: Any) -> None:
    """The runtime has zeros first."""

    def first_type_last(content: dict[str, Any]) -> None:
        for piece, kind in zip(content["post_processor"]["single"], (1, 0, 0), strict=True):
            next(iter(piece.values()))["type_id"] = kind

    with pytest.raises(ExportError, match=r"the runtime's token types .* From token 0 on, got"):
        build("bert", lambda folder: edit_tokenizer(folder, first_type_last))


def test_other_token_ids_are_refused(build: Any, tiny_encoder: Callable[[str], Path]) -> None:
    """Whatever the cause: here it is a tokenizer that tells upper from lower case."""
    _, bundle = build("bert", own_class(do_lower_case=False))
    reference = ReferenceModel(str(tiny_encoder("bert")), 64)
    texts: dict[str, Text] = {"plain": "the tide was out", "some": "the Tide was out"}
    with pytest.raises(ExportError) as error:
        run_reference(reference, TextTokenizer(bundle / TOKENIZER, 64), texts, (1,), 0)
    message = str(error.value)
    assert message.startswith(
        "the runtime's token ids of a text are not those of transformers: some"
    )
    assert "'the Tide was out'. From token 2 on, got [" in message


def test_a_graph_that_counts_positions_otherwise_is_refused(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a text has no literal <pad> no sign differs, so no average shows it."""

    def forward(
        module: HiddenStates, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        bias = (1 - attention_mask[:, None, None, :]).float() * -1e4
        positions = torch.arange(input_ids.shape[1])[None] + 2
        output = module.model(
            input_ids, attention_mask=bias, position_ids=positions, output_hidden_states=True
        )
        return tuple(output.hidden_states[layer] for layer in module.layers)

    monkeypatch.setattr(HiddenStates, "forward", forward)
    message = (
        r"(?s)does not match its source.*fp32: .* signs of one text agree .*: <pad> in a text\."
    )
    with pytest.raises(ExportError, match=message):
        build("roberta", settings("config.json", initializer_range=0.7))  # a graph of its own
