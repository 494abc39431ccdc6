"""What sentence-transformers keeps beside a model: how it cuts texts, and how it spells them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tokenizers import normalizers

from bitheads.export.errors import ExportError

FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""The names that it has had, in the order in which sentence-transformers looks for them."""

TOKENIZER_OPTIONS = ("processor_kwargs", "tokenizer_args")
OPTIONS = (*TOKENIZER_OPTIONS, "model_kwargs", "model_args", "config_kwargs", "config_args")
"""Keys, and what they were called before, of options that are passed to transformers."""

PASSED_OVER = ("trust_remote_code", "attn_implementation", "dtype", "torch_dtype", "padding_side")
"""Of those options, what changes no token and no hidden state, or is never done here."""


@dataclass(frozen=True)
class SentenceSettings:
    """Attributes:
    max_length: most tokens of a text, in place of what the tokenizer says; None: as that says.
    lower_case: texts are made lower case before anything else is done with them.
    """

    max_length: int | None = None
    lower_case: bool = False


def read_sentence_settings(name: str, folder: Path) -> SentenceSettings:
    """The settings beside a model, or the usual ones.

    Raises ExportError if they cannot be read, or ask for what is not honoured.
    """
    for file in FILES:
        if (folder / file).is_file():
            return _read(name, folder / file)
    return SentenceSettings()


def make_lower_case(tokenizer: Any) -> None:
    """Puts the step in front of a fast tokenizer's own, where sentence-transformers puts it."""
    backend = tokenizer.backend_tokenizer
    steps = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def _read(name: str, path: Path) -> SentenceSettings:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        options = {key: dict(content.get(key) or {}) for key in OPTIONS}
        lower_case = bool(content.get("do_lower_case", False))
        max_length = content.get("max_seq_length")
        reads_text = "text" in content.get("modality_config", ("text",))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _refuse(name, f"{path.name} cannot be read ({error}). Get it again.")
    if not reads_text:
        _refuse(
            name,
            f"{path.name}, modality_config: got none for text, expected one: texts become messages "
            "of a chat first, which is not done here. Take another encoder.",
        )
    for key in TOKENIZER_OPTIONS:
        max_length = options[key].pop("model_max_length", max_length)
    for key, of_key in options.items():
        if asked := sorted(of_key.keys() - PASSED_OVER):
            _refuse(
                name,
                f"{path.name}, {key}: got {asked[0]}, expected none: it is passed to transformers, "
                "and is not here. Save the encoder with it done, or take it out.",
            )
    if max_length is not None and (type(max_length) is not int or max_length < 1):
        _refuse(
            name,
            f"{path.name}, max_seq_length: got {max_length!r}, expected a number of tokens above "
            "0. Correct it, or take it out.",
        )
    return SentenceSettings(max_length, lower_case)


def _refuse(name: str, message: str) -> NoReturn:
    raise ExportError(f"encoder {name!r}: {message}")
