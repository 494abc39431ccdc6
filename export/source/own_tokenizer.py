"""An encoder's own tokenizer, in its fast form, and what it says of the texts it makes."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from bitheads.export.errors import ExportError, first_line
from bitheads.export.source import source_checks
from bitheads.export.source.architecture import USUAL_MAX_LENGTH
from bitheads.export.source.checkpoint import Checkpoint

TOKENIZER = "tokenizer.json"


def load_tokenizer(name: str, checkpoint: Checkpoint) -> Any:
    """As transformers has it. Raises ExportError if it is not there, has no fast form, or a setting
    that the runtime has not."""
    folder = checkpoint.folder
    try:
        source_checks.check_tokenizer_config(name, get_tokenizer_config(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"encoder {name!r}: its tokenizer cannot be loaded ({first_line(error)}). Expected "
            "tokenizer.json, or the family's vocabulary files, beside the weights."
        ) from error
    if not tokenizer.is_fast:
        raise ExportError(
            f"encoder {name!r}: its tokenizer {type(tokenizer).__name__} has no tokenizer.json "
            "form, which the runtime needs. Take an encoder with another tokenizer."
        )
    # Of some families transformers makes one up where there are no files.
    is_there = not {TOKENIZER, *tokenizer.vocab_files_names.values()}.isdisjoint(checkpoint.files)
    if not is_there or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ExportError(
            f"encoder {name!r}: no tokenizer with a vocabulary there. Expected tokenizer.json, or "
            "the family's vocabulary files, beside the weights."
        )
    source_checks.check_tokenizer(name, tokenizer)
    return tokenizer


def token_types_of(name: str, rows: int | None, tokenizer: Any) -> tuple[int | None, bool]:
    """Values of Encoder.token_types and .reads_token_types.

    Args:
        rows: of the model's table of token types.
    """
    if rows is None or "token_type_ids" not in tokenizer.model_input_names:
        return None, False
    single, pair = (max(tokenizer(*texts)["token_type_ids"]) for texts in (["a"], ["a", "a"]))
    source_checks.check_token_types(name, single, rows)
    # Pairs whose second text has a type without a row never come.
    return rows, single > 0 or 0 < pair < rows


def max_length_of(of_model: int | None, tokenizer: Any, asked: int | None) -> int:
    """The model's limit and its tokenizer's; where neither has one, a tokenizer says 1e30.

    Args:
        asked: for by sentence-transformers' settings, which may be more than the tokenizer's.
    """
    limits = [of_model] if of_model is not None else []
    if tokenizer.model_max_length < 1e6:
        limits.append(max(int(tokenizer.model_max_length), asked or 0))
    return min(limits, default=asked or USUAL_MAX_LENGTH)
