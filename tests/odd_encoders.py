"""Tiny encoders that are odd in one thing, made from those of tiny_encoders by editing their files.

And the outside judge of what is made of them: transformers, called as anybody calls it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.model_types.signs import shares_of_signs, signs_as_in_transformers
from bitheads.engine.types import Text

WEIGHTS = "model.safetensors"


def edit(folder: Path, file: str = "config.json", **values: Any) -> None:
    """Sets keys of a JSON file."""
    path = folder / file
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes tokenizer.json."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Changes the weights by name."""
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def add_token(folder: Path, token: str, **flags: bool) -> None:
    """Adds a token to tokenizer.json, behind all others."""

    def change(content: dict[str, Any]) -> None:
        number = 1 + max(
            [*_vocabulary(content).values(), *(t["id"] for t in content["added_tokens"])]
        )
        default = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False)
        content["added_tokens"].append({"id": number, "content": token, **default, **flags})

    edit_tokenizer(folder, change)


def add_rows(folder: Path, count: int) -> None:
    """Adds tokens to the embeddings, as `resize_token_embeddings` does."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        (name,) = (name for name in weights if name.endswith("word_embeddings.weight"))
        rows = weights[name]
        weights[name] = torch.cat([rows, rows[-count:].flip(1)]).contiguous()

    edit_weights(folder, change)
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    edit(folder, vocab_size=size + count)


def share_as_in_transformers(source: Path, bundle: Path, texts: Sequence[Text]) -> float:
    """The lowest share of a text's signs that are as transformers computes them, in any backend.

    Args:
        bundle: in fp32, made of the last two layers.
    """
    found = signs_as_in_transformers(source, bundle, texts)
    return min(float(same.mean()) for of_one in found.values() for same in of_one)


def share_of_all_signs(source: Path, bundle: Path, texts: Sequence[Text]) -> float:
    """As `share_as_in_transformers`, of all texts together, in the backend that has fewest."""
    return min(shares_of_signs(source, bundle, texts).values())


def _vocabulary(content: dict[str, Any]) -> dict[str, int]:
    vocab = content["model"]["vocab"]
    return vocab if isinstance(vocab, dict) else {token: i for i, (token, _) in enumerate(vocab)}
