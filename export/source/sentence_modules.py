"""How sentence-transformers makes one vector of a text: the modules behind a checkpoint's model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from bitheads.engine.features.embedding import EmbeddingSpec, Step
from bitheads.export.errors import ExportError
from bitheads.export.source.checkpoint import MODULES, Checkpoint

SETTINGS = "config_sentence_transformers.json"
MODULE_CONFIG = "config.json"
MODULE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""What a pooling was called before it had a name, in the order in which several are joined."""

ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
}

PASSED_OVER = ("Dropout",)
"""Modules that do nothing where nothing is trained."""

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class SentenceModules:
    """What is done with a text's last hidden states.

    Attributes:
        weights: of the steps, see engine.features.embedding.Embedder.
    """

    spec: EmbeddingSpec
    weights: Weights


def plain_pooling(pooling: str, hidden_dim: int) -> SentenceModules:
    """A pooling and nothing behind it."""
    return SentenceModules(EmbeddingSpec((pooling,), (), hidden_dim), {})


def read_sentence_modules(
    checkpoint: Checkpoint, hidden_dim: int, prefix: str = ""
) -> SentenceModules | None:
    """The modules behind a checkpoint's model; None if it is no model of sentence-transformers.

    Args:
        prefix: of every text.

    Raises ExportError for modules that are not done here, or cannot be read.
    """
    modules = _read_list(checkpoint)
    if modules is None:
        return None
    pooling: tuple[str, ...] | None = None
    steps: list[Step] = []
    weights: Weights = {}
    size = hidden_dim
    for module in modules:
        kind = str(module["type"]).rpartition(".")[2]
        if kind in PASSED_OVER:
            continue
        if (pooling is None) != (kind == "Pooling"):
            raise _not_taken_over(
                checkpoint, f"{MODULES} has a {kind}, expected one Pooling, then the others"
            )
        folder = str(module["path"])
        if pooling is None:
            pooling = _pooling(checkpoint, folder, prefix)
            size = hidden_dim * len(pooling)
            continue
        step, tensors = _step(checkpoint, kind, folder)
        weights.update({f"{len(steps)}.{name}": array for name, array in tensors.items()})
        steps.append(step)
        if "weight" in tensors:
            size = len(tensors["weight"])
    if pooling is None:
        return None
    prompts, default = _prompts(checkpoint, prefix)
    try:
        spec = EmbeddingSpec(pooling, tuple(steps), size, prompts, default)
    except (ValueError, TypeError) as error:
        raise _not_taken_over(checkpoint, str(error)) from error
    return SentenceModules(spec, weights)


def _read_list(checkpoint: Checkpoint) -> list[dict[str, Any]] | None:
    """What modules.json lists behind the model, if it is of this model."""
    path = checkpoint.beside(MODULES)
    if not path.is_file():
        return None
    try:
        first, *others = json.loads(path.read_text(encoding="utf-8"))
        is_of_model = checkpoint.root / PurePosixPath(first["path"]) == checkpoint.folder
        _ = [(module["type"], module["path"]) for module in others]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _not_taken_over(checkpoint, f"{MODULES} cannot be read ({error!r})") from error
    return others if is_of_model else None


def _pooling(checkpoint: Checkpoint, folder: str, prefix: str) -> tuple[str, ...]:
    config = _config(checkpoint, folder)
    found = config.get("pooling_mode")
    if found is None:
        found = [name for key, name in OLD_POOLINGS.items() if config.get(key)] or ["mean"]
    prompts, _ = _prompts(checkpoint, prefix)
    if config.get("include_prompt") is False and (prefix or any(prompts.values())):
        raise _not_taken_over(
            checkpoint, "its pooling leaves out a prompt's tokens, which is not done here"
        )
    return (found,) if isinstance(found, str) else tuple(found)


def _step(checkpoint: Checkpoint, kind: str, folder: str) -> tuple[Step, Weights]:
    has_config = checkpoint.beside(f"{folder}/{MODULE_CONFIG}").is_file()
    config = _config(checkpoint, folder) if has_config or kind != "Normalize" else {}
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise _not_taken_over(
                checkpoint, f"its {kind} is of {config[key]!r:.60}, not of the embedding"
            )
    if kind == "Normalize":
        return Step("normalize"), {}
    if kind == "LayerNorm":
        tensors = _read_weights(checkpoint, folder)
        return Step("layer_norm"), {
            name.removeprefix("norm."): array for name, array in tensors.items()
        }
    if kind != "Dense":
        raise _not_taken_over(checkpoint, f"{MODULES} has a {kind}, which is not done here")
    asked = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if asked not in ACTIVATIONS:
        raise _not_taken_over(
            checkpoint,
            f"the activation of its Dense is {asked!r:.80}, expected one of {sorted(ACTIVATIONS)}",
        )
    tensors = _read_weights(checkpoint, folder)
    named = {"linear.weight": "weight", "linear.bias": "bias", "residual.weight": "residual"}
    if unknown := tensors.keys() - named:
        raise _not_taken_over(checkpoint, f"weights of its Dense are called {min(unknown):.60}")
    step = Step("dense", ACTIVATIONS[asked], bool(config.get("use_residual", False)))
    return step, {named[name]: array for name, array in tensors.items()}


def _prompts(checkpoint: Checkpoint, prefix: str) -> tuple[Mapping[str, str], str | None]:
    """Where the bundle has a prefix, that is what is put before texts, and nothing else."""
    path = checkpoint.beside(SETTINGS)
    if prefix or not path.is_file():
        return {}, None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        prompts = {str(name): str(text) for name, text in (content.get("prompts") or {}).items()}
        default = content.get("default_prompt_name")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _not_taken_over(checkpoint, f"{SETTINGS} cannot be read ({error!r})") from error
    if default is not None and default not in prompts:
        raise _not_taken_over(
            checkpoint, f"{SETTINGS} has the default prompt {default!r:.60}, which is missing"
        )
    return prompts, default


def _config(checkpoint: Checkpoint, folder: str) -> dict[str, Any]:
    path = f"{folder}/{MODULE_CONFIG}"
    try:
        return dict(json.loads(checkpoint.beside(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _not_taken_over(checkpoint, f"{path} cannot be read ({error!r})") from error


def _read_weights(checkpoint: Checkpoint, folder: str) -> Weights:
    safe, pickled = (checkpoint.beside(f"{folder}/{name}") for name in MODULE_WEIGHTS)
    try:
        if safe.is_file():
            found = load_file(safe)
        else:
            loaded = torch.load(pickled, map_location="cpu", weights_only=True)
            found = {name: tensor.float().numpy() for name, tensor in loaded.items()}
        return {
            name: np.ascontiguousarray(array, dtype=np.float32) for name, array in found.items()
        }
    except Exception as error:  # torch and safetensors have no base for theirs
        raise _not_taken_over(
            checkpoint, f"the weights in {folder} cannot be read ({error!r:.200})"
        ) from error


def _not_taken_over(checkpoint: Checkpoint, message: str) -> ExportError:
    return ExportError(
        f"encoder {checkpoint.name!r}: its modules of sentence-transformers are not taken over: "
        f"{message}. Pass a pooling in place of them, such as --embedding mean."
    )
