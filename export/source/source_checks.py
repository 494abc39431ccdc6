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
from typing import Any, NoReturn

from bitheads.export.errors import ExportError
from bitheads.export.source.architecture import (
    has_own_encoder,
    models_of,
    weights_that_matter,
)

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


def check_reads_texts(config: Any, kind: Any) -> None:
    """Raises ExportError for models of images or speech, and for encoders that bring a decoder.

    Args:
        kind: transformers' class of its models.
    """
    name = config.model_type
    if kind.main_input_name != "input_ids":
        raise ExportError(
            f"model type {name!r}: it reads {kind.main_input_name}, expected input_ids, the tokens "
            "of texts. Take an encoder of texts."
        )
    if getattr(config, "is_encoder_decoder", False) and not has_own_encoder(type(config)):
        raise ExportError(
            f"model type {name!r}: it is an encoder with a decoder, of which transformers has no "
            "class for the encoder alone. Take another encoder."
        )


def check_embeddings(model: Any) -> None:
    """Raises ExportError if a model has no one table of tokens, as those of images and texts."""
    try:
        rows = model.get_input_embeddings().num_embeddings
    except (AttributeError, NotImplementedError):
        rows = None
    if not isinstance(rows, int):
        raise ExportError(
            f"model type {model.config.model_type!r} has no table of tokens, expected an encoder "
            "of texts. Take another encoder."
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


def check_tokenizer(name: str, tokenizer: Any) -> None:
    """Raises ExportError for settings of a tokenizer that the runtime has not.

    Args:
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


def _refuse(name: str, message: str) -> NoReturn:
    raise ExportError(f"encoder {name!r}: {message}")
