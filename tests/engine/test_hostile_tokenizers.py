"""Bundles whose hashes are right and whose tokenizer.json is made to do harm."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from bitheads import BundleError, Engine, InputError
from bitheads.engine.bundle import MANIFEST, TOKENIZER, Artifact, read_manifest
from bitheads.engine.texts.tokenizer_bounds import MAX_GROWTH, check_tokenizer

Parts = list[dict[str, Any]]

MAX_LENGTH = 128


def replaced(word: str, content: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: word}, "content": content}


def normalizers(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(parts)}}


def pre_tokenizers(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(parts)}}


def nested(depth: int, inner: dict[str, Any]) -> dict[str, Any]:
    for _ in range(depth):
        inner = {"type": "Sequence", "normalizers": [inner, inner]}
    return inner


def charsmap(longest: int) -> dict[str, Any]:
    content = struct.pack("<I", 4) + bytes(4) + b"a\0" + b"b" * longest + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


def template(single: list[str], ids: int = 1) -> dict[str, Any]:
    def piece(name: str) -> dict[str, Any]:
        kind = "Sequence" if name in "AB" else "SpecialToken"
        return {kind: {"id": name, "type_id": 0}}

    return {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece(name) for name in single],
            "pair": [piece("A"), piece("B")],
            "special_tokens": {"own": {"id": "own", "ids": [2] * ids, "tokens": ["own"] * ids}},
        }
    }


BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": False,
}
DOUBLE = replaced("x", "xx")

TOO_MUCH = f"more than {MAX_GROWTH} characters of one"

HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "doubled forty times": (normalizers(*[DOUBLE] * 40), TOO_MUCH),
    "doubled by sequences of sequences": ({"normalizer": nested(6, DOUBLE)}, TOO_MUCH),
    "one letter after another": (
        normalizers(*(replaced(chr(97 + i), chr(98 + i) * 10) for i in range(12))),
        TOO_MUCH,
    ),
    "a long word at once": (normalizers(replaced("a", "b" * 100_000)), TOO_MUCH),
    "by a pattern": (normalizers(*[replaced("x", "xx", "Regex")] * 40), TOO_MUCH),
    "where a pattern matches nothing": (
        normalizers(*[replaced("q*", "a", "Regex")] * 40),
        TOO_MUCH,
    ),
    "where nothing is replaced": (normalizers(*[replaced("", "a")] * 40), TOO_MUCH),
    "by Unicode and back": (
        normalizers(*[replaced(" ", "\ufdfa"), {"type": "NFKD"}] * 10),
        TOO_MUCH,
    ),
    "by letters that Unicode makes": (normalizers(*[DOUBLE, {"type": "NFKC"}] * 20), TOO_MUCH),
    "by bytes of bytes": (pre_tokenizers(*[BYTE_LEVEL] * 20), TOO_MUCH),
    "in both": (
        normalizers(*[DOUBLE] * 5) | pre_tokenizers(*[BYTE_LEVEL] * 2),
        TOO_MUCH,
    ),
    "put before a text": (
        normalizers({"type": "Prepend", "prepend": "a" * 10**6}),
        "longer by more",
    ),
    "put before and doubled": (
        normalizers({"type": "Prepend", "prepend": "x" * 100}, *[DOUBLE] * 6),
        "longer by more",
    ),
    "a charsmap": (normalizers(charsmap(1000)), "charsmap makes 1000 characters"),
    "several charsmaps": (normalizers(*[charsmap(18)] * 5), TOO_MUCH),
    "tokens of its own": (template(["own"] * 200 + ["A"]), "leaves no room for texts"),
    "a million names of a million": (template(["own"] * 10**4 + ["A"], 10**4), "leaves no room"),
    "a text many times": (template(["A"] * 1000), re.escape("expected ['A']")),
    "no text": (template(["own"]), re.escape("has the texts []")),
    "a part without a type": ({"normalizer": {"normalizers": [DOUBLE]}}, "not as it must be"),
    "a part that is a list": ({"normalizer": [DOUBLE]}, "not as it must be"),
    "a pattern that is a number": (normalizers(replaced("x", 5)), "not as it must be"),  # type: ignore[arg-type]
}


def spoil_tokenizer(bundle: Path, **changes: Any) -> None:
    """Changes entries of tokenizer.json, and the hash of it."""
    path = bundle / TOKENIZER
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        content[name] = {**content[name], **value} if name == "model" else value
    path.write_text(json.dumps(content), encoding="utf-8")
    list_tokenizer(bundle)


def list_tokenizer(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    artifacts = {**manifest.artifacts, TOKENIZER: Artifact.of(bundle / TOKENIZER)}
    (bundle / MANIFEST).write_text(replace(manifest, artifacts=artifacts).dumps())


@pytest.mark.parametrize("name", HOSTILE)
def test_what_grows_without_bound_is_refused(own_bundle: Path, name: str) -> None:
    changes, message = HOSTILE[name]
    spoil_tokenizer(own_bundle, **changes)
    with pytest.raises(BundleError, match=message):
        Engine.load(own_bundle, backend="onnxruntime")


@pytest.mark.parametrize(
    "model",
    [
        {"vocab": {}},
        {"type": "BPE", "vocab": {}, "merges": []},
        {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]},  # the library panics
        {"type": "Unigram", "vocab": [], "unk_id": 0},
        {"type": "Unigram", "vocab": [], "unk_id": None},
        {"type": "WordLevel", "vocab": {}, "unk_token": "a"},
        {"continuing_subword_prefix": "#" * 100_000},
        {"max_input_chars_per_word": 1 << 40},
    ],
    ids=lambda model: str(model)[:50],
)
def test_a_model_that_is_none_is_refused(own_bundle: Path, model: dict[str, Any]) -> None:
    spoil_tokenizer(own_bundle, model=model)
    with pytest.raises(BundleError, match=r"tokenizer .* cannot be read"):
        Engine.load(own_bundle, backend="onnxruntime")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("{", '{"normalizer": null, ', 1),
        lambda text: text[:-10],
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: "",
    ],
    ids=["the same name twice", "cut short", "deep", "a list", "empty"],
)
def test_a_file_that_is_none_is_refused(own_bundle: Path, change: Callable[[str], str]) -> None:
    path = own_bundle / TOKENIZER
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    list_tokenizer(own_bundle)
    with pytest.raises(BundleError, match=r"tokenizer .* cannot be read"):
        Engine.load(own_bundle, backend="onnxruntime")


def test_a_maximum_length_without_room_for_texts_is_refused(own_bundle: Path) -> None:
    manifest = read_manifest(own_bundle)
    for max_length in (2, 3, 4):  # the tiny BERT has 2 tokens of its own, of a pair 3
        short = replace(manifest, encoder=replace(manifest.encoder, max_length=max_length))
        (own_bundle / MANIFEST).write_text(short.dumps())
        with pytest.raises(BundleError, match="leaves no room for texts"):
            Engine.load(own_bundle, backend="onnxruntime")
    enough = replace(manifest, encoder=replace(manifest.encoder, max_length=5))
    (own_bundle / MANIFEST).write_text(enough.dumps())
    with Engine.load(own_bundle, backend="onnxruntime") as engine:
        features = engine.encode(["one two three four five six", ("one two three", "four")])
        assert features.offsets.tolist() == [0, 5, 10]


def test_a_pattern_that_does_not_end_is_an_error_of_the_text(own_bundle: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    spoil_tokenizer(own_bundle, **pre_tokenizers({**split, "invert": False}))
    with Engine.load(own_bundle, backend="onnxruntime") as engine:
        assert len(engine.encode(["the tide was out"])) == 1
        with pytest.raises(InputError, match=r"the tokenizer failed on one of 2 \(.*retry-limit"):
            engine.encode(["the tide", "a" * 40 + "b"])
        with pytest.raises(InputError, match=r"the tokenizer failed on one of 2 \(.*retry-limit"):
            engine.tokenizer.encodings(["the tide", "a" * 40 + "b"])


WORD_PIECE = {"type": "WordPiece", "prefix": "##", "cleanup": True}


@pytest.mark.parametrize(
    ("decoder", "fault"),
    [
        (replaced("x", "xx"), "replaces 'x' by more"),
        ({"type": "Sequence", "decoders": [WORD_PIECE, *[replaced("e", "ee")] * 20]}, "by more"),
        (replaced("", "x" * 1000, "Regex"), "replaces '' by more"),
    ],
)
def test_a_decoder_that_makes_more_of_tokens_is_not_run(
    own_bundle: Path, decoder: dict[str, Any], fault: str
) -> None:
    spoil_tokenizer(own_bundle, decoder=decoder)
    with Engine.load(own_bundle, backend="onnxruntime") as engine:
        assert len(engine.encode(["the tide was out"])) == 1
        with pytest.raises(InputError, match=rf"^ids: the decoder .* {fault}"):
            engine.tokenizer.decode([[5, 6, 7]])


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        WORD_PIECE,
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        {"type": "BPEDecoder", "suffix": "</w>"},
        BYTE_LEVEL,
        {
            "type": "Sequence",
            "decoders": [
                replaced("▁", " "),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
    ],
)
def test_decoders_of_known_encoders_are_run(
    own_bundle: Path, decoder: dict[str, Any] | None
) -> None:
    spoil_tokenizer(own_bundle, decoder=decoder)
    with Engine.load(own_bundle, backend="onnxruntime") as engine:
        ids = engine.tokenizer(["the tide was out"])[0].ids.tolist()
        found = engine.tokenizer.decode([ids, []])
        library = Tokenizer.from_file(str(own_bundle / TOKENIZER))
        assert found == [library.decode(ids), ""]


def test_long_tokens_are_not_decoded_by_the_thousand(own_bundle: Path) -> None:
    path = own_bundle / TOKENIZER
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    number = vocabulary.pop(last)
    vocabulary["x" * (1 << 20)] = number
    spoil_tokenizer(own_bundle, model=content["model"])
    with Engine.load(own_bundle, backend="onnxruntime") as engine:
        assert len(engine.tokenizer.decode([[number] * 4])[0]) > 1 << 22
        with pytest.raises(InputError, match="got tokens of more than 4194304 characters"):
            engine.tokenizer.decode([[number] * 3, [number] * 2])


@pytest.mark.parametrize(
    "parts",
    [
        # ALBERT, XLM-R, DeBERTa, CLIP, Llama, and letters that are spelled out.
        normalizers(
            replaced("``", '"'),
            replaced("''", '"'),
            {"type": "NFKD"},
            {"type": "StripAccents"},
            {"type": "Lowercase"},
            charsmap(18),
            replaced(" {2,}", " ", "Regex"),
        ),
        {"normalizer": charsmap(18)}
        | pre_tokenizers(
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        ),
        normalizers({"type": "NFC"}, replaced(r"\s+", " ", "Regex"), {"type": "Lowercase"})
        | pre_tokenizers({"type": "Split"}, BYTE_LEVEL),
        normalizers({"type": "Prepend", "prepend": "▁"}, replaced(" ", "▁")),
        normalizers(
            *(
                replaced(a, b)
                for a, b in zip("äöüÄÖÜß", ["ae", "oe", "ue", "Ae", "Oe", "Ue", "ss"], strict=True)
            )
        ),
        normalizers(*(replaced(mark, f" {mark} ") for mark in ".,;:!?()[]{}<>")),
    ],
    ids=["albert", "xlm-r", "clip", "llama", "spelled out", "marks apart"],
)
def test_what_known_tokenizers_do_is_fine(own_bundle: Path, parts: dict[str, Any]) -> None:
    spoil_tokenizer(own_bundle, **parts)
    check_tokenizer(own_bundle / TOKENIZER, MAX_LENGTH)


@pytest.mark.parametrize("text", ["x", "aax x\ufdfa", "\u1e9b\u0323 ﬁ İ"])
def test_the_bound_holds_for_what_passes(own_bundle: Path, text: str) -> None:
    """Compared with what the library makes of a text of such characters."""
    from tokenizers import Tokenizer

    chains: list[Parts] = [
        [DOUBLE] * 6,
        [replaced("a", "xa"), replaced("x", "aaa"), {"type": "NFKD"}],
        [replaced("q*", "b", "Regex"), DOUBLE],
        [{"type": "Prepend", "prepend": "x" * 9}, *[DOUBLE] * 5],
    ]
    for chain in chains:
        spoil_tokenizer(own_bundle, **normalizers(*chain))
        check_tokenizer(own_bundle / TOKENIZER, MAX_LENGTH)
        normalizer = Tokenizer.from_file(str(own_bundle / TOKENIZER)).normalizer
        made = normalizer.normalize_str(text * 100)
        assert len(made) <= 18 * MAX_GROWTH * len(text * 100)
