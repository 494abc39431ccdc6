"""Refuses, by name, what in an encoder's files changes what it computes and is not honoured.

What is honoured needs no line here: the build compares the bundle with transformers' own model and
tokenizer (`export.comparison.reference_model`), and so finds whatever was forgotten. Here is what
that comparison cannot see, as transformers itself passes over it, or what it would say late and
darkly.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from transformers.utils.hub import cached_file

from bitheads.export.errors import ExportError
from bitheads.export.source.architecture import models_of, weights_that_matter

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
SENTENCE_TRANSFORMERS = "sentence_bert_config.json"

CONFIG_RULES: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "position_embedding_type": (
        ("absolute",),
        "transformers computes relative positions no longer and passes over their weights. Take "
        "an encoder with absolute positions",
    ),
    "is_decoder": (
        (False,),
        "a decoder's tokens see only those before them. Set it to false if it was trained as an "
        "encoder",
    ),
    "add_cross_attention": (
        (False,),
        "an encoder has nothing to attend to but its text. Set it to false",
    ),
    "chunk_size_feed_forward": (
        (0,),
        "transformers then refuses texts whose tokens are no multiple of it. Set it to 0: the "
        "hidden states are the same",
    ),
    "pruned_heads": (
        ({},),
        "transformers prunes attention heads no longer. Load it in the version that pruned it, "
        "and set the pruned heads' weights to zero",
    ),
    "quantization_config": (
        (),
        "a graph is made of weights in floating point, and quantized afterwards (--precision "
        "int8). Take the encoder it was made from",
    ),
}
"""Key of config.json -> the values that are honoured beside null, and why others are not."""

HONOURED = ("position_embedding_type",)
"""Keys that mean something to model types whose configuration has them; others pass over them."""

MODEL_KEYS = ("AutoConfig", "AutoModel")
"""Keys of auto_map whose code computes the hidden states."""

_NO_WEIGHTS = (".position_ids", ".token_type_ids")
"""Counters that earlier versions of transformers saved with the weights."""


def check_config(name: str, config: Mapping[str, Any], kind: Any) -> None:
    """Raises ExportError for what config.json says and no graph here would do.

    Args:
        config: the file's content.
        kind: transformers' class of such configurations, None if it has none. What is a key of
            the class is honoured.
    """
    own = () if kind is None else inspect.signature(kind.__init__).parameters
    for key, (accepted, reason) in CONFIG_RULES.items():
        value = config.get(key)
        is_honoured = key in own and key in HONOURED
        if value is not None and value not in accepted and not is_honoured:
            expected = f"expected {json.dumps(accepted[0])}" if accepted else "expected none"
            shown = json.dumps(value, default=str)
            _refuse(name, f"config.json, {key}: got {shown[:80]}, {expected}: {reason}.")
    # "Its own" by those names alone: a head with code of its own leaves the encoder as it is. Some
    # models came with code before transformers had them, whose classes have the same names.
    own_code = config.get("auto_map") or {}
    classes = {str(own_code[key]).rpartition(".")[2] for key in MODEL_KEYS if key in own_code}
    own_names = {one.__name__ for one in (kind, *models_of(kind))} if kind is not None else set()
    if classes - own_names:
        _refuse(
            name,
            "config.json, auto_map: it is computed by code that comes with it, which is never run "
            f"here. Expected an encoder that transformers computes itself as "
            f"{config.get('model_type')!r}.",
        )


def check_tokenizer_config(name: str, config: Mapping[str, Any]) -> None:
    """Raises ExportError if the tokenizer is code that comes with the encoder.

    Args:
        config: the content of tokenizer_config.json.
    """
    own = config.get("auto_map")
    if own and (isinstance(own, list) or "AutoTokenizer" in own):
        _refuse(
            name,
            "tokenizer_config.json, auto_map: its tokenizer is code that comes with it, which is "
            "never run here. Expected one of transformers' own.",
        )


def check_adapters(name: str, source: str) -> None:
    """Raises ExportError if there is an adapter beside the weights, which would be left out."""
    # One question is enough for the hub: peft always writes the first of them.
    for file in ADAPTERS if Path(source).is_dir() else ADAPTERS[:1]:
        if (path := _find(source, file)) is not None:
            _refuse(
                name,
                f"{file}: an adapter (LoRA or the like) lies beside the weights, and would be left "
                f"out. Merge it, then build the merged encoder: {_merge_command(source, path)}",
            )


def check_weights(name: str, loading: Mapping[str, Any], model: Any) -> None:
    """Raises ExportError if the weights in the file are not those the model is made of.

    Args:
        loading: what transformers says of them, `output_loading_info`.
        model: that was loaded.
    """
    if mismatched := sorted(loading["mismatched_keys"]):
        key, of_file, of_config = mismatched[0]
        _refuse(
            name,
            f"cannot be loaded: {len(mismatched)} of its weights have other shapes than "
            f"config.json asks for, such as {key}: got {list(of_file)}, expected "
            f"{list(of_config)}. Get a whole checkpoint.",
        )
    if missing := sorted(_that_matter(loading["missing_keys"], model)):
        _refuse(
            name,
            f"{len(missing)} of its weights are not in the file, such as {missing[0]}, and would "
            "be random. Get a whole checkpoint of this architecture.",
        )
    unused = [
        key
        for key in sorted(loading["unexpected_keys"])
        if _is_of_the_encoder(key, model) and not key.endswith(_NO_WEIGHTS)
    ]
    if unused:
        _refuse(
            name,
            f"{len(unused)} weights of the encoder in the file have no place in the model that "
            f"config.json describes, such as {unused[0]}, and would be left out. Look at "
            "num_hidden_layers and model_type, or get a whole checkpoint of this architecture.",
        )
    if errors := loading.get("error_msgs"):
        _refuse(name, f"cannot be loaded ({errors[0]}).")


def check_tokenizer(name: str, source: str, tokenizer: Any) -> None:
    """Raises ExportError for settings of a tokenizer that the runtime has not.

    Args:
        source: what it was loaded from.
        tokenizer: as transformers has it.
    """
    if tokenizer.truncation_side != "right":
        _refuse(
            name,
            f"its tokenizer's truncation_side: got {tokenizer.truncation_side!r}, expected "
            "'right': long texts are cut at their end. Change it in tokenizer_config.json and in "
            "tokenizer.json (truncation, direction) if that is what you want.",
        )
    if tokenizer.split_special_tokens:
        _refuse(
            name,
            "its tokenizer's split_special_tokens: got true, expected false: the literal text of a "
            "special token is that token here. Take it out of tokenizer_config.json if that is "
            "what you want.",
        )
    if dropout := getattr(tokenizer.backend_tokenizer.model, "dropout", None):
        _refuse(
            name,
            f"tokenizer.json, dropout: got {dropout}, expected null: a text would have other "
            "tokens each time. It is for training alone; set it to null.",
        )
    _check_lower_case(name, source, tokenizer)


def check_token_types(name: str, highest: int, rows: int) -> None:
    """Raises ExportError if a single text has a token type that the encoder has not.

    Args:
        highest: token type of a single text.
        rows: of the encoder's table of token types.
    """
    if highest >= rows:
        _refuse(
            name,
            f"its tokenizer gives a text the token type {highest}, expected less than {rows}, the "
            "rows of its table of token types (type_vocab_size). Take the tokenizer that belongs "
            "to it.",
        )


def _that_matter(missing: Iterable[str], model: Any) -> set[str]:
    """Those of the missing weights that a hidden state depends on: of a pooler none does."""
    names = set(missing)
    return names & weights_that_matter(model) if names else names


def _is_of_the_encoder(key: str, model: Any) -> bool:
    """Whether a weight in the file would belong beside those that the model has.

    Heads, and the decoder of which only the encoder is taken, have names of their own.
    """
    prefix = f"{model.base_model_prefix}."
    parts = {name for name, _ in model.named_children()}
    return key.removeprefix(prefix).partition(".")[0] in parts


def _check_lower_case(name: str, source: str, tokenizer: Any) -> None:
    """sentence-transformers may make texts lower case before the tokenizer sees them."""
    path = _find(source, SENTENCE_TRANSFORMERS)
    if path is None:
        return
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        lower = bool(config.get("do_lower_case", False))
    except (OSError, ValueError, AttributeError) as error:
        _refuse(name, f"{SENTENCE_TRANSFORMERS} cannot be read ({error}). Get it again.")
    text = "The Tide Was OUT"
    if lower and tokenizer(text)["input_ids"] != tokenizer(text.lower())["input_ids"]:
        _refuse(
            name,
            f"{SENTENCE_TRANSFORMERS}, do_lower_case: got true, but its tokenizer tells upper from "
            "lower case. Set do_lower_case in tokenizer_config.json, which transformers reads, or "
            f"take it out of {SENTENCE_TRANSFORMERS}.",
        )


def _find(source: str, file: str) -> str | None:
    """A file's path, in a folder or from the hub; None if there is none."""
    path: str | None = cached_file(
        source,
        file,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return path


def _merge_command(source: str, path: str) -> str:
    base = "BASE"
    try:
        if path.endswith(".json"):
            base = json.loads(Path(path).read_text("utf-8"))["base_model_name_or_path"] or base
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the user knows what the adapter was trained on
    return (
        'python -c "from peft import PeftModel; from transformers import AutoModel, AutoTokenizer; '
        f"PeftModel.from_pretrained(AutoModel.from_pretrained('{base}'), '{source}')"
        ".merge_and_unload().save_pretrained('merged'); "
        f"AutoTokenizer.from_pretrained('{base}').save_pretrained('merged')\""
    )


def _refuse(name: str, message: str) -> NoReturn:
    raise ExportError(f"encoder {name!r}: {message}")
